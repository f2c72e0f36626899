"""A loop of its own ends whatever its code does, and leaves nothing running."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from worchflow_core.ownloop import OwnLoop

Code = Callable[[], Coroutine[Any, Any, Any]]


def cut_off(code: Code) -> tuple[OwnLoop, BaseException | None]:
    """Run code in a thread, cut it off, and return how that ended once the thread has."""
    own = OwnLoop()
    raised: list[BaseException] = []

    def perform() -> None:
        try:
            own.run(code)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=perform)
    thread.start()
    time.sleep(0.05)
    own.cut_off()
    thread.join(10)
    assert not thread.is_alive()
    return own, raised[0] if raised else None


def test_what_its_code_returns_or_raises_comes_back() -> None:
    async def fine() -> int:
        await asyncio.sleep(0)
        return 5

    async def broken() -> None:
        raise ValueError("no")

    assert OwnLoop().run(fine) == 5
    with pytest.raises(ValueError, match="no"):
        OwnLoop().run(broken)


def test_code_that_waits_is_cancelled() -> None:
    seen: list[str] = []

    async def waits() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            seen.append("cancelled")

    _, error = cut_off(waits)
    assert isinstance(error, TimeoutError)
    assert seen == ["cancelled"]


def test_code_that_will_not_end_goes_on_no_more() -> None:
    turns: list[int] = []

    async def swallows() -> None:
        while True:
            try:
                await asyncio.sleep(0.001)
            except BaseException:
                turns.append(1)

    _, error = cut_off(swallows)
    assert isinstance(error, TimeoutError)
    count = len(turns)
    gc.collect()
    time.sleep(0.05)
    assert len(turns) == count


def test_tasks_and_generators_left_behind_are_ended() -> None:
    ended: list[str] = []
    kept: list[Any] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            ended.append("generator")

    async def other() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append("task")

    async def leaves() -> str:
        kept.append(numbers())
        await anext(kept[0])
        kept.append(asyncio.create_task(other()))
        await asyncio.sleep(0)
        return "done"

    assert OwnLoop().run(leaves) == "done"
    assert ended == ["task", "generator"]


def test_one_that_was_cut_off_first_never_runs() -> None:
    ran: list[int] = []

    async def code() -> None:
        ran.append(1)

    own = OwnLoop()
    own.cut_off()
    with pytest.raises(TimeoutError):
        own.run(code)
    assert not ran
    own.cut_off()  # it has closed: nothing is to be done
