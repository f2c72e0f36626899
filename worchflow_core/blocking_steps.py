"""The `step` of a plain function: the same steps in the function's own thread, each call blocks."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

from worchflow_core.durations import Duration
from worchflow_core.errors import StepTimeout
from worchflow_core.journal import Journal
from worchflow_core.lease import Lease
from worchflow_core.models import StepRecord
from worchflow_core.signals import ControlSignal, Superseded
from worchflow_core.stepbook import StepBook, StepCall, running_step, wrapped
from worchflow_core.steps import StepFactsOf


class BlockingSteps(StepFactsOf):
    """Run steps for one attempt of a plain function, in its own thread; see `BlockingStep`."""

    def __init__(
        self,
        book: StepBook,
        journal: Journal,
        lease: Lease,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(book)
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
        )
        if self._book.is_recorded(call):
            return self._book.replay(call)
        value, error = self._execute(call)
        if error is not None:
            raise error
        return value

    def __call__(self, title: str, **options: Any) -> Callable[[Callable[[], Any]], Any]:
        """Run the decorated nested function as a step."""
        return lambda fn: self.run(title, fn, **options)

    def _execute(self, call: StepCall) -> tuple[Any, BaseException | None]:
        book = self._book
        started_at = book.clock.now()
        token = running_step.set((book.execution.id, call.step_id))
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
            return (seen if stands.result == payload else book.decode(call, stands)), None
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
        scopes = book.plugins.step_scopes(book.execution, call.title)
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

    def _wait(self, call: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()


async def _awaited(value: Any) -> Any:
    return await value
