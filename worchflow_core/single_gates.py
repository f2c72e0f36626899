"""The gates that let one execution in: of an event that comes repeatedly, or at a time."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from worchflow_core import lines
from worchflow_core.changing import Changer
from worchflow_core.gates import Doorman, age
from worchflow_core.keys import UniqueKeys
from worchflow_core.limits import Singleton, Unique, WhenTaken
from worchflow_core.lines import Entrant
from worchflow_core.models import Execution
from worchflow_core.places import Places
from worchflow_core.stages import Stage


class UniqueGate:
    """Let the first of several events with one key in, and turn the others away."""

    stage = Stage.UNIQUE

    def __init__(self, doorman: Doorman, keys: UniqueKeys) -> None:
        self._doorman = doorman
        self._keys = keys

    async def pass_through(self, coming: Sequence[Execution]) -> Collection[str]:
        """Give back who may not pass now, and return the ids of who may."""
        return await self._doorman.by_key(coming, "unique", lambda flow: flow.unique, self._one)

    async def _one(self, key: str, group: Sequence[Execution], option: Unique) -> Collection[str]:
        held = await self._keys.take(key, sorted(group, key=age), option.span)
        over = [item for item in group if item.id != held.id]
        if held.reserved is not None and over:
            # Its sender has the key, and its execution is not there: who comes waits to see.
            until = held.reserved
            await self._doorman.put_off([(item, until) for item in over], self.stage.before)
        else:
            why = f"{option.key} is that of execution {held.id}"
            await self._doorman.turn_away([(item, why) for item in over], "Duplicate")
        return {item.id for item in group if item.id == held.id}


class SingletonGate:
    """Let one execution in at a time, from its start to its end."""

    stage = Stage.SINGLETON

    def __init__(self, doorman: Doorman, places: Places) -> None:
        self._doorman = doorman
        self._places = places
        self._changer = Changer(doorman.journal, doorman.registry)

    async def pass_through(self, coming: Sequence[Execution]) -> Collection[str]:
        """Give back who may not pass now, and return the ids of who may."""
        return await self._doorman.by_key(
            coming, "singleton", lambda flow: flow.singleton, self._one
        )

    async def _one(
        self, key: str, group: Sequence[Execution], option: Singleton
    ) -> Collection[str]:
        if option.when_taken == WhenTaken.SKIP:
            return await self._skip(key, sorted(group, key=age))
        if option.when_taken == WhenTaken.CANCEL:
            group = [await self._newest(group)]
            await self._replace(key, group[0])
        inside = await self._take(key, group, waits=True)
        late = [item for item in group if item.id not in inside]
        if late:
            wait_key = lines.wait_key(key, "")
            await self._doorman.park([(item, wait_key) for item in late], self.stage.before)
            await self._places.free(key, arrived={item.id for item in late})
            await self._places.examine(key)  # its holder may have ended where nobody saw it
        if option.when_taken == WhenTaken.CANCEL and not await self._replace(key, group[0]):
            await self._give_way(key, [item for item in group if item.id in inside])
            return ()
        return inside

    async def _take(self, key: str, group: Sequence[Execution], *, waits: bool) -> Collection[str]:
        entrants = [Entrant(id=item.id, fence=item.fence, is_lasting=True) for item in group]
        return await self._places.take(key, entrants, limit=1, waits=waits)

    async def _skip(self, key: str, group: Sequence[Execution]) -> Collection[str]:
        inside = await self._take(key, group, waits=False)
        if not inside:
            await self._places.examine(key)  # its holder may have ended where nobody saw it
            inside = await self._take(key, group, waits=False)
        over = [item for item in group if item.id not in inside]
        if over:
            holder = next(iter((await self._places.line(key)).holders), "that has ended since")
            why = f"execution {holder} was under way"
            await self._doorman.turn_away([(item, why) for item in over], "Skipped")
        return inside

    # --- the newest replaces the others ---------------------------------------------------------

    async def _newest(self, group: Sequence[Execution]) -> Execution:
        """Return the newest of a group; the others end."""
        newest = max(group, key=age)
        why = f"execution {newest.id} came after it"
        others = [(item, why) for item in group if item.id != newest.id]
        await self._doorman.turn_away(others, "Replaced")
        return newest

    async def _replace(self, key: str, execution: Execution) -> bool:
        """Cancel who came before an execution; return whether nobody came after it.

        Done before it takes its place, so that a crash cannot let an older one run to its end, and
        again once it is there: of two that come at once, each sees the other then.
        """
        line = await self._places.line(key)
        known = await self._doorman.journal.store.get(line.holders) if line.holders else ()
        there = [*known, *(await self._places.waiting(key) if line.turns else ())]
        older = [item for item in there if age(item) < age(execution)]
        ids = [item.id for item in older if not item.status.is_final]
        await self._changer.many(ids, self._changer.cancelled)
        newer = [item for item in there if age(item) > age(execution)]
        return all(item.status.is_final for item in newer)

    async def _give_way(self, key: str, inside: Sequence[Execution]) -> None:
        why = "another execution came after it"
        await self._doorman.turn_away([(item, why) for item in inside], "Replaced")
        await self._places.free(key, [(item.id, lines.UNTIL_ENDED) for item in inside])
