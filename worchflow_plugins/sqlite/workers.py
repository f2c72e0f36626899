"""Workers in the file: beats, burials, and what they are told."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

import apsw

from worchflow_core import Beat, Worker, beaten, from_millis, to_millis
from worchflow_plugins.sqlite.connection import fetch, packed
from worchflow_plugins.sqlite.rows import worker_from, worker_row

_MILLI = timedelta(milliseconds=1)
_COLUMNS = "body, state, beat_at, lease_until, drain_requested_at"


def _now() -> int:
    """Return the store's clock, in milliseconds: that of the one machine which has the file."""
    return time.time_ns() // 1_000_000


def beat(connection: apsw.Connection, worker: Worker, lease: timedelta) -> Beat:
    """Renew the lease of a worker, within a transaction of the caller's."""
    now = from_millis(_now())
    rows = fetch(connection, _COLUMNS, "FROM workers WHERE id = ?", (worker.id,))
    known = worker_from(rows[0]) if rows else None
    renewed, is_alive = beaten(known, worker, now=now, lease=lease)
    if renewed is None:
        connection.execute("DELETE FROM workers WHERE id = ?", (worker.id,))
    elif is_alive:
        connection.execute(
            f"INSERT OR REPLACE INTO workers (id, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)",
            (worker.id, *worker_row(renewed)),
        )
    if renewed is None or not is_alive:
        return Beat(now=now, is_alive=is_alive)
    cancels = fetch(
        connection,
        "id",
        "FROM executions WHERE owner = ? AND cancel_requested_at IS NOT NULL",
        (worker.id,),
    )
    return Beat(
        now=now,
        is_alive=True,
        cancels=tuple(row[0] for row in cancels),
        is_drain_requested=renewed.drain_requested_at is not None,
    )


def read(connection: apsw.Connection) -> Sequence[Worker]:
    """Return all workers, dead ones included."""
    return [worker_from(row) for row in fetch(connection, _COLUMNS, "FROM workers")]


def bury(
    connection: apsw.Connection, members: Sequence[tuple[Collection[str], timedelta]]
) -> list[set[str]]:
    """Declare dead those whose lease ended `overdue` ago; return all of them that are dead."""
    answers = []
    for worker_ids, overdue in members:
        ids = packed([*worker_ids])
        connection.execute(
            "UPDATE workers SET state = 'dead'"
            " WHERE id IN (SELECT value FROM json_each(?)) AND lease_until <= ?",
            (ids, _now() - overdue // _MILLI),
        )
        dead = fetch(
            connection,
            "id",
            "FROM workers WHERE id IN (SELECT value FROM json_each(?)) AND state = 'dead'",
            (ids,),
        )
        answers.append({row[0] for row in dead})
    return answers


def drain(
    connection: apsw.Connection, members: Sequence[tuple[Collection[str], datetime]]
) -> list[None]:
    """Ask workers to stop taking work."""
    for worker_ids, now in members:
        connection.execute(
            "UPDATE workers SET drain_requested_at = ?"
            " WHERE id IN (SELECT value FROM json_each(?))",
            (to_millis(now), packed([*worker_ids])),
        )
    return [None] * len(members)
