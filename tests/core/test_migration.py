from __future__ import annotations

import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.core.migrating import fill, open_stores, some_execution, some_steps
from tests.core.support import run
from worchflow_core import (
    Execution,
    Query,
    Status,
    Store,
    WorchflowError,
    WorkerState,
)
from worchflow_core.crashpoints import EXIT_CRASHED
from worchflow_core.migration import Migration, moved
from worchflow_core.proof import prove
from worchflow_core.testing.contracts.samples import at, execution, record, step, worker
from worchflow_plugins.memory import MemoryStore

ROOT = Path(__file__).resolve().parents[2]
LEASE = timedelta(seconds=30)


def with_stores(test: Callable[[Any, Any], Awaitable[None]]) -> None:
    """Run a test's coroutine on two stores in memory."""

    async def main() -> None:
        name = uuid4().hex
        async with MemoryStore(f"{name}-1") as source, MemoryStore(f"{name}-2") as target:
            await test(source, target)

    run(main())


async def everything(store: Store) -> tuple[dict[str, Execution], dict[str, Any], Any]:
    """Return all executions, all steps and all records of a store."""
    items = (await store.find(Query(limit=1000))).items
    found = {item.id: item for item in items}
    kinds = sorted(await store.records.kinds())
    records = {kind: list(await store.records.scan(kind, limit=1000)) for kind in kinds}
    return found, dict(await store.steps(list(found))), records


def test_everything_is_moved_and_the_source_stays() -> None:
    async def test(source: MemoryStore, target: MemoryStore) -> None:
        await fill(source, 300)
        before = await everything(source)
        told: list[int] = []
        done = await Migration(source, target, tell=told.append).run()
        assert (done.executions, done.records) == (300, 1000)
        assert done.source == done.target
        assert (done.source.executions, told[-1]) == (300, 300)
        assert done.source.steps == sum(map(len, before[1].values()))
        assert await everything(source) == before
        executions, steps, records = await everything(target)
        assert steps == before[1]
        assert executions == {key: moved(item) for key, item in before[0].items()}
        assert records == {kind: found for kind, found in before[2].items() if kind != "meta"}

    with_stores(test)


def test_what_was_moved_is_free_and_keeps_what_it_was() -> None:
    for number in range(80):
        item = some_execution(number)
        after = moved(item)
        assert after.owner is None
        changed = {"owner"}
        if not item.status.is_final:
            changed |= {"hint_at", "hinted_at"}
            assert after.hint_at == after.due_at
        if item.status is Status.PROCESSING:
            changed |= {"status", "due_at", "steps_recorded"}
            assert (after.status, after.due_at) == (Status.QUEUED, item.claimed_at)
        restored = replace(after, **{name: getattr(item, name) for name in changed})
        assert restored == item
        assert moved(after) == after


def test_it_may_be_run_again_and_moves_what_came_meanwhile() -> None:
    async def test(source: MemoryStore, target: MemoryStore) -> None:
        await fill(source, 50)
        await Migration(source, target).run()
        await source.create([execution("late")])
        plan = await Migration(source, target).plan()
        assert (plan.executions, plan.present, plan.records) == (1, 50, 0)
        done = await Migration(source, target).run()
        assert (done.executions, done.records, done.source.executions) == (1, 0, 51)
        again = await Migration(source, target).run()
        assert (again.executions, again.target) == (0, done.target)

    with_stores(test)


def test_a_plan_changes_nothing() -> None:
    async def test(source: MemoryStore, target: MemoryStore) -> None:
        await fill(source, 30)
        overdue = worker("overdue")
        source.beat(overdue, lease=timedelta(seconds=-1))
        before = (await everything(source), await source.workers())
        plan = await Migration(source, target).plan()
        assert (plan.executions, plan.present, plan.records) == (30, 0, 1000)
        assert (await everything(source), await source.workers()) == before
        assert await everything(target) == ({}, {}, {})

    with_stores(test)


@pytest.mark.parametrize("side", ["source", "target"])
def test_it_refuses_while_a_worker_lives(side: str) -> None:
    async def test(source: MemoryStore, target: MemoryStore) -> None:
        await source.create([execution("a")])
        busy = source if side == "source" else target
        busy.beat(worker("w1", name="api-7"), lease=LEASE)
        for act in (Migration(source, target).plan, Migration(source, target).run):
            with pytest.raises(WorchflowError, match=r"workers live on .*: api-7 \(w1\); stop"):
                await act()
        assert await everything(target) == ({}, {}, {})
        busy.beat(worker("w1", WorkerState.STOPPED), lease=LEASE)
        await Migration(source, target).run()

    with_stores(test)


def test_a_worker_that_beats_no_more_is_declared_dead_and_can_write_nothing() -> None:
    async def test(source: MemoryStore, target: MemoryStore) -> None:
        source.beat(worker("frozen"), lease=timedelta(seconds=-1))
        await source.create([execution("a")])
        await Migration(source, target).run()
        frozen = worker("frozen", WorkerState.RUNNING)
        assert not source.beat(frozen, lease=LEASE).is_alive

    with_stores(test)


def test_a_killed_worker_of_this_machine_need_not_be_waited_for() -> None:
    place = "import worchflow_core.origin as o; print(o.own_origin())"
    gone = subprocess.run(
        [sys.executable, "-c", place], cwd=ROOT, capture_output=True, text=True, check=True
    )

    async def test(source: MemoryStore, target: MemoryStore) -> None:
        source.beat(worker("killed", origin=gone.stdout.strip()), lease=LEASE)
        await source.create([execution("a")])
        await Migration(source, target).run()
        assert [item.state for item in await source.workers()] == [WorkerState.DEAD]

    with_stores(test)


@pytest.mark.parametrize(
    "strange",
    [execution("b"), execution("a", data='"other"'), execution("a", failed_attempts=1)],
    ids=["more", "other data", "further on"],
)
def test_it_refuses_a_target_that_holds_something_else(strange: Execution) -> None:
    async def test(source: MemoryStore, target: MemoryStore) -> None:
        await source.create([execution("a"), execution("c")])
        await target.create([strange])
        with pytest.raises(WorchflowError, match=rf"already holds executions.*: {strange.id};"):
            await Migration(source, target).run()
        assert set((await everything(target))[0]) == {strange.id}

    with_stores(test)


def test_it_refuses_other_records_but_for_descriptions_of_functions() -> None:
    async def test(source: MemoryStore, target: MemoryStore) -> None:
        given = [record("f", "1", kind="function"), record("s", "1", kind="schedule")]
        await source.records.insert(given)
        await target.records.insert([record("f", "2", kind="function"), record("meta", "2")])
        done = await Migration(source, target).run()
        assert done.records == 1
        assert [item.body for item in await target.records.scan("function")] == ["2"]
        await target.records.replace([record("s", "2", kind="schedule", version=2)])
        with pytest.raises(WorchflowError, match="other records: schedule 's'"):
            await Migration(source, target).run()

    with_stores(test)


def test_it_refuses_to_move_a_store_into_itself() -> None:
    async def main() -> None:
        async with MemoryStore("one") as source, MemoryStore("one") as target:
            with pytest.raises(WorchflowError, match="are one store"):
                await Migration(source, target).run()

    run(main())


def test_it_notices_a_writer_that_was_not_stopped() -> None:
    async def test(source: MemoryStore, target: MemoryStore) -> None:
        await fill(source, 250)

        class Busy:
            """A source to which somebody sends while it is read."""

            async def steps(self, execution_ids: Any) -> Any:
                await source.create([execution(f"sent-{uuid4()}", created_at=at(-99))])
                return await source.steps(execution_ids)

            def __getattr__(self, name: str) -> Any:
                return getattr(source, name)

        busy: Any = Busy()
        with pytest.raises(WorchflowError, match="somebody wrote to one of them"):
            await Migration(busy, target).run()
        assert (await Migration(source, target).run()).executions > 0

    with_stores(test)


def test_a_proof_tells_every_difference() -> None:
    async def proof(*items: Execution, steps: Any = ()) -> Any:
        async with MemoryStore() as store:
            await store.create(items)
            await store.record(steps)
            return await prove(store)

    async def main() -> None:
        one, two = execution("a", fence=1), execution("b", created_at=at(5))
        same = await proof(one, two)
        assert same == await proof(two, one)
        others = [
            await proof(one),
            await proof(one, replace(two, updated_at=at(1))),
            await proof(one, replace(two, attempts=some_execution(10).attempts)),
            await proof(one, two, steps=[step("a")]),
            await proof(one, two, steps=[step("a", result='"else"')]),
        ]
        assert len({item.checksum for item in (same, *others)}) == 1 + len(others)

    run(main())


# --- killed in the middle -------------------------------------------------------------------------

DEATHS = [
    ("create", 1, "before"),
    ("create", 1, "after"),
    ("record", 2, "before"),
    ("record", 2, "after"),
    ("update", 5, "before"),
    ("update", 5, "after"),
    ("update", 9, "after"),
]


def kill_in_the_middle(source: str, target: str, method: str, calls: int, moment: str) -> None:
    """Run a move in a process that dies at one of its writes."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.core.migrating", source, target, method, str(calls), moment],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == EXIT_CRASHED, ended.stderr


def test_a_move_that_was_killed_is_run_again(tmp_path: Path) -> None:
    source = f"sqlite:///{tmp_path}/source.db"

    async def prepare() -> None:
        left, _ = open_stores(source, "memory://")
        async with left:
            await fill(left, 600)

    async def finish(target: str) -> None:
        left, right = open_stores(source, target)
        async with left, right:
            claimed = await right.claim("w", ["f", "text"], limit=1000, now=at(10**7))
            # Whatever could already be claimed here had arrived as a whole.
            ids = [item.id for item in claimed]
            there, here = await left.steps(ids), await right.steps(ids)
            assert {key: len(items) for key, items in here.items()} == {
                key: len(items) for key, items in there.items()
            }
            assert not [item for item in claimed if item.error and item.error.reason == "moving"]

    async def rerun(target: str) -> None:
        left, right = open_stores(source, target)
        async with left, right:
            done = await Migration(left, right).run()
            assert done.source == done.target
            assert done.target.executions == 600
            total = sum(len(some_steps(some_execution(number))) for number in range(600))
            assert done.target.steps == total

    run(prepare())
    for method, calls, moment in DEATHS:
        target = f"sqlite:///{tmp_path}/{method}-{calls}-{moment}.db"
        kill_in_the_middle(source, target, method, calls, moment)
        run(rerun(target))
    killed = f"sqlite:///{tmp_path}/killed.db"
    kill_in_the_middle(source, killed, "record", 9, "after")
    run(finish(killed))


def test_an_interrupted_move_leaves_nothing_that_a_sweep_would_release(tmp_path: Path) -> None:
    source, target = f"sqlite:///{tmp_path}/source.db", f"sqlite:///{tmp_path}/target.db"

    async def prepare() -> None:
        left, _ = open_stores(source, "memory://")
        async with left:
            await left.create([execution(f"e{n}", fence=1, waits=("k",)) for n in range(5)])
            await left.record([step(f"e{n}") for n in range(5)])

    async def look() -> None:
        from worchflow_core import Condition, Operator

        _, right = open_stores("memory://", target)
        async with right:
            halves = (await right.find(Query())).items
            assert len(halves) == 5
            assert {item.status for item in halves} == {Status.CANCELLED}
            for where in (
                Condition("owner", Operator.NOT_IN, ()),
                Condition("waits", Operator.HAS, ("k",)),
                Condition("handlers_due", Operator.EQUAL, True),
                Condition("finished_at", Operator.BEFORE, at(10**9)),
            ):
                assert (await right.find(Query(where=(where,)))).items == ()
            assert await right.claim("w", ["f"], limit=9, now=at(10**6)) == []

    run(prepare())
    kill_in_the_middle(source, target, "record", 1, "before")
    run(look())
