"""Many compare-and-sets in few statements.

A statement costs the server more than the document it changes. So what is compared with the same
values and loses the same fields goes in one statement, which carries a table of each document's
new values.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import bson
from bson import ObjectId
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument
from pymongo import UpdateMany, errors
from pymongo.asynchronous.collection import AsyncCollection

from worchflow_core import Change, InvalidInput
from worchflow_plugins.mongo.documents import Document, expect_filter, update_document
from worchflow_plugins.mongo.faults import is_lost_answer, is_passing
from worchflow_plugins.mongo.indexes import ID
from worchflow_plugins.mongo.inserts import LARGEST, clean, too_large

_ROWS = 250
"""The server looks a document's row up from the table's beginning."""
_BYTES = 4 * 1024 * 1024
_BY_ID = list(ID.key)


@dataclass(slots=True)
class _Statement:
    """Changes that expect the same and remove the same; the ids are unique, so each is of one."""

    expected: Document
    removed: list[str]
    ids: list[str] = field(default_factory=list)
    rows: list[RawBSONDocument] = field(default_factory=list)
    size: int = 0

    def takes(self, size: int, rows: int) -> bool:
        """Return whether another row of this size finds room."""
        return len(self.ids) < rows and self.size + size <= _BYTES

    def add(self, change: Change, row: bytes) -> None:
        self.ids.append(change.id)
        self.rows.append(RawBSONDocument(row))
        self.size += len(row)

    def operation(self) -> UpdateMany:
        row = {
            "$arrayElemAt": [
                {"$literal": self.rows},
                {"$indexOfArray": [{"$literal": self.ids}, "$id"]},
            ]
        }
        stages: list[Document] = [{"$replaceWith": {"$mergeObjects": ["$$ROOT", row]}}]
        if self.removed:
            stages.append({"$unset": self.removed})
        wanted = {"id": {"$in": self.ids}, **self.expected}
        return UpdateMany(wanted, stages, hint=_BY_ID)


async def apply(
    collection: AsyncCollection[Any], changes: Sequence[Change], token: ObjectId
) -> int:
    """Apply what holds and leave `token` in each document changed; return how many matched.

    After a repetition those of the first try no longer match: the token tells.
    """
    try:
        return await _bulk(collection, changes, token, _ROWS)
    except errors.BulkWriteError as error:
        if len(changes) == 1 or is_passing(error):
            raise
        # One that cannot be made holds up the others of its statement: each in one of its own.
        return await _bulk(collection, changes, token, 1)


async def _bulk(
    collection: AsyncCollection[Any], changes: Sequence[Change], token: ObjectId, rows: int
) -> int:
    operations = [item.operation() for item in _statements(changes, token, rows)]
    for is_repeat in (False, True):
        try:
            return (await collection.bulk_write(operations, ordered=False)).matched_count
        except errors.AutoReconnect as error:
            if is_repeat or not is_lost_answer(error):
                raise
    raise AssertionError("unreachable")


def _statements(changes: Sequence[Change], token: ObjectId, rows: int) -> Iterable[_Statement]:
    newest: dict[Any, _Statement] = {}
    found: list[_Statement] = []
    for change in changes:
        to_set, to_unset = update_document(change.values)
        # Which of many were applied is not in the server's answer; the token tells.
        to_set["writeToken"] = token
        row = _encoded(to_set, change)
        kind = (tuple(change.expect.items()), tuple(to_unset))
        statement = newest.get(kind)
        if statement is None or not statement.takes(len(row), rows):
            statement = newest[kind] = _Statement(expect_filter(change.expect), list(to_unset))
            found.append(statement)
        statement.add(change, row)
    return found


def _encoded(to_set: Document, change: Change) -> bytes:
    try:
        row = bson.encode(to_set)
    except (BSONError, OverflowError, UnicodeEncodeError):
        row = bson.encode(clean(to_set))
    if len(row) > LARGEST:
        raise InvalidInput(too_large(f"execution {change.id}", len(row)))
    return row
