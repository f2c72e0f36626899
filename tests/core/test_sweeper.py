"""The sweeper: what it repairs, what it leaves alone, and whom it judges dead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.core.support import Faulty, application, faulty_memory, run, until, working
from worchflow_core import Event, Execution, Status, Step, Worker, WorkerState, function
from worchflow_core.identities import UNDOABLE
from worchflow_core.journal import Journal
from worchflow_core.sweeper import Sweeper
from worchflow_core.testing.contracts import samples
from worchflow_plugins.memory import MemoryQueue

NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)


@function(retries=0)
async def quick(event: Event[Any], step: Step) -> int:
    return 7


@function(retries=0)
async def told(event: Event[Any], step: Step) -> None:
    return None


@function(retries=0, on_failure=told)
async def watched(event: Event[Any], step: Step) -> None:
    raise ValueError("no")


def worker(name: str) -> Worker:
    return Worker(
        id=name,
        name=name,
        host="h",
        pid=1,
        version="0",
        state=WorkerState.STARTING,
        started_at=NOW,
        concurrency=1,
        functions=("quick",),
    )


class Broom:
    """A sweeper over an application whose executions a test may alter."""

    def __init__(self, app: Any, store: Faulty) -> None:
        self.app = app
        self.store = store
        self.space = store.inner._space
        self.journal: Journal = app.journal
        self.sweeper = Sweeper(app.journal, app.registry, app.settings)

    def alter(self, execution_id: str, **fields: Any) -> Execution:
        changed = replace(self.space.executions[execution_id], **fields)
        self.space.keep(changed)
        return changed

    def get(self, execution_id: str) -> Execution:
        found: Execution = self.space.executions[execution_id]
        return found


async def owned_by_the_dead(broom: Broom, *, crashes: int = 0, **fields: Any) -> str:
    store = broom.store.inner
    store.beat(worker("dead"), lease=timedelta(seconds=30))
    handle = await broom.app.client.send(quick, None)
    await store.claim("dead", ["quick"], limit=1, now=datetime.now(UTC), ids=[handle.id])
    broom.alter(handle.id, crashes=crashes, **fields)
    broom.space.workers["dead"] = replace(
        broom.space.workers["dead"], lease_until=datetime.now(UTC) - timedelta(seconds=1)
    )
    return str(handle.id)


def sweeping(test: Any, *functions: Any) -> None:
    store, options = faulty_memory()

    async def main() -> None:
        async with application(quick, told, watched, *functions, **options) as app:
            store.inner.beat(worker("alive"), lease=HOUR)
            await test(Broom(app, store))

    run(main())


def test_executions_of_a_dead_worker_are_due_at_once_and_hinted() -> None:
    async def test(broom: Broom) -> None:
        execution_id = await owned_by_the_dead(broom)
        await broom.sweeper.release_dead()
        execution = broom.get(execution_id)
        assert (execution.status, execution.owner, execution.crashes) == (Status.QUEUED, None, 1)
        assert execution.failed_attempts == 0
        assert execution.attempts[-1].outcome == "crashed"
        await broom.sweeper.hint_due()
        await broom.journal.drain()
        assert execution_id in broom.space.hints
        assert broom.space.workers["dead"].state is WorkerState.DEAD

    sweeping(test)


@pytest.mark.parametrize(("crashes", "seconds"), [(1, 4), (2, 8), (3, 16)])
def test_each_further_crash_waits_longer(crashes: int, seconds: int) -> None:
    async def test(broom: Broom) -> None:
        execution_id = await owned_by_the_dead(broom, crashes=crashes)
        await broom.sweeper.release_dead()
        execution = broom.get(execution_id)
        assert execution.crashes == crashes + 1
        assert execution.due_at is not None
        assert execution.due_at - execution.updated_at == timedelta(seconds=seconds)

    sweeping(test)


def test_fifth_crash_fails_for_good_and_is_followed_up() -> None:
    async def test(broom: Broom) -> None:
        execution_id = await owned_by_the_dead(broom, crashes=4)
        broom.alter(execution_id, function="watched")
        await broom.sweeper.release_dead()
        execution = broom.get(execution_id)
        assert execution.status is Status.FAILED
        assert execution.error is not None
        assert execution.error.reason == "worker_lost"
        assert execution.handlers_due
        await broom.sweeper.repair()
        await broom.sweeper.repair()
        assert not broom.get(execution_id).handlers_due
        followers = [item for item in broom.space.executions.values() if item.function == "told"]
        assert [item.parent for item in followers] == [execution_id]

    sweeping(test)


def test_execution_of_an_owner_that_nobody_knows_is_released() -> None:
    async def test(broom: Broom) -> None:
        handle = await broom.app.client.send(quick, None)
        broom.alter(handle.id, owner="ghost", status=Status.PROCESSING, fence=3)
        await broom.sweeper.release_dead()
        assert broom.get(handle.id).owner is None

    sweeping(test)


def test_living_workers_and_their_executions_are_left_alone() -> None:
    async def test(broom: Broom) -> None:
        execution_id = await owned_by_the_dead(broom)
        broom.store.inner.beat(
            replace(worker("dead"), state=WorkerState.RUNNING), lease=timedelta(seconds=30)
        )
        await broom.sweeper.release_dead()
        assert broom.get(execution_id).owner == "dead"

    sweeping(test)


def test_nobody_is_judged_within_a_lease_of_an_outage() -> None:
    async def test(broom: Broom) -> None:
        execution_id = await owned_by_the_dead(broom)
        broom.sweeper.note_outage()
        await broom.sweeper.repair()
        assert broom.get(execution_id).owner == "dead"

    sweeping(test)


@pytest.mark.parametrize("jump", [HOUR, -HOUR, timedelta(days=1), timedelta(days=-1)])
def test_f42_nobody_dies_because_the_clock_was_set(jump: timedelta) -> None:
    async def test(broom: Broom) -> None:
        execution_id = await owned_by_the_dead(broom)
        store, settings = broom.store.inner, broom.app.settings
        healthy = replace(worker("dead"), id="healthy")
        store.beat(healthy, lease=settings.lease)
        broom.alter(execution_id, owner="healthy")
        store.beat(replace(worker("dead"), state=WorkerState.STOPPED), lease=settings.lease)
        await broom.sweeper.repair()
        assert broom.get(execution_id).owner == "healthy"
        for clock in (store._clock, broom.journal.clock):  # one machine has both
            clock.shift(jump)
        await broom.sweeper.repair()
        assert broom.space.workers["healthy"].state is WorkerState.STARTING
        beat = store.beat(replace(healthy, state=WorkerState.RUNNING), lease=settings.lease)
        assert beat.is_alive
        await broom.sweeper.repair()
        assert broom.get(execution_id).owner == "healthy"

    sweeping(test)


def test_two_sweepers_release_an_execution_once() -> None:
    async def test(broom: Broom) -> None:
        import asyncio

        execution_id = await owned_by_the_dead(broom)
        other = Sweeper(broom.journal, broom.app.registry, broom.app.settings)
        await asyncio.gather(broom.sweeper.release_dead(), other.release_dead())
        assert broom.get(execution_id).crashes == 1

    sweeping(test)


def test_deadlines_and_cancels_of_what_nobody_owns_are_carried_out() -> None:
    async def test(broom: Broom) -> None:
        late = await broom.app.client.send(watched, None, delay="1h")
        broom.alter(late.id, deadline_at=NOW - HOUR)
        unwanted = await broom.app.client.send(quick, None, delay="1h")
        broom.alter(unwanted.id, cancel_requested_at=NOW)
        await broom.sweeper.repair()
        failed = broom.get(late.id)
        assert failed.status is Status.FAILED
        assert failed.error is not None
        assert failed.error.reason == "timeout"
        assert broom.get(unwanted.id).status is Status.CANCELLED

    sweeping(test)


def test_many_that_have_something_to_undo_keep_none_from_expiring() -> None:
    async def test(broom: Broom) -> None:
        old = {"created_at": NOW - 2 * HOUR, "deadline_at": NOW - HOUR, "updated_at": NOW - HOUR}
        begun = {**old, "fence": 1, "status": Status.RETRYING}
        early = [samples.execution(f"u{number:04}", **begun) for number in range(1000)]
        late = samples.execution("z", **{**old, "created_at": NOW - HOUR})
        await broom.store.inner.create([*early, late])
        await broom.store.inner.record([samples.step(item.id, kind=UNDOABLE) for item in early])
        await broom.sweeper.repair()
        assert broom.get("z").status is Status.FAILED
        assert broom.get("u0999").status is Status.RETRYING

    sweeping(test)


def test_delayed_executions_are_hinted_when_their_time_has_come() -> None:
    async def test(broom: Broom) -> None:
        handle = await broom.app.client.send(quick, None, delay="1h")
        await broom.sweeper.hint_due()
        await broom.journal.drain()
        assert not broom.space.hints
        broom.alter(handle.id, due_at=NOW - HOUR, hint_at=NOW - HOUR)
        await broom.sweeper.hint_due()
        await broom.journal.drain()
        assert list(broom.space.hints) == [handle.id]
        assert broom.get(handle.id).hint_at is None

    sweeping(test)


def test_nobody_is_told_of_functions_that_no_worker_has() -> None:
    async def test(broom: Broom) -> None:
        pushed = pushes_of(broom)
        handles = [await broom.app.client.send(watched, None) for _ in range(30)]
        late = await broom.app.client.send(watched, None, delay="1h")
        known = await broom.app.client.send(quick, None)
        await broom.journal.drain()
        await broom.sweeper.hint_lost()  # learns the queue's epoch
        for handle in (*handles, late, known):
            broom.alter(handle.id, due_at=NOW - HOUR, hinted_at=NOW - HOUR)
        broom.alter(late.id, hint_at=NOW - HOUR, hinted_at=None)
        broom.space.hints.clear()
        pushed.clear()
        for _ in range(5):
            await broom.sweeper.hint_due()
            await broom.sweeper.hint_lost()
            await broom.journal.drain()
        assert pushed == [known.id]
        assert broom.get(late.id).hint_at is None  # or each pass would come upon it first
        broom.space.epoch = "wiped"
        await broom.sweeper.hint_lost()
        await broom.journal.drain()
        assert set(pushed) == {known.id}

    sweeping(test)


def test_what_waited_for_its_function_is_told_of_once_a_worker_has_it() -> None:
    async def test(broom: Broom) -> None:
        pushed = pushes_of(broom)
        handle = await broom.app.client.send(watched, None, delay="1h")
        broom.alter(handle.id, due_at=NOW - HOUR, hint_at=NOW - HOUR)
        await broom.sweeper.hint_due()
        parked = broom.get(handle.id).hinted_at
        assert parked is not None
        assert parked > NOW
        brings_it = replace(worker("brings it"), functions=("watched",))
        broom.store.inner.beat(brings_it, lease=HOUR)
        await broom.sweeper.hint_lost()
        broom.alter(handle.id, hinted_at=parked - HOUR)  # ten minutes later
        await broom.sweeper.hint_lost()
        await broom.journal.drain()
        assert pushed == [handle.id]
        claimed = await broom.journal.claim("brings it", ["watched"], limit=1, ids=None)
        assert [item.id for item in claimed] == [handle.id]  # as it would have been all along

    sweeping(test)


def pushes_of(broom: Broom) -> list[str]:
    """Return the ids that are pushed from now on, as they come."""
    pushed: list[str] = []
    real = broom.journal.hint

    def hint(executions: Sequence[Execution], **options: bool) -> None:
        pushed.extend(item.id for item in executions)
        real(executions, **options)

    broom.journal.hint = hint  # type: ignore[method-assign]
    return pushed


def test_lost_hints_are_pushed_again_and_standing_ones_are_not() -> None:
    async def test(broom: Broom) -> None:
        old = await broom.app.client.send(quick, None)
        standing = await broom.app.client.send(quick, None)
        await broom.journal.drain()
        await broom.sweeper.hint_lost()  # learns the queue's epoch
        broom.alter(old.id, due_at=NOW - HOUR, hinted_at=NOW - HOUR)
        broom.space.hints.pop(old.id)
        pushed = pushes_of(broom)
        await broom.sweeper.hint_lost()
        await broom.journal.drain()
        assert old.id in broom.space.hints
        assert standing.id not in pushed
        await broom.sweeper.hint_lost()
        await broom.journal.drain()
        assert pushed == [old.id]

    sweeping(test)


def test_wiped_queue_is_refilled_from_the_store() -> None:
    async def test(broom: Broom) -> None:
        handles = [await broom.app.client.send(quick, None) for _ in range(20)]
        await broom.journal.drain()
        for handle in handles:
            broom.alter(handle.id, due_at=NOW - HOUR, hinted_at=NOW)
        await broom.sweeper.hint_lost()
        broom.space.hints.clear()
        broom.space.epoch = "another"
        await broom.sweeper.hint_lost()
        await broom.journal.drain()
        assert set(broom.space.hints) == {item.id for item in handles}

    sweeping(test)


def test_what_ended_before_the_retention_is_deleted_and_nothing_else() -> None:
    async def test(broom: Broom) -> None:
        kinds = {}
        for name, fields in {
            "old": {"status": Status.COMPLETED, "finished_at": NOW - timedelta(days=31)},
            "new": {"status": Status.COMPLETED, "finished_at": NOW - timedelta(days=29)},
            "waiting": {"created_at": NOW - timedelta(days=99)},
        }.items():
            handle = await broom.app.client.send(quick, None, id=name, delay="1h")
            kinds[name] = broom.alter(handle.id, **fields)
        await broom.sweeper.retain()
        assert set(broom.space.executions) == {"new", "waiting"}

    sweeping(test)


def test_sweeps_survive_whatever_the_store_raises() -> None:
    store, options = faulty_memory()

    async def main() -> None:
        async with working(quick, **options) as app:
            store.refuse = lambda name, args: ZeroDivisionError("bug") if name == "find" else None
            before = store.calls["find"]
            await until(lambda: store.calls["find"] > before + 3)
            store.refuse = lambda name, args: None
            store.away.add("find")
            before = store.calls["find"]
            await until(lambda: store.calls["find"] > before + 3)
            store.away.clear()
            handle = await app.client.send(quick, None)
            assert await handle.result(timeout=10) == 7

    run(main())
    assert isinstance(options["queue"], MemoryQueue)
