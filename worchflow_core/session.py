"""One registered life of a worker: it beats, claims, runs and settles until it has to leave."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
from collections.abc import Awaitable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar
from uuid import uuid4

from worchflow_core import transitions
from worchflow_core.attempt import Attempt, Surroundings
from worchflow_core.errors import StoreUnavailable
from worchflow_core.failures import failure_of
from worchflow_core.functions import Registry
from worchflow_core.handlers import follow_up, handler_of
from worchflow_core.heart import Heart
from worchflow_core.journal import Journal
from worchflow_core.lease import Lease
from worchflow_core.models import (
    Beat,
    Change,
    Execution,
    RunningExecution,
    Status,
    StepRecord,
    Worker,
    WorkerState,
)
from worchflow_core.plugins import Plugins
from worchflow_core.query import Condition, Operator, Query
from worchflow_core.settings import Settings
from worchflow_core.signals import Cancelled, Released, Superseded
from worchflow_core.threads import ThreadPool
from worchflow_core.transitions import Outcome, is_claimable

logger = logging.getLogger("worchflow")
T = TypeVar("T")

_POP_WAIT = timedelta(seconds=2)
_NO_WAIT = timedelta(0)
_SUSPECT = 2
"""From this many crashes on, an execution runs alone on its worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """What a session is to do.

    Attributes:
        burst: end when nothing is due.
        only: claim just these executions, and end when all are final; None claims all.
        max_executions: end after this many attempts; None never.
    """

    burst: bool = False
    only: Collection[str] | None = None
    max_executions: int | None = None


class Session:
    """A worker under one id, from its registration to its leaving or its being declared dead.

    Args:
        journal, registry, plugins, settings: as the worker has them.
        resources: what was opened for the functions.
        name: what people call this worker.
    """

    def __init__(
        self,
        journal: Journal,
        registry: Registry,
        plugins: Plugins,
        settings: Settings,
        resources: Mapping[Any, Any],
        name: str,
    ) -> None:
        self.id = uuid4().hex
        self.finished = 0
        self.is_stopping = False
        self._name = name
        self._journal = journal
        self._registry = registry
        self._plugins = plugins
        self._settings = settings
        self._state = WorkerState.STARTING
        self._started_at = journal.clock.now()
        self._lease = Lease(settings.lease, journal.clock)
        self._heart = Heart(
            journal.store,
            self._lease,
            journal.clock,
            self._describe,
            interval=settings.heartbeat,
            listener=self,
        )
        self._around = Surroundings(
            journal=journal,
            lease=self._lease,
            plugins=plugins,
            settings=settings,
            functions=ThreadPool(settings.concurrency, "function"),
            steps=ThreadPool(max(32, settings.concurrency), "step"),
            resources=resources,
        )
        self._attempts: dict[str, Attempt] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._stop_now = asyncio.Event()
        self._is_alone = False
        self._claimed = 0
        self._trouble = ""

    # --- what others ask ------------------------------------------------------------------------

    @property
    def is_lost(self) -> bool:
        """Whether the store has declared this session dead."""
        return self._lease.is_lost

    @property
    def lease_is_valid(self) -> bool:
        """Whether it may write now."""
        return self._lease.is_valid

    @property
    def trouble(self) -> str:
        """Why no work is taken at the moment; empty when all is well."""
        return self._trouble

    @property
    def running(self) -> int:
        """How many executions it runs."""
        return len(self._tasks)

    def stop(self, *, now: bool) -> None:
        """Take no more work; let attempts unwind at their next step call, or at once."""
        self.is_stopping = True
        self._state = WorkerState.DRAINING
        self._heart.hurry()
        for attempt in list(self._attempts.values()):
            attempt.stop(Released("the worker is leaving"), now=now)
        if now:
            self._stop_now.set()
        self._changed.set()

    # --- its life -------------------------------------------------------------------------------

    async def run(self, assignment: Assignment) -> None:
        """Register, work, and leave in good order; end early when declared dead."""
        await self._register()
        self._heart.start()
        told = self._describe()
        self._plugins.notify("worchflow_worker_started", worker=told)
        claiming = asyncio.create_task(self._claim_loop(assignment))
        try:
            await claiming
        except asyncio.CancelledError:
            claiming.cancel()
            self.stop(now=True)
            raise
        finally:
            await self._leave()
            self._plugins.notify("worchflow_worker_stopped", worker=told)

    async def _register(self) -> None:
        wait = 0.1
        while True:
            try:
                await asyncio.to_thread(self._heart.beat_now)
                break
            except (StoreUnavailable, ConnectionError) as error:
                if not self._trouble:
                    logger.warning("cannot register with the store yet, trying on: %s", error)
                self._trouble = "the store is away"
                await self._pause(wait * random.uniform(0.5, 1))
                wait = min(wait * 2, 2.0)
                if self.is_stopping:
                    return
        self._trouble = ""
        if not self.is_stopping:
            self._state = WorkerState.RUNNING

    async def _leave(self) -> None:
        """Give executions the grace, then take them back; the worker's record goes last."""
        if not self.is_lost:
            if self.is_stopping:
                grace = self._settings.grace.total_seconds()
                await self._wait_idle(grace, unless=self._stop_now)
            for attempt in list(self._attempts.values()):
                attempt.stop(Released("the grace is over"), now=True)
        await self._wait_idle(10.0)
        self._state = WorkerState.STOPPED
        await self._heart.stop()
        if not self.is_lost:
            try:
                async with asyncio.timeout(5):
                    await asyncio.to_thread(self._heart.beat_now)
            except (StoreUnavailable, ConnectionError, TimeoutError) as error:
                logger.warning("could not sign off from the store; its lease runs out: %s", error)
        self._around.functions.close()
        self._around.steps.close()

    async def _wait_idle(self, seconds: float, unless: asyncio.Event | None = None) -> None:
        deadline = asyncio.get_running_loop().time() + seconds
        while self._tasks and not self.is_lost and not (unless and unless.is_set()):
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                return
            self._changed.clear()
            await self._until(self._changed.wait(), min(left, 0.5))
        if self.is_lost and self._tasks:
            await asyncio.wait(self._tasks, timeout=2.0)

    # --- claiming -------------------------------------------------------------------------------

    async def _claim_loop(self, assignment: Assignment) -> None:
        is_hungry = False
        while not self.is_stopping and not self.is_lost:
            room = self._room(assignment)
            if room <= 0:
                if assignment.max_executions is not None and not self._tasks:
                    return
                self._changed.clear()
                if self._room(assignment) <= 0 and not self.is_stopping and not self.is_lost:
                    await self._until(self._changed.wait(), 1.0)
                continue
            try:
                if not self._lease.is_valid:
                    await self._until(self._lease.wait_valid(), 1.0)
                    continue
                claimed = await self._claim(assignment, room, is_hungry=is_hungry)
                if self._trouble:
                    await self._reconcile()
                    logger.info("the store answers again")
                    self._trouble = ""
            except (StoreUnavailable, ConnectionError) as error:
                await self._endure(error)
                continue
            except Superseded:
                return
            is_hungry = bool(claimed)
            if not claimed and await self._is_done(assignment):
                return

    def _room(self, assignment: Assignment) -> int:
        if self._is_alone:
            return 0
        room = self._settings.concurrency - len(self._tasks)
        if assignment.max_executions is not None:
            room = min(room, assignment.max_executions - self._claimed)
        return room

    async def _claim(self, assignment: Assignment, room: int, *, is_hungry: bool) -> int:
        """Claim what there is room for, by hints or straight from the store, and start it."""
        ids: Sequence[str] = ()
        if assignment.only is not None:
            ids = [item for item in assignment.only if item not in self._attempts]
            if not ids:
                await self._pause(0.2)
                return 0
        elif not is_hungry or self._journal.queue.keeps_hints:
            ids = await self._pop(room, wait=not is_hungry and not assignment.burst)
        if self.is_stopping or self.is_lost:
            return 0
        self._journal.reach("after_pop")
        claimed = await self._journal.claim(
            self.id, self._registry.ids, limit=room, ids=ids or None
        )
        if assignment.only is None and len(claimed) < len(ids):
            await self._reroute(set(ids) - {item.id for item in claimed})
        if claimed:
            self._claimed += len(claimed)
            await self._start(claimed)
        return len(claimed)

    async def _pop(self, room: int, *, wait: bool) -> Sequence[str]:
        queue = self._journal.queue
        span = _POP_WAIT if wait else _NO_WAIT
        try:
            popped = await self._until_stopped(queue.pop(self._registry.ids, limit=room, wait=span))
            return popped or ()
        except ConnectionError as error:
            logger.debug("the queue does not answer, the store is asked: %s", error)
            await self._pause(random.uniform(0.5, 2.0) if wait else 0.0)
            return ()

    async def _reroute(self, ids: Collection[str]) -> None:
        """Put hints of functions that this worker lacks into those functions' own lanes."""
        now = self._journal.clock.now()
        mine = set(self._registry.ids)
        strangers = [
            item
            for item in await self._journal.store.get(ids)
            if item.function not in mine and is_claimable(item, now)
        ]
        await self._journal.hint(strangers, is_misrouted=True)

    async def _is_done(self, assignment: Assignment) -> bool:
        if self._tasks:
            return False
        if assignment.burst:
            return True
        if assignment.only is None:
            return False
        found = await self._journal.store.get(assignment.only)
        if all(item.status.is_final for item in found):
            return True
        await self._pause(0.1)
        return False

    async def _endure(self, error: Exception) -> None:
        if not self._trouble:
            logger.warning("the store is away, trying on: %s", error)
            self._trouble = "the store is away"
        await self._pause(random.uniform(0.25, 1.0))

    async def _reconcile(self) -> None:
        """Give back what a claim took whose answer was lost."""
        query = Query(where=(Condition("owner", Operator.EQUAL, self.id),), limit=1000)
        owned = (await self._journal.store.find(query)).items
        for execution in owned:
            if execution.id not in self._attempts:
                await self._settle(execution, Outcome(status=Status.QUEUED))

    # --- running --------------------------------------------------------------------------------

    async def _start(self, claimed: Sequence[Execution]) -> None:
        if self.is_stopping or self.is_lost:
            for execution in claimed:
                await self._settle(execution, Outcome(status=Status.QUEUED))
            return
        steps = await self._steps_of(claimed)
        for execution in claimed:
            self._journal.started(execution)
            function = self._registry.get(execution.function)
            assert function is not None
            attempt = Attempt(function, execution, steps.get(execution.id, ()), self._around)
            self._attempts[execution.id] = attempt
            if execution.crashes >= _SUSPECT:
                self._is_alone = True
            task = asyncio.create_task(self._work(attempt))
            self._tasks.add(task)
            task.add_done_callback(self._done)

    async def _steps_of(self, claimed: Sequence[Execution]) -> Mapping[str, Sequence[StepRecord]]:
        while True:
            try:
                return await self._journal.load_steps(claimed)
            except (StoreUnavailable, ConnectionError) as error:
                await self._endure(error)
                if self.is_lost:
                    return {}

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self.finished += 1
        self._changed.set()
        if not task.cancelled() and task.exception() is not None:
            logger.error("an attempt broke its runner", exc_info=task.exception())

    async def _work(self, attempt: Attempt) -> None:
        """Run one attempt to its end and settle it."""
        execution = attempt.execution
        try:
            if execution.crashes >= _SUSPECT:
                await self._until_alone()
            function = attempt.function
            if function.timeout is not None and execution.deadline_at is None:
                deadline = attempt.started_at + function.timeout
                change = transitions.set_deadline(execution, deadline)
                amended = await self._journal.amend(execution, change, self._lease)
                if amended is None:
                    self._journal.superseded(execution)
                    return
                attempt.execution = attempt.book.execution = execution = amended
            outcome = await attempt.run()
            if outcome is None:
                self._journal.superseded(execution)
            else:
                await self._settle(execution, outcome)
        except Superseded:
            self._journal.superseded(execution)
        finally:
            self._attempts.pop(execution.id, None)
            if execution.crashes >= _SUSPECT:
                self._is_alone = False

    async def _until_alone(self) -> None:
        """Wait until the other executions of this worker are done: this one may kill it."""
        while len(self._tasks) > 1 and not self.is_stopping and not self.is_lost:
            self._changed.clear()
            await self._until(self._changed.wait(), 0.5)

    async def _settle(self, execution: Execution, outcome: Outcome) -> None:
        try:
            settled = await self._journal.settle(
                execution, self._change(execution, outcome), self._lease
            )
        except Superseded:
            self._journal.superseded(execution)
            return
        except Exception as error:  # the store refuses the outcome itself: too large, say
            refused = Outcome(status=Status.FAILED, failure=failure_of(error), counts=True)
            settled = await self._journal.settle(
                execution, self._change(execution, refused), self._lease
            )
        if settled is not None and settled.handlers_due:
            try:
                await follow_up([settled], self._registry, self._journal)
            except (StoreUnavailable, ConnectionError) as error:
                logger.debug("a handler waits for the sweep: %s", error)

    def _change(self, execution: Execution, outcome: Outcome) -> Change:
        function = self._registry.get(execution.function)
        return transitions.settle(
            execution,
            outcome,
            now=self._journal.clock.now(),
            retries=function.retry.retries if function else None,
            code_version=function.code_version if function else None,
            has_handler=handler_of(execution.function, outcome.status, self._registry) is not None,
            has_hint=self._journal.queue.keeps_hints,
        )

    # --- what the heart tells -------------------------------------------------------------------

    def on_beat(self, beat: Beat) -> None:
        """Cancel what somebody asked to cancel; leave when asked to drain."""
        for execution_id in beat.cancels:
            attempt = self._attempts.get(execution_id)
            if attempt is not None:
                attempt.stop(Cancelled("somebody asked to"), now=True)
        if beat.is_drain_requested and not self.is_stopping:
            logger.info("asked to drain")
            self.stop(now=False)

    def on_lost(self) -> None:
        """Stop everything and write nothing more: others have taken over."""
        logger.warning("this worker was declared dead and begins anew under another id")
        for attempt in list(self._attempts.values()):
            attempt.stop(Superseded("this worker was declared dead"), now=True)
        self._changed.set()

    def _describe(self) -> Worker:
        settings = self._settings
        return Worker(
            id=self.id,
            name=self._name,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=_version(),
            state=self._state,
            started_at=self._started_at,
            concurrency=settings.concurrency,
            functions=self._registry.ids,
            running=tuple(
                RunningExecution(
                    execution_id=attempt.execution.id,
                    function=attempt.function.id,
                    step=attempt.book.current,
                    since=attempt.started_at,
                )
                for attempt in list(self._attempts.values())
            ),
        )

    # --- waiting --------------------------------------------------------------------------------

    async def _pause(self, seconds: float) -> None:
        self._changed.clear()
        if not self.is_stopping and not self.is_lost:
            await self._until(self._changed.wait(), seconds)

    async def _until(self, call: Awaitable[Any], seconds: float) -> None:
        try:
            await asyncio.wait_for(call, seconds)
        except TimeoutError:
            return

    async def _until_stopped(self, call: Awaitable[T]) -> T | None:
        """Await a call that may take long; give it up as soon as this session is to stop."""
        task = asyncio.ensure_future(call)
        try:
            while not task.done():
                if self.is_stopping or self.is_lost:
                    return None
                self._changed.clear()
                stopping = asyncio.ensure_future(self._changed.wait())
                await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
                stopping.cancel()
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})


def _version() -> str:
    from worchflow_core import __version__

    return __version__
