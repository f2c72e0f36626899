"""Signals that stop: the first drains, the second stops now, the third leaves at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from worchflow_core.cli import exits, output


class Stopper:
    """Count requests to stop, and hand each on.

    Attributes:
        count: how often it was asked.
        asked: set at the first.
        by: the name of the signal that came first.
    """

    def __init__(self) -> None:
        self.count = 0
        self.asked = asyncio.Event()
        self.by = ""
        self._listener: Callable[[int], None] | None = None

    def listen(self, listener: Callable[[int], None]) -> None:
        """Call `listener` with the number of requests, now if there were any, and at each."""
        self._listener = listener
        if self.count:
            listener(self.count)

    def stop(self, name: str = "") -> None:
        """Ask to stop once more."""
        self.count += 1
        self.by = self.by or name
        if self.count > 2:
            os._exit(exits.INTERRUPTED)
        if self.count == 1 and name == "SIGINT":
            output.say("stopping when running steps have ended; Ctrl-C again stops now")
        self.asked.set()
        if self._listener is not None:
            self._listener(self.count)


@asynccontextmanager
async def stoppable() -> AsyncIterator[Stopper]:
    """Turn SIGINT and SIGTERM into requests to stop while inside."""
    stopper = Stopper()
    loop = asyncio.get_running_loop()
    names = (signal.SIGINT, signal.SIGTERM)
    for name in names:
        loop.add_signal_handler(name, stopper.stop, name.name)
    try:
        yield stopper
    finally:
        for name in names:
            loop.remove_signal_handler(name)
