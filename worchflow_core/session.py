"""One registered life of a worker: it beats, claims and runs until it has to leave."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from worchflow_core.admission import Admission
from worchflow_core.attempt import Surroundings
from worchflow_core.claimer import Assignment, Claimer
from worchflow_core.errors import StoreUnavailable
from worchflow_core.functions import Registry
from worchflow_core.heart import Heart
from worchflow_core.journal import Journal
from worchflow_core.lease import Lease
from worchflow_core.models import Beat, RunningExecution, Worker, WorkerState
from worchflow_core.notebook import Notebook
from worchflow_core.origin import own_origin
from worchflow_core.plugins import Plugins
from worchflow_core.running import Running
from worchflow_core.settings import Settings
from worchflow_core.signals import Cancelled, Released, Superseded
from worchflow_core.subscriptions import Subscriptions
from worchflow_core.threads import ThreadPool
from worchflow_core.version import __version__

logger = logging.getLogger("worchflow")


class Session:
    """A worker under one id, from its registration to its leaving or its being declared dead.

    Args:
        journal, registry, plugins, settings: as the worker has them.
        resources: what was opened for the functions.
        name: what people call this worker.

    Attributes:
        is_worn_out: it leaves because too many of its threads do not come back.
    """

    def __init__(
        self,
        journal: Journal,
        registry: Registry,
        plugins: Plugins,
        settings: Settings,
        resources: Mapping[Any, Any],
        name: str,
    ) -> None:
        self.id = uuid4().hex
        self._name = name
        self._registry = registry
        self._plugins = plugins
        self._settings = settings
        self._state = WorkerState.STARTING
        self._started_at = journal.clock.now()
        self.is_worn_out = False
        self._stop_now = asyncio.Event()
        self._lease = Lease(settings.lease, journal.clock)
        self._around = Surroundings(
            journal=journal,
            lease=self._lease,
            plugins=plugins,
            settings=settings,
            registry=registry,
            subscriptions=Subscriptions(registry, journal.store.records),
            functions=ThreadPool(settings.concurrency, "function"),
            steps=ThreadPool(max(32, settings.concurrency), "step"),
            resources=resources,
            admission=Admission(journal, registry),
            notebook=Notebook(journal.store.records),
        )
        self._running = Running(self._around, registry)
        self._claimer = Claimer(self.id, registry, self._around, self._running)
        self._heart = Heart(
            journal.store,
            self._lease,
            journal.clock,
            self._describe,
            interval=settings.heartbeat,
            listener=self,
        )

    # --- what the worker asks -------------------------------------------------------------------

    @property
    def is_lost(self) -> bool:
        """Whether the store has declared this session dead."""
        return self._lease.is_lost

    @property
    def is_stopping(self) -> bool:
        """Whether it takes no more work."""
        return self._running.is_stopping

    @property
    def lease_is_valid(self) -> bool:
        """Whether it may write now."""
        return self._lease.is_valid

    @property
    def leaked_threads(self) -> int:
        """How many threads run code that nobody waits for any more."""
        return self._around.functions.leaked + self._around.steps.leaked

    @property
    def trouble(self) -> str:
        """Why no work is taken at the moment; empty when all is well."""
        return self._claimer.trouble

    @property
    def running(self) -> int:
        """How many executions it runs; those that are only being settled are left out."""
        return self._running.busy

    @property
    def finished(self) -> int:
        """How many attempts it has settled."""
        return self._running.finished

    def stop(self, *, now: bool) -> None:
        """Take no more work; let attempts unwind at their next step call, or at once."""
        self._running.is_stopping = True
        self._state = WorkerState.DRAINING
        self._heart.hurry()
        self._running.stop(Released("the worker is leaving"), now=now)
        if now:
            self._stop_now.set()

    # --- its life -------------------------------------------------------------------------------

    async def run(self, assignment: Assignment) -> None:
        """Register, work, and leave in good order; end early when declared dead."""
        if not await self._register():
            return
        self._around.notebook.attach(asyncio.get_running_loop())
        self._heart.start()
        self._heart.hurry()  # so that others soon read that it runs
        told = self._describe()
        self._plugins.notify("worchflow_worker_started", worker=told)
        try:
            await self._claimer.run(assignment)
        except asyncio.CancelledError:
            self.stop(now=True)
            raise
        finally:
            await self._leave()
            self._plugins.notify("worchflow_worker_stopped", worker=told)

    async def _register(self) -> bool:
        """Make this session known to the store; False when it was stopped before that."""
        is_unsure = False
        while not self._running.is_stopping:
            try:
                await asyncio.to_thread(self._heart.beat_now)
            except (StoreUnavailable, ConnectionError) as error:
                is_unsure = True  # it may have been stored, and only the answer was lost
                await self._claimer.endure(error)
                continue
            self._claimer.trouble = ""
            if not self._running.is_stopping:
                self._state = WorkerState.RUNNING
            return True
        if is_unsure:
            self._state = WorkerState.STOPPED
            await self._sign_off(1.0)
        return False

    async def _leave(self) -> None:
        """Give executions the grace, then take them back; the worker's record goes last."""
        running = self._running
        if running.is_stopping and not self.is_lost:
            grace = self._settings.grace.total_seconds()
            await running.wait_idle(grace, unless=self._stop_now)
        if not self.is_lost:
            running.stop(Released("the grace is over"), now=True)
        await running.wait_idle(3.0 if self._stop_now.is_set() else 10.0)
        await self._around.notebook.drain()
        self._state = WorkerState.STOPPED
        await self._heart.stop()
        if not self.is_lost:
            await self._sign_off(5.0)
        self._lease.end()
        self._around.functions.close()
        self._around.steps.close()

    async def _sign_off(self, seconds: float) -> None:
        """Take the worker's record away, or let its lease run out."""
        try:
            async with asyncio.timeout(seconds):
                await asyncio.to_thread(self._heart.beat_now)
        except (StoreUnavailable, ConnectionError, TimeoutError) as error:
            logger.warning("could not sign off from the store; its lease runs out: %s", error)

    # --- what the heart asks and tells ----------------------------------------------------------

    def on_beat(self, beat: Beat) -> None:
        """Cancel what somebody asked to cancel; leave when asked to drain."""
        for execution_id in beat.cancels:
            attempt = self._running.attempts.get(execution_id)
            if attempt is not None:
                attempt.stop(Cancelled("somebody asked to"), now=True)
        if beat.is_drain_requested and not self.is_stopping:
            logger.info("asked to drain")
            self.stop(now=False)
        if self.leaked_threads >= self._settings.max_leaked_threads and not self.is_stopping:
            logger.error(
                "%d threads hang in code that nobody waits for any more (limit %d): this worker "
                "leaves, and a fresh process has to take its place. Give what a step calls a "
                "timeout of its own: a thread cannot be interrupted",
                self.leaked_threads,
                self._settings.max_leaked_threads,
            )
            self.is_worn_out = True
            self.stop(now=False)

    def on_lost(self) -> None:
        """Stop everything and write nothing more: others have taken over."""
        logger.warning("this worker was declared dead and begins anew under another id")
        self._running.stop(Superseded("this worker was declared dead"), now=True)

    def _describe(self) -> Worker:
        """Return this worker as it is now; also called in the heart's thread."""
        return Worker(
            id=self.id,
            name=self._name,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=__version__,
            origin=own_origin(),
            state=self._state,
            started_at=self._started_at,
            concurrency=self._settings.concurrency,
            functions=self._registry.ids,
            running=tuple(
                RunningExecution(
                    execution_id=attempt.execution.id,
                    function=attempt.function.id,
                    step=attempt.book.current,
                    since=attempt.started_at,
                )
                for attempt in self._running.active
            ),
        )
