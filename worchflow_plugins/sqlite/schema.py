"""The tables of the file, and how they come to be.

One table per noun. Text from users is stored in TEXT columns and never read by SQLite, save for
the lists in `waits` and `tags`, which triggers spread over tables that can be searched. Times are
whole milliseconds. Steps hang on the number of their execution, which grows, rather than on its
id, which may be random: so the newest steps lie side by side in the file.
"""

from __future__ import annotations

from worchflow_core import CLAIMABLE, FINAL, Status

APPLICATION_ID = 0x576F7263
"""Stamped into the file, so that a database of another program is never taken for ours."""

VERSION = 2
"""The schema's version, in `user_version`; a file with a higher one is refused."""


def _listed(statuses: frozenset[Status]) -> str:
    return "(" + ", ".join(f"'{status.value}'" for status in sorted(statuses)) + ")"


CLAIMABLE_LIST = _listed(CLAIMABLE)
FINAL_LIST = _listed(FINAL)

READY = f"owner IS NULL AND cancel_requested_at IS NULL AND status IN {CLAIMABLE_LIST}"
"""What is claimable once it is due; word for word the condition of the index `ready`."""

BIG_TABLES = ("executions", "steps", "waits", "tags")
"""The tables that grow with the work; no query in use may walk them."""

_TABLES = (
    """
    CREATE TABLE executions (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        function TEXT NOT NULL,
        status TEXT NOT NULL,
        owner TEXT,
        fence INTEGER NOT NULL DEFAULT 0,
        created_at INTEGER NOT NULL,
        updated_at INTEGER NOT NULL,
        due_at INTEGER,
        hint_at INTEGER,
        hinted_at INTEGER,
        claimed_at INTEGER,
        finished_at INTEGER,
        deadline_at INTEGER,
        cancel_requested_at INTEGER,
        scheduled_for INTEGER,
        priority INTEGER NOT NULL DEFAULT 0,
        failed_attempts INTEGER NOT NULL DEFAULT 0,
        crashes INTEGER NOT NULL DEFAULT 0,
        retries INTEGER,
        steps_recorded INTEGER,
        handlers_due INTEGER NOT NULL DEFAULT 0,
        gates_passed INTEGER NOT NULL DEFAULT 0,
        event TEXT,
        input_hash TEXT,
        code_version TEXT,
        parent TEXT,
        forked_from TEXT,
        error_type TEXT,
        waits TEXT,
        tags TEXT,
        step_failures TEXT,
        headers TEXT,
        error TEXT,
        attempts TEXT,
        data TEXT,
        result TEXT
    ) STRICT
    """,
    """
    CREATE TABLE steps (
        execution INTEGER NOT NULL,
        step_id TEXT NOT NULL,
        title TEXT NOT NULL,
        kind TEXT NOT NULL,
        status TEXT NOT NULL,
        seq INTEGER NOT NULL,
        fence INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        started_at INTEGER NOT NULL,
        ended_at INTEGER,
        execution_created_at INTEGER NOT NULL,
        result TEXT,
        PRIMARY KEY (execution, step_id)
    ) WITHOUT ROWID, STRICT
    """,
    "CREATE TABLE counts (status TEXT NOT NULL PRIMARY KEY, count INTEGER NOT NULL)"
    " WITHOUT ROWID, STRICT",
    """
    CREATE TABLE workers (
        id TEXT NOT NULL PRIMARY KEY,
        state TEXT NOT NULL,
        beat_at INTEGER NOT NULL,
        lease_until INTEGER NOT NULL,
        drain_requested_at INTEGER,
        body TEXT NOT NULL
    ) WITHOUT ROWID, STRICT
    """,
    """
    CREATE TABLE records (
        kind TEXT NOT NULL,
        key TEXT NOT NULL,
        version INTEGER NOT NULL,
        body TEXT NOT NULL,
        PRIMARY KEY (kind, key)
    ) WITHOUT ROWID, STRICT
    """,
)

_INDEXES = (
    f"ready ON executions (function, priority, ifnull(due_at, 0)) WHERE {READY}",
    "owned ON executions (owner) WHERE owner IS NOT NULL",
    "by_created ON executions (created_at, id)",
    "by_updated ON executions (updated_at, id)",
    "by_function ON executions (function, created_at, id)",
    "by_status ON executions (status, created_at, id)",
    # Wide on purpose: it answers `tally` without touching the executions themselves.
    "by_finished ON executions (finished_at, id, function, status, created_at)"
    " WHERE finished_at IS NOT NULL",
    "by_due ON executions (due_at, id) WHERE due_at IS NOT NULL",
    "by_hint ON executions (hint_at, id) WHERE hint_at IS NOT NULL",
    "by_deadline ON executions (deadline_at) WHERE deadline_at IS NOT NULL",
    "by_cancel ON executions (cancel_requested_at) WHERE cancel_requested_at IS NOT NULL",
    "by_parent ON executions (parent) WHERE parent IS NOT NULL",
    "by_fork ON executions (forked_from) WHERE forked_from IS NOT NULL",
    "by_error ON executions (error_type) WHERE error_type IS NOT NULL",
    "handlers ON executions (handlers_due) WHERE handlers_due = 1",
)


def _side(table: str) -> tuple[str, ...]:
    """Return the side table of a column that holds a list, and the triggers that keep it.

    The rows of one value lie in order of creation: many may wait for one thing, and the oldest
    is to be found without looking at the others.
    """
    fill = (
        f"INSERT OR IGNORE INTO {table} (key, sent_at, execution)"
        f" SELECT value, new.created_at, new.number FROM json_each(new.{table})"
    )
    clear = (
        f"DELETE FROM {table} WHERE execution = old.number AND sent_at = old.created_at"
        f" AND key IN (SELECT value FROM json_each(old.{table}))"
    )
    return (
        f"CREATE TABLE {table} (key TEXT NOT NULL, sent_at INTEGER NOT NULL,"
        " execution INTEGER NOT NULL, PRIMARY KEY (key, sent_at, execution))"
        " WITHOUT ROWID, STRICT",
        f"CREATE TRIGGER {table}_inserted AFTER INSERT ON executions"
        f" WHEN new.{table} IS NOT NULL BEGIN {fill}; END",
        f"CREATE TRIGGER {table}_changed AFTER UPDATE OF {table} ON executions"
        f" WHEN old.{table} IS NOT new.{table} BEGIN {clear}; {fill}; END",
        f"CREATE TRIGGER {table}_deleted AFTER DELETE ON executions"
        f" WHEN old.{table} IS NOT NULL BEGIN {clear}; END",
    )


_COUNTED = (
    "CREATE TRIGGER counts_inserted AFTER INSERT ON executions BEGIN"
    " UPDATE counts SET count = count + 1 WHERE status = new.status; END",
    "CREATE TRIGGER counts_changed AFTER UPDATE OF status ON executions"
    " WHEN old.status <> new.status BEGIN"
    " UPDATE counts SET count = count - 1 WHERE status = old.status;"
    " UPDATE counts SET count = count + 1 WHERE status = new.status; END",
    "CREATE TRIGGER counts_deleted AFTER DELETE ON executions BEGIN"
    " UPDATE counts SET count = count - 1 WHERE status = old.status; END",
)

STATEMENTS = (
    *_TABLES,
    *(f"CREATE INDEX {index}" for index in _INDEXES),
    *(f"INSERT INTO counts VALUES ('{status.value}', 0)" for status in Status),
    *_COUNTED,
    *_side("waits"),
    *_side("tags"),
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {VERSION}",
)
"""What makes an empty file ours, to be run in one transaction."""


def _sided(table: str) -> tuple[str, ...]:
    """Return what gives the side table of a list its new shape, filled from the executions."""
    return (
        *(f"DROP TRIGGER {table}_{word}" for word in ("inserted", "changed", "deleted")),
        f"DROP TABLE {table}",
        *_side(table),
        f"INSERT OR IGNORE INTO {table} (key, sent_at, execution)"
        f" SELECT value, created_at, number FROM executions, json_each(executions.{table})",
    )


UPGRADES: tuple[tuple[str, ...], ...] = (
    (
        "ALTER TABLE executions ADD COLUMN gates_passed INTEGER NOT NULL DEFAULT 0",
        *_sided("waits"),
        *_sided("tags"),
    ),
)
"""What brings a file from version 1 to 2, from 2 to 3 and so on, each in one transaction."""
