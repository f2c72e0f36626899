"""Reading for the dashboard: every question once a second at the most, however many ask."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from worchflow_core import (
    COUNT_CAP,
    Execution,
    Filter,
    FunctionInfo,
    Leader,
    Notes,
    NotFound,
    Pause,
    Reason,
    ScheduleInfo,
    ScheduleRun,
    Status,
    StepRecord,
    Tally,
    Worker,
)
from worchflow_plugins.dashboard.live import Snapshot, Snapshots
from worchflow_plugins.dashboard.parameters import Choice, floor
from worchflow_plugins.dashboard.source import Source

T = TypeVar("T")

TALLY_PATIENCE = 0.15
"""How many seconds a page waits for its chart; the table must not wait longer."""

CHILDREN_MAX = 50
"""How many children a page shows."""

_TALLIES_KEPT = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A part of a list of executions.

    Attributes:
        items: the executions.
        total: how many match, up to `COUNT_CAP` where `is_capped`.
        is_capped: whether counting stopped at the cap.
        has_more: whether there are more behind the last.
    """

    items: tuple[Execution, ...]
    total: int
    is_capped: bool
    has_more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedules:
    """What runs by itself.

    Attributes:
        items: the schedules, by function.
        runs: the last ticks of each, the newest first.
        leader: the scheduler that fires them, or did last.
    """

    items: Sequence[ScheduleInfo]
    runs: Mapping[str, Sequence[ScheduleRun]]
    leader: Leader | None


class Reader:
    """Ask the client, and keep each answer for a second for all who ask the same."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.snapshots = Snapshots()
        self._tallies: dict[object, Snapshot[tuple[datetime, Sequence[Tally]]]] = {}
        self._tally_took: dict[object, float] = {}

    async def stats(self) -> Mapping[Status, int]:
        """Return how many executions are in each status."""
        return await self._once(("stats",), self._source.client.stats)

    async def listing(
        self,
        choice: Choice,
        *,
        limit: int,
        skip: int = 0,
        order: str = "created_at",
        after: tuple[datetime, str] | None = None,
        before: tuple[datetime, str] | None = None,
    ) -> Listing:
        """Return executions that match, newest first; `before` reads towards the newer ones."""
        key = ("listing", choice, limit, skip, order, after, before)
        return await self._once(
            key, lambda: self._listing(choice, limit, skip, order, after, before)
        )

    async def _listing(
        self,
        choice: Choice,
        limit: int,
        skip: int,
        order: str,
        after: tuple[datetime, str] | None,
        before: tuple[datetime, str] | None,
    ) -> Listing:
        page = await self._source.client.find(
            choice.filter(
                order=order,
                descending=before is None,
                limit=limit + 1,
                skip=skip,
                after=after or before,
                counted=not choice.is_status_only,
            )
        )
        items = page.items[:limit]
        has_more = len(page.items) > limit
        if before is not None:
            items, has_more = tuple(reversed(items)), True
        if page.total is None:
            stats = await self.stats()
            total = sum(stats[status] for status in choice.status or stats)
            return Listing(items=items, total=total, is_capped=False, has_more=has_more)
        is_capped = page.total >= COUNT_CAP
        total = COUNT_CAP - 1 if is_capped else page.total
        return Listing(items=items, total=total, is_capped=is_capped, has_more=has_more)

    async def execution(self, execution_id: str) -> tuple[Execution, Sequence[StepRecord]]:
        """Return an execution with its steps; raise `NotFound` if there is none."""

        async def read() -> tuple[Execution, Sequence[StepRecord]] | None:
            # Steps after the execution: a step that is missing here shows at the next refresh,
            # while one that is newer than its execution does no harm.
            client = self._source.client
            try:
                execution = await client.get(execution_id)
            except NotFound:
                return None
            return execution, await client.steps(execution_id)

        found = await self._once(("execution", execution_id), read)
        if found is None:
            raise NotFound(f"no execution {execution_id[:200]!r}")
        return found

    async def children(self, execution_id: str) -> Sequence[Execution]:
        """Return what an execution has invoked, and what follows its end: the first of them."""

        async def read() -> Sequence[Execution]:
            wanted = Filter(parent=execution_id, descending=False, limit=CHILDREN_MAX + 1)
            return (await self._source.client.find(wanted)).items

        return await self._once(("children", execution_id), read)

    async def notes(self, execution_id: str) -> Notes:
        """Return what an execution says of itself."""
        return await self._once(
            ("notes", execution_id), lambda: self._source.client.notes(execution_id)
        )

    async def reasons(self, execution_id: str) -> Sequence[Reason]:
        """Return why an execution is not running; raise `NotFound` if there is none."""

        async def read() -> Sequence[Reason] | None:
            try:
                return await self._source.client.explain(execution_id)
            except NotFound:
                return None

        found = await self._once(("reasons", execution_id), read)
        if found is None:
            raise NotFound(f"no execution {execution_id[:200]!r}")
        return found

    async def mirrored(self, execution_id: str) -> Mapping[str, str]:
        """Return the hash of an execution that Redis shows; {} without Redis."""
        return await self._once(
            ("mirrored", execution_id), lambda: self._source.client.mirrored(execution_id)
        )

    async def functions(self) -> Sequence[FunctionInfo]:
        """Return the known functions, by id."""
        return await self._once(("functions",), self._source.client.functions, seconds=2.0)

    async def function(self, function_id: str) -> FunctionInfo | None:
        """Return a known function, or None."""
        return next((info for info in await self.functions() if info.id == function_id), None)

    async def paused(self) -> Mapping[str, Pause]:
        """Return the pauses of functions."""
        return await self._once(("paused",), self._source.client.paused_functions, seconds=2.0)

    async def workers(self) -> Sequence[Worker]:
        """Return the workers, dead ones included, the longest-lived first."""

        async def read() -> Sequence[Worker]:
            found = await self._source.client.workers()
            return sorted(found, key=lambda worker: (worker.started_at, worker.id))

        return await self._once(("workers",), read)

    async def schedules(self) -> Schedules:
        """Return the schedules with their last ticks: a handful of questions however many."""

        async def read() -> Schedules:
            client = self._source.client
            items = await client.schedules()
            runs = await client.schedule_runs(items)
            return Schedules(items=items, runs=runs, leader=await client.scheduler())

        return await self._once(("schedules",), read, seconds=4.0)

    async def tally(
        self, span: timedelta, bucket: timedelta, function: str | None = None
    ) -> tuple[datetime, Sequence[Tally]] | None:
        """Return the counts of ended executions in whole buckets up to now, and their start.

        None where counting takes so long that the page should go without: it is there at a later
        refresh. What takes long to count is counted less often.
        """
        key = ("tally", span, bucket, function)

        async def read() -> tuple[datetime, Sequence[Tally]]:
            began = time.monotonic()
            since = floor(datetime.now(UTC), bucket) - span + bucket
            found = await self._source.client.tally(since=since, function=function, bucket=bucket)
            self._tally_took[key] = time.monotonic() - began
            return since, found

        # A wide window moves slowly and costs more to count: it may be older.
        seconds = min(15.0, max(2.0, span.total_seconds() / 1800))
        seconds = max(seconds, min(60.0, 20 * self._tally_took.get(key, 0.0)))
        found = await self.snapshots.soon(key, read, seconds=seconds, patience=TALLY_PATIENCE)
        if found is None:
            found = self._tallies.get(key)
        elif len(self._tallies) < _TALLIES_KEPT or key in self._tallies:
            self._tallies[key] = found
        return found.value if found else None

    async def _once(
        self, key: tuple[object, ...], read: Callable[[], Awaitable[T]], *, seconds: float = 1.0
    ) -> T:
        return (await self.snapshots.get(key, read, seconds=seconds)).value
