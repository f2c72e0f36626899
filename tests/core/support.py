"""What the core's tests share: an application in memory, its worker, waiting on conditions."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar
from uuid import uuid4

from worchflow_core import Execution, Function, Worchflow

T = TypeVar("T")

QUICK = {
    "lease": "3s",
    "heartbeat": "0.1s",
    "sweep_interval": "0.1s",
    "grace": "5s",
    "disabled_plugins": "logs,mongo,redis,sample-audit,sqlite",
}
"""Settings under which what takes half a minute in earnest takes a moment; of the plugins
only the one in memory."""


def run(main: Coroutine[Any, Any, T], *, limit: float = 60) -> T:
    """Run a test's coroutine; a test that hangs fails."""

    async def limited() -> T:
        async with asyncio.timeout(limit):
            return await main

    return asyncio.run(limited())


async def until(condition: Callable[[], Any], *, limit: float = 20) -> Any:
    """Return the first true answer of `condition`, which may be async; fail after `limit`."""
    try:
        async with asyncio.timeout(limit):
            while True:
                answer = condition()
                if inspect.isawaitable(answer):
                    answer = await answer
                if answer:
                    return answer
                await asyncio.sleep(0.005)
    except TimeoutError:
        source = inspect.getsource(condition) if inspect.isfunction(condition) else condition
        raise AssertionError(f"never became true: {source}") from None


def application(
    *functions: Function[Any, Any],
    url: str | None = None,
    plugins: tuple[object, ...] = (),
    store: Any = None,
    queue: Any = None,
    step_cache: Any = None,
    **settings: Any,
) -> Worchflow:
    """Return an application over a memory of its own, with quick settings."""
    address = url or f"memory://{uuid4().hex}"
    return Worchflow(
        functions=functions,
        plugins=plugins,
        store=store,
        queue=queue,
        step_cache=step_cache,
        overrides={"store_url": address, **QUICK, **settings},
        env_file=None,
    )


@asynccontextmanager
async def working(*functions: Function[Any, Any], **options: Any) -> AsyncIterator[Worchflow]:
    """Open an application whose worker runs meanwhile; it is stopped at the end."""
    async with application(*functions, **options) as app, worker_of(app):
        yield app


@asynccontextmanager
async def worker_of(app: Worchflow) -> AsyncIterator[asyncio.Task[None]]:
    """Let the application's worker run meanwhile; an error of it is the test's."""
    task = asyncio.create_task(app.worker.run())
    try:
        await until(lambda: task.done() or app.worker.health.is_ready)
        yield task
    finally:
        app.worker.stop(now=True)
        with suppress(asyncio.CancelledError):
            await task


async def outcome(app: Worchflow, function: Function[Any, Any], data: Any = None) -> Execution:
    """Send one event and return its execution once it has ended."""
    handle = await app.client.send(function, data)
    return await app.client.wait(handle.id, timeout=30)


def outcome_of(function: Function[Any, Any], data: Any = None, **options: Any) -> Execution:
    """Run one execution of one function to its end, in an application of its own."""

    async def main() -> Execution:
        async with working(function, **options) as app:
            return await outcome(app, function, data)

    return run(main())
