"""The original TypeScript system's side of the wire, spoken with the bare drivers.

What its client, its dashboard, its worker and its scheduler write and read, in their own order and
their own types: its numbers are doubles, and it knows none of our fields.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from pymongo import ASCENDING, DESCENDING, AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase
from redis.asyncio import Redis

Document = dict[str, Any]
NOTHING: Any = object()


class Original:
    """A client and a dashboard of the original, on one Redis and one database."""

    def __init__(self, redis: Any, database: AsyncDatabase[Any], prefix: str) -> None:
        self.redis = redis
        self.database = database
        self.prefix = prefix

    async def create_indexes(self) -> None:
        """Create the indexes that each of its programs creates when it starts."""
        executions, steps = self.database.executions, self.database.steps
        await executions.create_index("id", unique=True, name="idx_executions_id")
        for names in (("status", "createdAt"), ("createdAt",), ("eventName", "createdAt")):
            *first, last = names
            key = [*((name, ASCENDING) for name in first), (last, DESCENDING)]
            await executions.create_index(key, name="idx_executions_" + "_".join(names))
        await steps.create_index(
            [("executionId", 1), ("timestamp", 1)], name="idx_steps_executionId_timestamp"
        )
        await steps.create_index(
            [("executionId", 1), ("stepId", 1)], unique=True, name="idx_steps_executionId_stepId"
        )

    # --- its client -----------------------------------------------------------------------------

    async def send(
        self,
        name: str,
        data: Any = NOTHING,
        *,
        id: str | None = None,
        order: Sequence[str] = ("hash", "document", "push"),
    ) -> str:
        """Write hash and document, which it does at once and so in any order, and push the id."""
        now = float(int(time.time() * 1000))
        document: Document = {
            "id": id or str(uuid4()),
            "eventName": name,
            "eventData": None if data is NOTHING else json.dumps(data),
            "status": "queued",
            "attemptCount": 0.0,
            "createdAt": now,
            "updatedAt": now,
        }
        if document["eventData"] is None:
            del document["eventData"]
        for part in order:
            await self._write(part, document)
        return str(document["id"])

    async def _write(self, part: str, document: Document) -> None:
        if part == "hash":
            texts = {name: _text(value) for name, value in document.items()}
            await self.redis.hset(self.key("execution", document["id"]), mapping=texts)
        elif part == "document":
            await self.database.executions.insert_one(dict(document))
        else:
            await self.redis.rpush(f"{self.prefix}:queue", document["id"])

    async def retry(self, execution_id: str, *, clears_hash: bool = True) -> None:
        """Queue an execution again, whatever it is doing: `client.retry(id)`."""
        now = float(int(time.time() * 1000))
        key = self.key("execution", execution_id)
        texts = {"attemptCount": "0", "status": "queued", "updatedAt": _text(now)}
        await self.redis.hset(key, mapping=texts)
        if clears_hash:
            await self.redis.hdel(key, "error")
        await self.database.executions.update_one(
            {"id": execution_id},
            {
                "$set": {"attemptCount": 0.0, "status": "queued", "updatedAt": now},
                "$unset": {"error": "", "errorStack": ""},
            },
        )
        await self.redis.rpush(f"{self.prefix}:queue", execution_id)

    # --- its dashboard --------------------------------------------------------------------------

    async def details(self, execution_id: str) -> tuple[Document, list[Document], dict[str, str]]:
        """Return the document, its steps in order of time, and the hash, as it shows them."""
        document = await self.database.executions.find_one({"id": execution_id})
        assert document is not None, execution_id
        steps = self.database.steps.find({"executionId": execution_id}).sort("timestamp", 1)
        texts = await self.redis.hgetall(self.key("execution", execution_id))
        return document, await steps.to_list(), texts

    async def listed(self, status: str, limit: int = 50) -> list[Document]:
        """Return the newest executions of a status, as its list does."""
        found = self.database.executions.find({"status": status}).sort("createdAt", -1)
        return await found.limit(limit).to_list()

    async def stats(self) -> Mapping[str, int]:
        """Count by status, as its overview does."""
        group = {"$group": {"_id": "$status", "count": {"$sum": 1}}}
        cursor = await self.database.executions.aggregate([group])
        return {item["_id"]: item["count"] async for item in cursor}

    # --- its worker and its scheduler -----------------------------------------------------------

    async def start_working_on(self, execution_id: str) -> None:
        """Do what its worker does first with an id it popped."""
        change = {"status": "processing", "updatedAt": float(int(time.time() * 1000))}
        await self.database.executions.update_one({"id": execution_id}, {"$set": change})

    async def record_step(self, execution_id: str, step_id: str, name: str, result: Any) -> None:
        """Record a step as its worker does."""
        entry = json.dumps({"cached": True, "value": result})
        await self.redis.hset(self.key("steps", execution_id), step_id, entry)
        await self.database.steps.insert_one(
            {
                "executionId": execution_id,
                "stepId": step_id,
                "name": name,
                "status": "completed",
                "result": result,
                "timestamp": float(int(time.time() * 1000)),
            }
        )

    async def lead(self) -> None:
        """Take the lock of its scheduler."""
        await self.redis.set(f"{self.prefix}:scheduler:leader", "locked", ex=60, nx=True)

    def key(self, kind: str, execution_id: str) -> str:
        """Return the key of an execution's hash or of its steps."""
        return f"{self.prefix}:{kind}:{execution_id}"


@asynccontextmanager
async def original_on(
    mongodb_url: str, redis_url: str, prefix: str, *, has_run_before: bool = True
) -> AsyncIterator[Original]:
    """Open the original's connections; clear away what was written at the end."""
    async with AsyncMongoClient(mongodb_url) as client:
        redis = Redis.from_url(redis_url, decode_responses=True)
        original = Original(redis, client.get_default_database(), prefix)
        try:
            if has_run_before:
                await original.create_indexes()
            yield original
        finally:
            await client.drop_database(original.database.name)
            async for key in redis.scan_iter(f"{prefix}:*", count=1000):
                await redis.delete(key)
            await redis.aclose()


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) else str(value)
