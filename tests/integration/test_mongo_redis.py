"""The whole system on MongoDB and Redis, through wipes and outages of Redis."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pymongo import MongoClient
from redis.asyncio import Redis

from worchflow_core import (
    Event,
    Filter,
    Send,
    Status,
    Step,
    Worchflow,
    function,
    load_settings,
)
from worchflow_core.sweeper import Sweeper
from worchflow_core.testing.servers import RedisServer
from worchflow_plugins.mongo import MongoStore
from worchflow_plugins.redis import RedisQueue, RedisStepCache

pytestmark = pytest.mark.servers

RAN: Counter[str] = Counter()


@function(id="chain")
async def chain(event: Event[int], step: Step) -> int:
    total = 0
    for number in range(3):
        total += await step.run(f"Step {number}", _ran, f"{event.id}:{number}", number)
    return total


@function(id="bumpy", retries=3, retry_delay=0)
async def bumpy(event: Event[int], step: Step) -> str:
    await step.run("First", _ran, f"{event.id}:first", 0)
    RAN[f"{event.id}:attempt"] += 1
    if RAN[f"{event.id}:attempt"] < 3:
        raise ValueError("not yet")
    return "done"


@function(id="hears", triggers=["news/*"])
async def hears(event: Event[int], step: Step) -> str:
    await step.run("First", _ran, f"{event.id}:first", event.data)
    return event.name


@function(id="answers")
async def answers(event: Event[int], step: Step) -> Any:
    answer = await step.wait_for_event("News", "news/today", match={"n": 5})
    return answer.data if answer else None


async def _ran(key: str, value: int) -> int:
    RAN[key] += 1
    await asyncio.sleep(0.002)
    return value


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(autouse=True)
def _fresh(mongodb_url: str) -> Iterator[None]:
    RAN.clear()
    yield
    with MongoClient[Any](mongodb_url) as client:
        client.drop_database(client.get_default_database().name)


@asynccontextmanager
async def application(mongodb_url: str, redis_url: str) -> AsyncIterator[Worchflow]:
    settings = load_settings(
        {"concurrency": 20, "lease": "6s", "heartbeat": "1s", "sweep_interval": "0.3s"},
        env_file=None,
    )
    async with Worchflow(
        settings,
        functions=[chain, bumpy, hears, answers],
        store=MongoStore(mongodb_url),
        queue=RedisQueue(redis_url),
        step_cache=RedisStepCache(redis_url),
        env_file=None,
    ) as app:
        yield app


async def run_all(app: Worchflow, ids: list[str]) -> None:
    """Run a worker until all of these have ended."""
    running = asyncio.ensure_future(app.worker.run())
    try:
        end = asyncio.get_running_loop().time() + 60
        while True:
            found = await app.journal.store.get(ids)
            if all(item.status.is_final for item in found):
                break
            assert not running.done()
            assert asyncio.get_running_loop().time() < end, Counter(item.status for item in found)
            await asyncio.sleep(0.05)
    finally:
        app.worker.stop()
        await running
    assert {item.status for item in found} == {Status.COMPLETED}


async def send(app: Worchflow, name: str, count: int) -> list[str]:
    sends = [Send(function=name, data=number) for number in range(count)]
    return [handle.id for handle in await app.client.send_many(sends)]


def test_wiping_redis_again_and_again_repeats_and_loses_nothing(
    mongodb_url: str, own_redis: RedisServer
) -> None:
    async def main() -> None:
        async with application(mongodb_url, own_redis.url) as app:
            ids = await send(app, "chain", 300) + await send(app, "bumpy", 30)
            async with Redis.from_url(own_redis.url) as client:

                async def wipe() -> None:
                    while True:
                        await client.flushall()
                        await asyncio.sleep(0.05)

                wiping = asyncio.ensure_future(wipe())
                try:
                    await run_all(app, ids)
                finally:
                    wiping.cancel()
                    await asyncio.wait({wiping})
        steps = {key: count for key, count in RAN.items() if not key.endswith("attempt")}
        assert len(steps) == 300 * 3 + 30
        assert set(steps.values()) == {1}

    asyncio.run(main())


def test_work_goes_on_while_redis_is_away_and_after(
    mongodb_url: str, own_redis: RedisServer
) -> None:
    async def main() -> None:
        async with application(mongodb_url, own_redis.url) as app:
            first = await send(app, "chain", 20)
            own_redis.kill()
            second = await send(app, "chain", 20)
            await run_all(app, first + second)
            await asyncio.to_thread(own_redis.start)
            await run_all(app, await send(app, "chain", 20))
        assert len(RAN) == 180
        assert set(RAN.values()) == {1}

    asyncio.run(main())


def test_every_key_in_redis_expires_but_queue_and_epoch(
    mongodb_url: str, own_redis: RedisServer
) -> None:
    async def main() -> None:
        async with application(mongodb_url, own_redis.url) as app:
            await run_all(app, await send(app, "chain", 20) + await send(app, "bumpy", 5))
        async with Redis.from_url(own_redis.url, decode_responses=True) as client:
            immortal = {key async for key in client.scan_iter() if await client.ttl(key) < 0}
            ended = [key async for key in client.scan_iter("worchflow:execution:*")]
            assert immortal <= {"worchflow:queue", "worchflow:epoch"}
            assert len(ended) == 25
            for key in ended:
                assert await client.ttl(key) <= 86_400
                assert await client.hget(key, "status") == "completed"

    asyncio.run(main())


def test_the_lane_of_a_function_that_no_worker_has_does_not_grow(
    mongodb_url: str, own_redis: RedisServer
) -> None:
    async def main() -> None:
        async with application(mongodb_url, own_redis.url) as app:
            await send(app, "nobodys", 40)
            await run_all(app, await send(app, "chain", 1))  # its worker sorts the queue
            sweeper = Sweeper(app.journal, app.registry, app.settings)
            async with Redis.from_url(own_redis.url) as redis:
                await sweeper.hint_lost()  # learns the queue's epoch
                for _ in range(5):
                    with MongoClient[Any](mongodb_url) as client:
                        client.get_default_database().executions.update_many(
                            {"eventName": "nobodys"},
                            {"$set": {"dueAt": 1.0, "hintedAt": 1.0}},
                        )
                    await sweeper.hint_lost()
                    await app.journal.drain()
                lanes = [key async for key in redis.scan_iter("worchflow:queue*")]
                assert sum([await redis.llen(key) for key in lanes]) == 40
            brought = function(id="nobodys")(_nothing)
            async with Worchflow(
                app.settings,
                functions=[brought],
                store=MongoStore(mongodb_url),
                queue=RedisQueue(own_redis.url),
                env_file=None,
            ) as other:
                page = await other.client.find(Filter(function="nobodys"))
                await run_all(other, [item.id for item in page.items])

    asyncio.run(main())


async def _nothing(event: Event[int], step: Step) -> None: ...


def test_the_originals_client_enqueues_for_our_worker(
    mongodb_url: str, own_redis: RedisServer
) -> None:
    async def main() -> None:
        async with application(mongodb_url, own_redis.url) as app:
            document = {
                "id": "b7e6-from-typescript",
                "eventName": "chain",
                "eventData": "7",
                "status": "queued",
                "attemptCount": 0,
                "createdAt": 1_700_000_000_000.0,
                "updatedAt": 1_700_000_000_000.0,
            }
            with MongoClient[Any](mongodb_url) as client:
                client.get_default_database().executions.insert_one(document)
                async with Redis.from_url(own_redis.url) as redis:
                    await redis.rpush("worchflow:queue", document["id"])
                await run_all(app, [str(document["id"])])
                stored = client.get_default_database().executions.find_one({"id": document["id"]})
                assert stored is not None
                assert (stored["status"], stored["result"]) == ("completed", 3)
                steps = list(client.get_default_database().steps.find({}, sort=[("seq", 1)]))
                assert [item["result"] for item in steps] == [0, 1, 2]

    asyncio.run(main())


def test_an_event_runs_subscribers_and_wakes_waiters(mongodb_url: str, redis_url: str) -> None:
    async def main() -> None:
        async with application(mongodb_url, redis_url) as app:
            waiting = await app.client.send("answers", 0)
            task = asyncio.create_task(app.worker.run())
            try:
                async with asyncio.timeout(20):
                    while (await waiting.get()).status is not Status.WAITING:  # noqa: ASYNC110
                        await asyncio.sleep(0.02)
                data = {"n": 5, "$set": {"owner": "$x"}}
                for _ in range(2):
                    sent = await app.client.send_event("news/today", data, id="e.1")
                (handle,) = sent.executions
                assert (handle.id, handle.is_new) == ("e.1:hears", False)
                failed = await app.client.wait(handle.id, timeout=20)
                assert failed.status is Status.FAILED  # what it declares is a number
                assert (failed.event, failed.data and '"$set"' in failed.data) == (
                    "news/today",
                    True,
                )
                assert await waiting.result(20) == data
                many = await asyncio.gather(
                    *(app.client.send_event("news/x", n, id=f"m{n}") for n in range(30))
                )
                for event in many:
                    assert await event.executions[0].result(20) == "news/x"
                assert sum(RAN[f"m{n}:hears:first"] for n in range(30)) == 30
            finally:
                app.worker.stop()
                await task

    asyncio.run(main())
