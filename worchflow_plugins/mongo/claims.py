"""Claiming: many executions in two trips, and no claim forgotten whose answer was lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bson import ObjectId
from pymongo import ReturnDocument
from pymongo.asynchronous.collection import AsyncCollection

from worchflow_core import CLAIMABLE, Execution, Status, to_millis
from worchflow_plugins.mongo.connection import Connection, lasting
from worchflow_plugins.mongo.documents import Document, execution_of
from worchflow_plugins.mongo.faults import is_lost_answer
from worchflow_plugins.mongo.indexes import DUE, ENDED, FOREIGN, ID

_CLAIMABLE = [status.value for status in CLAIMABLE]
_REOPENED = [Status.QUEUED.value, Status.RETRYING.value]
_BY_ID = list(ID.key)
_FUNCTIONS_AT_ONCE = 150
"""The server merges at most 200 index ranges in order; beyond that it would sort everything."""
_STRAY_INTERVAL = 1.0
_ADOPTED_AT_ONCE = 1000
_RECHECKED_FOR = 300.0
_RECHECK_INTERVAL = 1.0


@dataclass(slots=True)
class _Unanswered:
    """A claim whose answer was lost: the server may have made it, now or later."""

    owner: str
    ids: set[str]
    until: float


class Claims:
    """Take executions for workers."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._unanswered: dict[ObjectId, _Unanswered] = {}
        self._rechecked_at: dict[str, float] = {}
        self._strays_at = 0.0

    async def claim(
        self,
        owner: str,
        functions: Collection[str],
        *,
        limit: int,
        now: datetime,
        ids: Collection[str] | None,
    ) -> Sequence[Execution]:
        """Take up to `limit` claimable executions for `owner`."""
        names = list(functions)
        if not names or limit < 1:
            return []
        found = await self._recover(owner, limit) if self._unanswered else []
        limit -= len(found)
        millis = to_millis(now)
        if limit > 0:
            if ids is None:
                chosen = await self._due(names, limit, millis)
            else:
                chosen = list(dict.fromkeys(ids))
                if len(chosen) > limit:
                    chosen = await self._most_urgent(chosen, names, limit, millis)
            if chosen:
                found += await self._take(owner, names, chosen, millis)
        return [execution_of(item) for item in found]

    @property
    def _executions(self) -> AsyncCollection[Any]:
        return self._connection.collection("executions")

    # --- taking ---------------------------------------------------------------------------------

    async def _take(
        self, owner: str, names: list[str], ids: list[str], millis: int
    ) -> list[Document]:
        token = ObjectId()
        wanted = {"id": ids[0] if len(ids) == 1 else {"$in": ids}, **_claimable(names, millis)}
        update = {
            "$set": {
                "status": Status.PROCESSING.value,
                "owner": owner,
                "claimToken": token,
                "claimedAt": millis,
                "updatedAt": millis,
            },
            "$inc": {"fence": 1, "priority": 0},  # a document without priority gets 0
            "$unset": {"dueAt": "", "hintAt": ""},
        }
        try:
            if len(ids) == 1:
                one = await lasting(
                    self._executions.find_one_and_update(
                        wanted, update, hint=_BY_ID, return_document=ReturnDocument.AFTER
                    )
                )
                return [] if one is None else [one]
            # Without the hint the planner may walk a whole backlog on (status, createdAt).
            result = await lasting(self._executions.update_many(wanted, update, hint=_BY_ID))
            return await self._read(ids, token) if result.modified_count else []
        except BaseException as error:
            # Also when cancelled: what was claimed must come back to somebody.
            lost = _Unanswered(owner, set(ids), time.monotonic() + _RECHECKED_FOR)
            try:
                if not (isinstance(error, Exception) and is_lost_answer(error)):
                    raise
                found = await self._read(ids, token)
                lost.ids -= {item["id"] for item in found}
                return found
            finally:
                self._unanswered[token] = lost

    async def _read(self, ids: Collection[str], token: ObjectId) -> list[Document]:
        wanted = {"id": {"$in": list(ids)}, "claimToken": token}
        cursor = self._executions.find(wanted, hint=_BY_ID, batch_size=len(ids) + 1)
        return await lasting(cursor.to_list())

    async def _recover(self, owner: str, limit: int) -> list[Document]:
        """Return claims of this owner that were made without our knowing."""
        now = time.monotonic()
        if now - self._rechecked_at.get(owner, 0.0) < _RECHECK_INTERVAL:
            return []
        self._rechecked_at[owner] = now
        found: list[Document] = []
        for token in [key for key, claim in self._unanswered.items() if claim.owner == owner]:
            # Taken out while it is asked for, so that no two calls hand on the same claim.
            claim = self._unanswered.pop(token, None)
            if claim is None or not claim.ids or claim.until < now:
                continue
            try:
                made = await self._read(claim.ids, token)
                made = [item for item in made if item.get("owner") == owner]
                made = made[: limit - len(found)]
                claim.ids -= {item["id"] for item in made}
                found += made
            finally:
                self._unanswered[token] = claim
        return found

    # --- choosing -------------------------------------------------------------------------------

    async def _due(self, names: list[str], limit: int, millis: int) -> list[str]:
        """Return ids of what has been due longest, the highest priority first."""
        found: list[Document] = []
        for start in range(0, len(names), _FUNCTIONS_AT_ONCE):
            part = names[start : start + _FUNCTIONS_AT_ONCE]
            wanted = {**_claimable(part, millis), "dueAt": {"$gte": 0, "$lte": millis}}
            del wanted["$or"]
            found += await self._candidates(wanted, DUE.key, limit)
        # Documents without a due time are in no index of what is due; under load they are looked
        # for once a second, so that a backlog of our own cannot starve them.
        now = time.monotonic()
        if len(found) < limit or now - self._strays_at > _STRAY_INTERVAL:
            self._strays_at = now
            strays = await self._strays(names, max(limit, _ADOPTED_AT_ONCE))
            found += strays
            if len(strays) > limit:
                await self._adopt([item["id"] for item in strays], millis)
        return [item["id"] for item in sorted(found, key=_urgency)[:limit]]

    async def _strays(self, names: list[str], limit: int) -> list[Document]:
        """Return documents without a due time: new from a foreign client, or reopened by it."""
        free: Document = {
            "eventName": {"$in": names},
            "status": {"$in": _REOPENED},
            "owner": None,
            "cancelRequestedAt": None,
            "dueAt": None,
        }
        foreign, reopened = await asyncio.gather(
            self._candidates({**free, "_id": {"$type": "objectId"}}, FOREIGN.key, limit),
            self._candidates({**free, "finishedAt": {"$gt": 0}}, ENDED.key, limit),
        )
        unique = {item["id"]: item for item in (*foreign, *reopened)}
        return list(unique.values())

    async def _adopt(self, ids: list[str], millis: int) -> None:
        """Make strays due: from now on they are in the index, and hinted again like our own."""
        free = {"owner": None, "status": {"$in": _REOPENED}, "dueAt": None}
        due = {"$set": {"dueAt": millis, "hintedAt": millis}}
        await self._executions.update_many({"id": {"$in": ids}, **free}, due, hint=_BY_ID)

    async def _most_urgent(
        self, ids: list[str], names: list[str], limit: int, millis: int
    ) -> list[str]:
        wanted = {"id": {"$in": ids}, **_claimable(names, millis)}
        found = await self._candidates(wanted, ID.key, len(ids))
        return [item["id"] for item in sorted(found, key=_urgency)[:limit]]

    async def _candidates(self, wanted: Document, key: Any, limit: int) -> list[Document]:
        fields = {"_id": 0, "id": 1, "priority": 1, "dueAt": 1}
        cursor = self._executions.find(
            wanted, fields, hint=list(key), limit=limit, batch_size=limit + 1
        )
        if key == DUE.key:
            cursor = cursor.sort(list(DUE.key[1:]))
        return await lasting(cursor.to_list())


def _claimable(names: list[str], millis: int) -> Document:
    """Return the one central definition of claimable, as a filter."""
    return {
        "eventName": names[0] if len(names) == 1 else {"$in": names},
        "owner": None,
        "status": {"$in": _CLAIMABLE},
        "cancelRequestedAt": None,
        "$or": [{"dueAt": None}, {"dueAt": {"$lte": millis}}],
    }


def _urgency(document: Document) -> tuple[int, int]:
    return (-(document.get("priority") or 0), document.get("dueAt") or 0)
