"""The executions a session runs: starts attempts, settles them, and knows how much room is left."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection, Mapping, Sequence

from worchflow_core import transitions
from worchflow_core.admission import Admitted
from worchflow_core.attempt import Attempt, Surroundings
from worchflow_core.control import look_again
from worchflow_core.errors import StoreUnavailable
from worchflow_core.failures import failure_of
from worchflow_core.functions import Registry
from worchflow_core.handlers import follow_up, has_followers
from worchflow_core.models import Change, Execution, Status, StepRecord
from worchflow_core.signals import ControlSignal, Superseded
from worchflow_core.transitions import Outcome

logger = logging.getLogger("worchflow")

_SUSPECT = 2
"""From this many crashes on, an execution runs alone on its worker."""


class Running:
    """The attempts in flight.

    Attributes:
        attempts: by execution id.
        finished: how many attempts were settled.
        is_stopping: no more are to be started.
        has_orphans: an attempt ended and could not be settled; its execution is still owned.
        changed: set whenever an attempt ended or something was asked of this session.
    """

    def __init__(self, around: Surroundings, registry: Registry) -> None:
        self.attempts: dict[str, Attempt] = {}
        self.finished = 0
        self.is_stopping = False
        self.has_orphans = False
        self.changed = asyncio.Event()
        self._around = around
        self._journal = around.journal
        self._lease = around.lease
        self._registry = registry
        self._tasks: set[asyncio.Task[None]] = set()
        self._suspects = 0
        self._settling: set[Attempt] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def is_lost(self) -> bool:
        """Whether this session was declared dead."""
        return self._lease.is_lost

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to be claimed."""
        return self.is_stopping or self._lease.is_lost

    @property
    def busy(self) -> int:
        """How many have code that has not ended."""
        return len(self._tasks) - len(self._settling)

    @property
    def active(self) -> list[Attempt]:
        """The attempts whose code has not ended; any thread may ask."""
        return [item for item in list(self.attempts.values()) if item not in self._settling]

    @property
    def room(self) -> int:
        """How many more may be started; none while a suspected killer of workers runs.

        Those whose code has ended take up no room while the store learns of it: the next ones
        begin meanwhile. So that a slow store is not swamped, twice the concurrency is the most.
        """
        if self._suspects:
            return 0
        limit = self._around.settings.concurrency
        return min(limit - self.busy, 2 * limit - len(self._tasks))

    def stop(self, signal: ControlSignal, *, now: bool) -> None:
        """Let every attempt unwind at its next step call, or at once."""
        for attempt in list(self.attempts.values()):
            attempt.stop(signal, now=now)
        self.changed.set()

    def start(
        self,
        admitted: Sequence[Admitted],
        steps: Mapping[str, Sequence[StepRecord]],
    ) -> None:
        """Begin an attempt at each execution that may run.

        Of those suspected to kill workers only one is begun. The others are given back before it
        runs: when it kills this worker too, it is not to be counted against them.
        """
        loop = asyncio.get_running_loop()
        for item in admitted:
            execution = item.execution
            if execution.crashes >= _SUSPECT and self._suspects:
                self._keep(loop.create_task(self.give_back(execution)))
                continue
            self._journal.started(execution)
            function = self._registry.get(execution.function)
            assert function is not None, "only executions of registered functions are claimed"
            recorded = steps.get(execution.id, ())
            attempt = Attempt(function, execution, recorded, self._around, item.batch)
            self.attempts[execution.id] = attempt
            if execution.crashes >= _SUSPECT:
                self._suspects += 1
            self._keep(loop.create_task(self._work(attempt)))

    async def cancel(self, execution: Execution) -> None:
        """Settle a claimed execution as cancelled; its parent was, and nobody awaits it."""
        await self._settle(execution, Outcome(status=Status.CANCELLED))

    async def give_back(self, execution: Execution) -> None:
        """Release a claimed execution that no attempt was made at."""
        outcome = Outcome(
            status=Status.QUEUED,
            failure=execution.error,
            step_failures=execution.step_failures,
        )
        await self._settle(execution, outcome)

    async def wait_idle(self, seconds: float, *, unless: asyncio.Event | None = None) -> None:
        """Return when nothing runs any more, when the time is over, or when `unless` is set."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while self._tasks and not self.is_lost and not (unless and unless.is_set()):
            left = deadline - loop.time()
            if left <= 0:
                return
            await self.wait_changed(min(left, 0.5))
        if self.is_lost and self._tasks:
            await asyncio.wait(self._tasks, timeout=2.0)

    async def wait_changed(self, seconds: float) -> None:
        """Return when something changed, or after this long."""
        self.changed.clear()
        # Not wait_for: before Python 3.12 it loses a cancellation that comes with the change.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.changed.wait()

    async def pause(self, seconds: float) -> None:
        """Wait this long, or until this session has to end."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while not self.is_over and (left := deadline - loop.time()) > 0:
            await self.wait_changed(left)

    # --- one attempt ----------------------------------------------------------------------------

    async def _work(self, attempt: Attempt) -> None:
        execution = attempt.execution
        is_suspect = execution.crashes >= _SUSPECT
        try:
            if is_suspect:
                await self._until_alone()
            await self._make(attempt)
        except Superseded:
            self._journal.superseded(execution)
        finally:
            # What was settled, answered or not, may have been claimed here again meanwhile.
            if self.attempts.get(execution.id) is attempt:
                del self.attempts[execution.id]
            self._suspects -= is_suspect

    async def _make(self, attempt: Attempt) -> None:
        """Make the attempt and settle it."""
        if attempt.function.timeout is not None and attempt.execution.deadline_at is None:
            await self._fix_deadline(attempt)
        outcome = await attempt.run()
        if outcome is None:
            self._journal.superseded(attempt.execution)
        else:
            settled = await self._leave(attempt, outcome)
            if settled is not None and settled.waits:
                await self._look_again(attempt, settled)

    async def _leave(self, attempt: Attempt, outcome: Outcome) -> Execution | None:
        """Settle an attempt whose code has ended; another may begin meanwhile."""
        self._settling.add(attempt)
        self.changed.set()
        try:
            return await self._settle(attempt.execution, outcome, attempt.book.recorded.values())
        finally:
            self._settling.discard(attempt)

    async def _look_again(self, attempt: Attempt, settled: Execution) -> None:
        """Look for what came between the wait's look and its being stored; a sweep does it too."""
        try:
            await look_again(attempt.book, self._journal, settled)
        except (StoreUnavailable, ConnectionError) as error:
            logger.debug("a wait is looked at again by the sweep: %s", error)

    async def _fix_deadline(self, attempt: Attempt) -> None:
        """Store the deadline before any code runs, so that crashes cannot put it off."""
        assert attempt.function.timeout is not None
        deadline = attempt.started_at + attempt.function.timeout
        change = transitions.set_deadline(attempt.execution, deadline)
        amended = await self._journal.amend(attempt.execution, change, self._lease)
        if amended is None:
            raise Superseded("a newer claim has this execution")
        attempt.execution = attempt.book.execution = amended

    async def _until_alone(self) -> None:
        """Wait until the others are done, or given back: this one may kill the worker."""
        while len(self._tasks) > 1 and not self.is_over:
            await self.wait_changed(0.5)

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self.finished += 1
        self.changed.set()
        if task.cancelled():
            self.has_orphans = True
        elif task.exception() is not None:
            logger.error("an attempt could not be settled", exc_info=task.exception())
            self.has_orphans = True

    async def _settle(
        self, execution: Execution, outcome: Outcome, steps: Collection[StepRecord] = ()
    ) -> Execution | None:
        try:
            settled = await self._journal.settle(
                execution, self._change(execution, outcome), self._lease, steps
            )
        except Exception as error:  # the store refuses the outcome itself: too large, say
            refused = Outcome(status=Status.FAILED, failure=failure_of(error), counts=True)
            settled = await self._journal.settle(
                execution, self._change(execution, refused), self._lease
            )
        if settled is not None:
            await self._follow(settled)
        return settled

    async def _follow(self, settled: Execution) -> None:
        """Do what a settled attempt asks for; the sweep does it too."""
        try:
            if settled.status.is_final and settled.handlers_due:
                await follow_up([settled], self._registry, self._journal)
            await self._around.admission.leave(settled)
        except (StoreUnavailable, ConnectionError) as error:
            logger.debug("what follows an attempt waits for the sweep: %s", error)

    def _change(self, execution: Execution, outcome: Outcome) -> Change:
        function = self._registry.get(execution.function)
        return transitions.settle(
            execution,
            outcome,
            now=self._journal.clock.now(),
            retries=function.retry.retries if function else None,
            code_version=function.code_version if function else None,
            has_handler=has_followers(execution, outcome.status, self._registry),
            has_hint=self._journal.queue.keeps_hints,
        )
