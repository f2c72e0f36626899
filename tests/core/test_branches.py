"""Branches: each goes on as far as it can, whatever the others wait for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

import pytest

from tests.core.support import application, opened, run, until, worker_of
from worchflow_core import Event, ExecutionHandle, Status, Step, Worchflow, control, function

RAN: list[str] = []


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    RAN.clear()
    monkeypatch.setattr(control, "IN_PLACE", timedelta(0))


@asynccontextmanager
async def working(url: str, *functions: Any) -> AsyncIterator[Worchflow]:
    """Open an application, whatever its store, whose worker runs meanwhile."""
    async with opened(url, *functions) as app, worker_of(app):
        yield app


async def in_state(handle: ExecutionHandle[Any], status: Status) -> None:
    """Return once an execution is in this state."""

    async def is_so() -> bool:
        return (await handle.get()).status is status

    await until(is_so)


async def work(name: str) -> str:
    await asyncio.sleep(0)
    RAN.append(name)
    return name


async def chain(step: Step, name: str) -> str:
    """Wait for an event, then do three steps."""
    await step.wait_for_event(f"{name} waits", name)
    for number in range(3):
        await step.run(f"{name} {number}", work, f"{name}{number}")
    return name


async def gathered(step: Step) -> Any:
    return await asyncio.gather(step.sleep("Nap", "2h"), chain(step, "a"), chain(step, "b"))


async def grouped(step: Step) -> Any:
    async with asyncio.TaskGroup() as group:
        group.create_task(step.sleep("Nap", "2h"))
        tasks = [group.create_task(chain(step, name)) for name in "ab"]
    return [task.result() for task in tasks]


async def nested(step: Step) -> Any:
    async def inner() -> Any:
        return await asyncio.gather(step.sleep("Nap", "2h"), chain(step, "a"))

    return await asyncio.gather(inner(), asyncio.gather(chain(step, "b")))


FORMS = [gathered, grouped, nested]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_an_event_lets_its_branch_go_on_while_another_sleeps(url: str, form: Any) -> None:
    @function(id="branches", retries=0)
    async def branches(event: Event[Any], step: Step) -> Any:
        return await form(step)

    async def main() -> None:
        async with working(url, branches) as app:
            handle = await app.client.send(branches, None)
            await in_state(handle, Status.WAITING)
            await app.client.send_event("b")
            await until(lambda: len(RAN) == 3)
            await in_state(handle, Status.WAITING)
            await app.client.send_event("a")
            await until(lambda: len(RAN) == 6)
            await in_state(handle, Status.SLEEPING)
            assert RAN == ["b0", "b1", "b2", "a0", "a1", "a2"]

    run(main())


def test_children_of_all_branches_run_at_the_same_time(url: str) -> None:
    @function(id="child", retries=0)
    async def child(event: Event[str], step: Step) -> str:
        await step.wait_for_event("Word", "end")
        return event.data

    @function(id="parent", retries=0)
    async def parent(event: Event[Any], step: Step) -> Any:
        calls = (step.invoke(name, child, name) for name in "abc")
        return await asyncio.gather(*calls)

    async def main() -> None:
        async with working(url, parent, child) as app:
            handle = await app.client.send(parent, None)

            async def all_wait() -> bool:
                page = await app.client.find()
                return [item.status for item in page.items] == [Status.WAITING] * 4

            await until(all_wait)
            await app.client.send_event("end")
            assert await handle.result(20) == ["a", "b", "c"]

    run(main())


def test_a_step_that_backs_off_does_not_stop_its_siblings() -> None:
    def refuse() -> None:
        raise ConnectionError("no answer")

    @function(id="branches", retries=0)
    async def branches(event: Event[Any], step: Step) -> None:
        await asyncio.gather(
            step.run("Refuse", refuse, retries=3, retry_delay="1h"), chain(step, "a")
        )

    async def main() -> None:
        async with working("memory://backs-off", branches) as app:
            handle = await app.client.send(branches, None)
            await app.client.signal(handle.id, "a")
            await until(lambda: len(RAN) == 3)
            await in_state(handle, Status.RETRYING)
            assert (await handle.get()).failed_attempts == 0

    run(main())


@pytest.mark.parametrize("gives_up", ["wait_for", "timeout", "first_completed", "left_alone"])
def test_a_branch_that_user_code_gives_up_is_not_waited_for(gives_up: str) -> None:
    @function(id="branches", retries=0)
    async def branches(event: Event[Any], step: Step) -> Any:
        slow = step.run("Slow", work_long)
        match gives_up:
            case "wait_for":
                with suppress(TimeoutError):
                    nap = asyncio.wait_for(step.sleep("Nap", "2h"), 0.05)
                    await asyncio.gather(nap, slow)
            case "timeout":

                async def nap_a_little() -> None:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(0.05):
                            await step.sleep("Nap", "2h")

                await asyncio.gather(nap_a_little(), slow)
            case _:
                tasks = [
                    asyncio.ensure_future(step.sleep("Nap", "2h")),
                    asyncio.ensure_future(slow),
                ]
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                if gives_up == "first_completed":
                    tasks[0].cancel()
        return "on"

    async def work_long() -> str:
        await asyncio.sleep(0.3)
        return "long"

    async def main() -> None:
        async with working("memory://gives-up-" + gives_up, branches) as app:
            handle = await app.client.send(branches, None)
            assert await handle.result(20) == "on"
            execution = await handle.get()
            assert [item.outcome for item in execution.attempts] == ["completed"]

    run(main())


def test_nothing_is_held_when_the_worker_has_to_leave() -> None:
    began, gate = asyncio.Event(), asyncio.Event()

    async def work_long() -> None:
        began.set()
        await gate.wait()

    @function(id="branches", retries=0)
    async def branches(event: Event[Any], step: Step) -> Any:
        async def last() -> None:
            await step.run("Long", work_long)
            await step.run("Never", work, "never")

        return await asyncio.gather(step.wait_for_event("Word", "word"), last())

    async def main() -> None:
        async with application(branches) as app:
            handle = await app.client.send(branches, None)
            async with worker_of(app) as task:
                await until(lambda: began.is_set())
                app.worker.stop()
                gate.set()
                await task
            execution = await handle.get()
            assert execution.status is Status.QUEUED
            assert execution.failed_attempts == 0
            assert RAN == []

    run(main())
