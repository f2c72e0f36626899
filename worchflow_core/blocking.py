"""The blocking twin of the client, for Flask, Django and scripts: it wraps, it does not repeat."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Sequence
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, cast, overload

from worchflow_core.app import Worchflow
from worchflow_core.client import Client
from worchflow_core.errors import WorchflowError
from worchflow_core.functions import Function
from worchflow_core.handles import ExecutionHandle
from worchflow_core.models import Execution, StepRecord
from worchflow_core.sending import Send, SentEvent

P = ParamSpec("P")
R = TypeVar("R")
DataT = TypeVar("DataT")
ResultT = TypeVar("ResultT")


def _blocking(
    method: Callable[Concatenate[Client, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[BlockingClient, P], R]:
    def call(self: BlockingClient, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.wait_for(method(self.client, *args, **kwargs))

    call.__name__ = method.__name__
    call.__doc__ = method.__doc__
    return call


class BlockingHandle(Generic[ResultT]):
    """An execution that was sent, as blocking code asks for its result."""

    def __init__(self, client: BlockingClient, handle: ExecutionHandle[ResultT]) -> None:
        self._client = client
        self._handle = handle
        self.id = handle.id
        self.function = handle.function
        self.is_new = handle.is_new

    def __repr__(self) -> str:
        return f"BlockingHandle({self.id!r})"

    def result(self, timeout: float | None = None) -> ResultT:
        """Return what the function returned, once it has; see `Client.result`."""
        return self._client.wait_for(self._handle.result(timeout))

    def get(self) -> Execution:
        """Return the execution as it is now."""
        return self._client.wait_for(self._handle.get())

    def steps(self) -> Sequence[StepRecord]:
        """Return the steps recorded so far."""
        return self._client.wait_for(self._handle.steps())

    def cancel(self) -> Execution:
        """Cancel it; see `Client.cancel`."""
        return self._client.wait_for(self._handle.cancel())

    def retry(self) -> Execution:
        """Queue it again; see `Client.retry`."""
        return self._client.wait_for(self._handle.retry())


class BlockingClient:
    """Send events and work with executions from code that has no event loop.

    `with BlockingClient() as client: client.send("process-payment", {...}).result(timeout=30)`.
    The application runs in a thread of its own; one client may be shared by many threads.

    Args:
        app: an application that is not open yet; built from the environment if left out.
    """

    def __init__(self, app: Worchflow | None = None) -> None:
        self._app = app or Worchflow()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        ready = threading.Event()

        def run() -> None:
            with asyncio.Runner() as runner:
                self._loop = runner.get_loop()
                self._loop.call_soon(ready.set)
                self._loop.run_forever()

        self._thread = threading.Thread(target=run, name="worchflow-client", daemon=True)
        self._thread.start()
        ready.wait()
        try:
            self.wait_for(self._app.__aenter__())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.wait_for(self._app.__aexit__(exc_type, exc, traceback))
        finally:
            self._stop()

    @property
    def client(self) -> Client:
        """The client that does the work."""
        return self._app.client

    def wait_for(self, call: Coroutine[Any, Any, R]) -> R:
        """Run a coroutine of the application in its thread and return its result."""
        if self._loop is None:
            call.close()
            raise WorchflowError("the client is not open; use it in `with BlockingClient()`")
        future = asyncio.run_coroutine_threadsafe(call, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    @overload
    def send(
        self, function: Function[DataT, ResultT], data: DataT, **options: Any
    ) -> BlockingHandle[ResultT]: ...

    @overload
    def send(self, function: str, data: Any = None, **options: Any) -> BlockingHandle[Any]: ...

    def send(
        self, function: Function[Any, Any] | str, data: Any = None, **options: Any
    ) -> BlockingHandle[Any]:
        """Send an event; the options are those of `Client.send`."""
        handle = self.wait_for(self.client.send(cast(str, function), data, **options))
        return BlockingHandle(self, handle)

    def send_many(self, events: Iterable[Send]) -> list[BlockingHandle[Any]]:
        """Send many events in few round trips; see `Client.send_many`."""
        handles = self.wait_for(self.client.send_many(events))
        return [BlockingHandle(self, handle) for handle in handles]

    def send_event(
        self, name: str, data: Any = None, **options: Any
    ) -> SentEvent[BlockingHandle[Any]]:
        """Send an event to all who subscribe to it or wait for it; see `Client.send_event`."""
        sent = self.wait_for(self.client.send_event(name, data, **options))
        handles = tuple(BlockingHandle(self, handle) for handle in sent.executions)
        return SentEvent(id=sent.id, name=sent.name, executions=handles)

    subscribers = _blocking(Client.subscribers)
    signal = _blocking(Client.signal)
    get = _blocking(Client.get)
    steps = _blocking(Client.steps)
    notes = _blocking(Client.notes)
    explain = _blocking(Client.explain)
    find = _blocking(Client.find)
    stats = _blocking(Client.stats)
    tally = _blocking(Client.tally)
    workers = _blocking(Client.workers)
    functions = _blocking(Client.functions)
    forget_function = _blocking(Client.forget_function)
    schedules = _blocking(Client.schedules)
    schedule_runs = _blocking(Client.schedule_runs)
    wait = _blocking(Client.wait)
    result = _blocking(Client.result)
    cancel = _blocking(Client.cancel)
    retry = _blocking(Client.retry)
    delete = _blocking(Client.delete)
    cancel_many = _blocking(Client.cancel_many)
    retry_many = _blocking(Client.retry_many)
    delete_many = _blocking(Client.delete_many)
    cancel_matching = _blocking(Client.cancel_matching)
    retry_matching = _blocking(Client.retry_matching)
    delete_matching = _blocking(Client.delete_matching)
    drain = _blocking(Client.drain)
    mirrored = _blocking(Client.mirrored)
    check = _blocking(Client.check)
    scheduler = _blocking(Client.scheduler)
    pause_function = _blocking(Client.pause_function)
    resume_function = _blocking(Client.resume_function)
    paused_functions = _blocking(Client.paused_functions)
    pause_schedule = _blocking(Client.pause_schedule)
    resume_schedule = _blocking(Client.resume_schedule)

    def run_schedule_now(self, function_id: str) -> BlockingHandle[Any]:
        """Create an execution as the schedule would; see `Client.run_schedule_now`."""
        return BlockingHandle(self, self.wait_for(self.client.run_schedule_now(function_id)))

    def fork(self, execution_id: str, **options: Any) -> BlockingHandle[Any]:
        """Run an execution again from one of its steps, as a new one; see `Client.fork`."""
        return BlockingHandle(self, self.wait_for(self.client.fork(execution_id, **options)))

    def _stop(self) -> None:
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop = self._thread = None
