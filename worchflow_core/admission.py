"""Admission: what flow control makes of an execution that was just claimed.

An execution passes the gates of its function in a fixed order, each once in its life, then takes
its places for this attempt. Where it is not let in it is given back: to wait in a line, to come
again at a moment, or, turned away, for good. What it holds it leaves when it is settled.

A crash anywhere leaves an execution that comes to the same gate again and is known there, or a
place whose holder has gone, which the sweep frees (`tend`).
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from worchflow_core import lines
from worchflow_core.batches import Batches
from worchflow_core.batching import Batcher
from worchflow_core.errors import StoreUnavailable
from worchflow_core.functions import Registry
from worchflow_core.gates import Doorman, Gate
from worchflow_core.gather_gates import BatchGate, DebounceGate
from worchflow_core.handlers import follow_up
from worchflow_core.journal import Journal
from worchflow_core.keys import UniqueKeys
from worchflow_core.limits import FlowControl, Limit, WhenTaken, key_of, turn_of
from worchflow_core.lines import UNTIL_ENDED, Entrant, Line, Place
from worchflow_core.models import Execution
from worchflow_core.places import Places, urgency
from worchflow_core.rate_gates import RateLimitGate, ThrottleGate
from worchflow_core.single_gates import SingletonGate, UniqueGate
from worchflow_core.stages import Stage

logger = logging.getLogger("worchflow")

_PUT_OFF = timedelta(minutes=1)
"""When that is tried again which cannot be let in: a deploy may have mended what is wrong."""


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
        self._doorman = doorman = Doorman(journal, registry)
        self._registry = registry
        self._places = Places(journal, self._limit_of)
        self._batches = Batches(journal)
        self._keys = UniqueKeys(journal.store, journal.clock)
        self._rate_limit, self._throttle = RateLimitGate(doorman), ThrottleGate(doorman)
        self._debounce = DebounceGate(doorman)
        self._gates: Sequence[Gate] = (
            self._debounce,
            self._rate_limit,
            UniqueGate(doorman, self._keys),
            BatchGate(doorman, self._batches),
            SingletonGate(doorman, self._places),
            self._throttle,
        )
        self._leaving = Batcher(self._free, is_outage=_is_outage)

    async def admit(self, claimed: Sequence[Execution]) -> list[Admitted]:
        """Return who may run now of executions that were just claimed; the others are given back.

        One that cannot be let in, whatever the reason, is put off by itself: it must not end the
        worker, and with it what was claimed together with it, again and again.

        Raises:
            StoreUnavailable: some may be given back, and some may hold places: only who is still
                owned may be let in again (`still_owned`).
        """
        if not self._has_flow:
            return [Admitted(execution=item) for item in claimed]
        try:
            return await self._admit(claimed)
        except (StoreUnavailable, ConnectionError):
            raise
        except Exception:
            if len(claimed) == 1:
                logger.exception("execution %s cannot be let in yet", claimed[0].id)
                until = self._journal.clock.now() + _PUT_OFF
                await self._doorman.put_off([(claimed[0], until)], Stage.NONE)
                return []
        alone = [await self.admit([item]) for item in await self.still_owned(claimed)]
        return [item for found in alone for item in found]

    async def still_owned(self, claimed: Sequence[Execution]) -> list[Execution]:
        """Return those that the claim still holds which was made of them."""
        found = {item.id: item for item in await self._journal.store.get([c.id for c in claimed])}
        return [
            item
            for item in claimed
            if item.id in found
            and (found[item.id].owner, found[item.id].fence) == (item.owner, item.fence)
        ]

    async def _admit(self, claimed: Sequence[Execution]) -> list[Admitted]:
        free: list[Execution] = []
        limited: list[Execution] = []
        for item in claimed:
            (free if self._doorman.flow(item) is None else limited).append(item)
        limited.sort(key=urgency)
        for gate in self._gates:
            asking = [
                item for item in limited if item.gates_passed < gate.stage and not _began(item)
            ]
            passed = await gate.pass_through(asking) if asking else ()
            stopped = {item.id for item in asking} - set(passed)
            limited = [item for item in limited if item.id not in stopped]
        inside = await self._note_passed(await self._take_places(limited))
        return [*(Admitted(execution=item) for item in free), *await self._with_batches(inside)]

    async def leave(self, settled: Execution) -> None:
        """Give up what an execution held, now that its attempt is settled; call who is next."""
        flow = self._doorman.flow(settled) if self._has_flow else None
        if flow is None:
            return
        leaving = [
            (_line(settled, limit, number), (settled.id, settled.fence))
            for number, limit in enumerate(flow.concurrency)
        ]
        if settled.status.is_final and flow.singleton is not None:
            key = key_of(settled, "singleton", flow.singleton.key)
            leaving += [(key, (settled.id, UNTIL_ENDED)), (key, (settled.id, settled.fence))]
        await asyncio.gather(*(self._leaving.submit(item) for item in leaving))
        if settled.status.is_final and flow.batch is not None:
            ended = await self._batches.end(settled.id)
            if ended:
                await follow_up(ended, self._registry, self._journal)

    async def unbegun(self, lost: Sequence[Execution]) -> Collection[str]:
        """Return which executions of dead workers had been claimed, and not let in yet."""
        answers = await asyncio.gather(*(self._is_unbegun(item) for item in lost))
        return {item.id for item, answer in zip(lost, answers, strict=True) if answer}

    async def _is_unbegun(self, execution: Execution) -> bool:
        flow = self._doorman.flow(execution)
        if flow is None:
            return False
        if not flow.concurrency:
            return self._has_gates(execution)
        number = len(flow.concurrency) - 1  # the place that is taken last
        line = await self._places.line(_line(execution, flow.concurrency[number], number))
        return line.holders.get(execution.id) != execution.fence

    async def tend(self) -> None:
        """Mend what crashes, and ends outside of an attempt, left behind."""
        await self._places.tend()
        await self._batches.tend()

    async def tidy(self) -> None:
        """Forget keys, bursts and rates that are over."""
        await self._keys.tidy()
        await self._debounce.tidy()
        await self._throttle.tidy()

    async def _free(self, leaving: Sequence[tuple[str, Place]]) -> Sequence[None]:
        by_key: defaultdict[str, list[Place]] = defaultdict(list)
        for key, place in leaving:
            by_key[key].append(place)
        await asyncio.gather(*(self._places.free(key, places) for key, places in by_key.items()))
        return [None] * len(leaving)

    async def _note_passed(self, inside: Sequence[Execution]) -> list[Execution]:
        """Note that gates were passed, where coming to them again could turn one away that began.

        What only takes places passes no gate, and needs no note.
        """
        fresh = [item for item in inside if self._has_gates(item)]
        if not fresh:
            return list(inside)
        passed = {item.id: item for item in await self._doorman.let_in(fresh)}
        lost = {item.id for item in fresh} - passed.keys()
        return [passed.get(item.id, item) for item in inside if item.id not in lost]

    def _has_gates(self, execution: Execution) -> bool:
        flow = self._doorman.flow(execution)
        is_gated = flow is not None and replace(flow, concurrency=()) != FlowControl()
        return is_gated and execution.gates_passed < max(Stage) and not _began(execution)

    # --- places for this attempt ----------------------------------------------------------------

    async def _take_places(self, coming: Sequence[Execution]) -> list[Execution]:
        """Return who has a place under each limit of its function; the others wait in line.

        Who waits under one limit keeps its places under those before. They are taken in one order,
        so nobody waits for a place whose holder waits, in turn, for one of its own.
        """
        flows = [flow for item in coming if (flow := self._doorman.flow(item)) is not None]
        left = list(coming)
        for number in range(max((len(flow.concurrency) for flow in flows), default=0)):
            left = await self._take_place(number, left)
        return left

    async def _take_place(self, number: int, coming: Sequence[Execution]) -> list[Execution]:
        def option(flow: FlowControl) -> Limit | None:
            return flow.concurrency[number] if number < len(flow.concurrency) else None

        async def one(key: str, group: Sequence[Execution], limit: Limit) -> Collection[str]:
            turns = {item.id: turn_of(limit.fair_by, item.data) for item in group}
            entrants = [
                Entrant(id=item.id, fence=item.fence, turn=turns[item.id]) for item in group
            ]
            inside = await self._places.take(key, entrants, limit=limit.count)
            self._journal.reach("after_place_taken")
            late = [item for item in group if item.id not in inside]
            if late:
                parked = [(item, lines.wait_key(key, turns[item.id])) for item in late]
                await self._doorman.park(parked, max(Stage))
                await self._places.free(key, arrived={item.id for item in late})
            return inside

        inside = await self._doorman.by_key(coming, _place(number), option, one)
        return [item for item in coming if item.id in inside]

    def _limit_of(self, execution: Execution, line: Line) -> int | None:
        """Return how many places a line has; None where an execution is not to wait there."""
        if self._registry.get(execution.function) is None:
            return line.limit  # those who know the function decide
        flow = self._doorman.flow(execution) or FlowControl()
        for number, limit in enumerate(flow.concurrency):
            if _line(execution, limit, number) == line.key:
                return limit.count
        single = flow.singleton
        if single is not None and single.when_taken != WhenTaken.SKIP:
            return 1 if key_of(execution, "singleton", single.key) == line.key else None
        return None

    async def _with_batches(self, inside: Sequence[Execution]) -> list[Admitted]:
        """Return executions with those they run for."""
        leading = [
            item.id
            for item in inside
            if (flow := self._doorman.flow(item)) is not None and flow.batch is not None
        ]
        if not leading:
            return [Admitted(execution=item) for item in inside]
        rolls = await self._batches.rolls(leading)
        ids = {key for roll in rolls.values() for key in roll.members}
        known: Mapping[str, Execution] = {
            item.id: item for item in (await self._journal.store.get(ids) if ids else ())
        }
        return [
            Admitted(
                execution=item,
                batch=tuple(known[key] for key in rolls[item.id].members if key in known)
                if item.id in rolls
                else (),
            )
            for item in inside
        ]


def _place(number: int) -> str:
    return f"concurrency-{number}"


def _line(execution: Execution, limit: Limit, number: int) -> str:
    return key_of(execution, _place(number), limit.key)


def _began(execution: Execution) -> bool:
    """Return whether an execution was running before its function had any gates."""
    return execution.gates_passed == Stage.NONE and any(
        attempt.outcome != "released" for attempt in execution.attempts
    )


def _is_outage(error: BaseException) -> bool:
    return isinstance(error, StoreUnavailable)
