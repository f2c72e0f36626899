"""A worker's word that it lives: how long it still holds, and waiting for it to hold again."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from datetime import timedelta

from worchflow_core.clock import Clock
from worchflow_core.signals import Superseded


class Lease:
    """The lease of one worker, confirmed by beats, asked before every write.

    Confirmed from the heart's thread, asked from the event loop. It counts from before a beat was
    sent, on a clock that goes on while the machine sleeps, and ends a sixth early.
    """

    def __init__(self, span: timedelta, clock: Clock) -> None:
        self.span = span
        self._clock = clock
        self._until = 0.0
        self._is_lost = False
        self._is_over = False
        self._changed = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()

    @property
    def is_valid(self) -> bool:
        """Whether this worker may write now."""
        return not (self._is_lost or self._is_over) and self._clock.lease_time() < self._until

    @property
    def is_lost(self) -> bool:
        """Whether this worker was declared dead; it may never write again under this id."""
        return self._is_lost

    def confirm(self, asked_at: float) -> None:
        """Extend the lease: a beat sent at `asked_at` (lease time, seconds) was accepted."""
        with self._lock:
            self._until = asked_at + self.span.total_seconds() * 5 / 6
        self._tell()

    def lose(self) -> None:
        """Note that the store has declared this worker dead."""
        self._is_lost = True
        self._tell()

    def end(self) -> None:
        """Write nothing more: the worker has left, and nobody waits for what it may still run."""
        self._is_over = True
        self._tell()

    async def wait_valid(self) -> None:
        """Return once the lease holds; raise `Superseded` when it is lost for good, or over."""
        self._loop = asyncio.get_running_loop()
        while not self.is_valid:
            if self._is_lost:
                raise Superseded("this worker was declared dead")
            if self._is_over:
                raise Superseded("this worker has left")
            self._changed.clear()
            if not self.is_valid and not (self._is_lost or self._is_over):
                await self._changed.wait()

    def _tell(self) -> None:
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop closed: nobody waits any more
                loop.call_soon_threadsafe(self._changed.set)
