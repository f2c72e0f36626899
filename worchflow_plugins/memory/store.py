"""The store in memory: the core's pure functions over dictionaries, under one lock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from worchflow_core import (
    Beat,
    Change,
    Clock,
    Condition,
    Created,
    Execution,
    Page,
    Query,
    Records,
    Status,
    StepRecord,
    Tally,
    Worker,
    WorkerState,
    applied,
    beaten,
    claim_order,
    claimed,
    created,
    is_applied,
    standing,
    tallied,
)
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
        known = self._space.executions.get(execution.id)
        if known is None:
            self._space.keep(execution)
        return created(known, execution)

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
            chosen = claim_order(candidates, functions, limit=limit, now=now)
            taken = [claimed(item, owner, now) for item in chosen]
            for item in taken:
                self._space.keep(item)
        return taken

    async def record(self, steps: Sequence[StepRecord]) -> Sequence[StepRecord | None]:
        """Store steps write-once; answer for each with the record that now stands."""
        with self._space.lock:
            return [self._record(step) for step in steps]

    def _record(self, step: StepRecord) -> StepRecord | None:
        steps = self._space.steps.setdefault(step.execution_id, {})
        execution = self._space.executions.get(step.execution_id)
        stands = standing(execution, steps.get(step.step_id), step)
        if stands is step:
            steps[step.step_id] = step
        return stands

    async def update(self, changes: Sequence[Change]) -> Collection[str]:
        """Apply compare-and-sets, each by itself; return the ids that were refused."""
        refused = []
        with self._space.lock:
            for change in changes:
                before = self._space.executions.get(change.id)
                after = applied(before, change) if before is not None else None
                if after is not None:
                    self._space.keep(after)
                elif before is None or not is_applied(before, change):
                    refused.append(change.id)
        return refused

    def beat(self, worker: Worker, *, lease: timedelta) -> Beat:
        """Renew a worker's lease; callable from any thread."""
        with self._space.lock:
            now = self._clock.now()
            known = self._space.workers.get(worker.id)
            kept, is_alive = beaten(known, worker, now=now, lease=lease)
            if kept is None:
                self._space.workers.pop(worker.id, None)
                return Beat(now=now, is_alive=is_alive)
            self._space.workers[worker.id] = kept
            cancels = tuple(
                key
                for key in self._space.unended
                if (item := self._space.executions[key]).owner == worker.id
                and item.cancel_requested_at is not None
            )
        is_drain_requested = kept.drain_requested_at is not None
        return Beat(
            now=now, is_alive=is_alive, cancels=cancels, is_drain_requested=is_drain_requested
        )

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
        with self._space.lock:
            return tallied(self._space.executions.values(), where, bucket)

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
