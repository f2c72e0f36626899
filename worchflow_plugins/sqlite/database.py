"""The file as this process has it open: shared by all stores of the process that name it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import apsw

from worchflow_core import StoreUnusable
from worchflow_plugins.sqlite.checkpoints import Checkpoints
from worchflow_plugins.sqlite.connection import begin, connect, patiently, rolled_back
from worchflow_plugins.sqlite.faults import as_store_error, forked
from worchflow_plugins.sqlite.place import Header, check_header, examine
from worchflow_plugins.sqlite.readers import Readers
from worchflow_plugins.sqlite.schema import APPLICATION_ID, STATEMENTS, UPGRADES, VERSION
from worchflow_plugins.sqlite.writer import Writer

T = TypeVar("T")

_OPEN: dict[str, Database] = {}
_LOCK = threading.Lock()
os.register_at_fork(after_in_child=lambda: _forget())
"""What this process has open. POSIX locks belong to a process and are given up when it closes
any handle of the file, so one file must have one owner here, which cannot be anything but global.
"""


def _forget() -> None:
    """Forget, in a forked child, what its parent has open: none of it is usable here."""
    global _LOCK
    _LOCK = threading.Lock()
    _FORSAKEN.extend(_OPEN.values())
    _OPEN.clear()


_FORSAKEN: list[Database] = []
"""The parent's databases, kept in a child so that nothing closes them and disturbs its locks."""


def acquire(path: str, *, create: bool) -> Database:
    """Return the database at `path`, opened unless this process has it open already."""
    with _LOCK:
        key = os.path.realpath(path)
        database = _OPEN.get(key)
        if database is None:
            database = Database(key, create=create)
            _OPEN[key] = database
        database.users += 1
        return database


def release(database: Database) -> None:
    """Close the database when its last user leaves."""
    with _LOCK:
        database.users -= 1
        if database.users == 0 and database.pid == os.getpid():
            _OPEN.pop(database.path, None)
            database.close()


class Database:
    """One writer, a few readers and the checkpoints of one file; built open.

    Raises:
        StoreUnavailable: it does not exist and may not be created, or is out of reach.
        StoreUnusable: it cannot be used; it is left as it is.
    """

    def __init__(self, path: str, *, create: bool) -> None:
        examine(path, create=create)
        self.path = path
        self.pid = os.getpid()
        self.users = 0
        try:
            _prepare(path)
            self._keeper = _keep(path)
        except apsw.Error as error:
            fault = as_store_error(error, path)
            if fault is None:
                raise
            raise fault from error
        self._identity = self._look()
        self._beat_lock = threading.Lock()
        self._beats: apsw.Connection | None = None
        gate = threading.Lock()
        self.checkpoints = Checkpoints(path, partial(connect, path), gate)
        self.writer = Writer(path, connect=self._connect_writer, verify=self._verify, gate=gate)
        self.readers = Readers(path, partial(connect, path, is_reader=True))
        self.writer.start()
        self.checkpoints.start()

    def beat(self, work: Callable[[apsw.Connection], T]) -> T:
        """Run a short transaction in the calling thread, on the connection kept for beats."""
        self.check_process()
        with self._beat_lock:
            self._verify()
            try:
                if self._beats is None:
                    self._beats = connect(self.path, cache_kib=256)
                begin(self._beats)
                answer = work(self._beats)
                self._beats.execute("COMMIT")
            except BaseException as error:
                if self._beats is not None:
                    self._beats = rolled_back(self._beats, error)
                fault = as_store_error(error, self.path)
                if fault is None:
                    raise
                raise fault from error
        return answer

    def check_process(self) -> None:
        """Raise in a process that was forked from the one that opened the file."""
        if os.getpid() != self.pid:
            raise forked(self.path, self.pid)

    def close(self) -> None:
        """Commit what waits and close every connection."""
        self.writer.stop()
        self.readers.stop()
        self.checkpoints.stop()
        with self._beat_lock:
            if self._beats is not None:
                self._beats.close()
        self._keeper.close()

    def _connect_writer(self) -> apsw.Connection:
        connection = connect(self.path, cache_kib=65_536)
        connection.execute("PRAGMA journal_size_limit = 16777216")
        self.checkpoints.watch(connection)
        return connection

    def _look(self) -> tuple[int, ...]:
        """Return what tells this file and its log from others of their names."""
        found = [os.stat(self.path), os.stat(self.path + "-wal")]
        return tuple(number for item in found for number in (item.st_dev, item.st_ino))

    def _verify(self) -> None:
        """Raise when the file was removed or replaced: writes would go nowhere."""
        try:
            is_there = self._look() == self._identity
        except OSError:
            is_there = False
        if not is_there:
            raise StoreUnusable(
                f"{self.path}, or the -wal file beside it, was removed or replaced while it was "
                "in use; what is not yet in it is lost. Stop all processes that use it, restore "
                "it, and start again"
            )


def _keep(path: str) -> apsw.Connection:
    """Return a connection to hold from first to last, so that the log is not removed meanwhile."""
    keeper = connect(path, cache_kib=64)
    try:
        patiently(lambda: keeper.execute("SELECT count(*) FROM counts").get)
    except BaseException:
        keeper.close()
        raise
    return keeper


def _prepare(path: str) -> None:
    """Make an empty file ours, and check that another is."""
    if os.path.getsize(path):
        _inspect(path)
    connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        mode = patiently(lambda: connection.execute("PRAGMA journal_mode = WAL").get)
        if mode != "wal":
            raise StoreUnusable(
                f"{path} cannot be switched to a write-ahead log: its file system lacks shared "
                "memory. Name a file on a local disk in WORCHFLOW_STORE_URL"
            )
        begin(connection)
        # Looked at within the transaction: another process may have been first.
        if connection.execute("PRAGMA application_id").get != APPLICATION_ID:
            for statement in STATEMENTS:
                connection.execute(statement)
        _upgrade(connection)
        connection.execute("COMMIT")
    finally:
        connection.close()


def _upgrade(connection: apsw.Connection) -> None:
    """Bring a file of an earlier version up to date, within the transaction that is open."""
    version = connection.execute("PRAGMA user_version").get
    if version == VERSION:
        return
    for statements in UPGRADES[version - 1 :]:
        for statement in statements:
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {VERSION}")


def _inspect(path: str) -> None:
    """Raise unless a file that is not empty is ours, reading what its log may hold as well.

    On a connection that only reads: another would, as the last to leave, tidy up the log of what
    may be somebody else's database.
    """
    connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
    try:
        application_id, version, tables = (
            patiently(lambda query=query: connection.execute(query).get)  # type: ignore[misc]
            for query in (
                "PRAGMA application_id",
                "PRAGMA user_version",
                "SELECT count(*) FROM sqlite_schema",
            )
        )
        if tables or version or application_id:
            check_header(path, Header(application_id=application_id, version=version))
    finally:
        connection.close()
