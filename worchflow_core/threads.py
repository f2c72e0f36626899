"""Threads for plain code: daemons, so that code which never returns cannot hold up an exit."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class ThreadPool:
    """Run plain calls beside the event loop, at most `size` at once.

    An abandoned call keeps its thread until it returns; `abandon` makes room for another.
    """

    def __init__(self, size: int, name: str) -> None:
        self._size = size
        self._name = name
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads = 0
        self._busy = 0
        self._lock = threading.Lock()
        self.abandoned = 0

    def run(self, call: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """Call `call(*args)` in a thread, with the caller's context variables."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        context = contextvars.copy_context()

        def work() -> None:
            answer: tuple[T | None, BaseException | None] = (None, None)
            try:
                if not future.cancelled():  # nobody waited long enough for a thread
                    answer = (context.run(call, *args), None)
            except BaseException as error:
                answer = (None, error)
            with self._lock:
                self._busy -= 1
            if not loop.is_closed():
                with contextlib.suppress(RuntimeError):  # the loop closed: nobody waits any more
                    loop.call_soon_threadsafe(_deliver, future, *answer)

        with self._lock:
            self._busy += 1
            needs_thread = self._busy > self._threads and self._threads < self._size
            if needs_thread:
                self._threads += 1
        self._calls.put(work)
        if needs_thread:
            number = self._threads
            threading.Thread(
                target=self._serve, name=f"worchflow-{self._name}-{number}", daemon=True
            ).start()
        return future

    def abandon(self) -> None:
        """Note that nobody waits for a running call any more; another thread may take its room."""
        self.abandoned += 1
        self._size += 1

    def close(self) -> None:
        """Let idle threads end; busy ones end with their call."""
        for _ in range(self._threads):
            self._calls.put(None)

    def _serve(self) -> None:
        while (work := self._calls.get()) is not None:
            work()


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
