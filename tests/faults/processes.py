"""Starting worker processes quickly, and ending every one of them by its id."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from tests.faults.worker_process import Order, serve

PRELOADED = (
    "tests.faults.worker_process",
    "worchflow_core.app",
    "worchflow_core.settings",
    "worchflow_plugins.logs",
    "worchflow_plugins.memory",
    "worchflow_plugins.mongo.store",
    "worchflow_plugins.redis.queue",
    "worchflow_plugins.redis.step_cache",
    "worchflow_plugins.sqlite.store",
    "worchflow_plugins.sqlite.queue",
)
"""Imported once, by the server that forks the workers: each then starts within milliseconds."""

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(list(PRELOADED))


class WorkerProcess:
    """A process that was started from an `Order`.

    Attributes:
        name: what the test calls it.
        log_path: where all it prints goes.
    """

    def __init__(self, name: str, order: Order) -> None:
        self.name = name
        self.log_path = Path(order.log)
        self._process: ForkServerProcess = _context.Process(target=serve, args=(order,), name=name)
        self._process.start()

    @property
    def pid(self) -> int:
        """The id of the process."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet; one that is frozen has not."""
        return self._process.exitcode is None

    @property
    def has_left(self) -> bool:
        """Whether it ended in good order."""
        return self._process.exitcode == 0

    def log(self) -> str:
        """Return what it has printed."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def kill(self) -> None:
        """End it at once, SIGKILL."""
        self._signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Ask it to stop, SIGTERM."""
        self._signal(signal.SIGTERM)

    def freeze(self) -> None:
        """Let it stand still, SIGSTOP."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on, SIGCONT."""
        self._signal(signal.SIGCONT)

    async def exit_code(self, within: float = 20.0) -> int:
        """Return how it ended, minus the signal's number where one ended it."""
        try:
            await until(lambda: not self.is_running, within, f"{self.name} to end")
        except AssertionError as error:
            self._signal(signal.SIGUSR1)  # it prints what it is waiting for
            await asyncio.sleep(0.5)
            raise AssertionError(f"{error}\n{self.log()[-8000:]}") from None
        code = self._process.exitcode
        assert code is not None
        return code

    def end(self) -> None:
        """Kill it, whatever it is doing, and wait until it is gone."""
        if self.is_running:
            self.kill()
            self._process.join(10)
        self._process.close()

    def _signal(self, number: signal.Signals) -> None:
        if self.is_running:  # its id is surely still its own
            os.kill(self.pid, number)


async def until(
    is_so: Callable[[], object],
    within: float,
    what: str,
    tell: Callable[[], str] = str,
) -> None:
    """Wait until a condition holds; fail after `within` seconds, telling what is known."""
    deadline = time.monotonic() + within
    while not is_so():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {within:g} s for {what}\n{tell()[-4000:]}")
        await asyncio.sleep(0.01)
