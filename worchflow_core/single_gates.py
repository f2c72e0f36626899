"""The gates that let one execution in: of an event that comes repeatedly, or at a time."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from worchflow_core import lines
from worchflow_core.changing import Changer
from worchflow_core.gates import Doorman, Stage, age
from worchflow_core.limits import Singleton, Unique, WhenTaken
from worchflow_core.lines import Entrant, Holder
from worchflow_core.models import Execution
from worchflow_core.places import Places


class Single:
    """Give one execution the only place at a key."""

    def __init__(self, doorman: Doorman, places: Places) -> None:
        self._doorman = doorman
        self._places = places

    async def _alone(
        self, key: str, group: Sequence[Execution], holders: Mapping[str, Holder]
    ) -> Collection[str]:
        """Return which of these has the only place, where nobody else has it."""
        entrants = [Entrant(id=item.id, holder=holders[item.id]) for item in group]
        inside = await self._places.take(key, entrants, limit=1, waits=False)
        if not inside:
            await self._places.prune(key)  # its holder may have ended where nobody saw it
            inside = await self._places.take(key, entrants, limit=1, waits=False)
        return inside

    async def _holder(self, key: str) -> str:
        return next(iter((await self._places.line(key)).holders), "that has ended since")


class UniqueGate(Single):
    """Let the first of several events with one key in, and turn the others away."""

    stage = Stage.UNIQUE

    async def pass_through(self, coming: Sequence[Execution]) -> Collection[str]:
        """Give back who may not pass now, and return the ids of who may."""
        return await self._doorman.by_key(coming, "unique", lambda flow: flow.unique, self._one)

    async def _one(self, key: str, group: Sequence[Execution], option: Unique) -> Collection[str]:
        group = sorted(group, key=age)
        holders = {
            item.id: Holder(until=item.created_at + option.span if option.span else None)
            for item in group
        }
        inside = await self._alone(key, group, holders)
        over = [item for item in group if item.id not in inside]
        if over:
            why = f"{option.key} is that of execution {await self._holder(key)}"
            await self._doorman.turn_away(over, "Duplicate", why)
        return inside


class SingletonGate(Single):
    """Let one execution in at a time, from its start to its end."""

    stage = Stage.SINGLETON

    def __init__(self, doorman: Doorman, places: Places) -> None:
        super().__init__(doorman, places)
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
            group = await self._newest(key, group)
        entrants = [
            Entrant(id=item.id, holder=Holder(), was_called=bool(item.waits)) for item in group
        ]
        inside = await self._places.take(key, entrants, limit=1, waits=True)
        late = [item for item in group if item.id not in inside]
        if late:
            wait_key = lines.wait_key(key, "")
            await self._doorman.park([(item, wait_key) for item in late], self.stage.before)
            await self._places.look_again(key, [""])
        return inside

    async def _skip(self, key: str, group: Sequence[Execution]) -> Collection[str]:
        inside = await self._alone(key, group, {item.id: Holder() for item in group})
        over = [item for item in group if item.id not in inside]
        if over:
            why = f"execution {await self._holder(key)} was under way"
            await self._doorman.turn_away(over, "Skipped", why)
        return inside

    async def _newest(self, key: str, group: Sequence[Execution]) -> Sequence[Execution]:
        """Return the newest of a group, once whoever came before it is being cancelled."""
        newest = max(group, key=age)
        why = f"execution {newest.id} came after it"
        others = [item for item in group if item.id != newest.id]
        await self._doorman.turn_away(others, "Replaced", why)
        line = await self._places.line(key)
        known = await self._doorman.journal.store.get(line.holders) if line.holders else ()
        there = [*known, *await self._places.waiting(key)]
        older = [item.id for item in there if age(item) < age(newest)]
        await self._changer.many(older, self._changer.cancelled)
        return [newest]
