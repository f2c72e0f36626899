"""Flow control through real workers: what may run, what waits, what is turned away."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from worchflow_core import (
    Batch,
    Debounce,
    Event,
    Execution,
    ExecutionCancelled,
    ExecutionFailed,
    Limit,
    Rate,
    Send,
    Singleton,
    Status,
    Step,
    Unique,
    Worchflow,
    function,
    keys,
)
from worchflow_core import lines as line_records
from worchflow_core.admission import Admission
from worchflow_core.limits import digest_of
from worchflow_core.lines import is_parked

from .support import application, run, until, worker_of, working


@pytest.fixture(
    params=[
        "memory",
        "sqlite",
        pytest.param("mongo", marks=pytest.mark.servers),
        pytest.param("servers", marks=pytest.mark.servers),
    ]
)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """Where a worker keeps everything: each store, and MongoDB with a queue in Redis."""
    plugins = "dashboard,logs,sample-audit,sample-panel"
    if request.param == "memory":
        return {"url": f"memory://{uuid4().hex}"}
    if request.param == "sqlite":
        return {"url": f"sqlite:///{tmp_path}/w.db", "disabled_plugins": plugins}
    found = {"url": request.getfixturevalue("mongodb_url"), "disabled_plugins": plugins}
    if request.param == "servers":
        redis = request.getfixturevalue("redis_url")
        found |= {"queue_url": redis, "step_cache_url": redis, "prefix": f"w{uuid4().hex}"}
    return found


class Meter:
    """Count how many run at once, in all and by key."""

    def __init__(self) -> None:
        self.now: Counter[Any] = Counter()
        self.most: Counter[Any] = Counter()
        self.order: list[Any] = []

    async def work(self, key: Any = "all", seconds: float = 0.01) -> None:
        self.order.append(key)
        for name in {key, "all"}:
            self.now[name] += 1
            self.most[name] = max(self.most[name], self.now[name])
        await asyncio.sleep(seconds)
        for name in {key, "all"}:
            self.now[name] -= 1


async def lines_left(app: Any) -> list[Any]:
    return list(await app.journal.store.records.scan(line_records.KIND))


def test_no_more_run_at_once_than_the_limit_says(place: dict[str, Any]) -> None:
    meter = Meter()

    @function(concurrency=Limit(3))
    async def limited(event: Event[Any], step: Step) -> None:
        await step.run("Work", meter.work)

    async def main() -> None:
        async with working(limited, **place) as app:
            handles = await app.client.send_many([Send(function=limited) for _ in range(40)])
            for handle in handles:
                await handle.result(30)
            assert meter.most["all"] == 3
            executions = [await handle.get() for handle in handles]
            assert {item.failed_attempts for item in executions} == {0}
            assert {len(item.attempts) for item in executions} == {1}
            await until(lambda: lines_left_none(app))

    async def lines_left_none(app: Any) -> bool:
        return not await lines_left(app)

    run(main())


def test_each_value_of_a_key_has_places_of_its_own(place: dict[str, Any]) -> None:
    meter = Meter()

    @function(concurrency=Limit(2, key="data.tenant"))
    async def limited(event: Event[Any], step: Step) -> None:
        await meter.work(event.data["tenant"], 0.03)

    async def main() -> None:
        async with working(limited, **place, concurrency=20) as app:
            sends = [
                Send(function=limited, data={"tenant": tenant})
                for tenant in "abc"
                for _ in range(9)
            ]
            for handle in await app.client.send_many(sends):
                await handle.result(30)
            assert {meter.most[tenant] for tenant in "abc"} == {2}
            assert meter.most["all"] > 2

    run(main())


def test_a_function_at_its_limit_never_blocks_others(place: dict[str, Any]) -> None:
    gate = asyncio.Event()

    @function(concurrency=1)
    async def slow(event: Event[Any], step: Step) -> None:
        await gate.wait()

    @function
    async def quick(event: Event[Any], step: Step) -> str:
        return "done"

    async def main() -> None:
        async with working(slow, quick, **place, concurrency=2) as app:
            stuck = await app.client.send_many([Send(function=slow) for _ in range(50)])
            handle = await app.client.send(quick, None)
            assert await handle.result(20) == "done"
            gate.set()
            for item in stuck:
                await item.result(30)

    run(main())


def test_tenants_take_turns(place: dict[str, Any]) -> None:
    meter = Meter()

    @function(concurrency=Limit(1, fair_by="data.tenant"))
    async def limited(event: Event[Any], step: Step) -> None:
        await meter.work(event.data["tenant"])

    async def main() -> None:
        async with working(limited, **place, concurrency=50) as app:
            large = await app.client.send_many(
                [Send(function=limited, data={"tenant": "large"}) for _ in range(20)]
            )
            small = await app.client.send_many(
                [Send(function=limited, data={"tenant": "small"}) for _ in range(2)]
            )
            for handle in (*large, *small):
                await handle.result(30)
            assert meter.most["all"] == 1
            assert max(place for place, key in enumerate(meter.order) if key == "small") < 15

    run(main())


def test_a_sleeper_lets_another_have_its_place(place: dict[str, Any]) -> None:
    @function(concurrency=1)
    async def sleeper(event: Event[Any], step: Step) -> str:
        await step.sleep("Nap", 2 if event.data else 0)
        return "awake"

    async def main() -> None:
        async with working(sleeper, **place) as app:
            first = await app.client.send(sleeper, True)
            await until(lambda: status_is(first, Status.SLEEPING))
            second = await app.client.send(sleeper, False)
            assert await second.result(1.5) == "awake"
            assert await first.result(20) == "awake"

    run(main())


async def status_is(handle: Any, status: Status) -> bool:
    return (await handle.get()).status is status


def test_what_comes_faster_than_a_rate_limit_is_turned_away(place: dict[str, Any]) -> None:
    ran = []

    @function(rate_limit=Rate(3, "1h", key="data"))
    async def limited(event: Event[Any], step: Step) -> None:
        ran.append(event.data)

    async def main() -> None:
        async with working(limited, **place) as app:
            sends = [Send(function=limited, data=key) for key in ("a", "b") for _ in range(5)]
            handles = await app.client.send_many(sends)
            outcomes: Counter[str] = Counter()
            for handle in handles:
                ended = await app.client.wait(handle.id, timeout=30)
                outcomes[ended.error.type if ended.error else str(ended.status)] += 1
            assert outcomes == {"completed": 6, "RateLimited": 4}
            assert Counter(ran) == {"a": 3, "b": 3}

    run(main())


def test_what_comes_faster_than_a_throttle_starts_later(place: dict[str, Any]) -> None:
    @function(throttle=Rate(2, "1s"))
    async def throttled(event: Event[Any], step: Step) -> float:
        return asyncio.get_running_loop().time()

    async def main() -> None:
        async with working(throttled, **place) as app:
            handles = await app.client.send_many([Send(function=throttled) for _ in range(7)])
            starts = sorted([await handle.result(30) for handle in handles])
            for early, late in zip(starts, starts[2:], strict=False):
                assert late - early > 0.4  # begun a little later than let in, each

    run(main())


def test_of_a_burst_only_the_last_runs(place: dict[str, Any]) -> None:
    ran = []

    @function(debounce=Debounce("1.5s", key="data.id"))
    async def debounced(event: Event[Any], step: Step) -> int:
        ran.append(event.data["n"])
        return int(event.data["n"])

    async def main() -> None:
        async with working(debounced, **place) as app:
            handles = []
            for number in range(5):
                handles.append(await app.client.send(debounced, {"id": 1, "n": number}))
                await asyncio.sleep(0.02)
            other = await app.client.send(debounced, {"id": 2, "n": 100})
            assert await handles[-1].result(30) == 4
            assert await other.result(30) == 100
            for handle in handles[:-1]:
                with pytest.raises(ExecutionCancelled, match="was cancelled") as caught:
                    await handle.result(30)
                assert caught.value.failure is not None
                assert caught.value.failure.type == "Debounced"
            assert sorted(ran) == [4, 100]
            again = await app.client.send(debounced, {"id": 1, "n": 5})
            assert await again.result(30) == 5

    run(main())


def test_a_batch_runs_once_for_all_of_its_events(place: dict[str, Any]) -> None:
    ran: list[list[int]] = []

    @function(batch=Batch(4, "500ms"))
    async def batched(event: Event[int], step: Step) -> int:
        ran.append([item.data for item in event.batch])
        return len(event.batch)

    async def main() -> None:
        async with working(batched, **place) as app:
            sends = [Send(function=batched, data=number) for number in range(10)]
            handles = await app.client.send_many(sends)
            sizes = [await handle.result(30) for handle in handles]
            assert sorted(sizes) == [2, 2, 4, 4, 4, 4, 4, 4, 4, 4]
            assert sorted(item for batch in ran for item in batch) == list(range(10))

    run(main())


def test_a_batch_that_fails_fails_for_all(place: dict[str, Any]) -> None:
    @function(batch=Batch(3, "10s"), retries=1, retry_delay=0)
    async def batched(event: Event[int], step: Step) -> int:
        assert len(event.batch) == 3
        raise ValueError("no")

    async def main() -> None:
        async with working(batched, **place) as app:
            handles = await app.client.send_many([Send(function=batched, data=1) for _ in range(3)])
            for handle in handles:
                with pytest.raises(ExecutionFailed, match="no"):
                    await handle.result(30)

    run(main())


@pytest.mark.parametrize("choice", ["skip", "cancel", "queue"])
def test_one_at_a_time(place: dict[str, Any], choice: str) -> None:
    meter = Meter()

    @function(singleton=Singleton(choice, key="data"), retries=0)
    async def single(event: Event[str], step: Step) -> str:
        await meter.work(event.data, 0.0)
        await step.sleep("Nap", "1.2s")
        return event.id

    async def main() -> None:
        async with working(single, **place) as app:
            first = await app.client.send(single, "a")
            await until(lambda: status_is(first, Status.SLEEPING))
            second = await app.client.send(single, "a")
            other = await app.client.send(single, "b")
            outcomes = {}
            for name, handle in (("first", first), ("second", second), ("other", other)):
                try:
                    await handle.result(30)
                    outcomes[name] = "ran"
                except ExecutionCancelled:
                    outcomes[name] = "cancelled"
            assert outcomes == {
                "first": "cancelled" if choice == "cancel" else "ran",
                "second": "cancelled" if choice == "skip" else "ran",
                "other": "ran",
            }

    run(main())


@asynccontextmanager
async def stranger(place: dict[str, Any]) -> AsyncIterator[Worchflow]:
    """Open an application over the same store that knows none of the functions."""
    async with application(**place) as app:
        yield app


def test_an_event_with_the_same_key_runs_only_once(place: dict[str, Any]) -> None:
    ran = []

    @function(id="taken", unique=Unique("data.order", window="1h"))
    async def taken(event: Event[Any], step: Step) -> None:
        ran.append(event.data["order"])

    async def main() -> None:
        async with working(taken, **place), stranger(place) as other:
            first = await other.client.send("taken", {"order": 1})
            await first.result(30)
            for order, is_new in ((1, False), (2, True), (1, False)):
                handle = await other.client.send("taken", {"order": order})
                if is_new:
                    await handle.result(30)
                else:
                    with pytest.raises(ExecutionCancelled) as caught:
                        await handle.result(30)
                    assert caught.value.failure is not None
                    assert first.id in caught.value.failure.message
            assert ran == [1, 2]

    run(main())


def test_a_sender_that_knows_the_function_gets_the_execution_that_has_the_key(
    place: dict[str, Any],
) -> None:
    @function(id="taken", unique="data.order")
    async def taken(event: Event[Any], step: Step) -> str:
        await step.sleep("Nap", "1.1s")
        return event.id

    async def main() -> None:
        async with application(taken, **place) as app:
            sends = [Send(function=taken, data={"order": number}) for number in (1, 2, 1)]
            first, second, double = await app.client.send_many(sends)
            assert (double.id, double.is_new) == (first.id, False)
            assert (first.is_new, second.is_new) == (True, True)
            again = await asyncio.gather(
                *(app.client.send(taken, {"order": 2}, id=f"mine-{n}") for n in range(3))
            )
            assert {(item.id, item.is_new) for item in again} == {(second.id, False)}
            async with worker_of(app):
                assert await double.result(30) == first.id
                third = await app.client.send(taken, {"order": 1})
                assert third.is_new
                assert await third.result(30) == third.id
            count = sum((await app.client.stats()).values())
            assert count == 3

    run(main())


def test_of_racing_senders_one_execution_runs(place: dict[str, Any]) -> None:
    gate = asyncio.Event()

    @function(id="taken", unique="data")
    async def taken(event: Event[Any], step: Step) -> str:
        await gate.wait()
        return event.id

    async def main() -> None:
        async with application(taken, **place) as app:
            handles = await asyncio.gather(*(app.client.send(taken, 1) for _ in range(20)))
            sent = {item.id: item for item in handles}

            async def is_one_left() -> bool:
                found = [await item.get() for item in sent.values()]
                return sum(not item.status.is_final for item in found) == 1

            async with worker_of(app):
                await until(is_one_left)
                gate.set()
                ended = [await app.client.wait(item, timeout=30) for item in sent]
            assert [item.status for item in ended].count(Status.COMPLETED) == 1

    run(main())


def test_a_key_whose_sender_died_is_free_after_a_while(
    place: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "RESERVED", timedelta(seconds=2))

    @function(id="taken", unique="data")
    async def taken(event: Event[Any], step: Step) -> str:
        return event.id

    async def main() -> None:
        async with application(taken, **place) as app:
            store, now = app.journal.store, app.journal.clock.now()
            dead = Execution(id="dead", function="taken", data="1", created_at=now, updated_at=now)
            unique = keys.UniqueKeys(store, app.journal.clock)
            await unique.reserve(f"taken|unique|{digest_of(1)}", dead, None)
            handle = await app.client.send(taken, 1)
            async with worker_of(app):
                await until(lambda: is_put_off(handle))
                assert await handle.result(30) == handle.id

    async def is_put_off(handle: Any) -> bool:
        execution = await handle.get()
        return execution.due_at is not None and execution.due_at > execution.created_at

    run(main())


def test_while_one_is_active_its_double_is_turned_away(place: dict[str, Any]) -> None:
    @function(id="taken", unique="data")
    async def taken(event: Event[Any], step: Step) -> str:
        await step.sleep("Nap", "1.1s")
        return "done"

    async def main() -> None:
        async with working(taken, **place) as app, stranger(place) as other:
            first = await app.client.send(taken, 1)
            second = await other.client.send("taken", 1)
            with pytest.raises(ExecutionCancelled):
                await second.result(30)
            assert await first.result(30) == "done"
            third = await other.client.send("taken", 1)
            assert await third.result(30) == "done"
            await app.client.retry(second.id)  # by hand, once nobody has the key
            assert await second.result(30) == "done"

    run(main())


def test_executions_in_a_line_that_is_no_more_are_let_go(place: dict[str, Any]) -> None:
    """A deploy changes the key of a limit, raises it, or takes it away, while many wait."""
    gate = asyncio.Event()

    def version(*limits: Limit) -> Any:
        @function(id="changing", concurrency=limits)
        async def changing(event: Event[Any], step: Step) -> str:
            await gate.wait()
            return "done"

        return changing

    async def waiting(app: Worchflow, number: int) -> bool:
        found = (await app.client.find()).items
        return sum(is_parked(item) for item in found) == number

    async def main() -> None:
        async with working(version(Limit(1, key="data.old")), **place) as app:
            for _ in range(12):
                await app.client.send("changing", {"old": 1, "new": 2})
            await until(lambda: waiting(app, 11))
        async with working(version(Limit(3, key="data.new")), **place) as app:
            await until(lambda: waiting(app, 9))
        async with working(version(), **place) as app:
            gate.set()
            for item in (await app.client.find()).items:
                await app.client.wait(item.id, timeout=30)

    run(main())


def test_who_waits_can_be_cancelled_and_retried(place: dict[str, Any]) -> None:
    gate = asyncio.Event()

    @function(concurrency=1)
    async def limited(event: Event[Any], step: Step) -> str:
        await gate.wait()
        return "done"

    async def main() -> None:
        async with working(limited, **place) as app:
            handles = await app.client.send_many([Send(function=limited) for _ in range(4)])

            async def parked() -> list[Any]:
                return [h for h in handles if is_parked(await h.get())]

            async def are_parked() -> bool:
                return len(await parked()) == 3

            await until(are_parked)
            out, later, _ = await parked()
            reasons = {item.code: item for item in await app.client.explain(out.id)}
            assert reasons["limit"].text.startswith(
                "it waits for a place under a limit of limited: 1 of 1 are taken, by "
            )
            await out.cancel()
            await later.cancel()
            await later.retry()
            gate.set()
            for handle in handles:
                if handle is not out:
                    assert await handle.result(30) == "done"
            assert (await out.get()).status is Status.CANCELLED
            await app.client.delete(out.id)

    run(main())


def test_places_of_a_worker_that_died_are_given_to_others(place: dict[str, Any]) -> None:
    @function(id="limited", concurrency=2)
    async def limited(event: Event[Any], step: Step) -> str:
        return "done"

    async def main() -> None:
        async with application(limited, **place) as app:
            handles = await app.client.send_many([Send(function=limited) for _ in range(6)])
            admission = Admission(app.journal, app.registry)
            # Two of these get a place; then the worker that has claimed them is never seen again.
            claimed = await app.journal.claim("lost", ["limited"], limit=6, ids=None)
            assert len(await admission.admit(claimed)) == 2
            async with worker_of(app):
                for handle in handles:
                    assert await handle.result(30) == "done"
            crashes = sorted([(await handle.get()).crashes for handle in handles])
            assert crashes == [0, 0, 0, 0, 0, 0]
            ended = [await handle.get() for handle in handles]
            outcomes = Counter(tuple(a.outcome for a in item.attempts) for item in ended)
            assert outcomes == {("completed",): 4, ("crashed", "completed"): 2}

    run(main())


def test_a_paused_function_begins_nothing_until_it_is_resumed(place: dict[str, Any]) -> None:
    @function(id="held")
    async def held(event: Event[Any], step: Step) -> str:
        return "done"

    @function(id="other")
    async def other(event: Event[Any], step: Step) -> str:
        return "done"

    async def main() -> None:
        async with application(held, other, **place) as app:
            worker = asyncio.create_task(app.worker.run(burst=True))
            await worker  # its functions are described now
            pause = await app.client.pause_function("held", reason="a migration")
            assert (await app.client.paused_functions()) == {"held": pause}
            async with worker_of(app):
                waits = await app.client.send(held)
                assert await (await app.client.send(other)).result(30) == "done"
                assert (await waits.get()).status is Status.QUEUED
                reason = (await app.client.explain(waits.id))[0]
                assert reason.code == "function_paused"
                assert reason.text.startswith("held was paused ")
                assert "(a migration)" in reason.text
                await app.client.resume_function("held")
                assert await waits.result(30) == "done"

    run(main())
