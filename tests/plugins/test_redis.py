from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from worchflow_core import (
    Failure,
    Hint,
    Queue,
    Settings,
    Status,
    StepCache,
    to_millis,
)
from worchflow_core.testing.contracts import QueueContract, StepCacheContract
from worchflow_core.testing.contracts.samples import NOW, at, execution, step
from worchflow_core.testing.servers import RedisServer
from worchflow_plugins import redis
from worchflow_plugins.redis import RedisQueue, RedisStepCache

pytestmark = pytest.mark.servers


async def sweep_up(url: str, prefix: str) -> None:
    """Remove a test's keys; fail when one of them would have stayed for ever."""
    allowed = {f"{prefix}:queue", f"{prefix}:epoch"}
    async with Redis.from_url(url) as client:
        immortal = []
        async for key in client.scan_iter(f"{prefix}:*", count=1000):
            name = key.decode("utf-8", "replace")
            is_list = name in allowed or name.startswith(f"{prefix}:queue:")
            if not is_list and await client.ttl(key) < 0:
                immortal.append(name)
            await client.delete(key)
    assert immortal == []


@asynccontextmanager
async def fresh_queue(url: str) -> AsyncIterator[Queue]:
    prefix = f"test-{uuid.uuid4().hex[:12]}"
    async with RedisQueue(url, prefix=prefix) as queue:
        yield queue
    await sweep_up(url, prefix)


@asynccontextmanager
async def fresh_cache(url: str) -> AsyncIterator[StepCache]:
    prefix = f"test-{uuid.uuid4().hex[:12]}"
    async with RedisStepCache(url, prefix=prefix) as cache:
        yield cache
    await sweep_up(url, prefix)


class TestRedisQueue(QueueContract):
    url: str

    @pytest.fixture(autouse=True)
    def _server(self, redis_server: RedisServer) -> None:
        self.url = redis_server.url

    def open(self) -> AbstractAsyncContextManager[Queue]:
        return fresh_queue(self.url)


class TestRedisStepCache(StepCacheContract):
    url: str

    @pytest.fixture(autouse=True)
    def _server(self, redis_server: RedisServer) -> None:
        self.url = redis_server.url

    def open(self) -> AbstractAsyncContextManager[StepCache]:
        return fresh_cache(self.url)


class TestOldRedisQueue(TestRedisQueue):
    @pytest.fixture(autouse=True)
    def _server(self, old_redis_server: RedisServer) -> None:
        self.url = old_redis_server.url


class TestOldRedisStepCache(TestRedisStepCache):
    @pytest.fixture(autouse=True)
    def _server(self, old_redis_server: RedisServer) -> None:
        self.url = old_redis_server.url


class TestNewRedisQueue(TestRedisQueue):
    @pytest.fixture(autouse=True)
    def _server(self, new_redis_server: RedisServer) -> None:
        self.url = new_redis_server.url


class TestNewRedisStepCache(TestRedisStepCache):
    @pytest.fixture(autouse=True)
    def _server(self, new_redis_server: RedisServer) -> None:
        self.url = new_redis_server.url


# --- the wire of the original ---------------------------------------------------------------------


def in_redis(
    url: str, prefix: str, test: Callable[[RedisQueue, RedisStepCache, Any], Awaitable[None]]
) -> None:
    """Run a test with a queue, a cache and the server as any program sees it."""

    async def main() -> None:
        async with (
            RedisQueue(url, prefix=prefix) as queue,
            RedisStepCache(url, prefix=prefix) as cache,
            Redis.from_url(url, decode_responses=True) as client,
        ):
            await test(queue, cache, client)
        await sweep_up(url, prefix)

    asyncio.run(main())


def test_hashes_are_the_originals(redis_url: str, unique_name: str) -> None:
    async def body(queue: RedisQueue, cache: RedisStepCache, client: Any) -> None:
        item = execution("a", data='{"n": 1}', failed_attempts=1)
        await queue.push([Hint(execution=item)])
        key, millis = f"{unique_name}:execution:a", str(to_millis(NOW))
        assert await client.hgetall(key) == {
            "id": "a",
            "eventName": "f",
            "eventData": '{"n": 1}',
            "status": "queued",
            "attemptCount": "1",
            "createdAt": millis,
            "updatedAt": millis,
        }
        assert await client.lrange(f"{unique_name}:queue", 0, -1) == ["a"]
        failure = Failure(type="E", message="bad")
        await queue.mirror([replace(item, status=Status.RETRYING, error=failure)])
        assert await client.hget(key, "error") == "bad"
        assert await client.ttl(key) > 86_400
        await queue.mirror([replace(item, status=Status.COMPLETED, result="[1]", updated_at=at(2))])
        found = await client.hgetall(key)
        assert (found["status"], found["result"], found["eventData"]) == (
            "completed",
            "[1]",
            '{"n": 1}',
        )
        assert "error" not in found
        assert 86_000 < await client.ttl(key) <= 86_400

    in_redis(redis_url, unique_name, body)


def test_ids_that_other_clients_push_are_popped(redis_url: str, unique_name: str) -> None:
    async def body(queue: RedisQueue, cache: RedisStepCache, client: Any) -> None:
        await client.rpush(f"{unique_name}:queue", "order/1", "b")
        assert await queue.pop(["f"], limit=9, wait=timedelta(0)) == ["order/1", "b"]

    in_redis(redis_url, unique_name, body)


def test_entries_that_are_no_ids_are_dropped_and_logged_harmlessly(
    redis_url: str, unique_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(queue: RedisQueue, cache: RedisStepCache, client: Any) -> None:
        await client.rpush(
            f"{unique_name}:queue", b"\xff\xfe\n\x1b[31m", "x" * 1_000_000, "", "good", "../up"
        )
        assert await queue.pop(["f"], limit=9, wait=timedelta(0)) == ["good", "../up"]
        assert queue.dropped == 3

    in_redis(redis_url, unique_name, body)
    for record in caplog.records:
        assert record.getMessage().isprintable()
        assert len(record.getMessage()) < 200


def test_lanes_and_main_list_have_their_turns(redis_url: str, unique_name: str) -> None:
    async def body(queue: RedisQueue, cache: RedisStepCache, client: Any) -> None:
        await client.rpush(f"{unique_name}:queue", *(f"m{n}" for n in range(200)))
        await client.rpush(f"{unique_name}:queue:g", *(f"g{n}" for n in range(200)))
        await client.rpush(f"{unique_name}:queue:other", "not mine")
        taken: list[str] = []
        end = time.monotonic() + 20
        while len(taken) < 300:
            assert time.monotonic() < end
            taken += await queue.pop(["f", "g"], limit=5, wait=timedelta(0))
        assert sum(item.startswith("g") for item in taken) >= 50
        assert sum(item.startswith("m") for item in taken) >= 50
        assert "not mine" not in taken

    in_redis(redis_url, unique_name, body)


def test_a_waiting_pop_hears_of_its_lanes(redis_url: str, unique_name: str) -> None:
    async def body(queue: RedisQueue, cache: RedisStepCache, client: Any) -> None:
        for turn in range(4):
            pop = asyncio.ensure_future(queue.pop(["f", "g"], limit=5, wait=timedelta(seconds=60)))
            await asyncio.sleep(0.02)
            await client.rpush(f"{unique_name}:queue:g", f"a{turn}")
            assert await asyncio.wait_for(pop, 10) == [f"a{turn}"]

    in_redis(redis_url, unique_name, body)


def test_a_wait_without_hints_ends_within_two_seconds(redis_url: str, unique_name: str) -> None:
    async def body(queue: RedisQueue, cache: RedisStepCache, client: Any) -> None:
        before = time.monotonic()
        assert await queue.pop(["f"], limit=5, wait=timedelta(seconds=60)) == []
        assert time.monotonic() - before < 4

    in_redis(redis_url, unique_name, body)


def test_thousands_of_hints_with_large_data(redis_url: str, unique_name: str) -> None:
    async def body(queue: RedisQueue, cache: RedisStepCache, client: Any) -> None:
        await queue.push([Hint(execution=execution(f"e{n}")) for n in range(2_500)])
        await queue.push(
            [Hint(execution=execution(f"big{n}", data="x" * 3_000_000)) for n in range(7)]
        )
        assert await client.llen(f"{unique_name}:queue") == 2_507
        assert len(await client.hget(f"{unique_name}:execution:big6", "eventData")) == 3_000_000

    in_redis(redis_url, unique_name, body)


def test_step_entries_are_the_originals_and_more(redis_url: str, unique_name: str) -> None:
    async def body(queue: RedisQueue, cache: RedisStepCache, client: Any) -> None:
        await cache.put([step("a", "s1", result='{"x": [1, "}"]}')])
        entry = json.loads(await client.hget(f"{unique_name}:steps:a", "s1"))
        assert entry["cached"] is True
        assert entry["value"] == {"x": [1, "}"]}
        assert 0 < await client.ttl(f"{unique_name}:steps:a") <= 86_400
        await cache.drop(["a"])
        assert not await client.exists(f"{unique_name}:steps:a")

    in_redis(redis_url, unique_name, body)


def test_foreign_and_broken_step_entries_are_passed_over(redis_url: str, unique_name: str) -> None:
    async def body(queue: RedisQueue, cache: RedisStepCache, client: Any) -> None:
        ours = step("a", "s1")
        await cache.put([ours])
        key = f"{unique_name}:steps:a"
        whole = await client.hget(key, "s1")
        broken: dict[str | bytes, str | bytes] = {
            "foreign": '{"cached":true,"value":1}',
            "garbage": b"\xff\xfe",
            "empty": "",
            "cut": whole[:40],
            "no value": '{"cached":true,"step":{}}',
            "no step": '{"cached":true,"step":[],"value":1}',
            "wrong": '{"cached":true,"step":{"createdAt":"x"},"value":1}',
            b"\xff": whole,
        }
        await client.hset(key, mapping=broken)
        assert await cache.get_all([execution("a")]) == {"a": [ours]}

    in_redis(redis_url, unique_name, body)


# --- connections ----------------------------------------------------------------------------------


@pytest.mark.parametrize("decoded", [True, False])
def test_the_callers_client_is_used_and_stays_open(
    redis_url: str, unique_name: str, decoded: bool
) -> None:
    async def main() -> None:
        async with Redis.from_url(redis_url, decode_responses=decoded, protocol=2) as client:
            async with (
                RedisQueue(client, prefix=unique_name) as queue,
                RedisStepCache(client, prefix=unique_name) as cache,
            ):
                await queue.push([Hint(execution=execution("a"))])
                assert await queue.pop(["f"], limit=1, wait=timedelta(0)) == ["a"]
                pop = asyncio.ensure_future(queue.pop(["f"], limit=1, wait=timedelta(seconds=9)))
                await asyncio.sleep(0.05)
                await queue.push([Hint(execution=execution("b"))])
                assert await asyncio.wait_for(pop, 10) == ["b"]
                await cache.put([step("a")])
                assert await cache.get_all([execution("a")]) == {"a": [step("a")]}
            assert await client.ping()
        await sweep_up(redis_url, unique_name)

    asyncio.run(main())


def test_backends_are_opened_for_their_urls_alone() -> None:
    settings = Settings(_env_file=None)
    for url in ("redis://h", "rediss://h:1/2", "unix:///tmp/x", "redis+sentinel://h/m"):
        assert isinstance(redis.worchflow_open_queue(url, settings), RedisQueue)
        assert isinstance(redis.worchflow_open_step_cache(url, settings), RedisStepCache)
    assert redis.worchflow_open_queue("mongodb://h", settings) is None
    assert redis.worchflow_open_step_cache("mongodb://h", settings) is None


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://u:secret@h:1/2", "h:1/2"),
        ("redis://", "127.0.0.1:6379/0"),
        ("unix:///run/redis.sock", "/run/redis.sock"),
        ("redis+sentinel://:secret@h1:1,h2:2/main/3", "h1:1,h2:2/main/3"),
    ],
)
def test_describe_names_the_place_and_no_password(url: str, place: str) -> None:
    assert RedisQueue(url, prefix="p").describe() == f"redis  {place}, prefix p"


def test_what_outside_readers_see_can_be_read_back(redis_server: RedisServer) -> None:
    async def main() -> None:
        async with fresh_queue(redis_server.url) as queue:
            assert isinstance(queue, RedisQueue)
            await queue.push([Hint(execution=execution("a/1", data='{"x":"\u00e9"}'))])
            seen = await queue.mirrored("a/1")
            assert seen["id"] == "a/1"
            assert seen["eventData"] == '{"x":"\u00e9"}'
            assert await queue.mirrored("b") == {}
            await queue.mirror([execution("a/1", status=Status.COMPLETED)])

    asyncio.run(main())
