"""Threads for plain code: daemons, so that code which never returns cannot hold up an exit."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, TypeVar

T = TypeVar("T")


class _State(Enum):
    """How far a call has come; leaked: it runs, and nobody waits for it any more."""

    WAITS = auto()
    RUNS = auto()
    LEAKED = auto()
    OVER = auto()


@dataclass(slots=True)
class _Call:
    """One call; its state changes under the pool's lock alone."""

    code: Callable[[], Any]
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    state: _State = _State.WAITS


class ThreadPool:
    """Run plain calls beside the event loop, at most `size` at once.

    A call whose caller gave up keeps its thread until it returns; another may take its room.

    Attributes:
        leaked: how many threads run a call that nobody waits for any more.
    """

    def __init__(self, size: int, name: str) -> None:
        self._size = size
        self._name = name
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._threads = 0
        self._unfinished = 0
        self._lock = threading.Lock()
        self.leaked = 0

    def run(self, call: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """Call `call(*args)` in a thread, with the caller's context variables."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        context = contextvars.copy_context()
        own = _Call(lambda: context.run(call, *args), future, loop)
        future.add_done_callback(lambda _: self._give_up(own))
        with self._lock:
            self._unfinished += 1
        self._calls.put(own)
        self._hire()
        return future

    def close(self) -> None:
        """Let idle threads end; busy ones end with their call."""
        for _ in range(self._threads):
            self._calls.put(None)

    def _hire(self) -> None:
        """Start a thread where a call waits for one and there is room."""
        with self._lock:
            room = self._size + self.leaked
            if self._unfinished <= self._threads or self._threads >= room:
                return
            self._threads += 1
            number = self._threads
        threading.Thread(
            target=self._serve, name=f"worchflow-{self._name}-{number}", daemon=True
        ).start()

    def _give_up(self, call: _Call) -> None:
        """Note that nobody waits for a call any more, if it was not answered."""
        if not call.future.cancelled():
            return
        with self._lock:
            self.leaked += call.state is _State.RUNS
            call.state = _State.LEAKED if call.state is _State.RUNS else _State.OVER
        self._hire()

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            self._perform(call)
            with self._lock:
                if self._threads > self._size + self.leaked:  # another has taken its room
                    self._threads -= 1
                    return

    def _perform(self, call: _Call) -> None:
        value, error = None, None
        with self._lock:
            # Else nobody waited long enough for a thread; the future knows of it first.
            is_wanted = call.state is _State.WAITS and not call.future.cancelled()
            call.state = _State.RUNS if is_wanted else _State.OVER
        if is_wanted:
            try:
                value = call.code()
            except BaseException as raised:
                error = raised
        with self._lock:
            self._unfinished -= 1
            self.leaked -= call.state is _State.LEAKED
            call.state = _State.OVER
        if not call.loop.is_closed():
            with contextlib.suppress(RuntimeError):  # the loop closed: nobody waits any more
                call.loop.call_soon_threadsafe(_deliver, call.future, value, error)


def _deliver(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(value)
    elif isinstance(error, (StopIteration, GeneratorExit)):  # a coroutine would take it for its own
        wrapper = RuntimeError(f"the code raised {type(error).__name__}")
        wrapper.__cause__ = error
        future.set_exception(wrapper)
    else:
        future.set_exception(error)
