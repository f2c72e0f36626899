"""F55, F56, F59 and F60: a thousand of it at once, on every store."""

from __future__ import annotations

import asyncio
import gc
import os
import random
from collections import Counter, defaultdict
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from tests.core.support import opened, run, until, worker_of
from worchflow_core import (
    Event,
    Execution,
    NotAllowed,
    Send,
    Status,
    Step,
    Worchflow,
    function,
)

ROUND = 1000
UNENDED = ("queued", "delayed", "processing", "retrying", "sleeping", "waiting")


async def ended(app: Worchflow, ids: list[str]) -> list[Execution]:
    """Return executions once all of them have ended."""

    async def finals() -> list[Execution]:
        found: list[Execution] = []
        for start in range(0, len(ids), 500):
            found += await app.journal.store.get(ids[start : start + 500])
        return found if all(item.status.is_final for item in found) else []

    found: list[Execution] = await until(finals, limit=50)
    assert len(found) == len(ids)
    return found


# --- F55: cancelling -----------------------------------------------------------------------------


@pytest.mark.parametrize("state", UNENDED)
def test_f55_a_cancel_ends_an_execution_in_each_state(url: str, state: str) -> None:
    began = asyncio.Event()

    @function(id="f55", retry_delay="1h")
    async def code(event: Event[Any], step: Step) -> None:
        async def hang() -> None:
            began.set()
            await asyncio.Event().wait()

        match state:
            case "retrying":
                raise ConnectionError("no answer")
            case "sleeping":
                await step.sleep("Nap", "1h")
            case "waiting":
                await step.wait_for_event("Wait", "never")
            case _:
                await step.run("Hang", hang)

    async def main() -> None:
        async with opened(url, code) as app:
            delay = "1h" if state == "delayed" else None
            handle = await app.client.send(code, None, delay=delay)
            ends: list[Status] = []
            app.journal.on_settled.append(
                lambda item: ends.append(item.status) if item.status.is_final else None
            )
            if state in ("queued", "delayed"):
                await handle.cancel()
            async with worker_of(app):
                if state == "processing":
                    await asyncio.wait_for(began.wait(), 20)
                    await handle.cancel()
                elif state not in ("queued", "delayed"):
                    await until(lambda: _is(app, handle.id, Status(state)))
                    await handle.cancel()
                await ended(app, [handle.id])
                with pytest.raises(NotAllowed, match="cancelled already"):
                    await handle.cancel()
            assert ends == [Status.CANCELLED]

    run(main())


async def _is(app: Worchflow, execution_id: str, status: Status) -> bool:
    return (await app.client.get(execution_id)).status is status


def test_f55_a_cancel_that_races_the_completion_has_one_end(url: str) -> None:
    begun: list[str] = []
    chance = random.Random(55)

    @function(id="f55", retries=0)
    async def code(event: Event[Any], step: Step) -> int:
        async def begin() -> None:
            begun.append(event.id)
            await asyncio.sleep(chance.random() / 200)

        for number in range(3):
            await step.run(f"Step {number}", begin)
        return 1

    async def main() -> None:
        async with opened(url, code, concurrency=50) as app:
            handles = await app.client.send_many([Send(function="f55")] * ROUND)
            ends: dict[str, list[tuple[Status, int]]] = defaultdict(list)

            def note(item: Execution) -> None:
                if item.status.is_final:
                    ends[item.id].append((item.status, begun.count(item.id)))

            app.journal.on_settled.append(note)
            room = asyncio.Semaphore(20)

            async def cancel(handle: Any) -> None:
                async with room:
                    await until(lambda: handle.id in begun or chance.random() < 0.02)
                    with suppress(NotAllowed):
                        await handle.cancel()

            async with worker_of(app):
                await asyncio.gather(*(cancel(item) for item in handles))
                found = await ended(app, [item.id for item in handles])
            counts = Counter(item.status for item in found)
            assert set(counts) == {Status.COMPLETED, Status.CANCELLED}, counts
            for item in found:
                ((status, steps),) = ends[item.id]  # one end, told once
                assert status is item.status
                assert begun.count(item.id) == steps  # nothing began after it

    run(main())


# --- F56: signals --------------------------------------------------------------------------------


def test_f56_a_signal_before_during_and_after_the_timeout(url: str) -> None:
    @function(id="f56")
    async def code(event: Event[Any], step: Step) -> list[Any]:
        found = []
        await step.wait_for_event("Begin", "begin")
        for number in range(4):
            answer = await step.wait_for_event(f"Word {number}", "word", timeout="0.5s")
            found.append(answer.data if answer else None)
            if number == 1:
                await step.wait_for_event("Go on", "go-on")
        return found

    async def main() -> None:
        async with opened(url, code) as app, worker_of(app):
            handle = await app.client.send(code, None)
            signal = app.client.signal
            await signal(handle.id, "word", "before", id="b")
            await signal(handle.id, "word", "before", id="b")
            await signal(handle.id, "begin")
            await until(lambda: _steps(app, handle.id, 3))  # the second word timed out
            await signal(handle.id, "word", "after", id="a")
            await signal(handle.id, "word", "after", id="a")
            await signal(handle.id, "go-on")
            assert await handle.result(20) == ["before", None, "after", None]

    run(main())


async def _steps(app: Worchflow, execution_id: str, count: int) -> bool:
    return len(await app.client.steps(execution_id)) >= count


def test_f56_a_thousand_racing_signals_are_received_once_each(url: str) -> None:
    each = 50

    @function(id="f56")
    async def code(event: Event[Any], step: Step) -> list[Any]:
        found = []
        for number in range(each):
            answer = await step.wait_for_event(f"{number}", "number")
            found.append(answer.data if answer else None)
        return found

    async def main() -> None:
        async with opened(url, code, concurrency=20) as app:
            handles = await app.client.send_many([Send(function="f56")] * (ROUND // each))
            room = asyncio.Semaphore(20)

            async def signal(handle: Any, number: int) -> None:
                key = f"{handle.id}-{number}"
                async with room:
                    await app.client.signal(handle.id, "number", number, id=key)
                    if number % 10 == 0:
                        with suppress(NotAllowed):  # the first may have been the last it needed
                            await app.client.signal(handle.id, "number", number, id=key)

            sends = [signal(handle, number) for number in range(each) for handle in handles]
            async with worker_of(app):
                await asyncio.gather(*sends)
                for handle in handles:
                    assert sorted(await handle.result(50)) == list(range(each))

    run(main())


# --- F59: ten thousand sleepers ------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["sqlite", pytest.param("mongo", marks=pytest.mark.servers)], indirect=True
)
def test_f59_ten_thousand_that_sleep_until_one_second_wake_without_a_spike(
    url: str,
) -> None:
    count = 10_000
    highest = Counter[str]()

    @function(id="f59", retries=0)
    async def sleeper(event: Event[Any], step: Step) -> None:
        highest["ran"] += 1

    def measure(app: Worchflow, server: MongoClient[Any] | None) -> Counter[str]:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        found = Counter(
            files=len(os.listdir("/proc/self/fd")),
            memory=pages * os.sysconf("SC_PAGE_SIZE") // 1_000_000,
            running=app.worker.health.running,
        )
        if server is not None:
            found["clients"] = server.admin.command("serverStatus")["connections"]["current"]
        return found

    async def main() -> None:
        server = MongoClient[Any](url) if url.startswith("mongodb") else None
        async with opened(url, sleeper, concurrency=20) as app:
            now = app.journal.clock.now()
            for start in range(0, count, 1000):
                await app.journal.store.create(
                    [
                        Execution(
                            id=f"s{start + number}",
                            function="f59",
                            status=Status.SLEEPING,
                            created_at=now,
                            updated_at=now,
                            due_at=now + timedelta(seconds=2, milliseconds=number),
                            input_hash="hash",
                            fence=1,
                        )
                        for number in range(1000)
                    ]
                )
            async with worker_of(app):
                gc.collect()
                before = measure(app, server)
                while highest["ran"] < count:
                    for key, value in (await asyncio.to_thread(measure, app, server)).items():
                        highest[key] = max(highest[key], value)
                    await asyncio.sleep(0.05)
                await until(lambda: _count(app, count))
        if server is not None:
            server.close()
        assert highest["running"] <= 20
        assert highest["files"] <= before["files"] + 10, (before, highest)
        assert highest["clients"] <= before["clients"] + 10, (before, highest)
        assert highest["memory"] <= before["memory"] + 60, (before, highest)

    run(main(), limit=120)


async def _count(app: Worchflow, count: int) -> bool:
    return (await app.client.stats())[Status.COMPLETED] == count


# --- F60: after an outage ------------------------------------------------------------------------


def test_f60_retries_after_an_outage_are_spread_and_keep_to_the_concurrency(url: str) -> None:
    count, room = 500, 20
    now = most = 0
    is_out = True

    @function(id="f60", retries=5)
    async def code(event: Event[Any], step: Step) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        try:
            await asyncio.sleep(0.001)
            if is_out:
                raise ConnectionError("the provider does not answer")
        finally:
            now -= 1

    async def main() -> None:
        nonlocal is_out
        async with opened(url, code, concurrency=room) as app:
            waits: list[timedelta] = []

            def note(item: Execution) -> None:
                if item.status is Status.RETRYING and item.failed_attempts == 1:
                    assert item.due_at is not None
                    waits.append(item.due_at - item.updated_at)

            app.journal.on_settled.append(note)
            handles = await app.client.send_many([Send(function="f60")] * count)
            async with worker_of(app):
                await until(lambda: len(waits) == count)
                is_out = False
                found = await ended(app, [item.id for item in handles])
            assert {item.status for item in found} == {Status.COMPLETED}
            assert most <= room
            seconds = [wait.total_seconds() for wait in waits]
            assert min(seconds) >= 0.99
            assert max(seconds) <= 1.27
            assert len({round(item, 2) for item in seconds}) > 15  # all over a quarter second

    run(main())
