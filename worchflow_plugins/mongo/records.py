"""Records: small shared facts, compared and set by version."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from bson import MaxKey, ObjectId
from pymongo import ASCENDING, DeleteOne, UpdateOne
from pymongo.asynchronous.collection import AsyncCollection

from worchflow_core import Record
from worchflow_plugins.mongo.connection import Connection, lasting
from worchflow_plugins.mongo.documents import Document
from worchflow_plugins.mongo.inserts import insert


class MongoRecords:
    """The documents of `records`; `_id` is kind and key, in this order."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def _records(self) -> AsyncCollection[Any]:
        return self._connection.collection("records")

    async def insert(self, records: Sequence[Record]) -> Collection[str]:
        """Insert records whose (kind, key) is new; return the keys that were."""
        if not records:
            return []
        with self._connection.guard:
            return await lasting(self._insert(records))

    async def _insert(self, records: Sequence[Record]) -> Collection[str]:
        token = ObjectId()
        documents = [
            {**_id(item.kind, item.key), "body": item.body, "version": item.version, "token": token}
            for item in records
        ]
        inserted = await insert(self._records, documents)
        present = inserted.present
        if present and inserted.is_repeat:
            ids = [documents[position]["_id"] for position in present]
            ours = self._records.find({"_id": {"$in": ids}, "token": token}, {"_id": 1})
            mine = {_pair(item) async for item in ours}
            present = frozenset(item for item in present if _pair(documents[item]) not in mine)
        return [item.key for position, item in enumerate(records) if position not in present]

    async def replace(self, records: Sequence[Record]) -> Collection[str]:
        """Replace each record whose stored version is `version - 1`; return the keys refused."""
        if not records:
            return []
        with self._connection.guard:
            return await lasting(self._replace(records))

    async def _replace(self, records: Sequence[Record]) -> Collection[str]:
        token = ObjectId()
        result = await self._records.bulk_write(
            [_over(item, token) for item in records], ordered=False
        )
        if result.matched_count + result.deleted_count == len(records):
            return []
        ids = [_id(item.kind, item.key)["_id"] for item in records]
        fields = {"version": 1, "token": 1}
        standing = {
            _pair(item): (item["version"], item.get("token"))
            async for item in self._records.find({"_id": {"$in": ids}}, fields)
        }
        return [item.key for item in records if not _is_taken(item, token, standing)]

    async def delete(self, kind: str, keys: Collection[str]) -> None:
        """Delete records; missing ones are no error."""
        if keys:
            ids = [_id(kind, key)["_id"] for key in keys]
            with self._connection.guard:
                await lasting(self._records.delete_many({"_id": {"$in": ids}}))

    async def scan(
        self, kind: str, *, after: str = "", until: str | None = None, limit: int = 100
    ) -> Sequence[Record]:
        """Return records of a kind in key order, keys greater than `after` and below `until`."""
        end = _id(kind, MaxKey() if until is None else until)["_id"]
        wanted = {"_id": {"$gt": _id(kind, after)["_id"], "$lt": end}}
        cursor = self._records.find(wanted, batch_size=limit + 1)
        with self._connection.guard:
            found = await lasting(cursor.sort("_id", ASCENDING).limit(limit).to_list())
        return [
            Record(kind=kind, key=item["_id"]["key"], body=item["body"], version=item["version"])
            for item in found
        ]

    async def kinds(self) -> Collection[str]:
        """Return the kinds of which there are records, each found by one step of the index."""
        found: list[str] = []
        wanted: Document = {}
        with self._connection.guard:
            while item := await self._records.find_one(wanted, {"_id": 1}, sort=[("_id", 1)]):
                found.append(item["_id"]["kind"])
                wanted = {"_id": {"$gt": _id(found[-1], MaxKey())["_id"]}}
        return found


def _over(record: Record, token: ObjectId) -> UpdateOne | DeleteOne:
    """Return the write that puts a record over the version before it."""
    wanted = {**_id(record.kind, record.key), "version": record.version - 1}
    if not record.body:
        return DeleteOne(wanted)
    values = {"body": record.body, "version": record.version, "token": token}
    return UpdateOne(wanted, {"$set": values})


def _is_taken(
    record: Record, token: ObjectId, standing: Mapping[tuple[str, str], tuple[int, Any]]
) -> bool:
    """Return whether a record was replaced as asked, given (version, token) of what stands."""
    found = standing.get((record.kind, record.key))
    if not record.body:
        return found is None  # gone, by us or by another: either way it is as it was to be
    return found == (record.version, token)


def _id(kind: str, key: Any) -> Document:
    return {"_id": {"kind": kind, "key": key}}


def _pair(document: Document) -> tuple[str, str]:
    return document["_id"]["kind"], document["_id"]["key"]
