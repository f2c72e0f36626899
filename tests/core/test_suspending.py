"""Unwinding: a signal to pause, leave or cancel gets through whatever user code does to it."""

from __future__ import annotations

import asyncio
import logging
import threading
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from tests.core.support import application, outcome, run, until, worker_of, working
from worchflow_core import BlockingStep, Event, Function, Status, Step, function

Code = Callable[[], Any]
Form = Callable[[Step, Code, Code], Awaitable[Any]]


async def plainly(step: Step, first: Code, second: Code) -> Any:
    await step.run("First", first, **OPTIONS)
    return await step.run("Second", second)


async def gathered(step: Step, first: Code, second: Code) -> Any:
    _, last = await asyncio.gather(step.run("First", first, **OPTIONS), step.run("Second", second))
    return last


async def gathered_exceptions(step: Step, first: Code, second: Code) -> Any:
    found = await asyncio.gather(
        step.run("First", first, **OPTIONS), step.run("Second", second), return_exceptions=True
    )
    return found[1]


async def grouped(step: Step, first: Code, second: Code) -> Any:
    async with asyncio.TaskGroup() as group:
        group.create_task(step.run("First", first, **OPTIONS))
        last = group.create_task(step.run("Second", second))
    return last.result()


async def suppressed(step: Step, first: Code, second: Code) -> Any:
    with suppress(BaseException):
        await step.run("First", first, **OPTIONS)
    with suppress(BaseException):
        return await step.run("Second", second)
    return "swallowed"


async def bare_except(step: Step, first: Code, second: Code) -> Any:
    try:
        await step.run("First", first, **OPTIONS)
        return await step.run("Second", second)
    except:  # noqa: E722 - this is what the test is about
        return "swallowed"


async def with_finally(step: Step, first: Code, second: Code) -> Any:
    try:
        await step.run("First", first, **OPTIONS)
    finally:
        last = await step.run("Second", second)
    return last


async def shielded(step: Step, first: Code, second: Code) -> Any:
    await asyncio.shield(step.run("First", first, **OPTIONS))
    return await step.run("Second", second)


async def timed(step: Step, first: Code, second: Code) -> Any:
    async with asyncio.timeout(30):
        await step.run("First", first, **OPTIONS)
    return await asyncio.wait_for(step.run("Second", second), 30)


OPTIONS: dict[str, Any] = {"retries": 1, "retry_delay": 0}
FORMS = [
    plainly,
    gathered,
    gathered_exceptions,
    grouped,
    suppressed,
    bare_except,
    with_finally,
    shielded,
    timed,
]
all_forms = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)


def around(form: Form, first: Code, second: Code, **options: Any) -> Function[Any, Any]:
    @function(id="unwinding", **options)
    async def unwinding(event: Event[Any], step: Step) -> Any:
        return await form(step, first, second)

    return unwinding


@all_forms
def test_step_that_backs_off_is_tried_again_and_its_siblings_are_kept(form: Form) -> None:
    runs = {"first": 0, "second": 0}

    async def first() -> int:
        runs["first"] += 1
        await asyncio.sleep(0)
        if runs["first"] == 1:
            raise ConnectionError("no answer")
        return 1

    async def second() -> int:
        runs["second"] += 1
        await asyncio.sleep(0.01)
        return 2

    async def main() -> None:
        code = around(form, first, second, retries=0)
        async with working(code) as app:
            execution = await outcome(app, code)
            assert execution.status is Status.COMPLETED, execution.error
            assert execution.result == "2"
            assert execution.failed_attempts == 0
            assert [item.outcome for item in execution.attempts] == ["retrying", "completed"]
            assert [item.title for item in execution.attempts[0].tries] == ["First"]

    run(main())
    assert runs == {"first": 2, "second": 1}


@all_forms
def test_worker_that_leaves_gets_an_execution_back_at_its_next_step(form: Form) -> None:
    runs = {"first": 0, "second": 0}

    async def main() -> None:
        gate = asyncio.Event()

        async def first() -> int:
            runs["first"] += 1
            await gate.wait()
            return 1

        async def second() -> int:
            runs["second"] += 1
            await gate.wait()
            return 2

        code = around(form, first, second)
        async with application(code) as app:
            handle = await app.client.send(code, None)
            async with worker_of(app) as task:
                await until(lambda: runs["first"])
                app.worker.stop()
                gate.set()
                await task
            execution = await handle.get()
            if form in (gathered, gathered_exceptions, grouped):  # no further step call
                assert execution.status is Status.COMPLETED
            else:
                assert execution.status is Status.QUEUED
                assert execution.failed_attempts == 0
                assert [item.outcome for item in execution.attempts] == ["released"]
                assert execution.error is None
            async with worker_of(app):
                assert await handle.result(timeout=20) == 2

    run(main())
    assert runs == {"first": 1, "second": 1}


@all_forms
def test_cancelled_execution_ends_cancelled_and_begins_no_further_step(form: Form) -> None:
    begun: list[str] = []

    async def main() -> None:
        async def first() -> int:
            begun.append("first")
            await asyncio.Event().wait()
            return 1

        async def second() -> int:
            begun.append("second")
            await asyncio.Event().wait()
            return 2

        code = around(form, first, second)
        async with working(code) as app:
            handle = await app.client.send(code, None)
            await until(lambda: "first" in begun)
            await handle.cancel()
            execution = await app.client.wait(handle.id, timeout=20)
            assert execution.status is Status.CANCELLED
            assert execution.failed_attempts == 0
            assert execution.cancel_requested_at is None
            assert await handle.steps() == ()

    run(main())
    if form not in (gathered, gathered_exceptions, grouped):
        assert begun == ["first"]


@all_forms
def test_worker_that_must_leave_at_once_takes_the_execution_from_running_code(form: Form) -> None:
    begun: list[str] = []

    async def main() -> None:
        gate = asyncio.Event()

        async def first() -> int:
            begun.append("first")
            await gate.wait()
            return 1

        async def second() -> int:
            await gate.wait()
            return 2

        code = around(form, first, second)
        async with application(code) as app:
            handle = await app.client.send(code, None)
            async with worker_of(app) as task:
                await until(lambda: begun)
                app.worker.stop(now=True)
                await task
            execution = await handle.get()
            assert execution.status is Status.QUEUED
            assert execution.failed_attempts == execution.crashes == 0
            gate.set()
            async with worker_of(app):
                assert await handle.result(timeout=20) == 2

    run(main())
    assert begun == ["first", "first"]


def test_function_that_swallows_a_pause_is_paused_all_the_same_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    runs: list[int] = []

    def flaky() -> int:
        runs.append(1)
        if len(runs) == 1:
            raise ConnectionError("no answer")
        return 5

    @function(retries=0)
    async def swallowing(event: Event[Any], step: Step) -> Any:
        try:
            return await step.run("Flaky", flaky, retries=1, retry_delay=0)
        except BaseException:
            return "gave up"

    async def main() -> None:
        async with working(swallowing) as app:
            assert (await outcome(app, swallowing)).result == "5"

    with caplog.at_level(logging.WARNING, "worchflow"):
        run(main())
    assert "swallowing swallowed the signal to pause" in caplog.text


def test_code_that_swallows_the_signal_again_and_again_takes_no_more_memory_each_time() -> None:
    depths: list[int] = []

    @function(retries=0)
    async def stubborn(event: Event[Any], step: Step) -> None:
        for _ in range(20):
            try:
                await step.sleep("Nap", "1h")
            except BaseException as error:
                depths.append(len(list(traceback.walk_tb(error.__traceback__))))

    async def main() -> None:
        async with working(stubborn) as app:
            handle = await app.client.send(stubborn, None)
            await until(lambda: len(depths) == 20)
            await handle.cancel()

    run(main())
    assert len(set(depths[2:])) == 1, depths


def test_real_error_beats_a_pause() -> None:
    @function(retries=0)
    async def both(event: Event[Any], step: Step) -> None:
        async def flaky() -> None:
            raise ConnectionError("no answer")

        async def broken() -> None:
            await asyncio.sleep(0.01)
            raise ValueError("real")

        async with asyncio.TaskGroup() as group:
            group.create_task(step.run("Flaky", flaky, retries=3, retry_delay=0))
            group.create_task(step.run("Broken", broken))

    @function(retries=0)
    async def afterwards(event: Event[Any], step: Step) -> None:
        def flaky() -> None:
            raise ConnectionError("no answer")

        try:
            await step.run("Flaky", flaky, retries=3, retry_delay=0)
        except BaseException as error:
            raise ValueError("real") from error

    async def main() -> None:
        async with working(afterwards, both) as app:
            execution = await outcome(app, afterwards)
            assert execution.status is Status.FAILED
            assert execution.error is not None
            assert execution.error.message == "real"
            # In a group the step with the error is cancelled from outside, runs on and is stored.
            execution = await outcome(app, both)
            assert execution.status is Status.FAILED
            assert {item.title for item in execution.attempts[-1].tries} <= {"Flaky", "Broken"}

    run(main())


def test_two_steps_that_back_off_wake_the_execution_for_the_earlier() -> None:
    @function(retries=0)
    async def both(event: Event[Any], step: Step) -> None:
        def refuse() -> None:
            raise ConnectionError("no answer")

        await asyncio.gather(
            step.run("Slow", refuse, retries=3, retry_delay="50m"),
            step.run("Quick", refuse, retries=3, retry_delay="40m"),
        )

    async def main() -> None:
        async with working(both) as app:
            handle = await app.client.send(both, None)

            async def retrying() -> Any:
                execution = await handle.get()
                return execution if execution.status is Status.RETRYING else None

            execution = await until(retrying)
            assert len(execution.step_failures) == 2
            wait = (execution.due_at - execution.updated_at).total_seconds()
            assert 39 * 60 <= wait <= 50 * 60

    run(main())


def test_plain_function_unwinds_too() -> None:
    runs: list[str] = []

    @function(retries=0)
    def plain(event: Event[Any], step: BlockingStep) -> Any:
        def flaky() -> int:
            runs.append("flaky")
            if runs.count("flaky") == 1:
                raise ConnectionError("no answer")
            return 1

        with suppress(BaseException):
            step.run("Flaky", flaky, retries=1, retry_delay=0)
        try:
            return step.run("Last", lambda: runs.append("last") or 2)
        except BaseException:
            return "swallowed"

    async def main() -> None:
        async with working(plain) as app:
            execution = await outcome(app, plain)
            assert execution.result == "2"

    run(main())
    assert runs == ["flaky", "flaky", "last"]


def test_thread_left_behind_by_a_cancel_begins_no_further_step() -> None:
    gate, ended = threading.Event(), threading.Event()
    begun: list[str] = []

    @function
    def plain(event: Event[Any], step: BlockingStep) -> None:
        try:
            step.run("First", lambda: begun.append("first") or gate.wait(30))
            step.run("Second", lambda: begun.append("second"))
        finally:
            ended.set()

    async def main() -> None:
        async with working(plain) as app:
            handle = await app.client.send(plain, None)
            await until(lambda: begun)
            await handle.cancel()
            execution = await app.client.wait(handle.id, timeout=20)
            assert execution.status is Status.CANCELLED
            gate.set()
            await until(ended.is_set)
            assert await handle.steps() == ()

    run(main())
    assert begun == ["first"]
