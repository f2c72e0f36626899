"""The claimer: takes executions by hints or straight from the store, whenever there is room."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from worchflow_core.admission import Admitted
from worchflow_core.attempt import Surroundings
from worchflow_core.errors import ConfigurationError, StoreUnavailable
from worchflow_core.functions import Registry
from worchflow_core.handlers import cancelled_parents
from worchflow_core.models import Execution, StepRecord
from worchflow_core.pauses import Pause, open_functions, paused
from worchflow_core.query import Condition, Operator, Query
from worchflow_core.rules import is_claimable
from worchflow_core.running import Running
from worchflow_core.signals import Superseded

logger = logging.getLogger("worchflow")
T = TypeVar("T")

_POP_WAIT = timedelta(seconds=2)
_POLL_WAIT = timedelta(seconds=0.5)
"""Without hints nobody tells of what falls due: the store is asked this often."""
_NO_WAIT = timedelta(0)
_PAUSES_READ_EVERY = 1.0
"""Seconds after which a worker knows that a function was paused, or resumed."""
_PATIENCE = 8
"""After so many pops in a row whose hints led nowhere, the store is asked directly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """What a worker is to do.

    Attributes:
        burst: end when nothing is due.
        only: claim just these executions, and end when all are final; None claims all.
        max_executions: end after this many attempts; None never.
    """

    burst: bool = False
    only: Collection[str] | None = None
    max_executions: int | None = None


class Claimer:
    """Claim for one session until it has to end.

    Attributes:
        trouble: why no work is taken at the moment; empty when all is well.
    """

    def __init__(
        self, owner: str, registry: Registry, around: Surroundings, running: Running
    ) -> None:
        self.trouble = ""
        self._owner = owner
        self._journal = around.journal
        self._admission = around.admission
        self._registry = registry
        self._lease = around.lease
        self._running = running
        self._functions = registry.ids
        self._pauses_read_at: float | None = None
        self._pauses: Mapping[str, Pause] = {}
        self._told: set[str] = set()
        self._begun = 0
        self._fruitless = 0
        self._looked_at = time.monotonic()
        self._has_warned = False

    async def run(self, assignment: Assignment) -> None:
        """Claim until the session stops, is lost, or has done its assignment."""
        running = self._running
        is_hungry = True  # what waits already is not to wait for a hint
        while not running.is_over:
            room = self._room(assignment)
            if room <= 0:
                if self._is_used_up(assignment) and not len(running):
                    return
                await running.wait_changed(1.0)
                continue
            try:
                if not self._lease.is_valid:
                    await self._lease.wait_valid()
                claimed = await self._claim(assignment, room, is_hungry=is_hungry)
                if self.trouble:
                    await self._reconcile()
                    logger.info("the store answers again")
                    self.trouble = ""
                elif running.has_orphans:
                    await self._reconcile()
            except (StoreUnavailable, ConnectionError) as error:
                await self.endure(error)
                continue
            except Superseded:
                return
            is_hungry = bool(claimed)
            if not claimed and await self._is_done(assignment):
                return

    async def endure(self, error: Exception) -> None:
        """Wait a little for a store that is away; warn once per outage."""
        if not self.trouble:
            logger.warning("the store is away, trying on: %s", error)
            self.trouble = "the store is away"
        await self._running.pause(random.uniform(0.25, 1.0))

    # --- how much -------------------------------------------------------------------------------

    def _room(self, assignment: Assignment) -> int:
        room = self._running.room
        if assignment.max_executions is not None:
            room = min(room, assignment.max_executions - self._begun)
        return room

    def _is_used_up(self, assignment: Assignment) -> bool:
        limit = assignment.max_executions
        return limit is not None and self._begun >= limit

    async def _is_done(self, assignment: Assignment) -> bool:
        if not assignment.burst and assignment.only is None:
            return False
        if len(self._running):
            await self._running.wait_changed(0.1)
            return False
        if assignment.burst:
            return not self._fruitless  # hints that lead nowhere say nothing of the store
        found = await self._journal.store.get(assignment.only or ())
        if all(item.status.is_final for item in found):
            return True
        self._tell_paused(found)
        await self._running.pause(0.1)
        return False

    # --- one claim ------------------------------------------------------------------------------

    async def _claim(self, assignment: Assignment, room: int, *, is_hungry: bool) -> int:
        await self._read_pauses()
        ids: Sequence[str] = ()
        if assignment.only is not None:
            ids = [item for item in assignment.only if item not in self._running.attempts]
            if not ids:
                await self._running.pause(0.2)
                return 0
        elif self._fruitless < _PATIENCE and (
            not self._is_time_to_look and (not is_hungry or self._journal.queue.keeps_hints)
        ):
            ids = await self._pop(room, wait=not is_hungry and not assignment.burst)
        if self._running.is_over:
            await self._pass_on(ids)
            return 0
        if not ids:
            self._looked_at = time.monotonic()
        self._journal.reach("after_pop")
        claimed = await self._journal.claim(
            self._owner, self._functions, limit=room, ids=ids or None
        )
        if assignment.only is None and len(claimed) < len(ids):
            await self._reroute(set(ids) - {item.id for item in claimed})
        if claimed:
            self._begun += await self._start(claimed)
        await self._pace(has_hints=bool(ids), has_claimed=bool(claimed))
        return len(claimed)

    async def _pace(self, *, has_hints: bool, has_claimed: bool) -> None:
        """Rest where hints keep leading nowhere and the store has nothing due either."""
        if has_claimed or not has_hints:
            if self._fruitless >= _PATIENCE and not has_claimed:
                await self._running.pause(0.1)
            self._fruitless = 0
        else:
            self._fruitless += 1

    @property
    def _is_time_to_look(self) -> bool:
        """Whether to ask the store directly, although the queue may have enough.

        What a foreign client wrote has no due time by which the sweeper could hint it again.
        Were its hint lost, a queue that never runs empty would hide it for good.
        """
        return time.monotonic() - self._looked_at > self._lease.span.total_seconds() / 2

    async def _read_pauses(self) -> None:
        """Claim nothing of a function that somebody has paused."""
        now = time.monotonic()
        if self._pauses_read_at is None or now - self._pauses_read_at > _PAUSES_READ_EVERY:
            pauses = await paused(self._journal.store.records)
            self._pauses = pauses
            self._functions = open_functions(self._registry.ids, pauses)
            self._pauses_read_at = now

    def _tell_paused(self, found: Sequence[Execution]) -> None:
        """Say once of those that are awaited here that somebody has paused their function."""
        for item in found:
            pause = self._pauses.get(item.function)
            if pause is not None and item.function not in self._told and not item.status.is_final:
                self._told.add(item.function)
                why = f", {pause.reason!r}" if pause.reason else ""
                logger.warning(
                    "function %s is paused since %s%s; execution %s begins when it is resumed",
                    item.function,
                    pause.paused_at.isoformat(timespec="seconds"),
                    why,
                    item.id,
                )

    async def _start(self, claimed: Sequence[Execution]) -> int:
        """Begin attempts at what may run, and return how many; give back what may not, or cannot.

        What flow control lets wait is no attempt, and does not count as one.
        """
        steps: Mapping[str, Sequence[StepRecord]] | None = {}
        admitted: Sequence[Admitted] | None = None
        store = self._journal.store
        stray = await self._enduring(lambda: cancelled_parents(claimed, store))
        coming = [item for item in claimed if item.id not in (stray or ())]
        if stray is not None:
            await asyncio.gather(
                *(self._running.cancel(item) for item in claimed if item.id in stray)
            )
            admitted = await self._enduring(lambda: self._admit(coming))
        if admitted is not None:
            coming = [item.execution for item in admitted]
            steps = await self._enduring(lambda: self._journal.load_steps(coming))
        if admitted is None or steps is None:
            for execution in coming:
                await self._running.give_back(execution)
            return 0
        self._running.start(admitted, steps)
        return len(admitted)

    async def _admit(self, claimed: Sequence[Execution]) -> Sequence[Admitted]:
        """Let claimed executions in; after an outage, only those that are still ours."""
        if self.trouble:
            claimed = await self._admission.still_owned(claimed)
        return await self._admission.admit(claimed)

    async def _enduring(self, call: Callable[[], Awaitable[T]]) -> T | None:
        """Return what a call answers, however long the store is away; None when all is over."""
        while not self._running.is_over:
            try:
                return await call()
            except (StoreUnavailable, ConnectionError) as error:
                await self.endure(error)
        return None

    async def _pop(self, room: int, *, wait: bool) -> Sequence[str]:
        span = _NO_WAIT
        if wait:
            span = _POP_WAIT if self._journal.queue.keeps_hints else _POLL_WAIT
        try:
            pop = self._journal.queue.pop(self._functions, limit=room, wait=span)
            return await self._until_over(pop) or ()
        except ConfigurationError:  # it must not be used as it is: the message says why
            raise
        except Exception as error:  # whatever else is wrong with a queue, the store can be asked
            logger.debug("the queue does not answer, the store is asked: %r", error)
            if not isinstance(error, ConnectionError) and not self._has_warned:
                self._has_warned = True
                logger.warning("the queue fails, the store is polled instead: %r", error)
            await self._running.pause(random.uniform(0.5, 2.0) if wait else 0.0)
            return ()

    async def _pass_on(self, ids: Collection[str]) -> None:
        """Let others have hints that came while this worker was told to leave."""
        if ids:
            now = self._journal.clock.now()
            found = await self._journal.store.get(ids)
            self._journal.hint([item for item in found if is_claimable(item, now)])

    async def _reroute(self, ids: Collection[str]) -> None:
        """Put hints of functions that this worker lacks into those functions' own lanes."""
        now = self._journal.clock.now()
        mine = set(self._functions)
        strangers = [
            item
            for item in await self._journal.store.get(ids)
            if item.function not in mine and is_claimable(item, now)
        ]
        self._journal.hint(strangers, is_misrouted=True)

    async def _reconcile(self) -> None:
        """Give back what this worker owns and does not run.

        A claim took it whose answer was lost, or it could not be settled.
        """
        self._running.has_orphans = False
        query = Query(where=(Condition("owner", Operator.EQUAL, self._owner),), limit=1000)
        for execution in (await self._journal.store.find(query)).items:
            if execution.id in self._running.attempts:
                continue
            try:
                await self._running.give_back(execution)
            except StoreUnavailable:
                raise
            except Exception:
                logger.exception("execution %s cannot be given back yet", execution.id)
                self._running.has_orphans = True
                await self._running.pause(1.0)

    async def _until_over(self, call: Awaitable[T]) -> T | None:
        """Await a call that may take long; give it up as soon as the session has to end."""
        task = asyncio.ensure_future(call)
        running = self._running
        try:
            while not (task.done() or running.is_over):
                running.changed.clear()
                changed = asyncio.ensure_future(running.changed.wait())
                try:
                    await asyncio.wait({task, changed}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    changed.cancel()
        finally:
            while not task.done():  # again and again: a driver may lose a cancellation
                task.cancel()
                await asyncio.wait({task}, timeout=0.1)
            if not task.cancelled():
                task.exception()  # looked at, should nobody be left to be told
        return None if task.cancelled() else task.result()
