"""One attempt at an execution: run the function, and say how it ended as one frozen outcome."""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from worchflow_core.admission import Admission
from worchflow_core.blocking_steps import BlockingSteps
from worchflow_core.control import Control
from worchflow_core.deadline import Deadline
from worchflow_core.errors import (
    ExecutionTimeout,
    NonRetriable,
    RetryAfter,
    WorchflowError,
)
from worchflow_core.events import Event
from worchflow_core.failures import failure_of, is_final, members_of
from worchflow_core.functions import Function, Registry
from worchflow_core.journal import Journal
from worchflow_core.lease import Lease
from worchflow_core.models import Execution, Failure, Status, StepRecord
from worchflow_core.notebook import Notebook
from worchflow_core.plugins import Plugins
from worchflow_core.settings import Settings
from worchflow_core.signals import (
    Cancelled,
    ControlSignal,
    Released,
    StepBackoff,
    Superseded,
    Suspend,
    TimedOut,
)
from worchflow_core.stepbook import StepBook
from worchflow_core.steps import Steps
from worchflow_core.subscriptions import Subscriptions
from worchflow_core.threads import ThreadPool
from worchflow_core.transitions import Outcome
from worchflow_core.undoing import Undoer
from worchflow_core.undos import reason_of, undoable_no_more

logger = logging.getLogger("worchflow")


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What every attempt of one worker session shares.

    Attributes:
        journal, lease, plugins, settings: where and whether to write, whom to tell, limits.
        registry: the functions of this worker, which its steps may invoke.
        subscriptions: the functions that events run, of all workers.
        functions: threads for plain functions.
        steps: threads for plain steps of async functions.
        resources: what was opened for parameters declared with `Resource`, by opener.
        admission: who may run, and what is left when an attempt is settled.
        notebook: what executions say of themselves.
    """

    journal: Journal
    lease: Lease
    plugins: Plugins
    settings: Settings
    registry: Registry
    subscriptions: Subscriptions
    functions: ThreadPool
    steps: ThreadPool
    resources: Mapping[Any, Any]
    admission: Admission
    notebook: Notebook


class Attempt:
    """Run one claimed execution once.

    Args:
        function: its code.
        execution: as it was claimed.
        recorded: its steps that are in the store.
        around: what the worker shares.
        batch: the executions that this one runs for, its own first; empty for itself alone.
    """

    def __init__(
        self,
        function: Function[Any, Any],
        execution: Execution,
        recorded: Sequence[StepRecord],
        around: Surroundings,
        batch: Sequence[Execution] = (),
    ) -> None:
        self.function = function
        self.execution = execution
        self.batch = batch
        self.started_at = around.journal.clock.now()
        self.book = StepBook(
            execution,
            {step.step_id: step for step in recorded},
            around.plugins,
            around.journal.clock,
            max_payload=around.settings.max_payload,
            max_steps=around.settings.max_steps,
            notebook=around.notebook,
            on_change=function.on_change,
        )
        self._around = around
        self._steps: Steps | None = None
        self._task: asyncio.Task[Any] | None = None
        self._is_interrupted = False

    def stop(self, signal: ControlSignal, *, now: bool) -> None:
        """Unwind at the next step call; with `now`, also interrupt the code that runs.

        A thread cannot be interrupted: it is left behind and records nothing more.
        """
        self.book.stop(signal)
        if now and not self._is_interrupted and self._task is not None:
            self.book.signal = signal
            self._is_interrupted = True
            self._task.cancel()

    def _interrupt(self, signal: ControlSignal) -> None:
        self.stop(signal, now=True)

    async def run(self) -> Outcome | None:
        """Run the function and return how it ended; None where another claim has it now."""
        if self.book.signal is not None:  # it came while the attempt waited to begin
            self.book.was_raised = True
            return self._outcome(None, None)
        task = self._task = asyncio.current_task()
        assert task is not None
        error: BaseException | None = None
        payload: str | None = None
        try:
            async with Deadline(self.book, self.started_at, self._interrupt):
                if not self.book.undos.are_over:
                    payload = await self._run_code()
        except asyncio.CancelledError as cancelled:
            if not self._is_interrupted:
                error = WorchflowError("the function cancelled itself")
                error.__cause__ = cancelled
        except BaseException as raised:  # user code may raise anything; the worker goes on
            error = raised
        # User code may have swallowed it: what comes later is not to be taken for interrupted.
        while task.cancelling():
            task.uncancel()
        self._task = None
        await self._finish_steps()
        outcome = self._outcome(error, payload)
        if outcome is not None and self._is_to_undo(outcome):
            outcome = await self._undo(outcome)
        self.book.close()
        if self._around.notebook.is_open(self.execution.id):
            await self._around.notebook.close(self.execution.id)
        return outcome

    async def _run_code(self) -> str:
        function, execution, around = self.function, self.execution, self._around
        batch = tuple(_event_of(item, function) for item in self.batch)
        event = _event_of(execution, function, batch)
        resources = {name: around.resources[opener] for name, opener in function.resources.items()}
        if not around.plugins.wraps("worchflow_execution_scope"):
            result = await self._call(event, resources)
        else:
            async with AsyncExitStack() as stack:
                for scope in around.plugins.execution_scopes(execution):
                    await stack.enter_async_context(scope)
                result = await self._call(event, resources)
        if inspect.iscoroutine(result):
            result.close()
            raise NonRetriable("the function returned a coroutine; put await before it")
        payload, _ = function.result_codec.encode(result, limit=around.settings.max_payload)
        return payload

    async def _call(self, event: Event[Any], resources: Mapping[str, Any]) -> Any:
        around = self._around
        control = Control(
            self.book,
            around.journal,
            around.registry,
            around.subscriptions,
            around.lease,
            around.settings.max_payload,
        )
        if self.function.is_async:
            steps = self._steps = Steps(
                self.book, around.journal, around.lease, around.steps, control
            )
            return await self.function.code(event, steps, **resources)
        blocking = BlockingSteps(
            self.book, around.journal, around.lease, asyncio.get_running_loop(), control
        )
        call = self.function.code
        return await around.functions.run(lambda: call(event, blocking, **resources))

    async def _finish_steps(self) -> None:
        if self._is_interrupted:
            self.book.is_abandoned = True
            if self._steps is not None:
                await self._steps.abort()
        elif self._steps is not None:
            await self._steps.settle()

    # --- undoing --------------------------------------------------------------------------------

    def _is_to_undo(self, outcome: Outcome) -> bool:
        """Return whether what the steps did is to be taken back, or has begun to be."""
        undos = self.book.undos
        if outcome.status in (Status.QUEUED, Status.CANCELLED):
            return False  # given back, it goes on with undoing later; cancelled, it stops
        if outcome.status is not Status.FAILED or undos.are_begun:
            return undos.are_begun
        # What was cut off may have been stored unseen.
        return undos.are_due or (self._is_interrupted and undos.are_given)

    async def _undo(self, outcome: Outcome) -> Outcome | None:
        """Undo what can be undone now, and return how the attempt ends therefore."""
        book, around = self.book, self._around
        undoer = Undoer(book, around.journal, around.lease, around.steps, self.function.retry)
        was_cut_off, self._is_interrupted = self._is_interrupted, False
        book.signal = None
        book.undos.freeze()
        self._task = asyncio.current_task()
        try:
            failure = reason_of(book.recorded)
            if failure is None:
                assert outcome.failure is not None, "only a failure begins undoing"
                failure = await undoer.begin(outcome.failure)
                # Not met: stored unseen when it was cut off, or the code failed before it came
                # there. The next attempt, in which nothing new begins, may meet it.
                if was_cut_off or book.undos.missing():
                    now = around.journal.clock.now()
                    return self._of(Status.RETRYING, failure=failure, due_at=now)
            undone = await undoer.undo(failure)
        except asyncio.CancelledError:
            if not self._is_interrupted or book.signal is None:
                raise
            self._task.uncancel() if self._task is not None else None
            return self._ended_by(book.signal)
        except ControlSignal as signal:
            return self._ended_by(signal)
        except ConnectionError:
            raise
        except Exception as error:  # the store refuses what is to be recorded, say
            logger.exception("execution %s cannot be undone", book.execution.id)
            reason = reason_of(book.recorded) or outcome.failure
            return self._of(Status.FAILED, failure=undoable_no_more(reason, error), counts=True)
        finally:
            self._task = None
        if undone.again_at is not None:
            return self._of(Status.RETRYING, failure=undone.failure, due_at=undone.again_at)
        return self._of(Status.FAILED, failure=undone.failure, counts=True)

    # --- how it ended ---------------------------------------------------------------------------

    def _outcome(self, error: BaseException | None, payload: str | None) -> Outcome | None:
        book = self.book
        signals, errors = _split(error)
        if book.signal is not None and (book.was_raised or self._is_interrupted):
            signals += [*book.pauses, book.signal]
        for kind in (Superseded, Cancelled, TimedOut, Released):
            for signal in signals:
                if isinstance(signal, kind):
                    return self._ended_by(signal)
        late = book.undos.frozen
        if errors and isinstance(late, TimedOut):
            return self._ended_by(late)  # it only met its steps once more: it is not tried again
        if errors:
            return self._failed(errors[0])
        pauses = [signal for signal in signals if isinstance(signal, (Suspend, StepBackoff))]
        if pauses:
            if payload is not None and error is None:
                logger.warning(
                    "function %s swallowed the signal to pause and returned; it is paused all the "
                    "same: let BaseException pass",
                    self.function.id,
                )
            return self._paused(pauses)
        for title in book.forgotten:
            return self._failed(
                NonRetriable(f"step {title!r} was called and never awaited; put await before it")
            )
        return Outcome(
            status=Status.COMPLETED,
            result=payload,
            tries=tuple(book.tries),
            steps_recorded=len(book.recorded),
            step_failures=book.step_failures,
        )

    def _ended_by(self, signal: ControlSignal) -> Outcome | None:
        match signal:
            case Superseded():
                return None
            case Cancelled():
                return self._of(Status.CANCELLED, failure=self.execution.error)
            case TimedOut():
                limit = self.function.timeout
                reason = ExecutionTimeout(f"took longer than {limit}, its timeout")
                return self._of(Status.FAILED, failure=failure_of(reason), counts=True)
            case _:
                return self._of(Status.QUEUED, failure=self.execution.error)

    def _paused(self, pauses: Sequence[Suspend | StepBackoff]) -> Outcome:
        """Go on at the earliest moment, or event, that any branch waits for."""
        moments = [pause.wake_at for pause in pauses if pause.wake_at is not None]
        due_at = min(moments, default=None)
        backoffs = [pause for pause in pauses if isinstance(pause, StepBackoff)]
        waits = sorted(
            {key for pause in pauses if isinstance(pause, Suspend) for key in pause.waits}
        )
        status = Status.WAITING if waits else Status.SLEEPING
        failure = None
        if backoffs:
            status, failure = Status.RETRYING, min(backoffs, key=lambda item: item.wake_at).failure
        return self._of(status, failure=failure, due_at=due_at, waits=tuple(sorted(waits)))

    def _failed(self, error: BaseException) -> Outcome:
        failure = failure_of(error)
        failures = self.execution.failed_attempts + 1
        retry = self.function.retry
        members = members_of(error)
        if failures > retry.retries or any(
            is_final(member) or member is self.book.exhausted for member in members
        ):
            return self._of(Status.FAILED, failure=failure, counts=True)
        asked = [member.delay for member in members if isinstance(member, RetryAfter)]
        wait = max(asked) if asked else retry.delay(failures, random.random())
        due = self._around.journal.clock.now() + wait
        return self._of(Status.RETRYING, failure=failure, due_at=due, counts=True)

    def _of(
        self,
        status: Status,
        *,
        failure: Failure | None = None,
        due_at: datetime | None = None,
        waits: tuple[str, ...] = (),
        counts: bool = False,
    ) -> Outcome:
        book = self.book
        return Outcome(
            status=status,
            failure=failure,
            due_at=due_at,
            waits=waits,
            tries=tuple(book.tries),
            # A thread left behind may still be recording: then nobody knows the count.
            steps_recorded=None if book.is_abandoned else len(book.recorded),
            step_failures=book.step_failures,
            counts=counts,
        )


def _event_of(
    execution: Execution, function: Function[Any, Any], batch: tuple[Event[Any], ...] = ()
) -> Event[Any]:
    return Event(
        name=execution.event or execution.function,
        data=function.data_codec.decode(execution.data),
        id=execution.id,
        timestamp=execution.created_at,
        scheduled_for=execution.scheduled_for,
        tags=execution.tags,
        headers=execution.headers,
        batch=batch,
    )


def _split(error: BaseException | None) -> tuple[list[ControlSignal], list[BaseException]]:
    """Return the signals and the real errors in an exception; several errors stay one group."""
    if error is None:
        return [], []
    members = members_of(error)
    signals = [member for member in members if isinstance(member, ControlSignal)]
    errors = [member for member in members if not isinstance(member, ControlSignal)]
    return signals, [error] if len(errors) > 1 else errors
