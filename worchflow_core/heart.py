"""The heart: beats in its own thread, watches the event loop, falls silent when that hangs."""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Protocol

from worchflow_core.clock import Clock
from worchflow_core.lease import Lease
from worchflow_core.models import Beat, Worker, WorkerState
from worchflow_core.protocols import Store

logger = logging.getLogger("worchflow")

EXIT_STALLED = 70
"""The exit code of a worker whose event loop hung past the stall limit."""


class Listener(Protocol):
    """What the heart tells its worker, each call on the event loop."""

    def on_beat(self, beat: Beat) -> None:
        """A beat came back; it may ask to cancel executions or to drain."""

    def on_lost(self) -> None:
        """The store has declared this worker dead."""


class Heart:
    """Keep a worker's lease alive from a thread with its own connection.

    Code that blocks the event loop keeps its lease and gets a warning that names it; a loop that
    has not turned for twice the lease is beyond help: the heart stops, dumps all stacks and ends
    the process, so that others may take over.

    Args:
        store: beaten through its blocking `beat`.
        lease: confirmed by each beat.
        clock: corrected by each beat.
        describe: returns this worker as it is now; called in the heart's thread.
        interval: between beats.
        listener: told on the event loop.
    """

    def __init__(
        self,
        store: Store,
        lease: Lease,
        clock: Clock,
        describe: Callable[[], Worker],
        *,
        interval: timedelta,
        listener: Listener,
    ) -> None:
        self._store = store
        self._lease = lease
        self._clock = clock
        self._describe = describe
        self._interval = interval.total_seconds()
        self._listener = listener
        self._wake = threading.Event()
        self._is_stopping = False
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self._watched_at = 0.0
        self._stalled = 0.0
        self._warned_stall = False
        self._silent = 0
        self._last_beat: datetime | None = None

    def start(self) -> None:
        """Begin to beat; the worker must have registered."""
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._watched_at = self._clock.lease_time()
        self._thread = threading.Thread(target=self._run, name="worchflow-heart", daemon=True)
        self._thread.start()

    def hurry(self) -> None:
        """Beat soon rather than at the next interval."""
        self._wake.set()

    async def stop(self) -> None:
        """Stop beating; the last beat, which removes the worker, is the worker's own."""
        self._is_stopping = True
        self._wake.set()
        thread = self._thread
        if thread is not None:
            await asyncio.to_thread(thread.join, self._interval + 5)

    def beat_now(self) -> Beat:
        """Beat once, in this thread: to register and to leave."""
        return self._beat()

    # --- in the heart's thread ------------------------------------------------------------------

    def _run(self) -> None:
        while not self._is_stopping:
            self._wake.wait(self._interval)
            self._wake.clear()
            if self._is_stopping or self._lease.is_lost:
                return
            self._watch_loop()
            try:
                beat = self._beat()
            except Exception as error:
                self._silent += 1
                if self._silent == 1:
                    logger.warning("a heartbeat failed, trying on: %s", error)
                continue
            if self._silent:
                logger.info("the heart beats again, after %d failed beats", self._silent)
                self._silent = 0
            self._tell(beat)

    def _beat(self) -> Beat:
        worker = self._describe()
        asked_at = self._clock.lease_time()
        local = self._clock.local()
        beat = self._store.beat(worker, lease=self._lease.span)
        if not beat.is_alive:
            self._lease.lose()
            return beat
        if worker.state is not WorkerState.STOPPED:
            self._lease.confirm(asked_at)
        self._clock.correct(beat.now, local=local, trip=self._clock.lease_time() - asked_at)
        return beat

    def _tell(self, beat: Beat) -> None:
        assert self._loop is not None
        if self._loop.is_closed():
            return
        if not beat.is_alive:
            self._loop.call_soon_threadsafe(self._listener.on_lost)
        else:
            self._loop.call_soon_threadsafe(self._listener.on_beat, beat)

    def _watch_loop(self) -> None:
        """Ask the loop to turn, and judge for how long it has not.

        Only time that this thread lived through counts: when the whole process stood still
        (frozen, or on a suspended machine) the loop could not turn either.
        """
        assert self._loop is not None
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._turned)
        now = self._clock.lease_time()
        self._stalled += min(now - self._watched_at, self._interval * 2)
        self._watched_at = now
        stalled = self._stalled
        limit = self._lease.span.total_seconds() * 2
        if stalled > limit:
            logger.critical(
                "the event loop has not turned for %.1f s (limit %.1f s); this worker ends so "
                "that others can take its executions over",
                stalled,
                limit,
            )
            faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
            sys.stderr.flush()
            os._exit(EXIT_STALLED)
        if stalled > self._interval * 2 + 0.5 and not self._warned_stall:
            self._warned_stall = True
            logger.warning(
                "the event loop has not turned for %.1f s; blocked in %s. Run blocking code in a "
                "plain `def` step, which gets a thread",
                stalled,
                self._blocked_in(),
            )

    def _turned(self) -> None:
        self._stalled = 0.0
        self._warned_stall = False

    def _blocked_in(self) -> str:
        frame = sys._current_frames().get(self._loop_thread)
        if frame is None:
            return "an unknown place"
        summary = traceback.extract_stack(frame)
        own = [item for item in summary if "/asyncio/" not in item.filename]
        last = (own or list(summary))[-1]
        return f"{last.name} ({last.filename}:{last.lineno})"
