"""The worker: opens resources, lives one session after another, sweeps, and stops when told."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
from collections.abc import Collection
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Any

from worchflow_core import catalog
from worchflow_core.claimer import Assignment
from worchflow_core.errors import StoreUnavailable, WorchflowError, WorkerWornOut
from worchflow_core.functions import Registry
from worchflow_core.journal import Journal
from worchflow_core.plugins import Plugins
from worchflow_core.scheduler import Scheduler
from worchflow_core.session import Session
from worchflow_core.settings import Settings
from worchflow_core.sweeper import Sweeper

logger = logging.getLogger("worchflow")


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What a health check asks of a worker.

    Attributes:
        is_alive: its lease holds and its event loop turns.
        is_ready: it is alive and takes work.
        reason: why not; empty when all is well.
        running: how many executions it runs.
        finished: how many attempts it has settled.
    """

    is_alive: bool
    is_ready: bool
    reason: str
    running: int
    finished: int


class WorkerRunner:
    """Run executions of the registered functions until stopped; see `run`.

    Attributes:
        name: what people call this worker; host and process id unless set.
        id: the id under which it is registered; changes when it was declared dead.
    """

    def __init__(
        self,
        journal: Journal,
        registry: Registry,
        plugins: Plugins,
        settings: Settings,
        *,
        name: str | None = None,
    ) -> None:
        self.name = name or f"{socket.gethostname()}:{os.getpid()}"
        self.id = ""
        self._journal = journal
        self._registry = registry
        self._plugins = plugins
        self._settings = settings
        self._session: Session | None = None
        self._is_stopping = False
        self._finished = 0
        self._has_ended = asyncio.Event()
        self._has_ended.set()

    @property
    def health(self) -> Health:
        """How this worker is, at this moment."""
        session = self._session
        if session is None:
            reason = "stopped" if self._is_stopping else "not started"
            return Health(
                is_alive=False, is_ready=False, reason=reason, running=0, finished=self._finished
            )
        reason = session.trouble
        if not session.lease_is_valid:
            reason = reason or "no heartbeat was confirmed within the lease"
        is_alive = not reason
        if session.is_stopping:
            reason = reason or "stopping"
        return Health(
            is_alive=is_alive,
            is_ready=not reason,
            reason=reason,
            running=session.running,
            finished=self._finished + session.finished,
        )

    async def run(
        self,
        *,
        burst: bool = False,
        only: Collection[str] | None = None,
        max_executions: int | None = None,
        scheduler: bool | None = None,
    ) -> None:
        """Work until `stop` is called, or until what was asked for is done.

        It handles no signals: the caller decides what stops it. A worker may be run again after
        it has stopped.

        Args:
            burst: end when no execution of its functions is due.
            only: claim just these executions, and end when all are final.
            max_executions: end after this many attempts.
            scheduler: also fire the ticks of schedules; as WORCHFLOW_SCHEDULER says if left out,
                but not with `burst` or `only`.

        Raises:
            WorchflowError: a resource of a function cannot be opened, there is no function, or it
            runs already.
            WorkerWornOut: it left in good order because WORCHFLOW_MAX_LEAKED_THREADS of its threads
            hang; end the process and start another.
        """
        if not len(self._registry):
            raise WorchflowError(
                "there are no functions to run; install a package that has some, or name a module "
                "with -m or WORCHFLOW_MODULES"
            )
        if not self._has_ended.is_set():
            raise WorchflowError("this worker runs already; for another, open another application")
        if scheduler is None:
            scheduler = self._settings.scheduler and not burst and only is None
        self._is_stopping = False
        self._has_ended.clear()
        assignment = Assignment(burst=burst, only=only, max_executions=max_executions)
        try:
            await self._run(assignment, with_scheduler=scheduler)
        finally:
            self._has_ended.set()

    async def _run(self, assignment: Assignment, *, with_scheduler: bool) -> None:
        async with AsyncExitStack() as stack:
            resources = await self._open_resources(stack)
            await self._publish()
            parts = [
                asyncio.create_task(Sweeper(self._journal, self._registry, self._settings).run())
            ]
            if with_scheduler:
                parts.append(asyncio.create_task(self._make_scheduler().run()))
            try:
                await self._live(assignment, resources)
            finally:
                for part in parts:
                    part.cancel()
                await asyncio.wait(parts)
                await self._journal.drain()

    def stop(self, *, now: bool = False) -> None:
        """Stop taking work; running executions stop at their next step or at the grace's end.

        Call it on the event loop. What is given back is due at once and counts no failure.

        Args:
            now: do not wait for the grace: give everything back within a second.
        """
        self._is_stopping = True
        if self._session is not None:
            self._session.stop(now=now)

    async def close(self) -> None:
        """Stop at once and return when the run, if there is one, has ended."""
        if not self._has_ended.is_set():
            self.stop(now=True)
            await self._has_ended.wait()

    async def _live(self, assignment: Assignment, resources: dict[Any, Any]) -> None:
        while not self._is_stopping:
            session = Session(
                self._journal,
                self._registry,
                self._plugins,
                self._settings,
                resources,
                self.name,
            )
            self._session, self.id = session, session.id
            try:
                await session.run(assignment)
            finally:
                self._finished += session.finished
                self._session = None
            if session.is_worn_out:
                raise WorkerWornOut(
                    f"{session.leaked_threads} threads hang in code that nobody waits for; the "
                    "rest was given back, and a fresh process has to take this one's place"
                )
            if not session.is_lost:
                return

    def _make_scheduler(self) -> Scheduler:
        return Scheduler(
            self._journal, self._registry, self._plugins, self._settings, name=self.name
        )

    async def _publish(self) -> None:
        wait = 0.1
        while not self._is_stopping:
            try:
                await catalog.publish(self._registry, self._journal.store.records)
                return
            except (StoreUnavailable, ConnectionError) as error:
                logger.debug("cannot describe the functions to the store yet: %s", error)
                await asyncio.sleep(wait * random.uniform(0.5, 1.0))
                wait = min(wait * 2, 2.0)

    async def _open_resources(self, stack: AsyncExitStack) -> dict[Any, Any]:
        opened: dict[Any, Any] = {}
        for function in self._registry:
            for name, opener in function.resources.items():
                if opener in opened:
                    continue
                try:
                    manager = opener()
                    opened[opener] = (
                        await stack.enter_async_context(manager)
                        if isinstance(manager, AbstractAsyncContextManager)
                        else stack.enter_context(manager)
                    )
                except Exception as error:
                    raise WorchflowError(
                        f"resource {name!r} of function {function.id!r} cannot be opened: {error!r}"
                    ) from error
        return opened
