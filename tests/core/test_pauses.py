"""Paused functions: nothing of them begins, what runs goes on, and a typo pauses nothing."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from tests.core.support import application, run, until, worker_of
from worchflow_core import (
    BlockingClient,
    Event,
    InvalidInput,
    NotFound,
    Status,
    Step,
    Worchflow,
    function,
)


@function
async def work(event: Event[Any], step: Step) -> Any:
    return event.data


@function
async def other(event: Event[Any], step: Step) -> Any:
    return event.data


def opened(url: str) -> Worchflow:
    return application(work, other, url=url, disabled_plugins="logs,redis,sample-audit")


def test_nothing_of_a_paused_function_begins_until_it_is_resumed(url: str) -> None:
    async def main() -> None:
        async with opened(url) as app:
            pause = await app.client.pause_function("work", reason="the bank is down")
            again = await app.client.pause_function("work", reason="another reason")
            assert again == pause  # the earlier one holds
            assert await app.client.paused_functions() == {"work": pause}
            async with worker_of(app):
                held = await app.client.send(work, 1)
                assert await (await app.client.send(other, 2)).result(timeout=30) == 2
                assert (await held.get()).status is Status.QUEUED
                await app.client.resume_function("work")
                assert await app.client.paused_functions() == {}
                assert await held.result(timeout=30) == 1
            await app.client.resume_function("work")  # it is not paused, and stays so

    run(main())


def test_what_runs_when_a_function_is_paused_goes_on() -> None:
    gate = asyncio.Event()

    @function
    async def slow(event: Event[Any], step: Step) -> str:
        await step.run("Wait", gate.wait)
        return "done"

    async def main() -> None:
        async with application(slow) as app, worker_of(app):
            handle = await app.client.send(slow, None)
            await until(lambda: app.worker.health.running == 1)
            await app.client.pause_function("slow")
            gate.set()
            assert await handle.result(timeout=30) == "done"

    run(main())


def test_what_cannot_be_paused_is_refused_and_nothing_is_written() -> None:
    async def main() -> None:
        async with opened(f"memory://{uuid.uuid4().hex}") as app:
            with pytest.raises(NotFound, match="no function 'wrok'; there are: other, work"):
                await app.client.pause_function("wrok")
            for reason in ("x" * 501, None, 7):
                bad: Any = reason
                with pytest.raises(InvalidInput, match="reason"):
                    await app.client.pause_function("work", reason=bad)
            assert await app.client.paused_functions() == {}

    run(main())


def test_the_blocking_client_pauses_too() -> None:
    with BlockingClient(opened(f"memory://{uuid.uuid4().hex}")) as client:
        assert client.pause_function("work", reason="why").reason == "why"
        assert list(client.paused_functions()) == ["work"]
        client.resume_function("work")
        assert client.paused_functions() == {}
