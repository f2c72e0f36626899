"""Flow control through real workers: what may run, what waits, what is turned away."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from worchflow_core import (
    Batch,
    Debounce,
    Event,
    ExecutionCancelled,
    ExecutionFailed,
    Limit,
    Rate,
    Send,
    Singleton,
    Status,
    Step,
    Unique,
    function,
)
from worchflow_core import lines as line_records

from .support import run, until, working


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
    @function(throttle=Rate(2, "300ms"))
    async def throttled(event: Event[Any], step: Step) -> float:
        return asyncio.get_running_loop().time()

    async def main() -> None:
        async with working(throttled, **place) as app:
            handles = await app.client.send_many([Send(function=throttled) for _ in range(7)])
            starts = sorted([await handle.result(30) for handle in handles])
            for early, late in zip(starts, starts[2:], strict=False):
                assert late - early > 0.25

    run(main())


def test_of_a_burst_only_the_last_runs(place: dict[str, Any]) -> None:
    ran = []

    @function(debounce=Debounce("400ms", key="data.id"))
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


def test_an_event_with_the_same_key_runs_only_once(place: dict[str, Any]) -> None:
    ran = []

    @function(unique=Unique("data.order", window="1h"))
    async def taken(event: Event[Any], step: Step) -> None:
        ran.append(event.data["order"])

    async def main() -> None:
        async with working(taken, **place) as app:
            first = await app.client.send(taken, {"order": 1})
            await first.result(30)
            for order, is_new in ((1, False), (2, True), (1, False)):
                handle = await app.client.send(taken, {"order": order})
                if is_new:
                    await handle.result(30)
                else:
                    with pytest.raises(ExecutionCancelled) as caught:
                        await handle.result(30)
                    assert caught.value.failure is not None
                    assert first.id in caught.value.failure.message
            assert ran == [1, 2]

    run(main())


def test_while_one_is_active_its_double_is_turned_away(place: dict[str, Any]) -> None:
    @function(unique="data")
    async def taken(event: Event[Any], step: Step) -> str:
        await step.sleep("Nap", "1.1s")
        return "done"

    async def main() -> None:
        async with working(taken, **place) as app:
            first = await app.client.send(taken, 1)
            await until(lambda: status_is(first, Status.SLEEPING))
            second = await app.client.send(taken, 1)
            with pytest.raises(ExecutionCancelled):
                await second.result(30)
            assert await first.result(30) == "done"
            third = await app.client.send(taken, 1)
            assert await third.result(30) == "done"

    run(main())
