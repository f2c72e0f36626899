"""The store in memory: the core's pure functions over dictionaries, under one lock."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from worchflow_core.clock import Clock, from_millis, to_millis
from worchflow_core.models import (
    Beat,
    Change,
    Created,
    Execution,
    Status,
    StepRecord,
    StepStatus,
    Tally,
    Worker,
    WorkerState,
)
from worchflow_core.protocols import Records
from worchflow_core.query import Condition, Page, Query
from worchflow_core.transitions import applied, claimed, is_applied, is_claimable
from worchflow_plugins.memory.records import MemoryRecords
from worchflow_plugins.memory.space import InMemory


class MemoryStore(InMemory):
    """Executions, steps, workers and records of one space."""

    def __init__(self, name: str | None = None) -> None:
        """Use the space `name` of this process, or one of its own when no name is given."""
        super().__init__(name)
        self._clock = Clock()
        self._records = MemoryRecords(self._space)

    @property
    def records(self) -> Records:
        """The records kept in this store."""
        return self._records

    async def create(self, executions: Sequence[Execution]) -> Sequence[Created]:
        """Insert executions; answer for each, in order."""
        with self._space.lock:
            return [self._create(item) for item in executions]

    def _create(self, execution: Execution) -> Created:
        standing = self._space.executions.get(execution.id)
        if standing is None:
            self._space.keep(execution)
            return Created.NEW
        is_same = (standing.function, standing.input_hash) == (
            execution.function,
            execution.input_hash,
        )
        return Created.SAME if is_same else Created.CONFLICT

    async def claim(
        self,
        owner: str,
        functions: Collection[str],
        *,
        limit: int,
        now: datetime,
        ids: Collection[str] | None = None,
    ) -> Sequence[Execution]:
        """Take up to `limit` claimable executions, higher priority first, then oldest due."""
        with self._space.lock:
            wanted = self._space.unended if ids is None else self._space.unended.intersection(ids)
            candidates = (self._space.executions[item] for item in wanted)
            chosen = heapq.nsmallest(
                limit,
                (
                    item
                    for item in candidates
                    if item.function in functions and is_claimable(item, now)
                ),
                key=_urgency,
            )
            taken = [claimed(item, owner, now) for item in chosen]
            for item in taken:
                self._space.keep(item)
        return taken

    async def record(self, steps: Sequence[StepRecord]) -> Sequence[StepRecord | None]:
        """Store steps write-once; answer for each with the record that now stands."""
        with self._space.lock:
            return [self._record(step) for step in steps]

    def _record(self, step: StepRecord) -> StepRecord | None:
        execution = self._space.executions.get(step.execution_id)
        if execution is None:
            return None
        steps = self._space.steps.setdefault(step.execution_id, {})
        standing = steps.get(step.step_id)
        if standing is not None and not _gives_way(standing, step):
            return standing
        if step.fence != execution.fence:
            return None
        steps[step.step_id] = step
        return step

    async def update(self, changes: Sequence[Change]) -> Collection[str]:
        """Apply compare-and-sets, each by itself; return the ids that were refused."""
        refused = []
        with self._space.lock:
            for change in changes:
                standing = self._space.executions.get(change.id)
                after = applied(standing, change) if standing is not None else None
                if after is not None:
                    self._space.keep(after)
                elif standing is None or not is_applied(standing, change):
                    refused.append(change.id)
        return refused

    def beat(self, worker: Worker, *, lease: timedelta) -> Beat:
        """Renew a worker's lease; callable from any thread."""
        with self._space.lock:
            now = self._clock.now()
            standing = self._space.workers.get(worker.id)
            is_dead = standing is not None and standing.state is WorkerState.DEAD
            if worker.state is WorkerState.STOPPED:
                if not is_dead:
                    self._space.workers.pop(worker.id, None)
                return Beat(now=now, is_alive=not is_dead)
            if is_dead or (standing is None and worker.state is not WorkerState.STARTING):
                return Beat(now=now, is_alive=False)
            drain = standing.drain_requested_at if standing is not None else None
            self._space.workers[worker.id] = replace(
                worker, beat_at=now, lease_until=now + lease, drain_requested_at=drain
            )
            cancels = tuple(
                key
                for key in self._space.unended
                if (item := self._space.executions[key]).owner == worker.id
                and item.cancel_requested_at is not None
            )
        return Beat(now=now, is_alive=True, cancels=cancels, is_drain_requested=drain is not None)

    async def workers(self) -> Sequence[Worker]:
        """Return all workers, dead ones included."""
        with self._space.lock:
            return list(self._space.workers.values())

    async def bury(self, worker_ids: Collection[str], *, overdue: timedelta) -> Collection[str]:
        """Declare dead those whose lease ended `overdue` ago; return all that are dead."""
        dead = set()
        with self._space.lock:
            edge = self._clock.now() - overdue
            for key in worker_ids:
                worker = self._space.workers.get(key)
                if worker is None:
                    continue
                if worker.state is WorkerState.DEAD:
                    dead.add(key)
                elif worker.lease_until is not None and worker.lease_until <= edge:
                    self._space.workers[key] = replace(worker, state=WorkerState.DEAD)
                    dead.add(key)
        return dead

    async def forget(self, worker_ids: Collection[str]) -> None:
        """Remove the records of dead workers."""
        with self._space.lock:
            for key in worker_ids:
                worker = self._space.workers.get(key)
                if worker is not None and worker.state is WorkerState.DEAD:
                    del self._space.workers[key]

    async def drain(self, worker_ids: Collection[str], *, now: datetime) -> None:
        """Ask workers to stop taking work; their next beat brings it to them."""
        with self._space.lock:
            for key in worker_ids:
                if key in self._space.workers:
                    worker = self._space.workers[key]
                    self._space.workers[key] = replace(worker, drain_requested_at=now)

    async def get(self, ids: Collection[str]) -> Sequence[Execution]:
        """Return the executions that exist among these ids."""
        with self._space.lock:
            found = (self._space.executions.get(key) for key in dict.fromkeys(ids))
            return [item for item in found if item is not None]

    async def steps(self, execution_ids: Collection[str]) -> Mapping[str, Sequence[StepRecord]]:
        """Return the steps by execution id, in order of `seq`, then `started_at`."""
        with self._space.lock:
            return {
                key: sorted(steps.values(), key=lambda step: (step.seq, step.started_at))
                for key in execution_ids
                if (steps := self._space.steps.get(key))
            }

    async def find(self, query: Query) -> Page:
        """Answer a query by looking at everything: this is the reference."""
        with self._space.lock:
            return query.page(list(self._space.executions.values()))

    async def stats(self) -> Mapping[Status, int]:
        """Count executions by status."""
        with self._space.lock:
            return Counter(item.status for item in self._space.executions.values())

    async def tally(self, where: Sequence[Condition], *, bucket: timedelta) -> Sequence[Tally]:
        """Count ended executions by function, status and `finished_at` rounded down."""
        size = bucket // timedelta(milliseconds=1)
        counts: Counter[tuple[str, Status, int]] = Counter()
        seconds: Counter[tuple[str, Status, int]] = Counter()
        with self._space.lock:
            for item in self._space.executions.values():
                if not item.status.is_final or item.finished_at is None:
                    continue
                if all(condition.matches(item) for condition in where):
                    millis = to_millis(item.finished_at)
                    key = (item.function, item.status, millis - millis % size)
                    counts[key] += 1
                    seconds[key] += millis - to_millis(item.created_at)
        return [
            Tally(
                function=key[0],
                status=key[1],
                start=from_millis(key[2]),
                count=count,
                total_seconds=seconds[key] / 1000,
            )
            for key, count in counts.items()
        ]

    async def delete(self, ids: Collection[str]) -> Collection[str]:
        """Delete final executions and their steps; return the ids that are gone."""
        gone = set()
        with self._space.lock:
            for key in ids:
                item = self._space.executions.get(key)
                if item is None or item.status.is_final:
                    self._space.steps.pop(key, None)
                    self._space.executions.pop(key, None)
                    gone.add(key)
        return gone


def _urgency(execution: Execution) -> tuple[int, int]:
    due = execution.due_at
    return (-execution.priority, to_millis(due) if due is not None else 0)


def _gives_way(standing: StepRecord, step: StepRecord) -> bool:
    """Return whether `step` may replace the record of it that stands."""
    return (
        standing.status is StepStatus.STARTED
        and step.status is StepStatus.COMPLETED
        and standing.fence == step.fence
    )
