"""Batches: executions that run as one. Their leader runs, the others end as it does.

A batch is open while it gathers, then closed: from then on its members are written down under its
leader's id, and never change. A member waits for its leader by a wait key that names it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from worchflow_core import gatherings, holding, transitions
from worchflow_core.gatherings import CLOSED, OPEN, Gathering
from worchflow_core.journal import Journal
from worchflow_core.limits import Batch
from worchflow_core.lookup import change, read_record
from worchflow_core.models import Execution, Payload, Record, Status

_PAGE = 500
_WAIT = "batch|"


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """What became of executions that came to be gathered.

    Attributes:
        leaders: those that run now, each with the ids of its batch, its own first.
        early: leaders whose batch still gathers, with the batch.
        members: those that wait for a leader, by its id.
    """

    leaders: dict[str, tuple[str, ...]]
    early: dict[str, Gathering]
    members: dict[str, str]


class Batches:
    """The batches of a store."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._store = journal.store
        self._records = journal.store.records

    async def gather(self, key: str, entrants: Sequence[Execution], option: Batch) -> Admitted:
        """Bring executions together, and say which of them runs now.

        Args:
            key: function and value that are gathered by themselves.
            entrants: claimed executions, in order of their creation.
            option: how large a batch gets, and how long it gathers.
        """
        answer = Admitted(leaders={}, early={}, members={})
        left = list(entrants)
        while left:
            gathering = await self._join(key, left, option)
            ids = set(gathering.members)
            for item in left:
                if item.id in ids:
                    answer.members[item.id] = gathering.leader
            left = [item for item in left if item.id not in ids]
            if not gathering.is_closed:
                answer.early[gathering.leader] = gathering
                continue
            await self._write_down(key, gathering)
            answer.early.pop(gathering.leader, None)
            answer.leaders[gathering.leader] = gathering.members
        for leader in (*answer.leaders, *answer.early):
            answer.members.pop(leader, None)
        return answer

    async def members(self, leaders: Collection[str]) -> dict[str, tuple[str, ...]]:
        """Return the ids of closed batches by leader, for those of these that lead one."""
        found = {item: await read_record(self._records, CLOSED, item) for item in leaders}
        return {
            leader: tuple(json.loads(record.body))
            for leader, record in found.items()
            if record is not None
        }

    async def wake_full(
        self, key: str, admitted: Admitted, option: Batch, *, but: Collection[str]
    ) -> None:
        """Let leaders run now whose batches are full, unless they are let in just now.

        Args:
            key: where the batches were gathered.
            admitted: what became of those who came.
            option: how large a batch gets.
            but: who came itself.
        """
        leaders = set(admitted.leaders) - set(but)
        if admitted.early:
            record = await read_record(self._records, OPEN, key)
            gathering = gatherings.gathering_of(None if record is None else record.body)
            for leader in admitted.early:
                is_open = gathering is not None and gathering.leader == leader
                if not is_open or (gathering and len(gathering.members) >= option.size):
                    leaders.add(leader)
        found = await self._store.get(leaders) if leaders else ()
        now = self._journal.clock.now()
        await self._journal.update(
            [
                (item, transitions.wake(item, now=now))
                for item in found
                if item.owner is None and item.status is Status.QUEUED
            ]
        )

    async def end(self, leader_id: str) -> None:
        """Let a closed batch end if its leader has ended, or is gone."""
        found = await self._store.get([leader_id])
        if not found or found[0].status.is_final:
            await self.resolve(found[0] if found else None, leader_id)

    async def resolve(self, leader: Execution | None, leader_id: str) -> None:
        """Let a batch end as its leader did; let its members go where that was cancelled or lost.

        Args:
            leader: the leader as it ended; None where it is gone.
            leader_id: its id.
        """
        ids = (await self.members([leader_id])).get(leader_id)
        if ids is None:
            return
        has_ended = leader is not None and leader.status in (Status.COMPLETED, Status.FAILED)
        found = await self._store.get([item for item in ids if item != leader_id])
        waiting = [item for item in found if item.status is Status.WAITING and item.owner is None]
        now = self._journal.clock.now()
        await self._journal.update(
            [
                (
                    item,
                    holding.follow(item, leader, now=now)
                    if has_ended and leader is not None
                    else transitions.wake(item, now=now),
                )
                for item in waiting
            ]
        )
        self._journal.reach("after_batch_end")
        await self._records.delete(CLOSED, [leader_id])

    async def tend(self) -> None:
        """End what a crash left undone: batches whose leader has ended, or is gone."""
        after = ""
        while page := await self._records.scan(CLOSED, after=after, limit=_PAGE):
            after = page[-1].key
            known = {item.id: item for item in await self._store.get([r.key for r in page])}
            for record in page:
                leader = known.get(record.key)
                if leader is None or leader.status.is_final:
                    await self.resolve(leader, record.key)
        after = ""
        while page := await self._records.scan(OPEN, after=after, limit=_PAGE):
            after = page[-1].key
            await self._disband(page)

    async def _disband(self, page: Sequence[Record]) -> None:
        """Let the members go of open batches whose leader was cancelled, or is gone."""
        found = {record: gatherings.gathering_of(record.body) for record in page}
        leaders = {item.leader for item in found.values() if item is not None}
        known = {item.id: item for item in await self._store.get(leaders)}
        for record, gathering in found.items():
            assert gathering is not None
            leader = known.get(gathering.leader)
            if leader is not None and not leader.status.is_final:
                continue
            members = Record(
                kind=CLOSED, key=gathering.leader, body=json.dumps(list(gathering.members))
            )
            await self._records.insert([members])
            gone = Record(kind=OPEN, key=record.key, body="", version=record.version + 1)
            if not await self._records.replace([gone]):
                await self.resolve(None, gathering.leader)

    async def _join(self, key: str, entrants: Sequence[Execution], option: Batch) -> Gathering:
        """Return the batch at a key once as many of these as fit have come in, closed if it is."""
        now = self._journal.clock.now()
        answer: Gathering | None = None

        def decide(body: Payload | None) -> Payload | None:
            nonlocal answer
            known = gatherings.gathering_of(body)
            grown, _ = gatherings.joined(known, entrants, option)
            assert grown is not None
            # Only its leader, or who no longer fits, closes it: others just come in.
            ids = {item.id for item in entrants}
            if grown.leader in ids or not ids <= set(grown.members):
                grown = gatherings.closed(grown, option, now)
            answer = grown
            return None if grown == known else gatherings.gathering_body(grown)

        await change(self._records, OPEN, key, decide)
        assert answer is not None
        return answer

    async def _write_down(self, key: str, gathering: Gathering) -> None:
        """Write a closed batch's members under its leader, then make room for the next batch."""
        body = json.dumps(list(gathering.members))
        await self._records.insert([Record(kind=CLOSED, key=gathering.leader, body=body)])
        self._journal.reach("after_batch_close")

        def decide(body: Payload | None) -> Payload | None:
            known = gatherings.gathering_of(body)
            is_ours = known is not None and known.leader == gathering.leader
            return "" if is_ours else None

        await change(self._records, OPEN, key, decide)


def wait_key(leader: str) -> str:
    """Return the wait key of a batch's members."""
    return f"{_WAIT}{leader}"


def leader_of(execution: Execution) -> str | None:
    """Return the leader that an execution waits for; None where it waits for none."""
    for key in execution.waits:
        if key.startswith(_WAIT):
            return key.removeprefix(_WAIT)
    return None
