"""One connection to the file: its settings, patience with others, and answers in one step.

Whole results travel as one JSON text in each direction. Each row that crosses from SQLite to
Python hands the interpreter lock over and back, and beside a busy event loop each handover can
wait for a whole switch interval (500 rows: 3.4 seconds instead of 14 milliseconds).
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import apsw

T = TypeVar("T")
Row = list[Any]

PATIENCE = 10.0
"""Seconds for which a locked file is tried again before the caller hears of it."""

_UNSETTLING = (apsw.IOError, apsw.CantOpenError, apsw.CorruptError, apsw.NotADBError)

_SETTINGS = (
    # Ours are more patient and fairer than SQLite's own busy handler; see `patiently`.
    "PRAGMA busy_timeout = 0",
    "PRAGMA synchronous = FULL",
    # A checkpoint within a commit would stall everybody's writes; `checkpoints.py` makes them.
    "PRAGMA wal_autocheckpoint = 0",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA trusted_schema = OFF",
)


def connect(path: str, *, cache_kib: int = 8_192, is_reader: bool = False) -> apsw.Connection:
    """Open a connection to a file that exists and is ours already."""
    connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        for statement in (*_SETTINGS, f"PRAGMA cache_size = -{cache_kib}"):
            patiently(lambda statement=statement: connection.execute(statement).get)  # type: ignore[misc]
        if is_reader:
            connection.execute("PRAGMA query_only = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def patiently(work: Callable[[], T]) -> T:
    """Do `work`, again and again while another connection is in the way.

    Tried every 0.5 to 1 ms: with three writers SQLite's own handler, which sleeps longer each
    time, made the slowest wait a second or two; so it is 15 ms.
    """
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return work()
        except apsw.BusyError:
            if time.monotonic() > end:
                raise
            time.sleep(random.uniform(0.0005, 0.001))


def begin(connection: apsw.Connection) -> None:
    """Begin to write; from here on nobody else does."""
    patiently(lambda: connection.execute("BEGIN IMMEDIATE"))


def rolled_back(connection: apsw.Connection, error: BaseException) -> apsw.Connection | None:
    """End a transaction that failed; return its connection, None when it was closed instead.

    After an error of the disk or of the file's contents, what a connection remembers of the file
    may be wrong: it is better to begin afresh.
    """
    try:
        if connection.in_transaction:  # some errors end it by themselves
            connection.execute("ROLLBACK")
        if not isinstance(error, _UNSETTLING):
            return connection
    except apsw.Error:
        pass
    connection.close()
    return None


def packed(rows: Sequence[Sequence[Any]]) -> str:
    """Return rows as the one JSON text that `jsonb_each(?)` reads."""
    return json.dumps(rows, ensure_ascii=False, separators=(",", ":"))


def fetch(
    connection: apsw.Connection, columns: str, source: str, bindings: Sequence[Any] = ()
) -> list[Row]:
    """Return the rows of `SELECT columns source`, each a list in order of the columns.

    `columns` are bare names, separated by commas.
    """
    query = f"SELECT {columns} {source}"
    try:
        text = connection.execute(
            f"SELECT json_group_array(json_array({columns})) FROM ({query})", bindings
        ).get
    except apsw.TooBigError:  # a thousand payloads of a megabyte: row by row, then
        return [list(row) for row in connection.execute(query, bindings)]
    rows: list[Row] = json.loads(text)
    return rows
