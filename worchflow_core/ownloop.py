"""An event loop of one call, in the thread that runs it; others may cut it off."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_TURNS = 100
"""How many turns of the loop tasks have to end in once they were cancelled."""

_stubborn: list[asyncio.Task[Any]] = []
"""Tasks that would not end. They are kept, for Python would try to end them, and complain."""


class OwnLoop:
    """Run a coroutine to its end, or until somebody loses patience.

    Unlike `asyncio.run` it comes back from code that swallows being cancelled: its tasks are left
    as they are, and never go on.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_cut_off = False

    def run(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what `main()` returns.

        Raises:
            TimeoutError: the loop was cut off.
        """
        self._loop = loop = asyncio.new_event_loop()
        loop.set_exception_handler(_say_nothing)
        task = loop.create_task(main())
        task.add_done_callback(lambda _: loop.stop())
        try:
            if not self._is_cut_off:
                loop.run_forever()
            if not task.done():
                raise TimeoutError("it took too long")
            return task.result()
        finally:
            _end_tasks(loop)
            loop.close()

    def cut_off(self) -> None:
        """Stop the loop as soon as it turns again; from any thread, at any time."""
        self._is_cut_off = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has closed
                self._loop.call_soon_threadsafe(self._loop.stop)


def _end_tasks(loop: asyncio.AbstractEventLoop) -> None:
    for task in asyncio.all_tasks(loop):
        task.cancel()
    _turn(loop)
    loop.create_task(loop.shutdown_asyncgens())
    _turn(loop)
    _stubborn.extend(asyncio.all_tasks(loop))


def _turn(loop: asyncio.AbstractEventLoop) -> None:
    """Let the loop turn until no task is left, but not for ever."""
    for _ in range(_TURNS):
        if not asyncio.all_tasks(loop):
            return
        loop.call_soon(loop.stop)
        loop.run_forever()


def _say_nothing(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Of what code leaves behind that only was tried out nobody wants to read."""
