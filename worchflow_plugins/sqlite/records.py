"""Writing and reading records: small, shared, and neither executions nor steps."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import apsw

from worchflow_core import Record
from worchflow_plugins.sqlite.connection import fetch, packed
from worchflow_plugins.sqlite.handle import Handle
from worchflow_plugins.sqlite.writer import Kind

_OVER = "WHERE kind = ?1 AND key = ?2 AND version = ?3 - 1"


def _insert(connection: apsw.Connection, members: Sequence[Sequence[Record]]) -> list[set[str]]:
    answers = []
    for member in members:
        new = set()
        for item in member:
            connection.execute(
                "INSERT INTO records (kind, key, version, body) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (kind, key) DO NOTHING",
                (item.kind, item.key, item.version, item.body),
            )
            if connection.changes():
                new.add(item.key)
        answers.append(new)
    return answers


def _replace(connection: apsw.Connection, members: Sequence[Sequence[Record]]) -> list[set[str]]:
    answers = []
    for member in members:
        refused = set()
        for item in member:
            place = (item.kind, item.key, item.version)
            if item.body:
                text = f"UPDATE records SET version = ?3, body = ?4 {_OVER}"
                connection.execute(text, (*place, item.body))
            else:
                connection.execute(f"DELETE FROM records {_OVER}", place)
            if not connection.changes() and (item.body or _stands(connection, item)):
                refused.add(item.key)
        answers.append(refused)
    return answers


def _stands(connection: apsw.Connection, item: Record) -> bool:
    found = "SELECT count(*) FROM records WHERE kind = ? AND key = ?"
    return bool(connection.execute(found, (item.kind, item.key)).get)


def _delete(
    connection: apsw.Connection, members: Sequence[tuple[str, Collection[str]]]
) -> list[None]:
    for kind, keys in members:
        connection.execute(
            "DELETE FROM records WHERE kind = ? AND key IN (SELECT value FROM json_each(?))",
            (kind, packed([*keys])),
        )
    return [None] * len(members)


def _scan(
    connection: apsw.Connection, kind: str, after: str, until: str | None, limit: int
) -> list[Record]:
    end, bindings = ("", ()) if until is None else (" AND key < ?4", (until,))
    rows = fetch(
        connection,
        "kind, key, body, version",
        f"FROM records WHERE kind = ?1 AND key > ?2{end} ORDER BY key LIMIT ?3",
        (kind, after, limit, *bindings),
    )
    return [Record(kind=row[0], key=row[1], body=row[2], version=row[3]) for row in rows]


def _kinds(connection: apsw.Connection) -> list[str]:
    # From one kind to the next by the index; DISTINCT alone walks every record.
    rows = connection.execute(
        "WITH RECURSIVE found (kind) AS ("
        " SELECT min(kind) FROM records"
        " UNION ALL SELECT (SELECT min(kind) FROM records WHERE kind > found.kind) FROM found"
        " WHERE found.kind IS NOT NULL"
        ") SELECT kind FROM found WHERE kind IS NOT NULL"
    )
    return [row[0] for row in rows]


_INSERT, _REPLACE, _DELETE = Kind(60, _insert), Kind(61, _replace), Kind(62, _delete)


class SqliteRecords:
    """The records of one file."""

    def __init__(self, file: Handle) -> None:
        self._file = file

    async def insert(self, records: Sequence[Record]) -> Collection[str]:
        """Insert records whose (kind, key) is new; return the keys that were."""
        new: set[str] = await self._file.write(_INSERT, records, weight=_weigh(records))
        return new

    async def replace(self, records: Sequence[Record]) -> Collection[str]:
        """Replace each record whose stored version is `version - 1`; return the keys refused."""
        refused: set[str] = await self._file.write(_REPLACE, records, weight=_weigh(records))
        return refused

    async def delete(self, kind: str, keys: Collection[str]) -> None:
        """Delete records; missing ones are no error."""
        await self._file.write(_DELETE, (kind, keys), weight=len(keys))

    async def scan(
        self, kind: str, *, after: str = "", until: str | None = None, limit: int = 100
    ) -> Sequence[Record]:
        """Return records of a kind in key order, keys greater than `after` and below `until`."""
        return await self._file.read(_scan, kind, after, until, limit)

    async def kinds(self) -> Collection[str]:
        """Return the kinds of which there are records."""
        return await self._file.read(_kinds)


def _weigh(records: Sequence[Record]) -> int:
    return sum(1 + (len(item.body) >> 10) for item in records)
