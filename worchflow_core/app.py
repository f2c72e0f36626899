"""The composition root: everything is built here once and handed down."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from worchflow_core.backends import BackendChoice, choose_backends
from worchflow_core.client import Client
from worchflow_core.clock import Clock
from worchflow_core.crashpoints import CrashAt, no_crash
from worchflow_core.discovery import discover
from worchflow_core.durations import Duration, parse_duration
from worchflow_core.errors import InvalidInput, WorchflowError
from worchflow_core.functions import Function, Registry
from worchflow_core.journal import Journal
from worchflow_core.plugins import Plugins
from worchflow_core.polling import PollingQueue
from worchflow_core.protocols import Queue, StepCache, Store
from worchflow_core.rehearsal import Rehearsal
from worchflow_core.rehearsals import MOST, FunctionReport, rehearse_function
from worchflow_core.scheduler import Scheduler
from worchflow_core.settings import Settings, load_settings
from worchflow_core.worker import WorkerRunner

T = TypeVar("T")


class Worchflow:
    """One application: settings, plugins, functions and opened backends.

    `async with Worchflow() as app:` opens it; then `app.client` sends and reads, and
    `await app.worker.run()` works until stopped.

    Args:
        settings: the settings; read from the environment and `.env` if left out.
        functions: the functions to know; those of installed packages, of plugins and of
            WORCHFLOW_MODULES if left out.
        plugins: plugin modules or objects, beside the installed ones.
        store, queue, step_cache: backends to use instead of those the URLs name. What the caller
            hands in is entered and left with the application; connections given to them stay the
            caller's.
        overrides: settings by field name that win over the environment, such as flags.
        env_file: a file of `NAME=value` lines; None reads none.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        functions: Iterable[Function[Any, Any]] | None = None,
        plugins: Iterable[object] = (),
        store: Store | None = None,
        queue: Queue | None = None,
        step_cache: StepCache | None = None,
        overrides: Mapping[str, Any] | None = None,
        env_file: str | Path | None = ".env",
    ) -> None:
        self.settings = settings or load_settings(overrides, env_file=env_file)
        self.plugins = Plugins(
            plugins,
            modules=self.settings.plugins,
            disabled=self.settings.disabled_plugins,
        )
        self.plugins.configure(self.settings)
        self.choice: BackendChoice = choose_backends(self.settings, overrides, env_file=env_file)
        self.registry = (
            discover(self.plugins, self.settings.modules)
            if functions is None
            else Registry(functions)
        )
        self._given = (store, queue, step_cache)
        self._stack = AsyncExitStack()
        self._client: Client | None = None
        self._worker: WorkerRunner | None = None
        self._journal: Journal | None = None

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self.plugins.open()
            stack.callback(self.plugins.close)
            store, queue, cache = self._build()
            store = await stack.enter_async_context(store)
            queue = await stack.enter_async_context(queue)
            if cache is not None:
                cache = await stack.enter_async_context(cache)
            crash_at = self.settings.crash_at
            reach = CrashAt(crash_at) if crash_at else no_crash
            self._journal = Journal(store, queue, cache, self.plugins, Clock(), reach)
            self._client = Client(self._journal, self.registry, self.settings)
            stack.push_async_callback(self._journal.drain)
            stack.push_async_callback(self._client.close)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._worker is not None:
            await self._worker.close()
        self._client = self._worker = self._journal = None
        await self._stack.aclose()

    @property
    def client(self) -> Client:
        """The client of this application."""
        return self._opened(self._client)

    @property
    def journal(self) -> Journal:
        """The journal: the opened backends and the order of writes."""
        return self._opened(self._journal)

    @property
    def worker(self) -> WorkerRunner:
        """The worker of this application: `await app.worker.run()`, `app.worker.stop()`."""
        journal = self._opened(self._journal)
        if self._worker is None:
            self._worker = WorkerRunner(journal, self.registry, self.plugins, self.settings)
        return self._worker

    @property
    def scheduler(self) -> Scheduler:
        """A scheduler without a worker: `await app.scheduler.run()` until cancelled."""
        journal = self._opened(self._journal)
        return Scheduler(journal, self.registry, self.plugins, self.settings)

    async def rehearse(
        self,
        functions: Iterable[str] | None = None,
        *,
        last: int = 200,
        limit: Duration = "5s",
    ) -> list[FunctionReport]:
        """Replay the newest executions against the code of this process, and write nothing.

        No step's code runs: steps answer what is recorded of them, and at the first that is not
        recorded the replay stops. What is between the steps does run, without resources.

        Args:
            functions: ids of the functions to look at; all of this process if left out.
            last: how many of the newest executions of each, and of the newest that have not ended.
            limit: how long the code of one execution may take; then nobody can say.

        Raises:
            FunctionError: one of the functions is not here; the message lists what is.
            InvalidInput: last or limit cannot be taken.
        """
        if isinstance(last, bool) or last not in range(1, MOST + 1):
            raise InvalidInput(f"last is {last!r}; give a whole number, 1 to {MOST:,}")
        span = _span(limit)
        chosen = self.registry if functions is None else self.registry.only(functions)
        store = self.journal.store
        rehearsal = Rehearsal(self.registry, self.settings, span)
        try:
            return [await rehearse_function(item, store, rehearsal, last=last) for item in chosen]
        finally:
            rehearsal.close()

    def _build(self) -> tuple[Store, Queue, StepCache | None]:
        store, queue, cache = self._given
        choice, settings, plugins = self.choice, self.settings, self.plugins
        given_store = store is not None
        if store is None:
            store = plugins.open_store(choice.store_url, settings)
        if queue is None and choice.queue_url is not None:
            queue = plugins.open_queue(choice.queue_url, settings, required=True)
        if queue is None and not given_store:
            queue = plugins.open_queue(choice.store_url, settings, required=False)
        if cache is None and choice.step_cache_url is not None:
            cache = plugins.open_step_cache(choice.step_cache_url, settings, required=True)
        elif cache is None and choice.queue_url is not None:
            cache = plugins.open_step_cache(choice.queue_url, settings, required=False)
        return store, queue if queue is not None else PollingQueue(), cache

    @staticmethod
    def _opened(part: T | None) -> T:
        if part is None:
            raise WorchflowError("the application is not open; use it in `async with Worchflow()`")
        return part


def _span(limit: Duration) -> timedelta:
    try:
        span = parse_duration(limit, name="limit")
    except ValueError as error:
        raise InvalidInput(str(error)) from None
    if not span:
        raise InvalidInput("limit is 0; give a span above 0")
    return span
