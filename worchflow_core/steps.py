"""The `step` of an async function: runs step code in tasks of its own and records the results."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

from worchflow_core.durations import Duration
from worchflow_core.errors import StepTimeout, WorchflowError
from worchflow_core.journal import Journal
from worchflow_core.lease import Lease
from worchflow_core.models import StepRecord
from worchflow_core.signals import ControlSignal, Superseded
from worchflow_core.stepbook import StepBook, StepCall, running_step, wrapped
from worchflow_core.threads import ThreadPool


class StepFactsOf:
    """The facts that both faces of `step` show."""

    def __init__(self, book: StepBook) -> None:
        self._book = book

    @property
    def execution_id(self) -> str:
        """The execution this attempt belongs to."""
        return self._book.execution.id

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        return self._book.execution.failed_attempts + 1

    @property
    def idempotency_key(self) -> str:
        """The running step's key, the same on every attempt."""
        inside = running_step.get()
        if inside is None or inside[0] != self._book.execution.id:
            raise RuntimeError("step.idempotency_key is for use inside a step's code")
        return f"{inside[0]}:{inside[1]}"


class Steps(StepFactsOf):
    """Run steps for one attempt of an async function; see `worchflow_core.step.Step`."""

    def __init__(self, book: StepBook, journal: Journal, lease: Lease, pool: ThreadPool) -> None:
        super().__init__(book)
        self._journal = journal
        self._lease = lease
        self._pool = pool
        self._tasks: set[asyncio.Task[tuple[Any, BaseException | None]]] = set()
        self._is_aborted = False

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
    ) -> Coroutine[Any, Any, Any]:
        """Fix the step's identity now; run or replay it when awaited."""
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
        performing = self._perform(call)
        self._book.pending[call.step_id] = (title, performing)
        return performing

    def __call__(self, title: str, **options: Any) -> Callable[[Callable[[], Any]], Any]:
        """Run the decorated nested function as a step."""
        return lambda fn: self.run(title, fn, **options)

    async def settle(self) -> None:
        """Return once the steps still running were recorded."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def abort(self) -> None:
        """Cancel the steps still running; nothing of them is recorded."""
        self._is_aborted = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)

    async def _perform(self, call: StepCall) -> Any:
        book = self._book
        del book.pending[call.step_id]
        book.check()
        if book.is_recorded(call):
            return book.replay(call)
        # In a task of its own: a suspend or a failing sibling must not cancel code that runs.
        task = asyncio.get_running_loop().create_task(self._execute(call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        value, error = await asyncio.shield(task)
        if error is None:
            return value
        raise error

    async def _execute(self, call: StepCall) -> tuple[Any, BaseException | None]:
        """Run, record and answer; every error is returned, so that none is lost or logged twice."""
        book = self._book
        started_at = book.clock.now()
        running_step.set((book.execution.id, call.step_id))
        book.current = call.title
        try:
            if call.once:
                start = book.start_of(call, started_at)
                stands = await self._record(start)
                if stands != start:
                    book.recorded[call.step_id] = stands
                    return book.replay(call), None
            try:
                value = await self._invoke(call)
                payload, seen = book.encode(call, value)
            except asyncio.CancelledError:
                if self._is_aborted:
                    raise
                raise WorchflowError(f"step {call.title!r} cancelled itself") from None
            stands = await self._record(book.record_of(call, payload, started_at))
            book.recorded[call.step_id] = stands
            return (seen if stands.result == payload else book.decode(call, stands)), None
        except asyncio.CancelledError:
            raise
        except ControlSignal as signal:
            book.stop(signal)
            book.was_raised = True
            return None, signal
        except Exception as error:
            return None, book.failed(call, error, started_at)
        except BaseException as error:  # SystemExit and its kin must not end the worker
            return None, book.failed(call, wrapped(call, error), started_at)
        finally:
            if book.current == call.title:
                book.current = None

    async def _record(self, step: StepRecord) -> StepRecord:
        stands = await self._journal.record(self._book.execution, step, self._lease)
        if stands is None:
            raise Superseded("a newer claim has this execution")
        return stands

    async def _invoke(self, call: StepCall) -> Any:
        book = self._book
        if call.timeout is None and not book.plugins.wraps("worchflow_step_scope"):
            return await self._call(call)
        async with AsyncExitStack() as stack:
            for scope in book.plugins.step_scopes(book.execution, call.title):
                await stack.enter_async_context(scope)
            if call.timeout is None:
                return await self._call(call)
            deadline = asyncio.timeout(call.timeout.total_seconds())
            try:
                async with deadline:
                    return await self._call(call)
            except TimeoutError:
                if not deadline.expired():
                    raise
                raise StepTimeout(
                    f"step {call.title!r} took longer than {call.timeout.total_seconds():g} s"
                ) from None

    async def _call(self, call: StepCall) -> Any:
        if inspect.iscoroutinefunction(call.code):
            return await call.code(*call.args)
        future = self._pool.run(call.code, *call.args)
        try:
            value = await future
        except asyncio.CancelledError:
            if future.cancelled():
                self._pool.abandon()
            raise
        return await value if inspect.isawaitable(value) else value
