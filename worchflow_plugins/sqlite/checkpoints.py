"""Checkpoints: moving what was committed from the write-ahead log into the file proper.

They run in a thread and on a connection of their own. First passively, which disturbs nobody and
does nearly all of the work; then, when the log has grown, once more so that it begins anew, which
keeps writers out for the little that is left and gives up after 50 ms where a reader holds on.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import apsw

_LOG = logging.getLogger("worchflow.sqlite")

_OFTEN = 1_000
"""From this many pages in the log on, it is moved."""

_LARGE = 4_000
"""From this many on, it is made to begin anew."""

_PATIENCE_MILLIS = 50
_REST = 0.1
"""Seconds between two checkpoints: one that a reader keeps from its end is not worth repeating."""


class Checkpoints:
    """Keep the log short.

    Args:
        path: the file, for messages.
        connect: opens a connection.
        gate: held by whoever of this process writes; SQLite's own lock would hardly ever be got
            beside a busy writer.
    """

    def __init__(
        self, path: str, connect: Callable[[], apsw.Connection], gate: threading.Lock
    ) -> None:
        self._path = path
        self._connect = connect
        self._gate = gate
        self._limit = _LARGE
        self._is_needed = threading.Event()
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name="worchflow-sqlite-checkpoints", daemon=True
        )

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; its connection is closed with it."""
        self._is_stopping.set()
        self._is_needed.set()
        if self._thread.ident is not None:
            self._thread.join()

    def watch(self, connection: apsw.Connection) -> None:
        """Notice each commit of a connection, and how long the log is then."""
        connection.set_wal_hook(self._committed)

    def _committed(self, connection: apsw.Connection, name: str, pages: int) -> int:
        if pages > _OFTEN:
            self._is_needed.set()
        return apsw.SQLITE_OK

    def _run(self) -> None:
        connection: apsw.Connection | None = None
        while True:
            self._is_needed.wait()
            self._is_needed.clear()
            if self._is_stopping.is_set():
                break
            try:
                if connection is None:
                    connection = self._connect()
                    connection.set_busy_timeout(_PATIENCE_MILLIS)
                self._checkpoint(connection)
            except apsw.Error as error:
                # Nothing is lost by it: the log grows, and the next commit asks again.
                _LOG.debug("checkpoint of %s failed: %s", self._path, error)
            self._is_stopping.wait(_REST)
        if connection is not None:
            connection.close()

    def _checkpoint(self, connection: apsw.Connection) -> None:
        pages, _ = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        if pages <= self._limit:
            return
        # Where a reader holds on, the next try waits until the log has grown as much again: each
        # keeps writers out for the 50 ms in which it hopes.
        self._limit = pages + _LARGE
        with self._gate:
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
        self._limit = _LARGE
