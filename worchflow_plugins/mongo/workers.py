"""Workers: their leases, measured by the server's own clock."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pymongo
from pymongo import ReturnDocument
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import DuplicateKeyError
from pymongo.synchronous.database import Database

from worchflow_core import (
    Beat,
    Worker,
    WorkerState,
    from_millis,
    to_millis,
    worker_from_wire,
    worker_to_wire,
)
from worchflow_plugins.mongo.connection import Connection
from worchflow_plugins.mongo.documents import Document
from worchflow_plugins.mongo.strangers import Strangers

_NOW = {"$toLong": "$$NOW"}
_DEAD = WorkerState.DEAD.value
_ALIVE = {"$ne": _DEAD}
_SHORTEST_WAIT = 0.5
_LONGEST_WAIT = 10.0


class Workers:
    """The documents of `workers`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._strangers = Strangers(connection.place)

    @property
    def _workers(self) -> AsyncCollection[Any]:
        return self._connection.collection("workers")

    def beat(self, worker: Worker, *, lease: timedelta) -> Beat:
        """Renew a worker's lease; blocking, and gives up after a third of the lease.

        Raises:
            StoreUnusable: the worker starts, and one of another system works on the database.
        """
        wait = min(max(lease.total_seconds() / 3, _SHORTEST_WAIT), _LONGEST_WAIT)
        database = self._connection.beat_database()
        with pymongo.timeout(wait):
            if worker.state is WorkerState.STOPPED:
                return _leave(database, worker)
            if worker.state is WorkerState.STARTING:
                self._strangers.refuse(database)
            else:
                self._strangers.watch(database)
            found = _renew(database, worker, lease)
            if found is None:
                return Beat(now=_server_time(database), is_alive=False)
            # Cancel requests are few at any time, and have an index of their own.
            asked = database["executions"].find(
                {"owner": worker.id, "cancelRequestedAt": {"$gt": 0}},
                {"_id": 0, "id": 1},
                hint=[("cancelRequestedAt", 1), ("id", 1)],
            )
            return Beat(
                now=from_millis(int(found["beatAt"])),
                is_alive=True,
                cancels=tuple(item["id"] for item in asked),
                is_drain_requested=found.get("drainRequestedAt") is not None,
            )

    async def all(self) -> Sequence[Worker]:
        """Return all workers, dead ones included."""
        return [worker_from_wire(item) async for item in self._workers.find({})]

    async def bury(self, worker_ids: Collection[str], *, overdue: timedelta) -> Collection[str]:
        """Declare dead those whose lease ended `overdue` ago; return all that are dead."""
        ids = list(worker_ids)
        edge = {"$subtract": [_NOW, overdue // timedelta(milliseconds=1)]}
        await self._workers.update_many(
            {
                "_id": {"$in": ids},
                "state": _ALIVE,
                "$expr": {"$lte": ["$leaseUntil", edge]},
            },
            {"$set": {"state": _DEAD}},
        )
        dead = self._workers.find({"_id": {"$in": ids}, "state": _DEAD}, {"_id": 1})
        return [item["_id"] async for item in dead]

    async def drain(self, worker_ids: Collection[str], *, now: datetime) -> None:
        """Note on workers that they are to stop taking work."""
        await self._workers.update_many(
            {"_id": {"$in": list(worker_ids)}}, {"$set": {"drainRequestedAt": to_millis(now)}}
        )


def _renew(database: Database[Any], worker: Worker, lease: timedelta) -> Document | None:
    document = {**worker_to_wire(worker), "_id": worker.id}
    document.pop("drainRequestedAt", None)
    # What the worker says of itself may hold "$owner": only as a literal is it not evaluated.
    renewed = {
        "drainRequestedAt": "$drainRequestedAt",
        "beatAt": _NOW,
        "leaseUntil": {"$add": [_NOW, lease // timedelta(milliseconds=1)]},
    }
    pipeline = [{"$replaceWith": {"$mergeObjects": [{"$literal": document}, renewed]}}]
    try:
        found: Document | None = database["workers"].find_one_and_update(
            {"_id": worker.id, "state": _ALIVE},
            pipeline,
            upsert=worker.state is WorkerState.STARTING,
            return_document=ReturnDocument.AFTER,
        )
    except DuplicateKeyError:
        return None  # it is there, and dead
    return found


def _leave(database: Database[Any], worker: Worker) -> Beat:
    found = database["workers"].find_one_and_delete({"_id": worker.id}, {"state": 1})
    is_dead = found is not None and found.get("state") == _DEAD
    return Beat(now=_server_time(database), is_alive=not is_dead)


def _server_time(database: Database[Any]) -> datetime:
    moment: datetime = database.command("hello")["localTime"]
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
