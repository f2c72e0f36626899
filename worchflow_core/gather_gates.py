"""The gates where events come together: a burst of which the last runs, or one batch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta

from worchflow_core import batches, gatherings
from worchflow_core.batches import Batches
from worchflow_core.gates import Doorman, age
from worchflow_core.ledger import Ledger
from worchflow_core.limits import Batch, Debounce
from worchflow_core.models import Execution, Payload, Status
from worchflow_core.stages import Stage

_REMEMBERED = timedelta(minutes=10)


class DebounceGate:
    """Let the last event of a burst in, once the burst is over."""

    stage = Stage.DEBOUNCE

    def __init__(self, doorman: Doorman) -> None:
        self._doorman = doorman
        self._journal = doorman.journal
        self._bursts = Ledger(doorman.journal.store.records, gatherings.BURSTS)

    async def pass_through(self, coming: Sequence[Execution]) -> Collection[str]:
        """Give back who may not pass now, and return the ids of who may."""
        return await self._doorman.by_key(coming, "debounce", lambda flow: flow.debounce, self._one)

    async def _one(self, key: str, group: Sequence[Execution], option: Debounce) -> Collection[str]:
        now = self._journal.clock.now()
        found: Mapping[str, gatherings.Debounced] = {}

        async def decide(body: Payload | None) -> Payload | None:
            nonlocal found
            known = gatherings.burst_of(body)
            burst, found = gatherings.debounced(known, sorted(group, key=age), option, now)
            return None if burst == known else gatherings.burst_body(burst)

        await self._bursts.change(key, decide)
        await self._doorman.turn_away(
            [
                (item, f"execution {winner} came within {option.text}")
                for item in group
                if (winner := found[item.id].gives_way_to) is not None
            ],
            "Debounced",
        )
        await self._doorman.put_off(
            [(item, until) for item in group if (until := found[item.id].until) is not None],
            self.stage.before,
        )
        return {item.id for item in group if found[item.id] == gatherings.Debounced()}

    async def tidy(self) -> None:
        """Forget bursts that ended long ago, once their last event's execution has, too."""
        after = ""
        while page := await self._bursts.scan(after):
            after = page[-1].key
            now = self._journal.clock.now()
            over = {
                record: burst.latest
                for record in page
                if (burst := gatherings.burst_of(record.body)) is not None
                and burst.ends_at + _REMEMBERED < now
            }
            known = await self._journal.store.get(set(over.values())) if over else ()
            going_on = {item.id for item in known if not item.status.is_final}
            await self._bursts.remove(
                record for record, latest in over.items() if latest not in going_on
            )


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
        leading = await self._batches.rolls([item.id for item in group if item.fence > 1])
        alone = {item.id for item in group if item.id in leading or not self._is_readable(item)}
        for item in group:
            # What a fork has kept says nothing of events that come now: they would be lost in it.
            if item.forked_from is not None and item.id not in alone:
                await self._batches.run_alone(item.id)
                alone.add(item.id)
        coming = sorted((item for item in group if item.id not in alone), key=age)
        members = dict(await self._still_waiting(coming))
        entrants = [item for item in coming if item.id not in members]
        seats = await self._batches.seat(key, entrants, option)
        members |= {item: seat.leader for item, seat in seats.items() if seat.leader != item}

        parked = [
            (item, batches.wait_key(members[item.id])) for item in coming if item.id in members
        ]
        await self._doorman.park(parked, self.stage.before, Status.WAITING)
        now = self._doorman.journal.clock.now()
        leaders = [item for item in entrants if seats[item.id].leader == item.id]
        ready = [
            item for item in leaders if seats[item.id].is_closed or seats[item.id].closes_at <= now
        ]
        early = [(item, seats[item.id].closes_at) for item in leaders if item not in ready]
        await self._doorman.put_off(early, self.stage.before)
        for item in ready:
            await self._batches.call_roll(key, item.id)
        ahead = {item.id for item in ready}
        await self._batches.look_again(
            key,
            {item: leader for item, leader in members.items() if leader not in ahead},
            [item.id for item, _ in early],
        )
        return alone | ahead

    def _is_readable(self, execution: Execution) -> bool:
        """Return whether an event's data fits its type; what does not is to fail by itself."""
        function = self._doorman.registry.get(execution.function)
        assert function is not None, "only executions of registered functions are claimed"
        try:
            function.data_codec.decode(execution.data)
        except Exception:  # a validator of the user's own may raise anything
            return False
        return True

    async def _still_waiting(self, coming: Sequence[Execution]) -> dict[str, str]:
        """Return by member the leader whose closed batch it is in, whatever has woken it."""
        awaited = {
            item.id: leader for item in coming if (leader := batches.leader_of(item)) is not None
        }
        rolls = await self._batches.rolls(set(awaited.values()))
        return {
            key: leader
            for key, leader in awaited.items()
            if leader in rolls and key in rolls[leader].members
        }
