"""Admission: what flow control makes of an execution that was just claimed.

An execution passes the gates of its function in a fixed order, each once in its life, then takes
its places for this attempt. Where it is not let in it is given back: to wait in a line, to come
again at a moment, or, turned away, for good. What it holds it leaves when it is settled.

A crash anywhere leaves an execution that comes to the same gate again and is known there, or a
place whose holder has gone, which the sweep frees (`tend`).
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from worchflow_core import lines
from worchflow_core.batches import Batches
from worchflow_core.batching import Batcher
from worchflow_core.errors import StoreUnavailable
from worchflow_core.functions import Registry
from worchflow_core.gates import Doorman, Gate, Stage, age, key_of
from worchflow_core.gather_gates import BatchGate, DebounceGate
from worchflow_core.journal import Journal
from worchflow_core.limits import FlowControl, Limit, digest_of, value_of
from worchflow_core.lines import Entrant, Holder
from worchflow_core.models import Execution
from worchflow_core.places import Places
from worchflow_core.rate_gates import RateLimitGate, ThrottleGate
from worchflow_core.single_gates import SingletonGate, UniqueGate


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """An execution that may run now.

    Attributes:
        execution: as it was claimed.
        batch: the executions it runs for, its own first; empty where it runs for itself.
    """

    execution: Execution
    batch: tuple[Execution, ...] = ()


class Admission:
    """Let claimed executions in, or give them back.

    Args:
        journal: where everything is written.
        registry: the functions, whose options say what is allowed.
    """

    def __init__(self, journal: Journal, registry: Registry) -> None:
        self._journal = journal
        self._has_flow = registry.has_flow
        self._places = Places(journal)
        self._batches = Batches(journal)
        self._doorman = doorman = Doorman(journal, registry)
        self._gates: Sequence[Gate] = (
            UniqueGate(doorman, self._places),
            DebounceGate(doorman),
            RateLimitGate(doorman),
            BatchGate(doorman, self._batches),
            SingletonGate(doorman, self._places),
            ThrottleGate(doorman),
        )
        self._leaving = Batcher(self._free, is_outage=_is_outage)

    async def admit(self, claimed: Sequence[Execution]) -> list[Admitted]:
        """Return who may run now of executions that were just claimed; the others are given back.

        Raises:
            StoreUnavailable: some may be given back, and some may hold places: only who is still
                owned may be let in again.
        """
        if not self._has_flow:
            return [Admitted(execution=item) for item in claimed]
        free: list[Execution] = []
        limited: list[Execution] = []
        for item in claimed:
            (free if self._doorman.flow(item) is None else limited).append(item)
        limited.sort(key=_urgency)
        for gate in self._gates:
            asking = [item for item in limited if item.gates_passed < gate.stage]
            passed = await gate.pass_through(asking) if asking else ()
            stopped = {item.id for item in asking} - set(passed)
            limited = [item for item in limited if item.id not in stopped]
        inside = await self._take_places(limited)
        inside = [replace(item, gates_passed=max(Stage)) for item in inside]
        return [*(Admitted(execution=item) for item in free), *await self._with_batches(inside)]

    async def leave(self, settled: Execution) -> None:
        """Give up what an execution held, now that its attempt is settled; call who is next."""
        flow = self._doorman.flow(settled) if self._has_flow else None
        if flow is None:
            return
        keys = [_line(settled, limit, number) for number, limit in enumerate(flow.concurrency)]
        if settled.status.is_final:
            if flow.singleton is not None:
                keys.append(key_of(settled, "singleton", flow.singleton.key))
            if flow.unique is not None and flow.unique.span is None:
                keys.append(key_of(settled, "unique", flow.unique.key))
        await asyncio.gather(*(self._leaving.submit((key, settled.id)) for key in keys))
        if settled.status.is_final and flow.batch is not None:
            await self._batches.end(settled.id)

    async def tend(self) -> None:
        """Mend what crashes, and ends outside of an attempt, left behind."""
        await self._places.tend()
        await self._batches.tend()

    async def _free(self, leaving: Sequence[tuple[str, str]]) -> Sequence[None]:
        by_key: defaultdict[str, list[str]] = defaultdict(list)
        for key, execution_id in leaving:
            by_key[key].append(execution_id)
        await asyncio.gather(*(self._places.free(key, ids) for key, ids in by_key.items()))
        return [None] * len(leaving)

    # --- places for this attempt ----------------------------------------------------------------

    async def _take_places(self, coming: Sequence[Execution]) -> list[Execution]:
        """Return who has a place under each limit of its function; the others wait in line."""
        flows = [flow for item in coming if (flow := self._doorman.flow(item)) is not None]
        left = list(coming)
        for number in range(max((len(flow.concurrency) for flow in flows), default=0)):
            left = await self._take_place(number, left)
        return left

    async def _take_place(self, number: int, coming: Sequence[Execution]) -> list[Execution]:
        def option(flow: FlowControl) -> Limit | None:
            return flow.concurrency[number] if number < len(flow.concurrency) else None

        async def one(key: str, group: Sequence[Execution], limit: Limit) -> Collection[str]:
            turns = {item.id: digest_of(value_of(limit.fair_by, item.data)) for item in group}
            entrants = [
                Entrant(
                    id=item.id,
                    holder=Holder(fence=item.fence),
                    turn=turns[item.id],
                    was_called=bool(item.waits),
                )
                for item in group
            ]
            inside = await self._places.take(key, entrants, limit=limit.count, waits=True)
            self._journal.reach("after_place_taken")
            late = [item for item in group if item.id not in inside]
            if late:
                await self._leave_earlier(late, number)
                parked = [(item, lines.wait_key(key, turns[item.id])) for item in late]
                await self._doorman.park(parked, max(Stage))
                await self._places.look_again(key, {turns[item.id] for item in late})
            return inside

        inside = await self._doorman.by_key(coming, _place(number), option, one)
        return [item for item in coming if item.id in inside]

    async def _leave_earlier(self, late: Sequence[Execution], number: int) -> None:
        """Give up the places under earlier limits of who has to wait under a later one."""
        for item in late:
            flow = self._doorman.flow(item)
            for earlier, limit in enumerate(flow.concurrency[:number] if flow else ()):
                await self._places.free(_line(item, limit, earlier), [item.id])

    async def _with_batches(self, inside: Sequence[Execution]) -> list[Admitted]:
        """Return executions with those they run for."""
        leading = [
            item.id
            for item in inside
            if (flow := self._doorman.flow(item)) is not None and flow.batch is not None
        ]
        members = await self._batches.members(leading)
        ids = {key for batch in members.values() for key in batch}
        known = {item.id: item for item in await self._journal.store.get(ids)} if ids else {}
        return [
            Admitted(
                execution=item,
                batch=tuple(known[key] for key in members.get(item.id, ()) if key in known),
            )
            for item in inside
        ]


def _place(number: int) -> str:
    return f"concurrency-{number}"


def _line(execution: Execution, limit: Limit, number: int) -> str:
    return key_of(execution, _place(number), limit.key)


def _urgency(execution: Execution) -> tuple[int, datetime, str]:
    return (-execution.priority, *age(execution))


def _is_outage(error: BaseException) -> bool:
    return isinstance(error, StoreUnavailable)
