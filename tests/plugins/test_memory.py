from __future__ import annotations

import asyncio
import threading
from contextlib import AbstractAsyncContextManager
from datetime import timedelta

import pytest

from worchflow_core.models import Created, Hint
from worchflow_core.protocols import Queue, StepCache, Store
from worchflow_core.settings import Settings
from worchflow_core.testing.contracts import QueueContract, StepCacheContract, StoreContract
from worchflow_core.testing.contracts.samples import NOW, execution
from worchflow_plugins import memory
from worchflow_plugins.memory import MemoryQueue, MemoryStepCache, MemoryStore

SETTINGS = Settings(_env_file=None)


class TestMemoryStore(StoreContract):
    def open(self) -> AbstractAsyncContextManager[Store]:
        return MemoryStore()


class TestMemoryQueue(QueueContract):
    def open(self) -> AbstractAsyncContextManager[Queue]:
        return MemoryQueue()


class TestMemoryStepCache(StepCacheContract):
    def open(self) -> AbstractAsyncContextManager[StepCache]:
        return MemoryStepCache()


@pytest.mark.parametrize("url", ["memory:", "memory://", "memory://orders", "memory:orders"])
def test_urls_are_opened(url: str) -> None:
    assert isinstance(memory.worchflow_open_store(url, SETTINGS), MemoryStore)
    assert isinstance(memory.worchflow_open_queue(url, SETTINGS), MemoryQueue)
    assert isinstance(memory.worchflow_open_step_cache(url, SETTINGS), MemoryStepCache)


@pytest.mark.parametrize("url", ["sqlite:memory:", "redis://memory", "memoryx://a"])
def test_other_urls_are_left_to_others(url: str) -> None:
    assert memory.worchflow_open_store(url, SETTINGS) is None
    assert memory.worchflow_open_queue(url, SETTINGS) is None
    assert memory.worchflow_open_step_cache(url, SETTINGS) is None


def test_two_clients_of_one_name_see_the_same() -> None:
    async def main() -> None:
        first = memory.worchflow_open_store("memory://shared", SETTINGS)
        second = memory.worchflow_open_store("memory:shared", SETTINGS)
        other = memory.worchflow_open_store("memory://unshared", SETTINGS)
        assert first is not None
        assert second is not None
        assert other is not None
        await first.create([execution("a")])
        assert await second.create([execution("a")]) == [Created.SAME]
        assert await other.get(["a"]) == []
        assert len(await second.claim("w", ["f"], limit=9, now=NOW)) == 1
        assert await first.claim("w", ["f"], limit=9, now=NOW) == []

    asyncio.run(main())


def test_unnamed_spaces_are_apart() -> None:
    async def main() -> None:
        await MemoryStore().create([execution("a")])
        assert await MemoryStore().get(["a"]) == []

    asyncio.run(main())


def test_a_push_from_another_loop_wakes() -> None:
    queue = MemoryQueue()

    def push() -> None:
        asyncio.run(queue.push([Hint(execution=execution("a"))]))

    async def main() -> None:
        waiting = asyncio.create_task(queue.pop(["f"], limit=1, wait=timedelta(seconds=60)))
        await asyncio.sleep(0)
        thread = threading.Thread(target=push)
        thread.start()
        assert await asyncio.wait_for(waiting, 30) == ["a"]
        thread.join()

    asyncio.run(main())


def test_a_pop_leaves_the_hints_of_other_functions() -> None:
    async def main() -> None:
        queue = MemoryQueue()
        await queue.push([Hint(execution=execution("a", function="g"))])
        assert await queue.pop(["f"], limit=9, wait=timedelta(0)) == []
        assert await queue.pop(["g"], limit=9, wait=timedelta(0)) == ["a"]

    asyncio.run(main())
