"""What the core's tests share: an application in memory, its worker, waiting on conditions."""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar
from uuid import uuid4

from worchflow_core import Execution, Function, StoreUnavailable, Worchflow
from worchflow_plugins.memory import MemoryQueue, MemoryStepCache, MemoryStore

T = TypeVar("T")

QUICK = {
    "lease": "3s",
    "heartbeat": "0.1s",
    "sweep_interval": "0.1s",
    "grace": "5s",
    "disabled_plugins": "dashboard,logs,mongo,redis,sample-audit,sample-panel,sqlite",
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
async def opened(
    url: str, *functions: Function[Any, Any], **options: Any
) -> AsyncIterator[Worchflow]:
    """Open an application over a store of any kind."""
    plugins = "logs,redis,sample-audit,sample-panel"
    async with application(*functions, url=url, disabled_plugins=plugins, **options) as app:
        yield app


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


class Faulty:
    """A store in front of another that can be away, or lose the answers to what it did.

    Attributes:
        away: names of methods that raise without doing anything; "*" means all.
        deaf: names of methods that do it and raise all the same.
        calls: how often each method was called.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.away: set[str] = set()
        self.deaf: set[str] = set()
        self.calls: Counter[str] = Counter()
        self.refuse: Callable[[str, tuple[Any, ...]], BaseException | None] = lambda name, args: (
            None
        )

    async def __aenter__(self) -> Faulty:
        await self.inner.__aenter__()
        return self

    async def __aexit__(self, *details: Any) -> None:
        await self.inner.__aexit__(*details)

    @property
    def records(self) -> Any:
        return self.inner.records

    def describe(self) -> str:
        return "faulty"

    def beat(self, worker: Any, *, lease: Any) -> Any:
        self._check("beat", (worker,))
        return self.inner.beat(worker, lease=lease)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)
        if not inspect.iscoroutinefunction(method):
            return method

        async def call(*args: Any, **kwargs: Any) -> Any:
            self._check(name, args)
            await asyncio.sleep(0)
            answer = await method(*args, **kwargs)
            if name in self.deaf:
                raise StoreUnavailable("the answer was lost")
            return answer

        return call

    def _check(self, name: str, args: tuple[Any, ...]) -> None:
        self.calls[name] += 1
        if self.away & {name, "*"}:
            raise StoreUnavailable("the store is away")
        error = self.refuse(name, args)
        if error is not None:
            raise error


def faulty_memory() -> tuple[Faulty, dict[str, Any]]:
    """Return a faulty store in memory, and the options that give an application its backends."""
    name = uuid4().hex
    store = Faulty(MemoryStore(name))
    return store, {"store": store, "queue": MemoryQueue(name), "step_cache": MemoryStepCache(name)}
