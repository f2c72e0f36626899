"""The only place that writes executions and steps: store first, queue second, cache last.

Hooks are told after the fact is stored. Writes of many executions leave together (`batching.py`).
What the queue or the step cache cannot take is a warning, never an error: the store is the truth.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import TypeVar

from worchflow_core import transitions
from worchflow_core.asides import Asides
from worchflow_core.batching import Batcher
from worchflow_core.clock import Clock
from worchflow_core.crashpoints import no_crash
from worchflow_core.errors import StoreUnavailable
from worchflow_core.lease import Lease
from worchflow_core.models import (
    Change,
    Created,
    Execution,
    Status,
    StepRecord,
    StepStatus,
)
from worchflow_core.notes import KIND as NOTES
from worchflow_core.plugins import Plugins
from worchflow_core.protocols import Queue, StepCache, Store
from worchflow_core.rules import changed

logger = logging.getLogger("worchflow")
T = TypeVar("T")

_FLIGHTS = 2
"""Batches under way at once: while the store writes one, Python prepares the next."""

_HOOKS: Mapping[Status, str] = {
    Status.COMPLETED: "worchflow_execution_completed",
    Status.FAILED: "worchflow_execution_failed",
    Status.RETRYING: "worchflow_execution_retrying",
    Status.CANCELLED: "worchflow_execution_cancelled",
    Status.SLEEPING: "worchflow_execution_suspended",
    Status.WAITING: "worchflow_execution_suspended",
}
_POINTS: Mapping[Status, str] = {
    Status.PROCESSING: "after_deadline",
    Status.COMPLETED: "after_complete",
    Status.FAILED: "after_fail",
    Status.RETRYING: "after_retry",
    Status.QUEUED: "after_release",
    Status.SLEEPING: "after_suspend",
    Status.WAITING: "after_suspend",
}


class Journal:
    """Write executions and steps in the right order, many at a time, and tell who listens.

    Attributes:
        store, queue, cache: the opened backends.
        clock: the store's time.
        reach: called at each gap between two writes; tests let the process die there.
        on_settled: called with each execution this process wrote a new status for.
    """

    def __init__(
        self,
        store: Store,
        queue: Queue,
        cache: StepCache | None,
        plugins: Plugins,
        clock: Clock,
        reach: Callable[[str], None] = no_crash,
    ) -> None:
        self.store = store
        self.queue = queue
        self.cache = cache
        self.clock = clock
        self.reach = reach
        self.on_settled: list[Callable[[Execution], None]] = []
        self._plugins = plugins
        self._asides = Asides(queue, cache)
        self._steps = Batcher(self._flush_steps, flights=_FLIGHTS, is_outage=_is_outage)
        self._settles = Batcher(self._flush_settles, flights=_FLIGHTS, is_outage=_is_outage)

    # --- sending --------------------------------------------------------------------------------

    async def create(
        self, executions: Sequence[Execution], *, are_ready: bool = True
    ) -> Sequence[Created]:
        """Store new executions, hint those that are due, tell the plugins.

        Nobody is told of those that are not ready: more is to be written before they may run.
        """
        created = await self.store.create(executions)
        self.reach("after_insert")
        new = [
            item for item, answer in zip(executions, created, strict=True) if answer is Created.NEW
        ]
        if are_ready:
            self.hint([item for item in new if item.hint_at is None])
            self.queued(new)
        return created

    async def copy(self, steps: Sequence[StepRecord]) -> bool:
        """Store steps of executions that are not ready; False where one has become so meanwhile."""
        stands = await self.store.record(steps)
        self.reach("after_step_insert")
        return None not in stands

    def queued(self, executions: Sequence[Execution]) -> None:
        """Tell the plugins of executions that were stored and may run."""
        if self._plugins.hears("worchflow_execution_queued"):
            for item in executions:
                self._plugins.notify("worchflow_execution_queued", execution=item)

    def hint(self, executions: Sequence[Execution], *, is_misrouted: bool = False) -> None:
        """Tell the queue of executions; a queue that is down costs latency only."""
        self._asides.hint(executions, is_misrouted=is_misrouted)

    # --- claiming -------------------------------------------------------------------------------

    async def claim(
        self, owner: str, functions: Collection[str], *, limit: int, ids: Collection[str] | None
    ) -> list[Execution]:
        """Claim executions for a worker; what a foreign client reopened comes clean."""
        claimed = await self.store.claim(
            owner, functions, limit=limit, now=self.clock.now(), ids=ids
        )
        if claimed:
            self.reach("after_claim")
        ended = {item.id: item for item in claimed if item.finished_at is not None}
        return await self._reopen(claimed, ended) if ended else list(claimed)

    async def load_steps(
        self, executions: Sequence[Execution]
    ) -> Mapping[str, Sequence[StepRecord]]:
        """Return the recorded steps of claimed executions, from the cache where it is complete.

        A first attempt has none and is not asked for, except of what a foreign client wrote:
        another system may have begun it. The cache may serve where it holds as many entries as
        the last clean settle counted.
        """
        wanted = [
            item
            for item in executions
            if (item.fence > 1 and item.steps_recorded != 0) or item.input_hash is None
        ]
        found: dict[str, Sequence[StepRecord]] = {}
        if self.cache is not None:
            countable = [item for item in wanted if item.steps_recorded is not None]
            if countable:
                cached = await self._asides.ask("step cache", self.cache.get_all(countable)) or {}
                for item in countable:
                    steps = cached.get(item.id, ())
                    if len(steps) == item.steps_recorded:
                        found[item.id] = steps
        missing = [item.id for item in wanted if item.id not in found]
        if missing:
            found.update(await self.store.steps(missing))
        return found

    def started(self, execution: Execution) -> None:
        """Tell the plugins that an attempt begins."""
        if self._plugins.hears("worchflow_execution_started"):
            self._plugins.notify("worchflow_execution_started", execution=execution)

    # --- steps ----------------------------------------------------------------------------------

    async def record(
        self, execution: Execution, step: StepRecord, lease: Lease
    ) -> StepRecord | None:
        """Record a step write-once; return the record that stands, None where superseded.

        While the store is away the record is kept in memory and tried again until the lease is
        lost; that uses up no attempt.
        """
        stands = await self._insist(lease, lambda: self._steps.submit(step))
        told = "worchflow_step_completed"
        if self._plugins.hears(told) and stands == step and self._has_ended(step):
            self._plugins.notify(told, execution=execution, step=step)
        return stands

    # --- settling -------------------------------------------------------------------------------

    async def settle(
        self,
        execution: Execution,
        change: Change,
        lease: Lease,
        steps: Collection[StepRecord] = (),
    ) -> Execution | None:
        """Apply the end of an attempt; return the execution as it now is, None where superseded.

        An execution that goes on later leaves its `steps` in the cache, where the next attempt
        finds them; one that ends in its first attempt costs the cache nothing.
        """
        settled = changed(execution, change.values)
        accepted = await self._insist(lease, lambda: self._settles.submit((settled, change)))
        if not accepted:
            self.superseded(execution)
            return None
        if self.cache is not None:
            if not settled.status.is_final:
                self._asides.put([step for step in steps if step.result is not None])
            elif execution.steps_recorded is not None:
                self._asides.drop([execution.id])
        self._tell_settled(settled)
        return settled

    async def amend(self, execution: Execution, change: Change, lease: Lease) -> Execution | None:
        """Apply a change within an attempt; return the execution, None where superseded."""
        amended = changed(execution, change.values)
        accepted = await self._insist(lease, lambda: self._settles.submit((amended, change)))
        return amended if accepted else None

    def superseded(self, execution: Execution) -> None:
        """Tell the plugins that a newer claim has taken this execution."""
        if self._plugins.hears("worchflow_execution_superseded"):
            self._plugins.notify("worchflow_execution_superseded", execution=execution)

    async def update(
        self,
        pairs: Sequence[tuple[Execution, Change]],
        *,
        point: str = "after_update",
        hinted: Collection[str] | None = None,
        is_urgent: bool = False,
        is_quiet: bool = False,
    ) -> list[tuple[Execution, Execution]]:
        """Apply changes outside an attempt (cancel, retry, sweep); return (before, after) applied.

        What became due now is hinted, what ended is told.

        Args:
            pairs: executions as they are known, and what is to become of them.
            point: the crash point behind the write.
            hinted: only executions of these functions are hinted; None: all.
            is_urgent: they do not stand behind what the queue holds already.
            is_quiet: plugins are not told: no attempt was made, nothing has ended.
        """
        if not pairs:
            return []
        refused = await self.store.update([change for _, change in pairs])
        self.reach(point)
        done = [
            (item, changed(item, change.values)) for item, change in pairs if item.id not in refused
        ]
        afterwards = [after for before, after in done if after.status is not before.status]
        self._asides.mirror(afterwards)
        due = [after for before, after in done if self._wants_hint(before, after)]
        due = [item for item in due if hinted is None or item.function in hinted]
        self.hint(due, is_misrouted=is_urgent)  # the lane of their function is a short cut
        for after in [] if is_quiet else afterwards:
            self._tell_settled(after)
        return done

    async def delete(self, ids: Collection[str]) -> Collection[str]:
        """Delete final executions with their steps, in the store and in the cache."""
        gone = await self.store.delete(ids)
        await self.store.records.delete(NOTES, gone)
        self._asides.drop(gone)
        return gone

    async def drain(self) -> None:
        """Return once every write handed in was made."""
        await self._steps.drain()
        await self._settles.drain()
        await self._asides.drain()

    # --- the flushes ----------------------------------------------------------------------------

    async def _flush_steps(self, steps: Sequence[StepRecord]) -> Sequence[StepRecord | None]:
        self.reach("before_step_insert")
        answers = await self.store.record(steps)
        self.reach("after_step_insert")
        return answers

    async def _flush_settles(self, items: Sequence[tuple[Execution, Change]]) -> Sequence[bool]:
        ends = {item.status for item, _ in items}
        if Status.COMPLETED in ends:
            self.reach("before_complete")
        refused = await self.store.update([change for _, change in items])
        for status, point in _POINTS.items():
            if status in ends:
                self.reach(point)
        settled = [item for item, _ in items if item.id not in refused]
        self._asides.mirror(settled)
        self.hint([item for item in settled if self._is_due(item)])
        return [item.id not in refused for item, _ in items]

    async def _reopen(
        self, claimed: Sequence[Execution], ended: Mapping[str, Execution]
    ) -> list[Execution]:
        """Take the marks of their end from executions that a foreign client queued again."""
        changes = {key: transitions.reopen_claimed(item) for key, item in ended.items()}
        refused = await self.store.update(list(changes.values()))
        return [
            changed(item, changes[item.id].values) if item.id in changes else item
            for item in claimed
            if item.id not in refused
        ]

    async def _insist(self, lease: Lease, write: Callable[[], Awaitable[T]]) -> T:
        wait = 0.05
        while True:
            if not lease.is_valid:
                await lease.wait_valid()
            try:
                return await write()
            except StoreUnavailable as error:
                logger.debug("the store is away, a result is kept in memory: %s", error)
                await asyncio.sleep(wait * random.uniform(0.5, 1.0))
                wait = min(wait * 2, 1.0)

    def _has_ended(self, step: StepRecord) -> bool:
        """Return whether a recorded step is over: the record of a sleep tells when it will be."""
        ended = step.ended_at
        return (
            step.status is StepStatus.COMPLETED
            and ended is not None
            and (ended <= self.clock.now())
        )

    def _is_due(self, execution: Execution) -> bool:
        return (
            not execution.status.is_final
            and execution.due_at is not None
            and execution.hint_at is None
            and execution.due_at <= self.clock.now()
        )

    def _wants_hint(self, before: Execution, after: Execution) -> bool:
        return after.owner is None and after.hinted_at != before.hinted_at and self._is_due(after)

    def _tell_settled(self, execution: Execution) -> None:
        for listener in self.on_settled:
            listener(execution)
        hook = _HOOKS.get(execution.status)
        if hook is not None and self._plugins.hears(hook):
            self._plugins.notify(hook, execution=execution, failure=execution.error)


def _is_outage(error: BaseException) -> bool:
    return isinstance(error, StoreUnavailable)
