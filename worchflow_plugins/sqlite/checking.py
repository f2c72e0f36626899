"""What `doctor` is told of the file."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

import apsw

from worchflow_core import Finding
from worchflow_plugins.sqlite.place import file_system
from worchflow_plugins.sqlite.schema import VERSION

_MIB = 1 << 20
_LONG_LOG = 256 * _MIB
_SAFE = (3, 51, 3)
"""From this release of SQLite on, a race that could damage a log being reset is mended."""


def examined(connection: apsw.Connection, path: str) -> list[Finding]:
    """Return findings on the file at `path`, which `connection` has open for reading."""
    return [
        *_pages(connection, path),
        *_log(path),
        *_library(connection),
        *_access(path),
    ]


def _pages(connection: apsw.Connection, path: str) -> Iterator[Finding]:
    trouble = [str(row[0]) for row in connection.execute("PRAGMA quick_check(3)")]
    size = os.path.getsize(path) / _MIB
    if trouble == ["ok"]:
        yield Finding(level="ok", subject="sqlite file", text=f"{path} is sound, {size:.1f} MiB")
        return
    yield Finding(
        level="problem",
        subject="sqlite file",
        text=f"{path} is damaged ({'; '.join(trouble)}). Stop all workers and restore a backup",
    )


def _log(path: str) -> Iterator[Finding]:
    log = path + "-wal"
    size = os.path.getsize(log) if os.path.exists(log) else 0
    if size > _LONG_LOG:
        yield Finding(
            level="warning",
            subject="sqlite log",
            text=f"{log} has grown to {size / _MIB:.0f} MiB: some process keeps a read "
            "transaction open; find and end it",
        )
    else:
        yield Finding(level="ok", subject="sqlite log", text=f"{size / _MIB:.1f} MiB")


def _library(connection: apsw.Connection) -> Iterator[Finding]:
    version = apsw.sqlite_lib_version()
    schema = connection.execute("PRAGMA user_version").get
    text = f"SQLite {version}, schema {schema} of {VERSION}"
    if tuple(int(part) for part in version.split(".")) < _SAFE:
        yield Finding(
            level="problem",
            subject="sqlite library",
            text=f"{text}: releases before 3.51.3 can damage the file; upgrade apsw",
        )
    else:
        yield Finding(level="ok", subject="sqlite library", text=text)


def _access(path: str) -> Iterator[Finding]:
    mode = stat.S_IMODE(os.stat(path).st_mode)
    if mode & 0o077:
        yield Finding(
            level="warning",
            subject="sqlite access",
            text=f"{path} has mode {mode:o}: others on this machine may read what it holds; "
            f"chmod 600 {path}",
        )
    else:
        yield Finding(
            level="ok",
            subject="sqlite access",
            text=f"mode {mode:o}, on a file system of type {file_system(path)}",
        )
