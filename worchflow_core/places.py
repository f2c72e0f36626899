"""Places: give them to executions under a limit, free them, and call who waits for one.

Whoever waits is out of the way of everybody else: its due time lies far ahead, and its wait key
names the line it stands in. Who frees a place gives it, in the same write, to who waited longest,
and then makes that one due; a sweep does so again for what a crash cut short.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from worchflow_core import holding, lines
from worchflow_core.journal import Journal
from worchflow_core.ledger import Ledger
from worchflow_core.lines import Entrant, Line, Place
from worchflow_core.models import Execution, Payload, Status
from worchflow_core.query import Condition, Operator, Query

LimitOf = Callable[[Execution, Line], int | None]
"""Returns how many places a line has by the options of an execution's function; None where the
execution is not to wait in that line: the options are others than when it came."""

_PAGE = 500
_PAGES = 20
"""So many pages of lines are looked at in one sweep; the next one goes on behind them."""

_THOROUGH_EVERY = 6

_CHOSEN_FROM = 25
"""Among so many of the oldest in a line, the most urgent are called."""


class Places:
    """The lines of a store.

    Args:
        journal: where everything is written.
        limit_of: how many places a line has.
    """

    def __init__(self, journal: Journal, limit_of: LimitOf) -> None:
        self._journal = journal
        self._store = journal.store
        self._ledger = Ledger(journal.store.records, lines.KIND)
        self._limit_of = limit_of
        self._tended = ""
        self._passes = 0

    async def take(
        self, key: str, entrants: Sequence[Entrant], *, limit: int, waits: bool = True
    ) -> Collection[str]:
        """Give places to executions and return who has one.

        Args:
            key: the line.
            entrants: who asks, the most urgent first.
            limit: how many places there are.
            waits: those who get none are going to wait in the line; else they leave it.
        """
        inside: Collection[str] = ()

        async def decide(body: Payload | None) -> Payload | None:
            nonlocal inside
            line = lines.line_of(key, body)
            grown, inside = lines.admitted(line, entrants, limit=limit, waits=waits)
            return None if grown == line else lines.body_of(grown)

        await self._ledger.change(key, decide)
        return inside

    async def line(self, key: str) -> Line:
        """Return a line as it is."""
        return lines.line_of(key, await self._ledger.read(key))

    async def free(
        self,
        key: str,
        places: Collection[Place] = (),
        *,
        arrived: Collection[str] = (),
        is_thorough: bool = False,
    ) -> None:
        """Free places, and call who is next.

        Args:
            key: the line.
            places: those to be freed, as far as these very claims still hold them.
            arrived: who is stored as waiting in the line by now.
            is_thorough: look at who waits even where no place is free: how many there are, and
                who is to wait at all, may have changed.
        """
        has_strays = True
        while has_strays or places:
            chosen, strays = await self._pass_on(key, places, arrived, is_thorough)
            if chosen:
                self._journal.reach("after_place_freed")
            called = await self._call([*chosen, *strays])
            has_strays = bool(strays)
            places = await self._left_empty([item for item in chosen if item.id not in called])

    async def _left_empty(self, uncalled: Sequence[Execution]) -> list[Place]:
        """Return the places of those that could not be called: cancelled meanwhile, say.

        Whoever has come by itself, woken by something else, has taken its place and keeps it.
        """
        found = await self._store.get([item.id for item in uncalled]) if uncalled else ()
        known = {item.id: item for item in found}
        places = [(item.id, item.fence + 1) for item in uncalled]
        return [place for place in places if lines.is_stale(place, known.get(place[0]))]

    async def _pass_on(
        self, key: str, places: Collection[Place], arrived: Collection[str], is_thorough: bool
    ) -> tuple[Sequence[Execution], Sequence[Execution]]:
        """Free places and give them to others; return those, and who waits in the wrong line."""
        chosen: Sequence[Execution] = ()
        strays: Sequence[Execution] = ()

        async def decide(body: Payload | None) -> Payload | None:
            nonlocal chosen, strays
            line = lines.line_of(key, body)
            rest = lines.left(line, places, arrived)
            rest, chosen, strays = await self._hand_on(rest, is_thorough=is_thorough)
            return None if rest == line else lines.body_of(rest)

        await self._ledger.change(key, decide)
        return chosen, strays

    async def _hand_on(
        self, line: Line, *, is_thorough: bool
    ) -> tuple[Line, Sequence[Execution], Sequence[Execution]]:
        """Return a line whose free places have gone to who waits, those, and who is let go."""
        waiting: dict[str, Sequence[Execution]] = {}
        is_all: set[str] = set()
        strays: list[Execution] = []
        found = 0
        for turn in lines.order_of_turns(line):
            if found >= line.free and not (is_thorough and not waiting):
                break
            page = await self._waiting(lines.wait_key(line.key, turn), line.free + 1)
            if len(page) < _CHOSEN_FROM:
                is_all.add(turn)
            waiting[turn] = []
            for item in page:
                limit = self._limit_of(item, line)
                if limit is None:
                    strays.append(item)
                    continue
                line = replace(line, limit=limit)
                waiting[turn] = [*waiting[turn], item]
                found += 1
        waiting = {turn: sorted(there, key=urgency) for turn, there in waiting.items()}
        rest, chosen = lines.handed_on(line, waiting, is_all=is_all)
        return rest, chosen, strays

    async def _call(self, chosen: Sequence[Execution]) -> Collection[str]:
        """Make executions due that have been given a place; return the ids of those who were."""
        now = self._journal.clock.now()
        done = await self._journal.update(
            [(item, holding.call(item, now=now)) for item in chosen],
            point="after_call",
            is_urgent=True,
        )
        return {after.id for _, after in done}

    # --- who waits ------------------------------------------------------------------------------

    async def waiting(self, key: str) -> Sequence[Execution]:
        """Return the executions that wait in a line, up to a thousand of each turn."""
        line = await self.line(key)
        found = [await self._waiting(lines.wait_key(key, turn), 1000) for turn in line.turns]
        return [item for page in found for item in page]

    async def _waiting(self, key: str, limit: int) -> Sequence[Execution]:
        """Return the oldest who wait under a key and are not called yet."""
        query = Query(
            where=(
                Condition("waits", Operator.HAS, (key,)),
                Condition("status", Operator.EQUAL, Status.QUEUED),
                Condition("due_at", Operator.SINCE, self._journal.clock.now() + lines.FAR),
            ),
            descending=False,
            limit=min(1000, max(limit, _CHOSEN_FROM)),
        )
        return (await self._store.find(query)).items

    # --- what crashes leave ---------------------------------------------------------------------

    async def tend(self) -> None:
        """Free the places of who has gone, and call who waits: what a crash left undone.

        Lines that seem in order are looked at more closely now and then: their limit may be
        another since a deploy, or nobody may be left who asks.
        """
        is_thorough = self._passes % _THOROUGH_EVERY == 0
        for _ in range(_PAGES):
            page = await self._ledger.scan(self._tended, limit=_PAGE)
            found = [lines.line_of(record.key, record.body) for record in page]
            await self._examine(
                [line for line in found if is_thorough or line.turns or line.coming],
                is_thorough=is_thorough,
            )
            self._tended = page[-1].key if len(page) == _PAGE else ""
            if not self._tended:
                self._passes += 1
                return

    async def examine(self, key: str) -> None:
        """Free the places of who has gone in one line, and call who waits."""
        await self._examine([await self.line(key)], is_thorough=True)

    async def _examine(self, found: Sequence[Line], *, is_thorough: bool) -> None:
        ids = sorted({key for line in found for key in (*line.holders, *line.coming)})
        known: dict[str, Execution] = {}
        for start in range(0, len(ids), _PAGE):
            part = await self._store.get(ids[start : start + _PAGE])
            known |= {item.id: item for item in part}
        await asyncio.gather(*(self._mend(line, known, is_thorough) for line in found))

    async def _mend(self, line: Line, known: Mapping[str, Execution], is_thorough: bool) -> None:
        stale = [item for item in line.holders.items() if lines.is_stale(item, known.get(item[0]))]
        arrived = [
            key for key, item in line.coming.items() if lines.has_arrived(item, known.get(key))
        ]
        # Given a place, and not called: whoever was to do so has died.
        unheard = [
            known[key]
            for key, fence in line.holders.items()
            if key in known and lines.is_parked(known[key]) and known[key].fence == fence - 1
        ]
        if unheard:
            await self._call(unheard)
        is_awaited = line.turns and (line.free or is_thorough)
        if stale or arrived or is_awaited:
            await self.free(line.key, stale, arrived=arrived, is_thorough=is_thorough)


def urgency(execution: Execution) -> tuple[int, datetime, str]:
    """Return the key by which those who ask for a place are ordered, the most urgent first."""
    return (-execution.priority, execution.created_at, execution.id)
