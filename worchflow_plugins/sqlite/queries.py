"""Reading executions: the seven operators as SQL, each served by an index."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any

import apsw

from worchflow_core.clock import from_millis, to_millis
from worchflow_core.models import Execution, Status, Tally
from worchflow_core.query import COUNT_CAP, Condition, Operator, Page, Query
from worchflow_plugins.sqlite.connection import fetch, packed
from worchflow_plugins.sqlite.rows import EXECUTION_COLUMNS, encoded, execution_from
from worchflow_plugins.sqlite.schema import FINAL_LIST

_LISTED = "(SELECT value FROM json_each(?))"
_LAST = 0x10FFFF


class _Where:
    """The conditions of a query as SQL, and the values bound to them in order."""

    def __init__(self) -> None:
        self.terms: list[str] = []
        self.bindings: list[Any] = []

    def add(self, term: str, *bindings: Any) -> None:
        """Add a term; fields are names of our own, values are always bound."""
        self.terms.append(term)
        self.bindings += bindings

    def condition(self, condition: Condition) -> None:
        """Add one condition."""
        name, value = condition.field, condition.value
        match condition.operator:
            case Operator.EQUAL if value is None:
                self.add(f"{name} IS NULL")
            case Operator.EQUAL if isinstance(value, bool):
                self.add(f"{name} = {int(value)}")  # spelled out, to match the partial index
            case Operator.EQUAL:
                self.add(f"{name} = ?", encoded(name, value))
            case Operator.IN:
                self.add(f"{name} IN {_LISTED}", _list(name, value))
            case Operator.NOT_IN:
                self.add(f"{name} IS NOT NULL AND {name} NOT IN {_LISTED}", _list(name, value))
            case Operator.BEFORE:
                self.add(f"{name} < ?", encoded(name, value))
            case Operator.SINCE:
                self.add(f"{name} >= ?", encoded(name, value))
            case Operator.PREFIX:
                self.prefix(name, value)
            case Operator.HAS:
                side = f"(SELECT execution FROM {name} WHERE key IN {_LISTED})"
                self.add(f"number IN {side}", packed([*value]))

    def prefix(self, name: str, text: str) -> None:
        """Add that a field starts with a text: a range, which an index serves."""
        term, bindings = _range(name, text)
        self.add(term, *bindings)

    def search(self, text: str) -> None:
        """Add that id, function or error are what somebody looks for."""
        parts = [
            _range("id", text),
            _range("function", text),
            _range("error_type", ("." + text)[::-1]),
        ]
        self.add(
            "(" + " OR ".join(f"({term})" for term, _ in parts) + ")",
            *(value for _, bindings in parts for value in bindings),
        )

    def text(self) -> str:
        """Return the WHERE clause."""
        return "WHERE " + " AND ".join(self.terms)


def _list(name: str, values: Collection[Any]) -> str:
    return packed([encoded(name, value) for value in values])


def _range(name: str, prefix: str) -> tuple[str, tuple[str, ...]]:
    """Return a range of all texts that start with `prefix`, in order of code points."""
    kept = prefix.rstrip(chr(_LAST))
    if not kept:
        return (f"{name} >= ?", (prefix,))
    following = ord(kept[-1]) + 1
    if 0xD800 <= following <= 0xDFFF:
        following = 0xE000
    return (f"{name} >= ? AND {name} < ?", (prefix, kept[:-1] + chr(following)))


def selection(query: Query) -> tuple[str, list[Any]]:
    """Return what `find` selects from, and its bindings."""
    where = _matching(query)
    if query.after is not None:
        sign = "<" if query.descending else ">"
        moment, edge = query.after
        where.add(f"({query.order}, id) {sign} (?, ?)", to_millis(moment), edge)
    direction = "DESC" if query.descending else "ASC"
    text = (
        f"FROM executions {where.text()} "
        f"ORDER BY {query.order} {direction}, id {direction} LIMIT ? OFFSET ?"
    )
    return text, [*where.bindings, query.limit, query.skip]


def counting(query: Query) -> tuple[str, list[Any]]:
    """Return the statement that counts all that match, up to the cap."""
    where = _matching(query)
    text = f"SELECT count(*) FROM (SELECT 1 FROM executions {where.text()} LIMIT {COUNT_CAP})"
    return text, where.bindings


def _matching(query: Query) -> _Where:
    where = _Where()
    where.add(f"{query.order} IS NOT NULL")
    if query.search:
        where.search(query.search)
    for condition in query.where:
        where.condition(condition)
    return where


def find(connection: apsw.Connection, query: Query) -> Page:
    """Answer a query; page and count are of one moment."""
    with connection:
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
    narrowed = _Where()
    narrowed.add(f"finished_at IS NOT NULL AND status IN {FINAL_LIST}")
    for condition in where:
        narrowed.condition(condition)
    text = f"""
        FROM (
            SELECT function, status, finished_at - finished_at % ? AS start,
            count(*) AS count, sum(finished_at - created_at) AS millis
            FROM executions {narrowed.text()} GROUP BY 1, 2, 3
        )
    """
    return text, [bucket // timedelta(milliseconds=1), *narrowed.bindings]
