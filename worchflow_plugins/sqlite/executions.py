"""Writing executions: create, claim, update, delete, each for many callers at once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

import apsw

from worchflow_core import FINAL, Change, Created, Execution, Status, to_millis
from worchflow_plugins.sqlite.connection import Row, fetch, packed
from worchflow_plugins.sqlite.rows import (
    DEFAULTS,
    EXECUTION_COLUMNS,
    EXECUTION_FIELDS,
    encoded,
    error_type,
    execution_from,
    execution_row,
)
from worchflow_plugins.sqlite.schema import READY

_COLUMNS = (*EXECUTION_FIELDS, "error_type")
_DEFAULTS = tuple(DEFAULTS.get(name) for name in _COLUMNS)

_IDS = "FROM (SELECT value AS asked FROM json_each(?)) CROSS JOIN executions ON id = asked"
"""The executions with the ids of a JSON list: looked up one by one, never by another index."""


def create(
    connection: apsw.Connection, members: Sequence[Sequence[Execution]]
) -> list[list[Created]]:
    """Insert executions whose id is new; answer for each."""
    items = [item for member in members for item in member]
    connection.execute(*_insertion([execution_row(item) for item in items]))
    added = connection.changes()
    if added == len(items):
        return [[Created.NEW] * len(member) for member in members]
    # New rows are numbered on from the highest number there was, so they are the last ones.
    edge = connection.last_insert_rowid() - added if added else None
    ids = packed(list({item.id for item in items}))
    standing = {
        row[0]: row for row in fetch(connection, "id, number, function, input_hash", _IDS, (ids,))
    }
    fresh = {key for key, row in standing.items() if edge is not None and row[1] > edge}

    def answer(item: Execution) -> Created:
        if item.id in fresh:
            fresh.discard(item.id)  # only the first of its namesakes in this batch was new
            return Created.NEW
        is_same = standing[item.id][2:] == [item.function, item.input_hash]
        return Created.SAME if is_same else Created.CONFLICT

    return [[answer(item) for item in member] for member in members]


def _insertion(rows: list[Row]) -> tuple[str, tuple[str]]:
    """Return the statement that inserts rows, naming only the columns that say something."""
    used = [
        index
        for index, values in enumerate(zip(*rows, strict=True))
        if any(value != _DEFAULTS[index] for value in values)
    ]
    return _insert_sql(tuple(used)), (packed([[row[index] for index in used] for row in rows]),)


@cache
def _insert_sql(used: tuple[int, ...]) -> str:
    names = ", ".join(_COLUMNS[index] for index in used)
    values = ", ".join(f"value ->> {place}" for place in range(len(used)))
    return (
        f"INSERT INTO executions ({names}) SELECT {values} FROM jsonb_each(?) WHERE true "
        "ON CONFLICT (id) DO NOTHING"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What one claim asks for."""

    owner: str
    functions: Collection[str]
    limit: int
    now: datetime
    ids: Collection[str] | None


# Every function's queue is walked by itself, and in it every priority, from the most urgent on:
# a backlog of others, or of sleepers that are not due, is stepped over rather than read.
_LANES = f"""
    FROM executions WHERE number IN (
        WITH lanes (function, priority) AS (
            SELECT DISTINCT value, (
                SELECT max(priority) FROM executions WHERE function = value AND {READY}
            ) FROM json_each(?1)
            UNION ALL
            SELECT function, (
                SELECT max(e.priority) FROM executions AS e
                WHERE e.function = lanes.function AND e.priority < lanes.priority
                AND {READY}
            ) FROM lanes WHERE priority IS NOT NULL
        )
        SELECT item.value ->> 0 FROM lanes CROSS JOIN json_each((
            SELECT json_group_array(json_array(number, due)) FROM (
                SELECT number, ifnull(due_at, 0) AS due FROM executions AS e
                WHERE e.function = lanes.function AND e.priority = lanes.priority AND {READY}
                AND ifnull(due_at, 0) <= ?2
                ORDER BY due LIMIT ?3
            )
        )) AS item
        WHERE lanes.priority IS NOT NULL
        ORDER BY lanes.priority DESC, item.value ->> 1 LIMIT ?3
    )
"""

_BY_IDS = f"""
    FROM (SELECT value AS asked FROM json_each(?4)) CROSS JOIN executions ON id = asked
    WHERE {READY} AND ifnull(due_at, 0) <= ?2
    AND function IN (SELECT value FROM json_each(?1)) LIMIT ?3
"""

_TAKE = """
    UPDATE executions SET status = 'processing', owner = ?1, fence = fence + 1, claimed_at = ?2,
    updated_at = ?2, due_at = NULL, hint_at = NULL
    WHERE number IN (SELECT value FROM json_each(?3))
"""


def claim(connection: apsw.Connection, members: Sequence[Claim]) -> list[list[Execution]]:
    """Take what each asks for, one after the other: nobody else writes meanwhile."""
    return [_claim(connection, member) for member in members]


def _claim(connection: apsw.Connection, asked: Claim) -> list[Execution]:
    millis = to_millis(asked.now)
    bindings: list[Any] = [packed([*asked.functions]), millis, asked.limit]
    source = _LANES
    if asked.ids is not None:
        source = _BY_IDS
        bindings.append(packed(list(dict.fromkeys(asked.ids))))
    rows = fetch(connection, f"number, {EXECUTION_COLUMNS}", source, bindings)
    if not rows:
        return []
    numbers = packed([row[0] for row in rows])
    connection.execute(_TAKE, (asked.owner, millis, numbers))
    return [execution_from(_taken(row, asked.owner, millis)) for row in rows]


_PLACE = {name: index for index, name in enumerate(EXECUTION_FIELDS)}


def _taken(row: Row, owner: str, millis: int) -> Row:
    """Return a row, read before it was taken, as it is since; without its number."""
    taken = row[1:]
    taken[_PLACE["status"]] = Status.PROCESSING
    taken[_PLACE["owner"]] = owner
    taken[_PLACE["fence"]] += 1
    taken[_PLACE["claimed_at"]] = taken[_PLACE["updated_at"]] = millis
    taken[_PLACE["due_at"]] = taken[_PLACE["hint_at"]] = None
    return taken


_COMPARED = (
    "status",
    "owner",
    "fence",
    "due_at",
    "hint_at",
    "cancel_requested_at",
    "handlers_due",
    "updated_at",
)
"""What a change may expect something of, and what tells that it was applied before."""


def update(connection: apsw.Connection, members: Sequence[Sequence[Change]]) -> list[set[str]]:
    """Apply compare-and-sets, each by itself and in order; return the ids that were refused.

    The fields to compare are read first, all at once: within a transaction that writes they
    cannot change before the update.
    """
    ids = packed(list({change.id for member in members for change in member}))
    found = fetch(connection, f"id, number, {', '.join(_COMPARED)}", _IDS, (ids,))
    standing = {row[0]: dict(zip(("number", *_COMPARED), row[1:], strict=True)) for row in found}
    accepted: dict[int, dict[str, Any]] = {}
    answers = []
    for member in members:
        refused = set()
        for change in member:
            state = standing.get(change.id)
            if state is None or not _is_accepted(state, change, accepted):
                refused.add(change.id)
        answers.append(refused)
    for names, rows in _by_columns(accepted):
        connection.execute(_update_sql(names), (packed(rows),))
    return answers


def _is_accepted(
    state: dict[str, Any], change: Change, accepted: dict[int, dict[str, Any]]
) -> bool:
    """Note a change where all it expects holds; return whether it stands, now or already."""
    expect = {name: encoded(name, value) for name, value in change.expect.items()}
    values = {name: encoded(name, value) for name, value in change.values.items()}
    if all(state[name] == value for name, value in expect.items()):
        if "error" in change.values:
            values["error_type"] = error_type(change.values["error"])
        accepted.setdefault(state["number"], {}).update(values)
        state.update((name, values[name]) for name in _COMPARED if name in values)
        return True
    if "updated_at" not in values or expect.get("fence", state["fence"]) != state["fence"]:
        return False
    return all(
        state[name] == values[name] for name in ("status", "owner", "updated_at") if name in values
    )


def _by_columns(
    accepted: dict[int, dict[str, Any]],
) -> Iterable[tuple[tuple[str, ...], list[Row]]]:
    """Return rows to write, gathered by the columns they set, each with its number first."""
    gathered: dict[tuple[str, ...], list[Row]] = {}
    for number, values in accepted.items():
        if values:
            names = tuple(sorted(values))
            gathered.setdefault(names, []).append([number, *(values[name] for name in names)])
    return gathered.items()


@cache
def _update_sql(names: tuple[str, ...]) -> str:
    values = ", ".join(f"{name} = value ->> {place}" for place, name in enumerate(names, start=1))
    return f"UPDATE executions SET {values} FROM jsonb_each(?) WHERE number = value ->> 0"


def delete(connection: apsw.Connection, members: Sequence[Collection[str]]) -> list[set[str]]:
    """Delete final executions, their steps first; return the ids that are gone."""
    ids = packed(list({key for member in members for key in member}))
    rows = fetch(connection, "id, number, status", _IDS, (ids,))
    doomed = packed([row[1] for row in rows if row[2] in FINAL])
    kept = {row[0] for row in rows if row[2] not in FINAL}
    for table, column in (("steps", "execution"), ("executions", "number")):
        connection.execute(
            f"DELETE FROM {table} WHERE {column} IN (SELECT value FROM json_each(?))", (doomed,)
        )
    return [set(member) - kept for member in members]


def weight(item: Execution) -> int:
    """Return how much of a commit an execution takes."""
    return 1 + (len(item.data or "") + len(item.result or "") >> 10)


def change_weight(change: Change) -> int:
    """Return how much of a commit a change takes."""
    return 1 + (len(change.values.get("result") or "") >> 10)
