"""Queries of the core as filters, sorts and limits of the server."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pymongo import ASCENDING, DESCENDING
from pymongo.asynchronous.collection import AsyncCollection

from worchflow_core import (
    COUNT_CAP,
    EXECUTION_NAMES,
    Condition,
    Operator,
    Page,
    Query,
    Status,
    to_millis,
)
from worchflow_plugins.mongo.connection import Connection
from worchflow_plugins.mongo.documents import ALWAYS_DUE, Document, execution_of
from worchflow_plugins.mongo.indexes import CREATED, WAITING

Hint = list[tuple[str, int]]

TIME_LIMIT = 10_000
"""Milliseconds after which the server gives a question up."""
_MUCH = 5_000
_LAST_CHARACTER = 0x10FFFF
_TEXTS = frozenset({"id", "function", "owner", "parent", "forked_from"})


class Finder:
    """Answer queries over `executions`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def find(self, query: Query) -> Page:
        """Answer a query."""
        executions = self._executions
        wanted = filter_of(query)
        direction = DESCENDING if query.descending else ASCENDING
        total = None
        if query.counted:
            total = await self._count(wanted, COUNT_CAP)
        cursor = executions.find(
            _behind(wanted, query),
            hint=await self._hint(query, wanted, total),
            sort=[(EXECUTION_NAMES[query.order], direction), ("id", direction)],
            skip=query.skip,
            limit=query.limit,
            batch_size=query.limit + 1,
            max_time_ms=TIME_LIMIT,
        )
        items = tuple(execution_of(item) for item in await cursor.to_list())
        return Page(items=items, total=total)

    @property
    def _executions(self) -> AsyncCollection[Any]:
        return self._connection.collection("executions")

    async def _count(self, wanted: Document, limit: int) -> int:
        options: dict[str, Any] = {"limit": limit, "maxTimeMS": TIME_LIMIT}
        if not wanted:
            options["hint"] = "_id_"  # else the server fetches documents to count them
        return await self._executions.count_documents(wanted, **options)

    async def _hint(self, query: Query, wanted: Document, total: int | None) -> Hint | None:
        """Return the index to walk where the server would choose badly, else None.

        Who waits for one thing is found by that, however many others have the same status. Where
        the beginning of a text fits much, the server would fetch and sort all of it: the first
        page comes sooner by the index that has the order already.
        """
        if any(item.field == "waits" for item in query.where):
            return list(WAITING.key)
        begins = any(item.operator is Operator.PREFIX for item in query.where)
        is_alone = len(query.where) == (1 if begins else 0)
        if query.order != "created_at" or not is_alone or not (query.search or begins):
            return None
        if total is None:
            total = await self._count(wanted, _MUCH)
        return list(CREATED.key) if total >= _MUCH else None


def filter_of(query: Query) -> Document:
    """Return the filter for all that matches a query, its cursor aside."""
    clauses = conditions(query.where)
    if query.order != "created_at":
        clauses.append({EXECUTION_NAMES[query.order]: {"$gt": 0}})
    fields = {query.order, *(item.field for item in query.where)}
    if "finished_at" in fields and "status" not in fields:
        # The index of what ended begins with the status.
        clauses.append({"status": {"$in": [status.value for status in Status]}})
    if query.search:
        clauses.append(
            {
                "$or": [
                    {"id": prefix_range(query.search)},
                    {"eventName": prefix_range(query.search)},
                    {"errorNames": query.search},
                ]
            }
        )
    return {"$and": clauses} if clauses else {}


def conditions(where: Sequence[Condition]) -> list[Document]:
    """Return conditions as clauses that must all hold."""
    return [{EXECUTION_NAMES[item.field]: _clause(item)} for item in where]


def prefix_range(text: str) -> Document:
    """Return the range of texts that start with `text`: no pattern, so nothing to escape."""
    found: Document = {"$gte": text}
    for position in range(len(text) - 1, -1, -1):
        code = ord(text[position])
        if code < _LAST_CHARACTER:
            following = 0xE000 if code == 0xD7FF else code + 1
            found["$lt"] = text[:position] + chr(following)
            break
    return found


def _behind(wanted: Document, query: Query) -> Document:
    if query.after is None:
        return wanted
    name, compare = EXECUTION_NAMES[query.order], "$lt" if query.descending else "$gt"
    moment, last_id = to_millis(query.after[0]), query.after[1]
    # The first clause follows from the other two; it gives the index its bounds.
    edge = [
        {name: {f"{compare}e": moment}},
        {"$or": [{name: {compare: moment}}, {name: moment, "id": {compare: last_id}}]},
    ]
    return {"$and": [*wanted.get("$and", ()), *edge]}


def _clause(condition: Condition) -> Any:
    name, value = condition.field, condition.value
    match condition.operator:
        case Operator.EQUAL if value is None:
            return {"$in": [None, ALWAYS_DUE]} if name == "due_at" else None
        case Operator.EQUAL if name == "handlers_due":
            return True if value else {"$ne": True}
        case Operator.EQUAL:
            return _wire(value)
        case Operator.IN | Operator.HAS:
            return {"$in": [_wire(item) for item in value]}
        case Operator.NOT_IN if name == "status":
            return {"$in": [status.value for status in Status if status not in value]}
        case Operator.NOT_IN:
            # Text is greater than "": so the server sees that the partial indexes will do.
            floor = {"$gt": ""} if name in _TEXTS else {}
            return {**floor, "$nin": [None, *(_wire(item) for item in value)]}
        case Operator.BEFORE:
            return {"$gt": ALWAYS_DUE, "$lt": _wire(value)}
        case Operator.SINCE:
            return {"$gt": ALWAYS_DUE, "$gte": _wire(value)}
        case Operator.PREFIX:
            return prefix_range(value)


def _wire(value: Any) -> Any:
    if isinstance(value, datetime):
        return to_millis(value)
    return value.value if isinstance(value, Status) else value
