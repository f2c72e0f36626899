"""Functions that misbehave: the worker survives, and each has a defined outcome."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError as FutureCancelled
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.core.support import outcome, run, until, working
from worchflow_core import BlockingStep, Event, Execution, Function, Status, Step, function


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Poisonous(BaseException):
    def __str__(self) -> str:
        raise SystemExit("no text")

    __repr__ = __str__


class Odd(BaseException):
    pass


ERRORS = [
    BaseException("base"),
    Odd("odd"),
    SystemExit(3),
    KeyboardInterrupt(),
    GeneratorExit(),
    StopIteration(1),
    StopAsyncIteration(),
    asyncio.CancelledError(),
    FutureCancelled(),
    TimeoutError(),
    MemoryError(),
    RecursionError(),
    Unprintable(),
    Poisonous(),
    ExceptionGroup("many", [ValueError("a"), KeyError("b")]),
    BaseExceptionGroup("many", [Odd("a"), SystemExit(1)]),
    ValueError("\ud800 and \0 and \x1b[31m"),
    AssertionError(object()),
    ValueError(ValueError(ValueError())),
]


def _kind(error: BaseException) -> str:
    return type(error).__name__


@function
async def healthy(event: Event[Any], step: Step) -> int:
    return await step.run("Work", lambda: 7)


def survives(code: Function[Any, Any]) -> Execution:
    """Return how a function ends; the worker must then still run others."""

    async def main() -> Execution:
        async with working(code, healthy) as app:
            execution = await outcome(app, code)
            assert (await outcome(app, healthy)).result == "7"
            assert app.worker.health.is_ready
            return execution

    return run(main())


@pytest.mark.parametrize("error", ERRORS, ids=_kind)
@pytest.mark.parametrize(
    "place", ["function", "step", "plain step", "plain function", "step of plain function"]
)
def test_worker_survives_whatever_is_raised(error: BaseException, place: str) -> None:
    runs: list[int] = []

    def throw() -> None:
        runs.append(1)
        raise error

    async def throw_async() -> None:
        throw()

    @function(retries=1, retry_delay=0)
    async def throwing(event: Event[Any], step: Step) -> None:
        match place:
            case "function":
                throw()
            case "step":
                await step.run("Throw", throw_async)
            case "plain step":
                await step.run("Throw", throw)

    @function(retries=1, retry_delay=0)
    def throwing_plain(event: Event[Any], step: BlockingStep) -> None:
        if place == "plain function":
            throw()
        step.run("Throw", throw)

    execution = survives(throwing_plain if "plain function" in place else throwing)
    assert execution.status is Status.FAILED
    assert execution.failed_attempts == len(runs) == 2
    assert execution.error is not None
    assert execution.error.type
    (execution.error.message + (execution.error.traceback or "")).encode()


@pytest.mark.parametrize("kind", ["coroutine", "plain returning coroutine", "generator"])
def test_function_that_returns_something_unawaited_fails_for_good(kind: str) -> None:
    async def work() -> int:
        return 1

    @function
    async def unawaited(event: Event[Any], step: Step) -> Any:
        return work()

    @function
    def unawaited_plain(event: Event[Any], step: BlockingStep) -> Any:
        return work()

    @function
    async def generating(event: Event[Any], step: Step) -> Any:
        return (number for number in range(3))

    codes = {
        "coroutine": unawaited,
        "plain returning coroutine": unawaited_plain,
        "generator": generating,
    }
    execution = survives(codes[kind])
    assert execution.status is Status.FAILED
    assert execution.failed_attempts == 1
    assert execution.error is not None
    assert ("await" if kind != "generator" else "generator") in execution.error.message


def test_function_that_swallows_every_exception_completes_with_what_it_returns() -> None:
    @function
    async def swallowing(event: Event[Any], step: Step) -> str:
        def broken() -> None:
            raise ValueError("no")

        try:
            await step.run("Broken", broken)
        except Exception:
            return "fine"
        return "never"

    execution = survives(swallowing)
    assert execution.result == '"fine"'
    assert [item.title for item in execution.attempts[-1].tries] == ["Broken"]


def test_task_left_running_records_no_step_once_its_execution_has_ended() -> None:
    begun: list[int] = []
    kept: list[asyncio.Task[Any]] = []

    async def main() -> None:
        gate = asyncio.Event()

        @function
        async def leaving(event: Event[Any], step: Step) -> str:
            async def later() -> None:
                await gate.wait()
                await step.run("Late", lambda: begun.append(1))

            kept.append(asyncio.create_task(later()))
            return "done"

        async with working(leaving, healthy) as app:
            execution = await outcome(app, leaving)
            assert execution.result == '"done"'
            gate.set()
            await asyncio.wait(kept)
            assert await app.client.steps(execution.id) == ()
            assert (await outcome(app, healthy)).result == "7"

    run(main())
    assert begun == []
    assert not isinstance(kept[0].exception(), Exception)


def test_step_left_running_is_recorded_before_its_execution_ends() -> None:
    kept: list[Any] = []

    @function
    async def leaving(event: Event[Any], step: Step) -> str:
        kept.append(asyncio.ensure_future(step.run("Slow", asyncio.sleep, 0.05, 9)))
        await asyncio.sleep(0)
        return "done"

    async def main() -> None:
        async with working(leaving) as app:
            execution = await outcome(app, leaving)
            assert execution.result == '"done"'
            assert [item.result for item in await app.client.steps(execution.id)] == ["9"]

    run(main())


def test_function_that_cancels_itself_fails_an_attempt() -> None:
    @function(retries=0)
    async def suicidal(event: Event[Any], step: Step) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    @function(retries=0)
    async def suicidal_step(event: Event[Any], step: Step) -> None:
        async def work() -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)

        await step.run("Work", work)

    for code in (suicidal, suicidal_step):
        execution = survives(code)
        assert execution.status is Status.FAILED
        assert execution.error is not None
        assert "cancelled itself" in execution.error.message


def test_function_that_will_not_be_cancelled_ends_cancelled_when_it_returns() -> None:
    async def main() -> None:
        begun = asyncio.Event()
        gate = asyncio.Event()

        @function
        async def stubborn(event: Event[Any], step: Step) -> str:
            begun.set()
            while not gate.is_set():
                try:
                    await gate.wait()
                except asyncio.CancelledError:
                    gate.set()
            return "finished all the same"

        async with working(stubborn) as app:
            handle = await app.client.send(stubborn, None)
            await begun.wait()
            await handle.cancel()
            execution = await app.client.wait(handle.id, timeout=20)
            assert execution.status is Status.CANCELLED
            assert execution.result is None

    run(main())


def test_step_call_that_nobody_awaits_is_named(recwarn: pytest.WarningsRecorder) -> None:
    @function
    async def forgetful(event: Event[Any], step: Step) -> str:
        step.run("Charge", lambda: 1)  # type: ignore[unused-coroutine]  # noqa: RUF100
        return "done"

    execution = survives(forgetful)
    assert execution.status is Status.FAILED
    assert execution.error is not None
    assert "'Charge' was called and never awaited" in execution.error.message
    assert execution.failed_attempts == 1
    recwarn.clear()


def test_function_may_block_the_loop_for_a_moment() -> None:
    @function
    async def blocking(event: Event[Any], step: Step) -> int:
        threading.Event().wait(0.5)
        return 1

    assert survives(blocking).result == "1"


def test_resources_are_opened_once_handed_over_and_closed() -> None:
    # Kept here with the hostile ones, because half of it is about openers that fail.
    from contextlib import contextmanager

    from worchflow_core import Resource

    events: list[str] = []

    @contextmanager
    def open_plain() -> Iterator[str]:
        events.append("open plain")
        yield "plain"
        events.append("close plain")

    @asynccontextmanager
    async def open_async() -> Any:
        events.append("open async")
        yield "async"
        events.append("close async")

    @function
    async def one(
        event: Event[Any],
        step: Step,
        *,
        plain: str = Resource(open_plain),
        other: str = Resource(open_async),
    ) -> list[str]:
        return [plain, other]

    @function
    def two(event: Event[Any], step: BlockingStep, pool: str = Resource(open_plain)) -> str:
        return pool

    async def main() -> None:
        async with working(one, two, concurrency=4) as app:
            for _ in range(3):
                assert (await outcome(app, one)).result == '["plain","async"]'
                assert (await outcome(app, two)).result == '"plain"'
            assert sorted(events) == ["open async", "open plain"]

    run(main())
    assert sorted(events) == ["close async", "close plain", "open async", "open plain"]


@pytest.mark.parametrize("kind", ["raises", "no manager", "enter raises"])
def test_resource_that_cannot_be_opened_is_one_clear_error(kind: str) -> None:
    from worchflow_core import Resource, WorchflowError

    @asynccontextmanager
    async def entering() -> Any:
        raise ConnectionError("no database")
        yield

    def raising() -> Any:
        raise ConnectionError("no database")

    def nothing() -> Any:
        return 7

    opener = {"raises": raising, "no manager": nothing, "enter raises": entering}[kind]

    @function
    async def needy(event: Event[Any], step: Step, pool: Any = Resource(opener)) -> None:
        return None

    async def main() -> None:
        from tests.core.support import application

        async with application(needy) as app:
            with pytest.raises(WorchflowError, match="resource 'pool' of function 'needy'"):
                await app.worker.run()
            assert not await app.client.workers()

    run(main())


def test_seventeen_megabytes_of_error_in_fifty_attempts_stay_small() -> None:
    @function(retries=55, retry_delay=0)
    async def loud(event: Event[Any], step: Step) -> None:
        def shout() -> None:
            raise ValueError("x" * 300_000) from RuntimeError("y" * 300_000)

        await step.run("Shout", shout)

    async def main() -> None:
        from worchflow_core import execution_to_wire

        async with working(loud) as app:
            handle = await app.client.send(loud, None)
            await until(lambda: _is_final(handle), limit=60)
            import json

            size = len(json.dumps(execution_to_wire(await handle.get())))
            assert size < 1_000_000, size

    async def _is_final(handle: Any) -> bool:
        return (await handle.get()).status.is_final

    run(main())
