"""Creating, changing, reading and deleting executions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from bson import ObjectId
from pymongo import DeleteMany
from pymongo.asynchronous.collection import AsyncCollection

from worchflow_core import FINAL, Change, Created, Execution, is_applied, to_millis
from worchflow_plugins.mongo.connection import Connection
from worchflow_plugins.mongo.documents import (
    Document,
    execution_document,
    execution_of,
)
from worchflow_plugins.mongo.indexes import ID
from worchflow_plugins.mongo.inserts import check_size, insert
from worchflow_plugins.mongo.updates import apply

_FINAL = [status.value for status in FINAL]
_BY_ID = list(ID.key)


class Executions:
    """The documents of `executions`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def _executions(self) -> AsyncCollection[Any]:
        return self._connection.collection("executions")

    async def create(self, executions: Sequence[Execution]) -> Sequence[Created]:
        """Insert executions; answer for each, in order."""
        documents = []
        for item in executions:
            document = execution_document(item)
            check_size(document, f"execution {item.id}", item.data, item.result)
            documents.append(document)
        inserted = await insert(self._executions, documents)
        answers = [Created.NEW] * len(executions)
        if inserted.present:
            ids = [executions[position].id for position in inserted.present]
            fields = {"_id": 0, "id": 1, "eventName": 1, "inputHash": 1, "createdAt": 1}
            standing = {item["id"]: item for item in await self._read(ids, fields)}
            for position in inserted.present:
                item = executions[position]
                found = standing.get(item.id)
                answers[position] = _judge(item, found, is_repeat=inserted.is_repeat)
        return answers

    async def update(self, changes: Sequence[Change]) -> Collection[str]:
        """Apply compare-and-sets; return the ids that were refused."""
        refused: list[str] = []
        for batch in _without_repeats(changes):
            refused += await self._update(batch)
        return refused

    async def get(self, ids: Collection[str]) -> Sequence[Execution]:
        """Return the executions that exist among these ids."""
        return [execution_of(item) for item in await self._read(ids, None)]

    async def delete(self, ids: Collection[str]) -> Collection[str]:
        """Delete final executions, their steps first; return the ids that are gone."""
        wanted = list(dict.fromkeys(ids))
        fields = {"_id": 0, "id": 1, "status": 1}
        standing = {item["id"]: item["status"] for item in await self._read(wanted, fields)}
        doomed = [item for item in wanted if standing.get(item) in _FINAL or item not in standing]
        steps = self._connection.collection("steps")
        await steps.delete_many({"executionId": {"$in": doomed}})
        await self._executions.delete_many(
            {"id": {"$in": doomed}, "status": {"$in": _FINAL}}, hint=_BY_ID
        )
        kept = {item["id"] for item in await self._read(doomed, {"_id": 0, "id": 1})}
        gone = [item for item in doomed if item not in kept]
        # Again, for a late step that came between the two.
        await steps.bulk_write([DeleteMany({"executionId": {"$in": gone}})])
        return gone

    async def _update(self, changes: Sequence[Change]) -> list[str]:
        token = ObjectId()
        matched = await apply(self._executions, changes, token)
        if matched == len(changes):
            return []
        fields = {"_id": 0, "id": 1, "eventName": 1, "status": 1, "owner": 1, "fence": 1}
        fields |= {"updatedAt": 1, "writeToken": 1}
        ids = [change.id for change in changes]
        standing = {item["id"]: item for item in await self._read(ids, fields)}
        return [
            change.id
            for change in changes
            if not _is_accepted(change, standing.get(change.id), token)
        ]

    async def _read(self, ids: Collection[str], fields: Document | None) -> list[Document]:
        cursor = self._executions.find(
            {"id": {"$in": list(ids)}}, fields, hint=_BY_ID, batch_size=len(ids) + 1
        )
        return await cursor.to_list()


def _without_repeats(changes: Sequence[Change]) -> list[Sequence[Change]]:
    """Split changes so that no id is twice in one part, and each id's keep their order."""
    if len({change.id for change in changes}) == len(changes):
        return [changes] if changes else []
    parts: list[list[Change]] = []
    seen: dict[str, int] = {}
    for change in changes:
        number = seen[change.id] = seen.get(change.id, -1) + 1
        if number == len(parts):
            parts.append([])
        parts[number].append(change)
    return list(parts)


def _judge(execution: Execution, found: Document | None, *, is_repeat: bool) -> Created:
    if found is None:
        return Created.CONFLICT
    if found.get("eventName") != execution.function:
        return Created.CONFLICT
    if found.get("inputHash") != execution.input_hash:
        return Created.CONFLICT
    # After a lost answer, our own first try is what stands.
    is_ours = is_repeat and found.get("createdAt") == to_millis(execution.created_at)
    return Created.NEW if is_ours else Created.SAME


def _is_accepted(change: Change, found: Document | None, token: ObjectId) -> bool:
    if found is None:
        return False
    return found.get("writeToken") == token or is_applied(execution_of(found), change)
