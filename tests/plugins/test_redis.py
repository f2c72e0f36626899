from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from redis.asyncio import Redis

from worchflow_core import Hint, Queue, Status, StepCache
from worchflow_core.testing.contracts import QueueContract, StepCacheContract
from worchflow_core.testing.contracts.samples import execution
from worchflow_core.testing.servers import RedisServer
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
