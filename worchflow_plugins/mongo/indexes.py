"""The indexes: verified by key and uniqueness, never by name; only what is missing is created."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pymongo import ASCENDING, DESCENDING, IndexModel
from pymongo.asynchronous.collection import AsyncCollection

from worchflow_core import StoreUnusable
from worchflow_plugins.mongo.connection import Connection

Key = tuple[tuple[str, int], ...]


def _key(*names: str) -> Key:
    return tuple(
        (name.lstrip("-"), DESCENDING if name.startswith("-") else ASCENDING) for name in names
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """An index that some query needs; `partial` keeps documents out that it has no use for."""

    collection: str
    key: Key
    unique: bool = False
    partial: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name we create it under."""
        fields = "_".join(name for name, _ in self.key)
        return f"worchflow_{fields}" + ("_foreign" if "_id" in self.partial else "")

    def is_served_by(self, found: Mapping[str, Any]) -> bool:
        """Return whether an index as the server lists it does this one's work."""
        if tuple((name, int(order)) for name, order in found["key"].items()) != self.key:
            return False
        partial = dict(found.get("partialFilterExpression") or {})
        is_whole = not partial and not found.get("sparse") and not found.get("collation")
        return is_whole or (partial == dict(self.partial) and not found.get("collation"))

    def model(self) -> IndexModel:
        """Return what the driver creates it from."""
        options: dict[str, Any] = {"name": self.name}
        if self.unique:
            options["unique"] = True
        if self.partial:
            options["partialFilterExpression"] = dict(self.partial)
        return IndexModel(list(self.key), **options)


def _some(*names: str) -> Index:
    """Return an index that holds only documents which have its first field, as a number."""
    first = names[0]
    return Index(collection="executions", key=_key(*names), partial={first: {"$gt": 0}})


ID = Index(collection="executions", key=_key("id"), unique=True)
DUE = Index(
    collection="executions",
    key=_key("eventName", "-priority", "dueAt"),
    partial={"dueAt": {"$gte": 0}},
)
# Not (status, createdAt): the original has that one, over all documents.
FOREIGN = Index(
    collection="executions",
    # dueAt: what waits for its time is not looked through for what has none.
    key=_key("status", "eventName", "dueAt", "createdAt"),
    partial={"_id": {"$type": "objectId"}},
)
ENDED = Index(
    collection="executions",
    key=_key("status", "finishedAt", "id"),
    partial={"finishedAt": {"$gt": 0}},
)
BY_STATUS = Index(collection="executions", key=_key("status", "createdAt", "id"))
CREATED = Index(collection="executions", key=_key("createdAt", "id"))
STEP = Index(collection="steps", key=_key("executionId", "stepId"), unique=True)
INDEXES = (
    ID,
    DUE,
    FOREIGN,
    ENDED,
    BY_STATUS,
    CREATED,
    STEP,
    # Each claim and each settle moves it, for three hundredths more of the server's time: lists
    # of what changed last would walk everything otherwise.
    Index(collection="executions", key=_key("updatedAt", "id")),
    Index(collection="executions", key=_key("eventName", "createdAt", "id")),
    Index(collection="executions", key=_key("owner"), partial={"owner": {"$gt": ""}}),
    # In order of creation: many may wait for one thing, and the oldest is to go on first.
    Index(
        collection="executions",
        key=_key("waits", "createdAt", "id"),
        partial={"waits": {"$exists": True}},
    ),
    Index(collection="executions", key=_key("tags"), partial={"tags": {"$exists": True}}),
    Index(collection="executions", key=_key("parent"), partial={"parent": {"$gt": ""}}),
    Index(collection="executions", key=_key("forkedFrom"), partial={"forkedFrom": {"$gt": ""}}),
    Index(
        collection="executions",
        key=_key("errorNames"),
        partial={"errorNames": {"$exists": True}},
    ),
    Index(collection="executions", key=_key("handlersDue"), partial={"handlersDue": {"$eq": True}}),
    _some("dueAt", "id"),
    _some("hintAt", "id"),
    _some("deadlineAt", "id"),
    _some("cancelRequestedAt", "id"),
)


async def missing(connection: Connection) -> list[Index]:
    """Return the indexes that nothing serves yet.

    Raises:
        StoreUnusable: an index that must be unique is there and is not; it is left as it is.
    """
    found = {name: await _listed(connection.collection(name)) for name in ("executions", "steps")}
    lacking = []
    for index in INDEXES:
        served = [item for item in found[index.collection] if index.is_served_by(item)]
        if index.unique and served and not any(item.get("unique") for item in served):
            raise StoreUnusable(_repair(connection, index, served[0]["name"]))
        if not served:
            lacking.append(index)
    return lacking


async def create_missing(connection: Connection) -> None:
    """Create what is missing; raise `StoreUnusable` rather than alter what is there."""
    with connection.guard:
        lacking = await missing(connection)
        for name in ("executions", "steps"):
            models = [index.model() for index in lacking if index.collection == name]
            if models:
                await connection.collection(name).create_indexes(models)


async def _listed(collection: AsyncCollection[Any]) -> list[Mapping[str, Any]]:
    return [item async for item in await collection.list_indexes()]


def _repair(connection: Connection, index: Index, name: str) -> str:
    key = "{" + ", ".join(f"{field}: {order}" for field, order in index.key) + "}"
    where = f"db.{index.collection}"
    return (
        f"the index {name} on {key} of {index.collection} in {connection.place} is not unique, so "
        "one id could be stored twice; look for doubles, then run in mongosh: "
        f'{where}.dropIndex("{name}"); {where}.createIndex({key}, {{unique: true}})'
    )
