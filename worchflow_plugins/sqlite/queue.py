"""The queue beside the file: it keeps no hints, it only wakes those who wait."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Self

from worchflow_core import Execution, Finding, Hint, QueueView
from worchflow_plugins.sqlite.place import path_of
from worchflow_plugins.sqlite.sockets import Ear, Poker


class SqliteQueue:
    """Wakes the workers of one database file, in this process and in others.

    Args:
        path: the file, or a URL of the scheme `sqlite:`; it is never opened here.
    """

    keeps_hints = False

    def __init__(self, path: str) -> None:
        self.path = path_of(path)
        self._poker = Poker(self.path)
        self._ear: Ear | None = None
        self._waiting: set[asyncio.Event] = set()

    async def __aenter__(self) -> Self:
        """Do nothing yet: only those who wait need a socket."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close and remove the socket."""
        self._poker.close()
        if self._ear is not None:
            self._ear.close()
            self._ear = None

    def describe(self) -> str:
        """Return kind and place."""
        return f"sqlite  wakes the workers of {self.path}"

    async def check(self) -> Sequence[Finding]:
        """Return whether a socket can be had."""
        try:
            Ear(self.path).close()
        except OSError as error:
            text = f"workers of {self.path} cannot be woken ({error}) and find work by polling"
            return [Finding(level="warning", subject="sqlite queue", text=text)]
        return [Finding(level="ok", subject="sqlite queue", text="workers are woken by sockets")]

    async def push(self, hints: Sequence[Hint]) -> None:
        """Wake all workers; they claim from the store."""
        if hints:
            self._poker.poke()

    async def pop(
        self, functions: Collection[str], *, limit: int, wait: timedelta
    ) -> Sequence[str]:
        """Return nothing, as soon as somebody pokes and at the latest after `wait`."""
        ear = self._listen()
        if ear is None:
            await asyncio.sleep(wait.total_seconds())
            return ()
        if ear.listen() or wait <= timedelta(0):
            return ()
        poked = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(ear.fileno(), self._poked)
        self._waiting.add(poked)
        try:
            async with asyncio.timeout(wait.total_seconds()):
                await poked.wait()
        except TimeoutError:
            return ()
        finally:
            self._waiting.discard(poked)
            if not self._waiting:
                loop.remove_reader(ear.fileno())
        return ()

    def _poked(self) -> None:
        if self._ear is not None:
            self._ear.listen()
        for poked in self._waiting:
            poked.set()

    def _listen(self) -> Ear | None:
        """Return this worker's socket, bound at its first wait; None where none can be had."""
        if self._ear is None:
            try:
                self._ear = Ear(self.path)
            except OSError:
                return None
        return self._ear

    async def mirror(self, executions: Sequence[Execution]) -> None:
        """Do nothing: the file is all there is."""

    async def view(self) -> QueueView | None:
        """Return None: no hints are kept."""
        return None
