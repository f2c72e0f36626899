"""Telling plugins what happened: ordered, bounded, beside the event loop, harmless."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

logger = logging.getLogger("worchflow.plugins")

CAPACITY = 10_000
"""How many untold events one plugin may fall behind before newer ones are dropped."""

SLOW = 5.0
"""Seconds after which a hook that has not returned is named in the log."""


class Listener:
    """One plugin's ear: a thread that calls its hooks in order, each at most once."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dropped = 0
        self._events: queue.Queue[tuple[Callable[..., Any], Mapping[str, Any]] | None] = (
            queue.Queue(CAPACITY)
        )
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._calling: tuple[str, float] | None = None
        self._warned: tuple[str, float] | None = None
        self._is_closed = False

    def tell(self, hook: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
        """Put a call at the end of the line; never blocks, drops when the line is full."""
        if self._is_closed:
            return
        if self._thread is None:
            self._start()
        calling = self._calling
        if calling is not None and time.monotonic() - calling[1] > SLOW:
            self._warn_of(calling)
        try:
            self._events.put_nowait((hook, arguments))
        except queue.Full:
            self.dropped += 1
            if self.dropped == 1:
                since = f"; it hangs in {self._calling[0]}" if self._calling else ""
                logger.warning(
                    "plugin %s is %d events behind%s; newer events are dropped",
                    self.name,
                    CAPACITY,
                    since,
                )

    def _warn_of(self, calling: tuple[str, float]) -> None:
        if self._warned != calling:
            self._warned = calling
            logger.warning(
                "plugin %s has not returned from %s for %.1f s; its events wait",
                self.name,
                calling[0],
                time.monotonic() - calling[1],
            )

    def open(self) -> None:
        """Listen again after a close."""
        self._is_closed = False

    def close(self, timeout: float) -> None:
        """Let the plugin hear what is in the line, for at most `timeout` seconds."""
        self._is_closed = True
        thread = self._thread
        if thread is None:
            return
        deadline = time.monotonic() + timeout
        with contextlib.suppress(queue.Full):
            self._events.put(None, timeout=timeout)
        thread.join(max(0.0, deadline - time.monotonic()))
        self._thread = None
        if thread.is_alive():
            hook = self._calling[0] if self._calling else "a hook"
            logger.warning("plugin %s did not return from %s; left behind", self.name, hook)
        if self.dropped:
            logger.warning("plugin %s was not told of %d events", self.name, self.dropped)

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name=f"worchflow-plugin-{self.name}", daemon=True
                )
                self._thread.start()

    def _run(self) -> None:
        with asyncio.Runner() as runner:
            while (event := self._events.get()) is not None:
                hook, arguments = event
                self._calling = (getattr(hook, "__name__", str(hook)), time.monotonic())
                try:
                    answer = hook(**arguments)
                    if inspect.iscoroutine(answer):
                        runner.run(answer)
                except BaseException:  # also SystemExit: only this call is over
                    logger.exception("plugin %s failed in %s", self.name, self._calling[0])
                elapsed = time.monotonic() - self._calling[1]
                if elapsed > SLOW:
                    logger.warning(
                        "plugin %s took %.1f s in %s", self.name, elapsed, self._calling[0]
                    )
                self._calling = None
