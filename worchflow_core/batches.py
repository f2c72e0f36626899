"""Batches: executions that run as one. Their leader runs, the others end as it does.

Whoever comes gets a seat in a gathering; the first of them leads it. A member is in the batch from
when it is stored as waiting for its leader. When a gathering is full, or its time has come, its
leader calls the roll: who waits for it by then is written down, and that never changes. Who comes
late is let go, to find another batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence

from worchflow_core import gatherings, holding, transitions
from worchflow_core.gatherings import CLOSED, GATHERING, Gathering, Roll
from worchflow_core.journal import Journal
from worchflow_core.ledger import Ledger
from worchflow_core.limits import Batch
from worchflow_core.lines import FAR
from worchflow_core.models import Execution, Payload, Record, Status
from worchflow_core.query import Condition, Operator, Query

_PAGE = 500
_WAIT = "batch|"


class Batches:
    """The batches of a store."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._store = journal.store
        self._gatherings = Ledger(journal.store.records, GATHERING)
        self._rolls = Ledger(journal.store.records, CLOSED)

    # --- gathering ------------------------------------------------------------------------------

    async def seat(
        self, key: str, coming: Sequence[Execution], option: Batch
    ) -> Mapping[str, Gathering]:
        """Give each execution a seat, and return the gatherings by execution id.

        Args:
            key: function and value that are gathered by themselves.
            coming: claimed executions, the oldest first.
            option: how many seats a gathering has, and how long it stays open.
        """
        seats: dict[str, Gathering] = {}

        async def decide(body: Payload | None) -> Payload | None:
            nonlocal seats
            known = gatherings.gatherings_of(body)
            grown = gatherings.joined(known, coming, option, self._journal.clock.now())
            seats = {member: item for item in grown for member in item.members}
            return None if grown == known else gatherings.gatherings_body(grown)

        if coming:
            await self._gatherings.change(key, decide)
        return {item.id: seats[item.id] for item in coming}

    async def call_roll(self, key: str, leader: str) -> None:
        """Let nobody more into a leader's gathering, and write down who is there."""
        gathering: Gathering | None = None

        async def close(body: Payload | None) -> Payload | None:
            nonlocal gathering
            known = gatherings.gatherings_of(body)
            grown = gatherings.closed(known, [leader])
            gathering = next((item for item in grown if item.leader == leader), None)
            return None if grown == known else gatherings.gatherings_body(grown)

        await self._gatherings.change(key, close)
        if gathering is not None:
            there = {item.id for item in await self._waiting_for(leader)}
            roll = Roll(
                members=tuple(m for m in gathering.members if m == leader or m in there),
                late=tuple(m for m in gathering.members if m != leader and m not in there),
            )
            await self._rolls.insert(leader, gatherings.roll_body(roll))
            self._journal.reach("after_batch_close")
        await self._drop(key, [leader])

    async def run_alone(self, execution_id: str) -> None:
        """Let an execution be a batch by itself, whatever else has come."""
        roll = Roll(members=(execution_id,), late=())
        await self._rolls.insert(execution_id, gatherings.roll_body(roll))

    async def rolls(self, leaders: Collection[str]) -> Mapping[str, Roll]:
        """Return who runs as one batch by leader, for those of these that lead one."""
        bodies = await asyncio.gather(*(self._rolls.read(item) for item in leaders))
        found = zip(leaders, map(gatherings.roll_of, bodies), strict=True)
        return {leader: roll for leader, roll in found if roll is not None}

    async def look_again(
        self, key: str, members: Mapping[str, str], leaders: Collection[str]
    ) -> None:
        """Look, once they are stored, at what members and leaders could not be told.

        Args:
            key: where they were gathered.
            members: by member that waits now, its leader.
            leaders: who leads a gathering and was put off.
        """
        open_ones = {
            item.leader: item for item in gatherings.gatherings_of(await self._gatherings.read(key))
        }
        full = {
            leader
            for leader in {*leaders, *members.values()}
            if (item := open_ones.get(leader)) is not None and item.is_closed
        }
        rolls = await self.rolls(set(members.values()) - open_ones.keys())
        lost = {
            member
            for member, leader in members.items()
            if leader not in open_ones
            and (leader not in rolls or member not in rolls[leader].members)
        }
        await self._wake(full | lost)
        for leader in rolls:
            await self.end(leader)  # it may have ended just before they were stored

    # --- the end --------------------------------------------------------------------------------

    async def end(self, leader_id: str) -> Sequence[Execution]:
        """Let a batch end if its leader has ended, or is gone; return its members that ended."""
        found = await self._store.get([leader_id])
        if found and not found[0].status.is_final:
            return ()
        return await self._resolve(found[0] if found else None, leader_id)

    async def tend(self) -> None:
        """End what a crash left undone: batches whose leader has ended, or is gone."""
        after = ""
        while page := await self._rolls.scan(after, limit=_PAGE):
            after = page[-1].key
            known = {item.id: item for item in await self._store.get([r.key for r in page])}
            for record in page:
                leader = known.get(record.key)
                if leader is None or leader.status.is_final:
                    await self._resolve(leader, record.key)
        after = ""
        while page := await self._gatherings.scan(after, limit=_PAGE):
            after = page[-1].key
            await self._tend_gatherings(page)

    async def _tend_gatherings(self, page: Sequence[Record]) -> None:
        """Break up gatherings whose leader has ended, or runs, or is gone."""
        found = {record.key: gatherings.gatherings_of(record.body) for record in page}
        leaders = {item.leader for known in found.values() for item in known}
        known = {item.id: item for item in await self._store.get(leaders)}
        closed = {item.leader for known in found.values() for item in known if item.is_closed}
        rolls = await self.rolls(closed) if closed else {}
        for key, there in found.items():
            for item in there:
                leader = known.get(item.leader)
                if leader is None or leader.status.is_final:
                    roll = Roll(members=(item.leader,), late=item.members[1:])
                    await self._rolls.insert(item.leader, gatherings.roll_body(roll))
                    await self._drop(key, [item.leader])
                    await self._resolve(None, item.leader)
                elif item.leader in rolls:
                    await self._drop(key, [item.leader])

    async def _drop(self, key: str, leaders: Collection[str]) -> None:
        async def decide(body: Payload | None) -> Payload | None:
            known = gatherings.gatherings_of(body)
            rest = [item for item in known if item.leader not in leaders]
            return None if rest == known else gatherings.gatherings_body(rest)

        await self._gatherings.change(key, decide)

    async def _resolve(self, leader: Execution | None, leader_id: str) -> Sequence[Execution]:
        """Let members end as their leader did; let them go where it was cancelled, or is gone."""
        roll = (await self.rolls([leader_id])).get(leader_id)
        if roll is None:
            return ()
        has_ended = leader is not None and leader.status in (Status.COMPLETED, Status.FAILED)
        waiting = await self._waiting_for(leader_id)
        now = self._journal.clock.now()
        done = await self._journal.update(
            [
                (item, holding.follow(item, leader, now=now))
                if leader is not None and has_ended and item.id in roll.members
                else (item, transitions.wake(item, now=now))
                for item in waiting
            ]
        )
        self._journal.reach("after_batch_end")
        others = await self._store.get([*roll.members[1:], *roll.late])
        # Whoever is on its way back comes to see how its leader ended, and whoever was late may be
        # about to be stored: they must find the roll, or be found by the next sweep.
        if all(_is_settled(item, leader_id) for item in others):
            await self._rolls.delete(leader_id)
        return [after for _, after in done if after.status.is_final]

    async def _waiting_for(self, leader: str) -> Sequence[Execution]:
        query = Query(
            where=(
                Condition("waits", Operator.HAS, (wait_key(leader),)),
                Condition("status", Operator.EQUAL, Status.WAITING),
            ),
            descending=False,
            limit=1000,
        )
        return (await self._store.find(query)).items

    async def _wake(self, ids: Collection[str]) -> None:
        """Let executions come, before whoever was sent later.

        Otherwise a leader stood behind all that waits to be gathered, and its gathering with all
        that follow it would grow for as long.
        """
        found = await self._store.get(ids) if ids else ()
        now = self._journal.clock.now()
        await self._journal.update(
            [
                (item, holding.call(item, now=now))
                for item in found
                if item.owner is None and item.status in (Status.QUEUED, Status.WAITING)
            ],
            is_urgent=True,
        )


def wait_key(leader: str) -> str:
    """Return the wait key of a batch's members."""
    return f"{_WAIT}{leader}"


def _is_settled(member: Execution, leader_id: str) -> bool:
    """Return whether a member has nothing more to do with a batch that has ended."""
    if member.owner is not None:
        return False
    is_far = member.due_at is not None and member.due_at > member.updated_at + FAR
    return not (member.status is Status.WAITING and is_far and leader_of(member) == leader_id)


def leader_of(execution: Execution) -> str | None:
    """Return the leader that an execution waits for; None where it waits for none."""
    for key in execution.waits:
        if key.startswith(_WAIT):
            return key.removeprefix(_WAIT)
    return None
