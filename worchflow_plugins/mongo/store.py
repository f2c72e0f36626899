"""The store in MongoDB: one face over executions, steps, workers and records."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self

from pymongo import MongoClient

from worchflow_core import (
    Beat,
    Change,
    Condition,
    Created,
    Execution,
    Finding,
    Page,
    Query,
    Records,
    Status,
    StepRecord,
    Tally,
    Worker,
)
from worchflow_plugins.mongo.checks import examine
from worchflow_plugins.mongo.claims import Claims
from worchflow_plugins.mongo.connection import Connection, Source, lasting
from worchflow_plugins.mongo.executions import Executions
from worchflow_plugins.mongo.indexes import create_missing
from worchflow_plugins.mongo.queries import Finder
from worchflow_plugins.mongo.records import MongoRecords
from worchflow_plugins.mongo.stamp import claim_namespace
from worchflow_plugins.mongo.steps import Steps
from worchflow_plugins.mongo.summing import Sums
from worchflow_plugins.mongo.workers import Workers


class MongoStore:
    """Keep everything in one MongoDB database.

    Args:
        source: a URL, or an `AsyncMongoClient` or `AsyncDatabase` of the caller's, who closes it.
        prefix: the namespace the database is stamped with.
        beat_client: a blocking client for the heartbeat; by default one is made for the same
            address, and closed with the store.
    """

    def __init__(
        self,
        source: Source,
        *,
        prefix: str = "worchflow",
        beat_client: MongoClient[Any] | None = None,
    ) -> None:
        self._prefix = prefix
        self._connection = Connection(source, beat_client)
        self._executions = Executions(self._connection)
        self._claims = Claims(self._connection)
        self._steps = Steps(self._connection)
        self._workers = Workers(self._connection)
        self._records = MongoRecords(self._connection)
        self._finder = Finder(self._connection)
        self._sums = Sums(self._connection)

    async def __aenter__(self) -> Self:
        """Connect, stamp the database, create missing indexes."""
        await self._connection.open()
        try:
            await claim_namespace(self._connection, self._prefix)
            await create_missing(self._connection)
        except BaseException:
            await self._connection.close()
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close what this object opened itself."""
        await self._connection.close()

    def describe(self) -> str:
        """Return kind, hosts, database and topology."""
        if self._connection.replica_set:
            kind = f"{self._connection.replica_set}, majority"
        else:
            kind = "standalone, journaled" if self._connection.is_standalone else "majority"
        return f"mongodb  {self._connection.place} {kind}"

    async def check(self) -> Sequence[Finding]:
        """Examine server, topology, indexes and clock."""
        return await examine(self._connection)

    @property
    def records(self) -> Records:
        """The records kept in this store."""
        return self._records

    async def create(self, executions: Sequence[Execution]) -> Sequence[Created]:
        """Insert executions; answer for each, in order."""
        if not executions:
            return []
        with self._connection.guard:
            return await lasting(self._executions.create(executions))

    async def claim(
        self,
        owner: str,
        functions: Collection[str],
        *,
        limit: int,
        now: datetime,
        ids: Collection[str] | None = None,
    ) -> Sequence[Execution]:
        """Take up to `limit` claimable executions: by id, or the most urgent."""
        with self._connection.guard:
            return await self._claims.claim(owner, functions, limit=limit, now=now, ids=ids)

    async def record(self, steps: Sequence[StepRecord]) -> Sequence[StepRecord | None]:
        """Store steps write-once; answer for each with the record that now stands."""
        with self._connection.guard:
            return await lasting(self._steps.record(steps))

    async def update(self, changes: Sequence[Change]) -> Collection[str]:
        """Apply compare-and-sets; return the ids that were refused."""
        with self._connection.guard:
            return await lasting(self._executions.update(changes))

    def beat(self, worker: Worker, *, lease: timedelta) -> Beat:
        """Renew a worker's lease, on a blocking connection of its own."""
        with self._connection.guard:
            return self._workers.beat(worker, lease=lease)

    async def workers(self) -> Sequence[Worker]:
        """Return all workers, dead ones included."""
        with self._connection.guard:
            return await lasting(self._workers.all())

    async def bury(self, worker_ids: Collection[str], *, overdue: timedelta) -> Collection[str]:
        """Declare dead those whose lease ended `overdue` ago; return all that are dead."""
        if not worker_ids:
            return []
        with self._connection.guard:
            return await lasting(self._workers.bury(worker_ids, overdue=overdue))

    async def drain(self, worker_ids: Collection[str], *, now: datetime) -> None:
        """Ask workers to stop taking work."""
        with self._connection.guard:
            await lasting(self._workers.drain(worker_ids, now=now))

    async def get(self, ids: Collection[str]) -> Sequence[Execution]:
        """Return the executions that exist among these ids."""
        if not ids:
            return []
        with self._connection.guard:
            return await lasting(self._executions.get(ids))

    async def steps(self, execution_ids: Collection[str]) -> Mapping[str, Sequence[StepRecord]]:
        """Return the steps by execution id, in order of `seq`, then `started_at`."""
        if not execution_ids:
            return {}
        with self._connection.guard:
            return await lasting(self._steps.of(execution_ids))

    async def find(self, query: Query) -> Page:
        """Answer a query."""
        with self._connection.guard:
            return await lasting(self._finder.find(query))

    async def stats(self) -> Mapping[Status, int]:
        """Count executions by status."""
        with self._connection.guard:
            return await lasting(self._sums.stats())

    async def tally(self, where: Sequence[Condition], *, bucket: timedelta) -> Sequence[Tally]:
        """Count ended executions by function, status and bucket of time."""
        with self._connection.guard:
            return await lasting(self._sums.tally(where, bucket=bucket))

    async def delete(self, ids: Collection[str]) -> Collection[str]:
        """Delete final executions, their steps first; return the ids that are gone."""
        if not ids:
            return []
        with self._connection.guard:
            return await lasting(self._executions.delete(ids))
