"""The `step` of an async function: runs step code in tasks of its own and records the results."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from typing import Any

from worchflow_core.annotations import is_async
from worchflow_core.control import (
    Control,
    check_wait,
    checked_moment,
    checked_watch,
    span_of,
)
from worchflow_core.durations import Duration
from worchflow_core.errors import InvalidInput, StepTimeout, WorchflowError
from worchflow_core.functions import Function
from worchflow_core.identities import Slot, StepCall
from worchflow_core.journal import Journal
from worchflow_core.lease import Lease
from worchflow_core.models import StepRecord
from worchflow_core.signals import ControlSignal, StepBackoff, Superseded, Suspend
from worchflow_core.speaker import running_step
from worchflow_core.step import Watch
from worchflow_core.stepbook import StepBook, wrapped
from worchflow_core.threads import ThreadPool

_Answer = tuple[Any, BaseException | None]


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

    def progress(self, done: float, total: float | None = None, note: str | None = None) -> None:
        """Say how far the execution is; see `StepFacts.progress`."""
        self._book.speaker.progress(done, total, note)

    def log(self, text: str, **fields: Any) -> None:
        """Say something for people to read; see `StepFacts.log`."""
        self._book.speaker.log(text, fields)


class Steps(StepFactsOf):
    """Run steps for one attempt of an async function; see `worchflow_core.step.Step`."""

    def __init__(
        self,
        book: StepBook,
        journal: Journal,
        lease: Lease,
        pool: ThreadPool,
        control: Control,
    ) -> None:
        super().__init__(book)
        self._control = control
        self._journal = journal
        self._lease = lease
        self._pool = pool
        self._tasks: dict[asyncio.Task[None], asyncio.Future[_Answer]] = {}
        self._is_aborted = False
        self._home = asyncio.current_task()

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
            undo=undo,
        )
        performing = self._perform(call)
        self._book.pending[call.step_id] = (title, performing)
        return performing

    def __call__(self, title: str, **options: Any) -> Callable[[Callable[[], Any]], Any]:
        """Run the decorated nested function as a step."""
        return lambda fn: self.run(title, fn, **options)

    def sleep(
        self, title: str, duration: Duration, *, key: str | None = None
    ) -> Coroutine[Any, Any, Any]:
        """Fix now when to go on; see `Step.sleep`."""
        slot = self._book.enter(title, key, "sleep")
        span = span_of(title, duration) or timedelta(0)
        return self._kept(slot, self._control.sleep, self._book.clock.now() + span)

    def sleep_until(
        self, title: str, moment: datetime, *, key: str | None = None
    ) -> Coroutine[Any, Any, Any]:
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
    ) -> Coroutine[Any, Any, Any]:
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
    ) -> Coroutine[Any, Any, Any]:
        """Wait for the first of several events; see `Step.wait_for_any`."""
        slot = self._book.enter(title, key, "wait")
        check_wait(title, watches, on_timeout)
        span = span_of(title, timeout)
        return self._kept(slot, self._control.wait, watches, span, on_timeout)

    def send_event(
        self, title: str, name: str, data: Any = None, *, key: str | None = None
    ) -> Coroutine[Any, Any, Any]:
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
    ) -> Coroutine[Any, Any, Any]:
        """Run a function as a child execution; see `Step.invoke`."""
        slot = self._book.enter(title, key, "invoke")
        span = span_of(title, timeout)
        return self._kept(slot, self._control.invoke, function, data, span)

    async def map(
        self,
        title: str,
        fn: Callable[[Any], Any],
        items: Iterable[Any],
        *,
        concurrency: int | None = None,
        **options: Any,
    ) -> list[Any]:
        """Run `fn(item)` as a step for each item; see `Step.map`."""
        chosen = list(items)
        if concurrency is not None and (isinstance(concurrency, bool) or concurrency < 1):
            raise InvalidInput(f"step {title!r}: concurrency is {concurrency!r}; give 1 or more")
        room = asyncio.Semaphore(concurrency or max(1, len(chosen)))

        async def one(number: int, item: Any) -> Any:
            async with room:
                name = f"{title} {number} of {len(chosen)}"
                return await self.run(name, fn, item, key=f"{title}[{number}]", **options)

        return await asyncio.gather(*(one(number, item) for number, item in enumerate(chosen, 1)))

    def _kept(
        self, slot: Slot, perform: Callable[..., Coroutine[Any, Any, Any]], *args: Any
    ) -> Coroutine[Any, Any, Any]:
        """Note a call that is not awaited yet, so that one that is forgotten is told of."""
        performing = self._awaited(slot, perform, *args)
        self._book.pending[slot.step_id] = (slot.title, performing)
        return performing

    async def _awaited(
        self, slot: Slot, perform: Callable[..., Coroutine[Any, Any, Any]], *args: Any
    ) -> Any:
        book = self._book
        del book.pending[slot.step_id]
        book.check()
        if book.undos.frozen is not None and slot.step_id not in book.recorded:
            raise await book.held_back(slot.step_id, is_branch=self._is_branch)
        if slot.is_adopted:
            return book.adopted(slot)
        book.branches.begin()
        try:
            return await perform(slot, *args)
        except Suspend as signal:
            pause = signal
        finally:
            book.branches.done()
        raise await book.hold(pause)

    @property
    def _is_branch(self) -> bool:
        """Whether it is not the function's own task that runs here."""
        return asyncio.current_task() is not self._home

    async def settle(self) -> None:
        """Return once the steps still running were recorded."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def abort(self) -> None:
        """Cancel the steps still running; nothing of them is recorded."""
        self._is_aborted = True
        left = dict(self._tasks)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=1.0)
        for answer in left.values():
            answer.cancel()  # a task that was cancelled before it began has told nobody

    async def _perform(self, call: StepCall) -> Any:
        book = self._book
        del book.pending[call.step_id]
        book.check()
        if book.undos.frozen is not None and not book.is_recorded(call):
            raise await book.held_back(call.step_id, is_branch=self._is_branch)
        book.branches.begin()
        try:
            if book.is_recorded(call):
                return book.replay(call)
            # In a task of its own: a suspend or a failing sibling must not cancel code that runs.
            # It answers into a future, which may be cancelled: `shield` takes twice the turns.
            loop = asyncio.get_running_loop()
            answer: asyncio.Future[_Answer] = loop.create_future()
            self._tasks[loop.create_task(self._answer(call, answer))] = answer
            value, error = await answer
        finally:
            book.branches.done()
        if error is None:
            return value
        raise await book.hold(error) if isinstance(error, StepBackoff) else error

    async def _answer(self, call: StepCall, answer: asyncio.Future[_Answer]) -> None:
        """Execute a step, in a task of its own, and answer unless nobody waits any more."""
        try:
            found = await self._execute(call)
            if not answer.done():
                answer.set_result(found)
        finally:
            answer.cancel()  # does nothing to one that was answered
            task = asyncio.current_task()
            assert task is not None
            self._tasks.pop(task, None)

    async def _execute(self, call: StepCall) -> _Answer:
        """Run, record and answer; every error is returned, so that none is lost or logged twice."""
        book = self._book
        started_at = book.clock.now()
        running_step.set((book.execution.id, call.step_id, call.title))
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
            known = seen if stands.result == payload else book.decode(call, stands)
            book.done(call, stands)
            return known, None
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
        is_wrapped = book.plugins.wraps("worchflow_step_scope")
        if call.timeout is None and not is_wrapped:
            return await self._call(call)
        async with AsyncExitStack() as stack:
            for scope in book.plugins.step_scopes(book.execution, call.title) if is_wrapped else ():
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
        if is_async(call.code):
            return await call.code(*call.args)
        value = await self._pool.run(call.code, *call.args)
        return await value if inspect.isawaitable(value) else value
