"""A queue may lose, repeat and reorder hints: no work is lost, run twice or stuck."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from tests.core.support import application, run, worker_of, working
from worchflow_core import BlockingStep, Event, Status, Step, function
from worchflow_plugins.memory import MemoryQueue, MemoryStore


class LossyQueue(MemoryQueue):
    """Drops half of all hints, repeats half of the rest, and hands them out in any order."""

    def __init__(self, name: str, chance: random.Random) -> None:
        super().__init__(name)
        self.chance = chance
        self.spare: list[str] = []

    async def push(self, hints: Any) -> None:
        kept = [hint for hint in hints if self.chance.random() < 0.5]
        self.chance.shuffle(kept)
        self.spare += [hint.execution.id for hint in kept if self.chance.random() < 0.5]
        await super().push(kept)

    async def pop(self, functions: Any, *, limit: int, wait: timedelta) -> Any:
        found = list(await super().pop(functions, limit=limit, wait=min(wait, timedelta(0.1))))
        while self.spare and len(found) < limit + 3:  # even more than was asked for
            found.append(self.spare.pop(self.chance.randrange(len(self.spare))))
        self.chance.shuffle(found)
        return found


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_whole_workload_completes_with_each_effect_once(seed: int) -> None:
    effects: Counter[tuple[int, str]] = Counter()
    failed: set[int] = set()

    async def work(number: int, title: str) -> int:
        effects[number, title] += 1
        await asyncio.sleep(0)
        return number

    @function(retries=2, retry_delay="10ms")
    async def steady(event: Event[int], step: Step) -> int:
        total = await step.run("First", work, event.data, "first")
        if event.data % 4 == 0 and step.attempt == 1:
            failed.add(event.data)
            raise ValueError("once more")
        total += sum(
            await asyncio.gather(
                *(step.run("Each", work, event.data, f"each-{n}") for n in range(2))
            )
        )
        return total

    @function(retries=2, retry_delay="10ms")
    def plain(event: Event[int], step: BlockingStep) -> int:
        def effect() -> int:
            effects[event.data, "plain"] += 1
            return event.data

        value = step.run("Only", effect)
        if event.data % 5 == 0 and step.attempt == 1:
            raise ValueError("once more")
        return value * 3

    async def main() -> None:
        name = uuid4().hex
        chance = random.Random(seed)
        async with AsyncExitStack() as stack:
            apps = []
            for _ in range(2):
                queue, store = LossyQueue(name, chance), MemoryStore(name)
                app = application(steady, plain, queue=queue, store=store, lease="2s")
                apps.append(await stack.enter_async_context(app))
            client = apps[0].client
            handles = [
                await client.send(
                    steady if number % 2 else plain,
                    number,
                    delay=chance.choice([None, None, 0.02, 0.2]),
                )
                for number in range(120)
            ]
            for app in apps:
                await stack.enter_async_context(worker_of(app))
            for number, handle in enumerate(handles):
                assert await handle.result(timeout=40) == number * 3
                assert (await handle.get()).crashes == 0

    run(main())
    assert set(effects.values()) == {1}


def test_queue_that_repeats_one_stale_hint_for_ever_does_not_starve_the_rest() -> None:
    pops = 0

    class Stuck(MemoryQueue):
        async def pop(self, functions: Any, *, limit: int, wait: timedelta) -> Any:
            nonlocal pops
            pops += 1
            await asyncio.sleep(0)
            return ["stale"]

    @function
    async def quick(event: Event[Any], step: Step) -> int:
        return 7

    async def main() -> None:
        async with working(quick, queue=Stuck(), store=MemoryStore()) as app:
            handle = await app.client.send(quick, None)
            assert await handle.result(timeout=10) == 7
            before = pops
            await asyncio.to_thread(threading.Event().wait, 0.5)
            assert pops - before < 100

    run(main())


@pytest.mark.parametrize("keeps_hints", [True, False])
def test_function_that_nobody_has_waits_without_a_hot_loop_until_somebody_comes(
    keeps_hints: bool,
) -> None:
    claims = 0

    class Counting(MemoryStore):
        async def claim(self, *args: Any, **kwargs: Any) -> Any:
            nonlocal claims
            claims += 1
            return await super().claim(*args, **kwargs)

    class AllLanes(MemoryQueue):
        """Hands out hints of any function, as a shared list does."""

        async def pop(self, functions: Any, *, limit: int, wait: timedelta) -> Any:
            everything = {item.function for item in self._space.executions.values()}
            return await super().pop(everything - self.lanes, limit=limit, wait=wait)

        def __init__(self, name: str) -> None:
            super().__init__(name)
            self.lanes: set[str] = set()

        async def push(self, hints: Any) -> None:
            self.lanes |= {hint.execution.function for hint in hints if hint.is_misrouted}
            await super().push(hints)

    @function
    async def known(event: Event[Any], step: Step) -> int:
        return 1

    @function
    async def rare(event: Event[Any], step: Step) -> int:
        return 2

    async def main() -> None:
        name = uuid4().hex
        queue = AllLanes(name) if keeps_hints else None
        async with application(known, store=Counting(name), queue=queue) as app:
            handles = [await app.client.send("rare", None) for _ in range(5)]
            async with worker_of(app):
                assert await (await app.client.send(known, None)).result(timeout=10) == 1
                before = claims
                await asyncio.to_thread(threading.Event().wait, 0.5)
                assert claims - before < 30
                assert {(await item.get()).status for item in handles} == {Status.QUEUED}
                other = application(rare, store=MemoryStore(name), queue=MemoryQueue(name))
                async with other, worker_of(other):
                    for handle in handles:
                        assert await handle.result(timeout=10) == 2

    run(main())
