"""The sweeper: repairs what crashes and lost hints left behind. Every worker runs one.

Each action is a compare-and-set, so any number of sweepers is safe.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from worchflow_core import holding, transitions
from worchflow_core.admission import Admission
from worchflow_core.errors import StoreUnavailable
from worchflow_core.forking import abandon, is_half_made
from worchflow_core.functions import Registry
from worchflow_core.handlers import follow_up, has_followers
from worchflow_core.journal import Journal
from worchflow_core.lookup import read_record
from worchflow_core.mailbox import Mailbox
from worchflow_core.models import (
    CLAIMABLE,
    FINAL,
    Change,
    Execution,
    QueueView,
    Record,
    Status,
    WorkerState,
)
from worchflow_core.origin import is_gone
from worchflow_core.paging import pages
from worchflow_core.pauses import open_functions, paused
from worchflow_core.query import Condition, Operator, Query
from worchflow_core.rules import is_claimable
from worchflow_core.settings import Settings
from worchflow_core.undos import expired

logger = logging.getLogger("worchflow")

_PAGE = 1000
_HINT_INTERVAL = 0.75
_RETENTION_INTERVAL = 60.0
_EVENTS_INTERVAL = 3600.0
_TIDY_INTERVAL = 600.0
_DEAD_KEPT = timedelta(days=1)
_WAITERS = (Status.WAITING, Status.RETRYING)  # the latter where another branch backs off
_LOOKED_WITHIN = timedelta(seconds=2)
"""A worker has looked again by then at what it settled as waiting, or it never will."""
_FORKED_WITHIN = timedelta(minutes=5)
"""A fork has all of its steps by then, or whoever made it has died."""
_UNHEARD = timedelta(minutes=10)
"""For so long nobody is told of an execution whose function no worker has."""
_EPOCH_KEY = "queue-epoch"


class Sweeper:
    """Run the passes of a sweep, each in its own rhythm, until cancelled.

    Args:
        journal: where everything is written.
        registry: the functions whose `on_failure` and `on_success` this worker knows.
        settings: lease, intervals, retention.
    """

    def __init__(self, journal: Journal, registry: Registry, settings: Settings) -> None:
        self._journal = journal
        self._store = journal.store
        self._clock = journal.clock
        self._registry = registry
        self._settings = settings
        self._mailbox = Mailbox(journal)
        self._admission = Admission(journal, registry)
        self._trusted_from = 0.0
        self._had_outage = False
        self._last_pass = self._clock.lease_time()
        self._last_told: datetime | None = None

    async def run(self) -> None:
        """Sweep until cancelled; an outage of the store is waited out."""
        settings = self._settings
        beats = settings.heartbeat.total_seconds() * 3
        self._trusted_from = self._clock.lease_time() + beats
        interval = settings.sweep_interval.total_seconds()
        with contextlib.suppress(StoreUnavailable, ConnectionError):
            await self.bury_neighbours()  # at once: whoever restarts a worker waits for its work
        async with asyncio.TaskGroup() as group:
            group.create_task(self._repeat(interval, self.repair))
            group.create_task(self._repeat(min(_RETENTION_INTERVAL, interval * 12), self.retain))
            group.create_task(self._repeat(_EVENTS_INTERVAL, self.forget_events))
            group.create_task(self._repeat(interval, self._admission.tend))
            group.create_task(self._repeat(_TIDY_INTERVAL, self._admission.tidy))
            if self._journal.queue.keeps_hints:
                group.create_task(self._repeat(min(_HINT_INTERVAL, interval), self.hint_due))
                group.create_task(self._repeat(interval, self.hint_lost))

    async def _repeat(self, interval: float, sweep: Callable[[], Awaitable[None]]) -> None:
        task = asyncio.current_task()
        assert task is not None
        while not task.cancelling():  # a driver may have swallowed the cancellation
            await asyncio.sleep(interval * random.uniform(0.75, 1.25))
            try:
                await sweep()
            except (StoreUnavailable, ConnectionError) as error:
                logger.debug("a sweep waits for the store: %s", error)
                self.note_outage()
            except Exception:
                logger.exception("a sweep failed; it is tried again")

    def note_outage(self) -> None:
        """Judge nobody dead within a lease of an outage: their beats could not arrive either."""
        lease = self._settings.lease.total_seconds()
        self._trusted_from = max(self._trusted_from, self._clock.lease_time() + lease)

    # --- the dead, the late, the cancelled ------------------------------------------------------

    async def repair(self) -> None:
        """Take executions from dead workers; end those past their deadline or cancelled."""
        now, told = self._clock.lease_time(), self._clock.now()
        lease = self._settings.lease.total_seconds()
        passed = now - self._last_pass
        jumped = (told - self._last_told).total_seconds() - passed if self._last_told else 0.0
        if passed > self._settings.sweep_interval.total_seconds() * 2 + lease / 2:
            self.note_outage()  # this process itself stood still
        elif abs(jumped) > lease / 4:
            logger.warning("the store's clock was set by %.0f s; nobody is judged by it", jumped)
            self.note_outage()  # leases were written by the clock as it was
        self._last_pass, self._last_told = now, told
        await self.bury_neighbours()
        if now >= self._trusted_from:
            await self.release_dead()
        await self._expire()
        await self._cancel()
        await self._follow_up()

    async def bury_neighbours(self) -> None:
        """Bury, lease or no lease, the workers of this machine whose process has ended."""
        workers = await self._store.workers()
        gone = [
            worker
            for worker in workers
            if worker.state is not WorkerState.DEAD and is_gone(worker.origin)
        ]
        if not gone:
            return
        last = max(worker.lease_until or worker.started_at for worker in gone)
        overdue = min(timedelta(0), self._clock.now() - last) - self._settings.lease
        buried = await self._bury([worker.id for worker in gone], overdue, "its process has ended")
        await self._release(await self._owned(Operator.IN, buried))

    async def release_dead(self) -> None:
        """Declare overdue workers dead and release what they, or nobody known, own."""
        workers = await self._store.workers()
        now = self._clock.now()
        overdue = [
            worker.id
            for worker in workers
            if worker.state is not WorkerState.DEAD
            and worker.lease_until is not None
            and worker.lease_until < now
        ]
        if overdue:
            await self._bury(overdue, timedelta(0), "no heartbeat")
        alive = {item.id for item in workers if item.state is not WorkerState.DEAD}
        owned = await self._owned(Operator.NOT_IN, alive - set(overdue))
        if owned:
            # Read the workers again, after the executions: one that registered meanwhile lives.
            workers = await self._store.workers()
            alive = {item.id for item in workers if item.state is not WorkerState.DEAD}
            await self._release([item for item in owned if item.owner not in alive])
        for worker in workers:
            ended = worker.lease_until
            if worker.state is WorkerState.DEAD and ended is not None and ended < now - _DEAD_KEPT:
                gone = replace(worker, state=WorkerState.STOPPED)
                await asyncio.to_thread(self._store.beat, gone, lease=self._settings.lease)

    async def _bury(
        self, worker_ids: Collection[str], overdue: timedelta, why: str
    ) -> Collection[str]:
        buried = await self._store.bury(worker_ids, overdue=overdue)
        if buried:
            logger.warning("worker %s is declared dead: %s", ", ".join(buried), why)
            self._journal.reach("after_bury")
        return buried

    async def _owned(self, operator: Operator, owners: Collection[str]) -> Sequence[Execution]:
        return await self._find(Condition("owner", operator, tuple(owners)))

    async def _release(self, lost: Sequence[Execution]) -> None:
        if not lost:
            return
        steps = await self._store.steps([item.id for item in lost])
        unbegun = await self._admission.unbegun(lost)
        now = self._clock.now()
        has_hint = self._journal.queue.keeps_hints
        pairs: list[tuple[Execution, Change]] = []
        for item in lost:
            if item.id in unbegun:
                change = holding.release_unbegun(item, now=now, has_hint=has_hint)
                pairs.append((item, change))
                continue
            grown = any(step.fence == item.fence for step in steps.get(item.id, ()))
            change = transitions.release_crashed(
                item,
                now=now,
                max_crashes=self._settings.max_crashes,
                has_grown=grown,
                has_hint=has_hint,
                has_handler=has_followers(item, Status.FAILED, self._registry),
            )
            pairs.append((item, change))
        released = await self._journal.update(pairs, point="after_requeue")
        await asyncio.gather(*(self._admission.leave(after) for _, after in released))
        if released:
            count = len(released)
            logger.warning("released %d execution%s of dead workers", count, "s" * (count != 1))

    async def _expire(self) -> None:
        now = self._clock.now()
        late = Condition("deadline_at", Operator.BEFORE, now)
        free = Condition("status", Operator.IN, tuple(CLAIMABLE))
        # All of them: what has something to undo stays, and waits for a worker that has its code.
        async for found in pages(self._store, late, free):
            unowned = [item for item in found if item.owner is None]
            begun = [item.id for item in unowned if item.fence]
            steps = await self._store.steps(begun) if begun else {}
            pairs = []
            for item in unowned:
                has_handler = has_followers(item, Status.FAILED, self._registry)
                change = expired(item, steps.get(item.id, ()), now=now, has_handler=has_handler)
                if change is not None:
                    pairs.append((item, change))
            await self._journal.update(pairs)

    async def _cancel(self) -> None:
        now = self._clock.now()
        found = await self._find(
            Condition("cancel_requested_at", Operator.BEFORE, now + timedelta(days=1)),
            Condition("owner", Operator.EQUAL, None),
            Condition("status", Operator.IN, tuple(CLAIMABLE)),
        )
        await self._journal.update(
            [(item, transitions.request_cancel(item, now=now)) for item in found]
        )

    async def _follow_up(self) -> None:
        found = await self._find(Condition("handlers_due", Operator.EQUAL, True))
        ended = [item for item in found if item.status.is_final]
        if ended:
            await follow_up(ended, self._registry, self._journal)
        now = self._clock.now()
        waiting = [
            (item, transitions.looked(item, is_there=True, now=now))
            for item in found
            if item.status in _WAITERS and item.waits and item.updated_at < now - _LOOKED_WITHIN
        ]
        await self._journal.update(waiting)  # whoever was to look has died: they look themselves
        half_made = [
            (item, abandon(item, now=now))
            for item in found
            if is_half_made(item)
            and not item.status.is_final
            and item.updated_at < now - _FORKED_WITHIN
        ]
        await self._journal.update(half_made)
        await self._mailbox.deliver_pending()

    # --- hints ----------------------------------------------------------------------------------

    async def hint_due(self) -> None:
        """Tell the queue of delayed executions whose time has come."""
        now = self._clock.now()
        query = Query(
            where=(Condition("hint_at", Operator.BEFORE, now + timedelta(milliseconds=1)),),
            order="hint_at",
            descending=False,
            limit=_PAGE,
        )
        await self._hint((await self._store.find(query)).items)

    async def hint_lost(self) -> None:
        """Tell the queue again of executions whose hint it lost, all of them after a wipe."""
        view = await self._journal.queue.view()
        if view is None:
            return
        if await self._was_wiped(view):
            logger.warning("the queue lost its memory; refilling it from the store")
            query: Query | None = self._unheard(self._clock.now())
            while query is not None:
                query = await self._hint_page(query)
            return
        before = await self._watermark(view) - self._settings.lease / 2
        await self._hint_page(self._unheard(before))

    def _unheard(self, before: datetime) -> Query:
        return Query(
            where=(
                Condition("due_at", Operator.BEFORE, before),
                Condition("hinted_at", Operator.BEFORE, before),
                Condition("status", Operator.IN, tuple(CLAIMABLE)),
            ),
            order="due_at",
            descending=False,
            limit=_PAGE,
        )

    async def _watermark(self, view: QueueView) -> datetime:
        """Return when the hint at the queue's head was pushed: older ones are gone or lost."""
        found = {item.id: item for item in await self._store.get(view.head)} if view.head else {}
        for execution_id in view.head:
            item = found.get(execution_id)
            if item is not None and item.hinted_at is not None:
                return min(item.hinted_at, self._clock.now())
            if item is not None and is_claimable(item, self._clock.now()):
                return item.updated_at  # a foreign client wrote it, and then pushed its id
        return self._clock.now()

    async def _was_wiped(self, view: QueueView) -> bool:
        body = json.dumps(view.epoch)
        records = self._store.records
        current = await read_record(records, "meta", _EPOCH_KEY)
        if current is None:
            await records.insert([Record(kind="meta", key=_EPOCH_KEY, body=body)])
            return False
        if current.body == body:
            return False
        changed = Record(kind="meta", key=_EPOCH_KEY, body=body, version=current.version + 1)
        return not await records.replace([changed])

    async def _hint_page(self, query: Query) -> Query | None:
        """Hint what a query finds; return the query for the next page, None behind the last."""
        found = (await self._store.find(query)).items
        await self._hint(found)
        if len(found) < query.limit:
            return None
        return replace(query, after=query.order_key(found[-1]))

    async def _hint(self, found: Sequence[Execution]) -> None:
        """Hint what somebody can run.

        Hints of functions that no worker has would only heap up in the queue. A worker that
        brings the function asks the store, and finds what waits for it.
        """
        if not found:
            return
        now = self._clock.now()
        functions = await self._live_functions(now)
        pairs = [
            (item, transitions.mark_hinted(item, now=now))
            if item.function in functions
            else (item, transitions.mark_hinted(item, now=now + _UNHEARD))
            for item in found
        ]
        await self._journal.update(pairs, point="after_hint_mark", hinted=functions)

    async def _live_functions(self, now: datetime) -> Collection[str]:
        """Return the functions that a worker whose lease has not ended can run, and may."""
        pauses = await paused(self._store.records)
        return {
            function
            for worker in await self._store.workers()
            if worker.state is not WorkerState.DEAD
            and (worker.lease_until is None or worker.lease_until >= now)
            for function in open_functions(worker.functions, pauses)
        }

    # --- retention ------------------------------------------------------------------------------

    async def retain(self) -> None:
        """Delete executions that ended longer ago than the retention, steps first."""
        retention = self._settings.retention
        if not retention:
            return
        query = Query(
            where=(
                Condition("finished_at", Operator.BEFORE, self._clock.now() - retention),
                Condition("status", Operator.IN, tuple(FINAL)),
            ),
            order="finished_at",
            descending=False,
            limit=500,
        )
        while found := (await self._store.find(query)).items:
            gone = await self._journal.delete([item.id for item in found])
            if not gone:
                return

    async def forget_events(self) -> None:
        """Delete stored events older than the retention."""
        if self._settings.retention:
            await self._mailbox.forget(self._clock.now() - self._settings.retention)

    async def _find(self, *where: Condition) -> Sequence[Execution]:
        return (await self._store.find(Query(where=where, descending=False, limit=_PAGE))).items
