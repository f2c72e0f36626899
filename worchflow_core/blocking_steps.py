"""The `step` of a plain function: the same steps in the function's own thread, each call blocks."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from typing import Any

from worchflow_core.control import (
    Control,
    check_wait,
    checked_moment,
    checked_watch,
    span_of,
)
from worchflow_core.durations import Duration
from worchflow_core.errors import StepTimeout
from worchflow_core.functions import Function
from worchflow_core.identities import Slot, StepCall
from worchflow_core.journal import Journal
from worchflow_core.lease import Lease
from worchflow_core.models import StepRecord
from worchflow_core.signals import ControlSignal, StepBackoff, Superseded, Suspend
from worchflow_core.speaker import running_step
from worchflow_core.step import Watch
from worchflow_core.stepbook import StepBook, wrapped
from worchflow_core.steps import StepFactsOf


class BlockingSteps(StepFactsOf):
    """Run steps for one attempt of a plain function, in its own thread; see `BlockingStep`."""

    def __init__(
        self,
        book: StepBook,
        journal: Journal,
        lease: Lease,
        loop: asyncio.AbstractEventLoop,
        control: Control,
    ) -> None:
        super().__init__(book)
        self._control = control
        self._journal = journal
        self._lease = lease
        self._loop = loop

    def run(
        self,
        title: str,
        fn: Callable[..., Any],
        *args: Any,
        key: str | None = None,
        returns: Any = None,
        retries: int | None = None,
        retry_delay: Duration | None = None,
        timeout: Duration | None = None,
        once: bool = False,
        undo: Callable[[Any], Any] | None = None,
    ) -> Any:
        """Run or replay the step and return its result."""
        call = self._book.call(
            title,
            fn,
            args,
            key=key,
            returns=returns,
            retries=retries,
            retry_delay=retry_delay,
            timeout=timeout,
            once=once,
            undo=undo,
        )
        if self._book.is_recorded(call):
            return self._book.replay(call)
        if self._book.undos.frozen is not None:
            raise self._wait(self._book.held_back(call.step_id))
        value, error = self._execute(call)
        if error is not None:
            raise self._book.pause(error) if isinstance(error, StepBackoff) else error
        return value

    def __call__(self, title: str, **options: Any) -> Callable[[Callable[[], Any]], Any]:
        """Run the decorated nested function as a step."""
        return lambda fn: self.run(title, fn, **options)

    def sleep(self, title: str, duration: Duration, *, key: str | None = None) -> Any:
        """Fix now when to go on; see `Step.sleep`."""
        slot = self._book.enter(title, key, "sleep")
        span = span_of(title, duration) or timedelta(0)
        return self._kept(slot, self._control.sleep, self._book.clock.now() + span)

    def sleep_until(self, title: str, moment: datetime, *, key: str | None = None) -> Any:
        """Go on at a moment; see `Step.sleep_until`."""
        slot = self._book.enter(title, key, "sleep")
        return self._kept(slot, self._control.sleep, checked_moment(title, moment))

    def wait_for_event(
        self,
        title: str,
        name: str,
        *,
        match: Mapping[str, Any] | None = None,
        timeout: Duration | None = None,
        on_timeout: str = "none",
        key: str | None = None,
    ) -> Any:
        """Wait for an event of a name; see `Step.wait_for_event`."""
        watch = checked_watch(title, name, match)
        return self.wait_for_any(title, watch, timeout=timeout, on_timeout=on_timeout, key=key)

    def wait_for_any(
        self,
        title: str,
        *watches: Watch,
        timeout: Duration | None = None,
        on_timeout: str = "none",
        key: str | None = None,
    ) -> Any:
        """Wait for the first of several events; see `Step.wait_for_any`."""
        slot = self._book.enter(title, key, "wait")
        check_wait(title, watches, on_timeout)
        span = span_of(title, timeout)
        return self._kept(slot, self._control.wait, watches, span, on_timeout)

    def send_event(self, title: str, name: str, data: Any = None, *, key: str | None = None) -> Any:
        """Send an event once; see `Step.send_event`."""
        slot = self._book.enter(title, key, "send")
        return self._kept(slot, self._control.send_event, name, data)

    def invoke(
        self,
        title: str,
        function: Function[Any, Any] | str,
        data: Any = None,
        *,
        timeout: Duration | None = None,
        key: str | None = None,
    ) -> Any:
        """Run a function as a child execution; see `Step.invoke`."""
        slot = self._book.enter(title, key, "invoke")
        span = span_of(title, timeout)
        return self._kept(slot, self._control.invoke, function, data, span)

    def map(
        self, title: str, fn: Callable[[Any], Any], items: Iterable[Any], **options: Any
    ) -> list[Any]:
        """Run `fn(item)` as a step for each item, one after the other; see `BlockingStep.map`."""
        chosen = list(items)
        return [
            self.run(
                f"{title} {number} of {len(chosen)}",
                fn,
                item,
                key=f"{title}[{number}]",
                **options,
            )
            for number, item in enumerate(chosen, 1)
        ]

    def _execute(self, call: StepCall) -> tuple[Any, BaseException | None]:
        book = self._book
        started_at = book.clock.now()
        token = running_step.set((book.execution.id, call.step_id, call.title))
        book.current = call.title
        try:
            if call.once:
                start = book.start_of(call, started_at)
                stands = self._record(start)
                if stands != start:
                    book.recorded[call.step_id] = stands
                    return book.replay(call), None
            value = self._invoke(call)
            payload, seen = book.encode(call, value)
            stands = self._record(book.record_of(call, payload, started_at))
            book.recorded[call.step_id] = stands
            known = seen if stands.result == payload else book.decode(call, stands)
            book.done(call, stands)
            return known, None
        except ControlSignal as signal:
            book.stop(signal)
            book.was_raised = True
            return None, signal
        except Exception as error:
            return None, book.failed(call, error, started_at)
        except BaseException as error:
            return None, book.failed(call, wrapped(call, error), started_at)
        finally:
            running_step.reset(token)
            book.current = None

    def _record(self, step: StepRecord) -> StepRecord:
        if self._book.is_abandoned:
            raise Superseded("nobody waits for this attempt any more")
        stands: StepRecord | None = self._wait(
            self._journal.record(self._book.execution, step, self._lease)
        )
        if stands is None:
            raise Superseded("a newer claim has this execution")
        return stands

    def _invoke(self, call: StepCall) -> Any:
        book = self._book
        scopes = (
            book.plugins.step_scopes(book.execution, call.title)
            if book.plugins.wraps("worchflow_step_scope")
            else []
        )
        stack = AsyncExitStack()
        try:
            for scope in scopes:
                self._wait(stack.enter_async_context(scope))
            began = book.clock.now()
            value = call.code(*call.args)
            if inspect.isawaitable(value):
                value = self._wait(_awaited(value))
        except BaseException as error:
            if scopes:
                self._wait(stack.__aexit__(type(error), error, error.__traceback__))
            raise
        if scopes:
            self._wait(stack.aclose())
        # Code in this thread cannot be interrupted; it is told afterwards that it took too long.
        if call.timeout is not None and book.clock.now() - began > call.timeout:
            raise StepTimeout(
                f"step {call.title!r} took longer than {call.timeout.total_seconds():g} s"
            )
        return value

    def _kept(
        self, slot: Slot, perform: Callable[..., Coroutine[Any, Any, Any]], *args: Any
    ) -> Any:
        book = self._book
        if book.undos.frozen is not None and slot.step_id not in book.recorded:
            raise self._wait(book.held_back(slot.step_id))
        if slot.is_adopted:
            return book.adopted(slot)
        try:
            return self._wait(perform(slot, *args))
        except Suspend as signal:
            raise book.pause(signal) from None

    def _wait(self, call: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()


async def _awaited(value: Any) -> Any:
    return await value
