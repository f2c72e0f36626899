"""One attempt's steps: their identities, what is recorded, what failed, and why to stop.

Shared by the async and the blocking face of `step`; it decides, they act.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import random
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any

from worchflow_core.annotations import declared_result
from worchflow_core.branches import Branches
from worchflow_core.clock import Clock
from worchflow_core.codec import Codec
from worchflow_core.drift import Drift, OnChange, plain_value
from worchflow_core.durations import Duration, parse_duration
from worchflow_core.errors import (
    InvalidInput,
    NonDeterminismError,
    NonRetriable,
    RetryAfter,
    StepOutcomeUnknown,
    WorchflowError,
)
from worchflow_core.failures import failure_of, is_final, message_of
from worchflow_core.identities import DEADLINE, UNDOABLE, Identities, Slot, StepCall
from worchflow_core.models import Execution, Payload, StepRecord, StepStatus, StepTry
from worchflow_core.notebook import Notebook
from worchflow_core.plugins import Plugins
from worchflow_core.retries import make_retry_policy
from worchflow_core.signals import ControlSignal, StepBackoff, Superseded, Suspend
from worchflow_core.speaker import Speaker, running_step
from worchflow_core.step import Watch
from worchflow_core.steprecords import recorded_step
from worchflow_core.undos import Undo, Undos, is_kept


class StepBook:
    """What one attempt knows of its steps.

    Attributes:
        execution: as it was claimed.
        recorded: the steps that stand in the store, by id.
        tries: steps that failed in this attempt.
        step_failures: failures per step id, for steps with their own retries.
        signal: why every further step call has to unwind; None while all is well.
        pauses: what the branches wait for; the earliest of all wakes the execution.
        was_raised: the signal has reached user code.
        is_abandoned: nobody waits for this attempt any more; a thread of it must record nothing.
        exhausted: the error of a step whose own retries are used up.
        current: the title of the step that began last and still runs, for people.
        branches: which of its branches are at work.
        watches, children: what it waits for, to be looked at once more afterwards.
        identities: the steps that were called so far.
        speaker: what it says of itself for people.
        drift: what becomes of stored steps that no longer fit.
        undos: what takes back the steps that this attempt has met, and whether others may begin.
        looking, taken: the events that waits of this execution have received.
        pending: steps that were called and not yet awaited, by id.
    """

    def __init__(
        self,
        execution: Execution,
        recorded: dict[str, StepRecord],
        plugins: Plugins,
        clock: Clock,
        *,
        max_payload: int,
        max_steps: int,
        notebook: Notebook,
        on_change: OnChange = OnChange.FAIL,
    ) -> None:
        self.execution = execution
        self.recorded = recorded
        self.drift = Drift(execution.id, recorded, on_change)
        self.tries: list[StepTry] = []
        self.step_failures = dict(execution.step_failures)
        self.signal: ControlSignal | None = None
        self.pauses: list[Suspend | StepBackoff] = []
        self.was_raised = False
        self.is_abandoned = False
        self.exhausted: BaseException | None = None
        self.current: str | None = None
        self.pending: dict[str, tuple[str, Coroutine[Any, Any, Any]]] = {}
        self.watches: list[Watch] = []
        self.children: set[str] = set()
        self.branches = Branches()
        self.undos = Undos(execution, recorded)
        self.looking = asyncio.Lock()
        self.taken = {
            str(json.loads(step.result or "{}").get("event"))
            for step in recorded.values()
            if step.kind == "wait"
        }
        self.clock = clock
        self.plugins = plugins
        self.speaker = Speaker(execution, recorded, notebook, clock)
        self._max_payload = max_payload
        self._max_steps = max_steps
        self.identities = Identities()

    # --- identity -------------------------------------------------------------------------------

    def call(
        self,
        title: str,
        code: Callable[..., Any],
        args: tuple[Any, ...],
        *,
        key: str | None,
        returns: Any,
        retries: int | None,
        retry_delay: Duration | None,
        timeout: Duration | None,
        once: bool,
        undo: Callable[[Any], Any] | None = None,
    ) -> StepCall:
        """Fix the identity of a step at the moment it is called.

        Raises:
            ControlSignal: the attempt has to unwind.
            NonRetriable: nested steps, a title used by two tasks, or too many steps.
            NonDeterminismError: another step stands under this identity, or a `once` step would
                have to run anew.
            InvalidInput: title, key or an option cannot be taken.
        """
        if not callable(code):
            if inspect.iscoroutine(code):
                code.close()  # it will never be awaited, which Python would warn of
            raise InvalidInput(
                f"step {title!r} was given {type(code).__name__} instead of a function; write "
                "step.run(title, fn, arg) without calling fn"
            )
        if undo is not None:
            self.undos.expect(title, undo)
        slot = self.enter(title, key)
        policy = None
        if retries is not None or retry_delay is not None:
            policy = _option(title, make_retry_policy, retries, retry_delay)
        span = None if timeout is None else _option(title, parse_duration, timeout)
        declared = declared_result(code) if returns is None else returns
        codec = Codec(declared, f"result of step {title!r}")
        fitting = self.drift.renewed(slot, codec)
        if once and fitting is not slot:
            raise NonDeterminismError(
                f"the stored result of step {title!r} no longer fits the code, and it is to run "
                "once; give it a type that takes both"
            )
        return StepCall(
            step_id=fitting.step_id,
            title=title,
            code=code,
            args=args,
            codec=codec,
            seq=slot.seq,
            policy=policy,
            timeout=span,
            once=once,
            undo=undo,
        )

    def enter(self, title: str, key: str | None, kind: str = "run") -> Slot:
        """Fix the identity of a step, of any kind, at the moment it is called.

        Raises:
            ControlSignal: the attempt has to unwind.
            NonRetriable: nested steps, a title used by two tasks, or too many steps.
            NonDeterminismError: another step stands under this identity.
            InvalidInput: title or key cannot be taken.
        """
        self.check()
        inside = running_step.get()
        if inside is not None and inside[0] == self.execution.id:
            raise NonRetriable(
                f"step {title!r} was called inside another step; a step's code is not replayed "
                "piece by piece: call both from the function itself"
            )
        slot = self.identities.slot(title, key)
        if slot.seq > self._max_steps:
            raise NonRetriable(
                f"more than {self._max_steps:,} steps in one execution (WORCHFLOW_MAX_STEPS); "
                "split the work into executions of their own"
            )
        self.speaker.met(slot.step_id)
        return self.drift.placed(slot, key, kind) if slot.step_id in self.recorded else slot

    # --- signals --------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise the signal, if there is one: once it was given, every step call unwinds."""
        if self.signal is not None:
            self.was_raised = True
            # Else its traceback grew each time, for as long as code goes on in spite of it.
            raise self.signal.with_traceback(None)

    def stop(self, signal: ControlSignal) -> None:
        """Let the next step call unwind with `signal`; the first signal stands."""
        if self.signal is None:
            self.signal = signal
            self.branches.end()

    def pause(self, signal: Suspend | StepBackoff) -> ControlSignal:
        """Note that the only branch has to wait, and return what it is to raise."""
        if self.undos.frozen is None:
            self.pauses.append(signal)
        stopping = self.undos.frozen or signal  # frozen, nothing is waited for any more
        self.stop(stopping)
        self.was_raised = True
        return stopping

    async def hold(self, signal: Suspend | StepBackoff) -> ControlSignal:
        """Note that a branch has to wait, and return what it is to raise once all others do too."""
        if self.undos.frozen is not None:
            return await self._unwound()
        self.pauses.append(signal)
        try:
            await self.branches.until_idle()
        except asyncio.CancelledError:
            if self.signal is None:  # user code gives the branch up: nobody waits for it
                self.pauses.remove(signal)
            raise
        if self.is_abandoned:
            raise asyncio.CancelledError  # the function has ended without it
        self.stop(signal)
        self.was_raised = True
        return signal

    async def held_back(self, step_id: str, *, is_branch: bool = False) -> BaseException:
        """Return what a step raises that may not begin: what it raised before, else the signal."""
        await self.branches.until_idle()
        if (failure := self.undos.failed_before(step_id)) is not None and is_branch:
            await self.undos.until_met(lambda: self.signal is not None)
        return failure or await self._unwound()

    async def _unwound(self) -> ControlSignal:
        assert self.undos.frozen is not None, "only what may not begin is held back"
        await self.branches.until_idle()
        await self.undos.until_met(lambda: self.signal is not None)
        if self.is_abandoned:
            raise asyncio.CancelledError  # the function has ended without it
        self.stop(self.undos.frozen)
        self.was_raised = True
        return self.undos.frozen

    def close(self) -> None:
        """Let nothing more begin: the attempt has ended, whatever tasks it has left running."""
        self.signal = Superseded("this attempt has ended")
        self.is_abandoned = True
        self.branches.end()
        self.speaker.close()
        for _, call in self.pending.values():
            call.close()

    @property
    def forgotten(self) -> list[str]:
        """The titles of steps that were called and neither awaited nor cancelled."""
        return [
            title
            for title, call in self.pending.values()
            if inspect.getcoroutinestate(call) == inspect.CORO_CREATED
        ]

    # --- replay ---------------------------------------------------------------------------------

    def is_recorded(self, call: StepCall) -> bool:
        """Return whether its result, or its start, is in the store."""
        return call.step_id in self.recorded

    def replay(self, call: StepCall) -> Any:
        """Return the stored result of a step, rebuilt as its type.

        Raises:
            NonDeterminismError: the stored step does not fit the one asked for.
            StepOutcomeUnknown: it was begun and nobody knows how it ended.
        """
        stands = self.recorded[call.step_id]
        if self.drift.on_change is not OnChange.ADOPT:
            self.drift.compare(call.title, stands, "run")
        if stands.status is StepStatus.STARTED:
            raise StepOutcomeUnknown(
                f"step {call.title!r} was begun in attempt {stands.attempt} and nobody knows how "
                "it ended; look at its effect, then send the work anew"
            )
        value = self.decode(call, stands)
        if self.plugins.hears("worchflow_step_replayed"):
            self.plugins.notify("worchflow_step_replayed", execution=self.execution, step=stands)
        self.done(call, stands)
        return value

    def done(self, call: StepCall, stands: StepRecord) -> None:
        """Note what takes a step back that is recorded, if anything does."""
        if call.undo and not self.is_abandoned and not is_kept(self.execution, stands):
            slot = Slot(call.step_id, call.title, call.seq)
            self.undos.met[call.step_id] = Undo(slot, call.undo, lambda: self.decode(call, stands))

    def decode(self, call: StepCall, stands: StepRecord) -> Any:
        """Return the value of a stored step; raise `NonDeterminismError` if it no longer fits."""
        return self.drift.value(stands, call.title, call.codec)

    def adopted(self, slot: Slot) -> Any:
        """Return what a step of another kind has handed on, as plain JSON."""
        stands = self.recorded[slot.step_id]
        if self.plugins.hears("worchflow_step_replayed"):
            self.plugins.notify("worchflow_step_replayed", execution=self.execution, step=stands)
        return plain_value(stands)

    def replayed(self, slot: Slot, kind: str) -> StepRecord:
        """Return the record of a step that is not run but waited, sent or invoked."""
        stands = self.recorded[slot.step_id]
        self.drift.compare(slot.title, stands, kind)
        if kind != DEADLINE and self.plugins.hears("worchflow_step_replayed"):
            self.plugins.notify("worchflow_step_replayed", execution=self.execution, step=stands)
        return stands

    # --- results --------------------------------------------------------------------------------

    def record_of(self, call: StepCall, payload: Payload, started_at: datetime) -> StepRecord:
        """Return the record of a step that ran."""
        return recorded_step(
            self.execution,
            call,
            kind="run" if call.undo is None else UNDOABLE,
            result=payload,
            started_at=started_at,
            ended_at=self.clock.now(),
        )

    def start_of(self, call: StepCall, started_at: datetime) -> StepRecord:
        """Return the record that a `once` step is about to begin."""
        return recorded_step(
            self.execution, call, status=StepStatus.STARTED, started_at=started_at, ended_at=None
        )

    def fact(self, slot: Slot, kind: str, payload: Payload, ends: datetime | None) -> StepRecord:
        """Return the record of a step of another kind; `ends` may lie ahead, as of a sleep."""
        now = self.clock.now()
        return recorded_step(
            self.execution, slot, kind=kind, result=payload, started_at=now, ended_at=ends or now
        )

    def encode(self, call: StepCall, value: Any) -> tuple[Payload, Any]:
        """Return a step's result as JSON text, and as every later attempt will see it."""
        return call.codec.encode(value, limit=self._max_payload)

    # --- failures -------------------------------------------------------------------------------

    def failed(self, call: StepCall, error: BaseException, started_at: datetime) -> BaseException:
        """Note that a step raised, and return what user code is to see.

        A step with retries of its own has to wait, to be tried again later, until they are used
        up; then, as for any other step, its error reaches user code.
        """
        now = self.clock.now()
        failure = failure_of(error)
        step = StepTry(
            step_id=call.step_id,
            title=call.title,
            started_at=started_at,
            ended_at=now,
            error=failure,
            seq=call.seq,
        )
        self.tries.append(step)
        if self.plugins.hears("worchflow_step_failed"):
            self.plugins.notify("worchflow_step_failed", execution=self.execution, step=step)
        if call.policy is None:
            return error
        count = self.step_failures.get(call.step_id, 0) + 1
        self.step_failures[call.step_id] = count
        if count > call.policy.retries or is_final(error) or call.once:
            self.exhausted = error
            return error
        wait = (
            error.delay
            if isinstance(error, RetryAfter)
            else call.policy.delay(count, random.random())
        )
        return StepBackoff(now + wait, failure)


def wrapped(call: StepCall, error: BaseException) -> Exception:
    """Return what a step raised that is no `Exception` as one that is, so that it ends nobody."""
    wrapper = WorchflowError(
        f"step {call.title!r} raised {type(error).__name__}: {message_of(error)}"
    )
    wrapper.__cause__ = error
    return wrapper


def _option(title: str, parse: Callable[..., Any], *args: Any) -> Any:
    try:
        return parse(*args)
    except ValueError as error:
        raise InvalidInput(f"step {title!r}: {error}") from None
