"""The gates where events come together: a burst of which the last runs, or one batch."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from worchflow_core import batches, gatherings
from worchflow_core.batches import Batches
from worchflow_core.errors import InvalidInput
from worchflow_core.gates import Doorman, Stage, age
from worchflow_core.limits import Batch, Debounce
from worchflow_core.lookup import change
from worchflow_core.models import Execution, Payload, Status


class DebounceGate:
    """Let the last event of a burst in, once the burst is over."""

    stage = Stage.DEBOUNCE

    def __init__(self, doorman: Doorman) -> None:
        self._doorman = doorman
        self._journal = doorman.journal

    async def pass_through(self, coming: Sequence[Execution]) -> Collection[str]:
        """Give back who may not pass now, and return the ids of who may."""
        return await self._doorman.by_key(coming, "debounce", lambda flow: flow.debounce, self._one)

    async def _one(self, key: str, group: Sequence[Execution], option: Debounce) -> Collection[str]:
        passed = []
        for item in sorted(group, key=age):
            found = await self._debounced(key, item, option)
            if found.gives_way_to is not None:
                why = f"execution {found.gives_way_to} came within {option.text}"
                await self._doorman.turn_away([item], "Debounced", why)
            elif found.until is not None:
                await self._doorman.put_off([(item, found.until)], self.stage.before)
            else:
                passed.append(item.id)
        return passed

    async def _debounced(
        self, key: str, execution: Execution, option: Debounce
    ) -> gatherings.Debounced:
        found = gatherings.Debounced(burst=None)
        now = self._journal.clock.now()

        def decide(body: Payload | None) -> Payload | None:
            nonlocal found
            known = gatherings.burst_of(body)
            found = gatherings.debounced(known, execution, option, now)
            return None if found.burst == known else gatherings.burst_body(found.burst)

        await change(self._journal.store.records, gatherings.BURSTS, key, decide)
        return found


class BatchGate:
    """Let the leader of a batch in, once the batch is closed; the others wait for its end."""

    stage = Stage.BATCH

    def __init__(self, doorman: Doorman, batches: Batches) -> None:
        self._doorman = doorman
        self._batches = batches

    async def pass_through(self, coming: Sequence[Execution]) -> Collection[str]:
        """Give back who may not pass now, and return the ids of who may."""
        return await self._doorman.by_key(coming, "batch", lambda flow: flow.batch, self._one)

    async def _one(self, key: str, group: Sequence[Execution], option: Batch) -> Collection[str]:
        leading = await self._batches.members([item.id for item in group])
        alone = {item.id for item in group if item.id in leading or not self._is_readable(item)}
        coming = sorted((item for item in group if item.id not in alone), key=age)
        waiting = await self._still_waiting(coming)
        entrants = {item.id: item for item in coming if item.id not in waiting}
        found = await self._batches.gather(key, list(entrants.values()), option)

        members = {**waiting, **found.members}
        parked = [
            (item, batches.wait_key(members[item.id])) for item in coming if item.id in members
        ]
        await self._doorman.park(parked, self.stage.before, Status.WAITING)
        early = [
            (entrants[leader], gathering.closes_at)
            for leader, gathering in found.early.items()
            if leader in entrants
        ]
        await self._doorman.put_off(early, self.stage.before)
        # What changed while they were ours, nobody could tell them.
        for leader in set(waiting.values()):
            await self._batches.end(leader)
        await self._batches.wake_full(key, found, option, but=entrants)
        return alone | (found.leaders.keys() & entrants.keys())

    def _is_readable(self, execution: Execution) -> bool:
        """Return whether an event's data fits its type; what does not is to fail by itself."""
        function = self._doorman.registry.get(execution.function)
        assert function is not None, "only executions of registered functions are claimed"
        try:
            function.data_codec.decode(execution.data)
        except InvalidInput:
            return False
        return True

    async def _still_waiting(self, coming: Sequence[Execution]) -> dict[str, str]:
        """Return by member the leader whose closed batch it is in, whatever has woken it."""
        awaited = {
            item.id: leader for item in coming if (leader := batches.leader_of(item)) is not None
        }
        known = await self._batches.members(set(awaited.values()))
        return {key: leader for key, leader in awaited.items() if key in known.get(leader, ())}
