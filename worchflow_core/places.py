"""Places: give them to executions under a limit, free them, and call who waits for one.

Whoever waits is out of the way of everybody else: its due time lies far ahead, and its wait key
names the line it stands in. A freed place calls the oldest of a line; a sweep does so again for
what a crash cut short.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from worchflow_core import lines, transitions
from worchflow_core.journal import Journal
from worchflow_core.lines import Entrant, Line
from worchflow_core.lookup import change, read_record
from worchflow_core.models import Execution, Payload, Record, Status
from worchflow_core.query import Condition, Operator, Query

FAR = timedelta(days=3650)
"""What is due later than this waits to be called."""

_PAGE = 500
_CHOSEN_FROM = 100
"""Among so many of the oldest in a line, the most urgent are called."""


class Places:
    """The lines of a store."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._store = journal.store
        self._records = journal.store.records

    async def take(
        self, key: str, entrants: Sequence[Entrant], *, limit: int, waits: bool
    ) -> Collection[str]:
        """Give places to executions and return who has one.

        Args:
            key: the line.
            entrants: who asks, the most urgent first.
            limit: how many places there are.
            waits: those who get none are going to wait in the line; else they leave it.
        """
        inside: Collection[str] = ()
        now = self._journal.clock.now()

        def decide(body: Payload | None) -> Payload | None:
            nonlocal inside
            line = lines.line_of(key, body)
            grown, inside = lines.admitted(line, entrants, limit=limit, now=now)
            if not waits:
                grown = replace(grown, turns=line.turns)
            return None if grown == line else lines.body_of(grown)

        await change(self._records, lines.KIND, key, decide)
        return inside

    async def line(self, key: str) -> Line:
        """Return a line as it is."""
        record = await read_record(self._records, lines.KIND, key)
        return lines.line_of(key, None if record is None else record.body)

    async def free(self, key: str, ids: Collection[str]) -> None:
        """Take their places from executions, and call who is next."""

        def decide(body: Payload | None) -> Payload | None:
            line = lines.line_of(key, body)
            rest = lines.left(line, ids)
            return None if rest == line and not line.is_idle else lines.body_of(rest)

        await change(self._records, lines.KIND, key, decide)
        self._journal.reach("after_place_freed")
        await self.call(key)

    async def call(self, key: str) -> None:
        """Make as many due as there are free places, by turns, the oldest of each first."""
        line = await self.line(key)
        if not line.turns or not line.free:
            return
        served: list[str] = []
        over: set[str] = set()
        chosen: list[Execution] = []
        waiting: dict[str, list[Execution]] = {}
        turns = lines.order_of_turns(line)
        while len(chosen) < line.free and len(over) < len(turns):
            for turn in turns:
                if turn in over or len(chosen) == line.free:
                    continue
                if turn not in waiting:
                    waiting[turn] = await self._waiting(lines.wait_key(key, turn), line.free + 1)
                if waiting[turn]:
                    chosen.append(waiting[turn].pop(0))
                    served.append(turn)
                if not waiting[turn]:
                    over.add(turn)
        now = self._journal.clock.now()
        await self._journal.update(
            [(item, transitions.wake(item, now=now)) for item in chosen], point="after_call"
        )
        await self._note_called(key, served, over)

    async def _note_called(self, key: str, served: Sequence[str], over: Collection[str]) -> None:
        def decide(body: Payload | None) -> Payload | None:
            line = lines.line_of(key, body)
            rest = lines.called(line, served=served, over=over)
            return None if rest == line or body is None else lines.body_of(rest)

        await change(self._records, lines.KIND, key, decide)
        # Whoever came to wait between the look and the note is not to be forgotten.
        late = [turn for turn in over if await self._waiting(lines.wait_key(key, turn), 1)]
        if late:
            await self.expect(key, late)

    async def expect(self, key: str, turns: Collection[str]) -> None:
        """Note that executions wait in a line; they were stored as waiting before."""

        def decide(body: Payload | None) -> Payload | None:
            line = lines.line_of(key, body)
            grown = replace(line, turns=tuple(sorted({*line.turns, *turns})))
            return None if grown == line else lines.body_of(grown)

        await change(self._records, lines.KIND, key, decide)

    async def look_again(self, key: str, turns: Collection[str]) -> None:
        """Call who is next after executions were parked: who left meanwhile called nobody."""
        await self.prune(key)
        await self.expect(key, turns)
        await self.call(key)

    async def waiting(self, key: str) -> Sequence[Execution]:
        """Return the executions that wait in a line, the oldest of each turn first."""
        line = await self.line(key)
        found = [await self._waiting(lines.wait_key(key, turn), _PAGE) for turn in line.turns]
        return [item for page in found for item in page]

    async def tend(self) -> None:
        """Free the places of who has gone, and call who waits: what a crash left undone."""
        after = ""
        while page := await self._records.scan(lines.KIND, after=after, limit=_PAGE):
            after = page[-1].key
            gone = await self._gone(page)
            await asyncio.gather(*(self._tend(record, gone) for record in page))

    async def prune(self, key: str) -> None:
        """Free the places of who has gone in one line."""
        record = await read_record(self._records, lines.KIND, key)
        if record is not None:
            await self._tend(record, await self._gone([record]))

    async def _tend(self, record: Record, gone: Mapping[str, Collection[str]]) -> None:
        line = lines.line_of(record.key, record.body)
        if gone[record.key]:
            await self.free(record.key, gone[record.key])
        elif line.turns and line.free:
            await self.call(record.key)
        elif line.is_idle:
            await self.free(record.key, ())

    async def _gone(self, records: Sequence[Record]) -> Mapping[str, Collection[str]]:
        """Return by line who holds a place for nothing."""
        found = [lines.line_of(record.key, record.body) for record in records]
        ids = {key for line in found for key in line.holders}
        known = {item.id: item for item in await self._store.get(ids)} if ids else {}
        now = self._journal.clock.now()
        return {
            line.key: [
                key
                for key, holder in line.holders.items()
                if lines.is_stale(holder, known.get(key), now)
            ]
            for line in found
        }

    async def _waiting(self, key: str, limit: int) -> list[Execution]:
        """Return who waits under a key and is not called yet, the most urgent first."""
        query = Query(
            where=(
                Condition("waits", Operator.HAS, (key,)),
                Condition("status", Operator.EQUAL, Status.QUEUED),
                Condition("due_at", Operator.SINCE, self._journal.clock.now() + FAR),
            ),
            descending=False,
            limit=min(1000, max(limit, _CHOSEN_FROM)),
        )
        found = (await self._store.find(query)).items
        return sorted(found, key=_urgency)[:limit]


def _urgency(execution: Execution) -> tuple[int, datetime, str]:
    return (-execution.priority, execution.created_at, execution.id)
