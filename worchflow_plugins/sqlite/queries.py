"""Reading executions: the seven operators as SQL, each served by an index."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from datetime import timedelta
from typing import Any

import apsw

from worchflow_core import (
    COUNT_CAP,
    Condition,
    Execution,
    Page,
    Query,
    Status,
    Tally,
    from_millis,
    to_millis,
)
from worchflow_plugins.sqlite.conditions import Where, matching, split
from worchflow_plugins.sqlite.connection import fetch, packed
from worchflow_plugins.sqlite.rows import EXECUTION_COLUMNS, execution_from
from worchflow_plugins.sqlite.schema import FINAL_LIST


def selection(query: Query) -> tuple[str, list[Any]]:
    """Return what `find` selects from, and its bindings.

    The numbers of a page come first and its executions afterwards, so that no sorting ever moves
    a payload.
    """
    direction = "DESC" if query.descending else "ASC"
    branches = [_branch(branch) for branch in split(query)]
    bindings = [value for _, values in branches for value in values]
    union = " UNION ALL ".join(text for text, _ in branches)
    inner = f"SELECT number FROM ({union} ORDER BY 2 {direction}, 3 {direction} LIMIT ? OFFSET ?)"
    text = (
        f"FROM executions WHERE number IN ({inner}) "
        f"ORDER BY {query.order} {direction}, id {direction}"
    )
    return text, [*bindings, query.limit, query.skip]


def _branch(query: Query) -> tuple[str, list[Any]]:
    where, order, source = matching(query)
    if query.after is not None:
        sign = "<" if query.descending else ">"
        moment, edge = query.after
        where.add(f"({order}, id) {sign} (?, ?)", to_millis(moment), edge)
    return f"SELECT number, {order}, id FROM {source} {where.text()}", where.bindings


def counting(query: Query) -> tuple[str, list[Any]]:
    """Return the statement that counts all that match, up to the cap."""
    where, _, source = matching(query)
    text = f"SELECT count(*) FROM (SELECT 1 FROM {source} {where.text()} LIMIT {COUNT_CAP})"
    return text, where.bindings


def find(connection: apsw.Connection, query: Query) -> Page:
    """Answer a query; page and count are of one moment."""
    # One moment matters only to two statements.
    with connection if query.counted else nullcontext():
        source, bindings = selection(query)
        rows = fetch(connection, EXECUTION_COLUMNS, source, bindings)
        total = connection.execute(*counting(query)).get if query.counted else None
    return Page(items=tuple(execution_from(row) for row in rows), total=total)


def get(connection: apsw.Connection, ids: Collection[str]) -> Sequence[Execution]:
    """Return the executions that exist among these ids."""
    source = "FROM (SELECT value AS asked FROM json_each(?)) CROSS JOIN executions ON id = asked"
    wanted = packed(list(dict.fromkeys(ids)))
    return [execution_from(row) for row in fetch(connection, EXECUTION_COLUMNS, source, (wanted,))]


def stats(connection: apsw.Connection) -> Mapping[Status, int]:
    """Return the counts that triggers keep."""
    rows = fetch(connection, "status, count", "FROM counts")
    return {Status(row[0]): row[1] for row in rows}


def tally(
    connection: apsw.Connection, where: Sequence[Condition], bucket: timedelta
) -> Sequence[Tally]:
    """Count ended executions by function, status and `finished_at` rounded down."""
    source, bindings = tallying(where, bucket)
    rows = fetch(connection, "function, status, start, count, millis", source, bindings)
    return [
        Tally(
            function=row[0],
            status=Status(row[1]),
            start=from_millis(row[2]),
            count=row[3],
            total_seconds=row[4] / 1000,
        )
        for row in rows
    ]


def tallying(where: Sequence[Condition], bucket: timedelta) -> tuple[str, list[Any]]:
    """Return what `tally` selects from, and its bindings."""
    narrowed = Where()
    narrowed.add(f"finished_at IS NOT NULL AND +status IN {FINAL_LIST}")
    for condition in where:
        narrowed.condition(condition, is_wide=condition.field != "finished_at")
    text = f"""
        FROM (
            SELECT function, status, finished_at - finished_at % ? AS start,
            count(*) AS count, sum(finished_at - created_at) AS millis
            FROM executions {narrowed.text()} GROUP BY 1, 2, 3
        )
    """
    return text, [bucket // timedelta(milliseconds=1), *narrowed.bindings]
