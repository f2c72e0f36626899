"""One worker in this process: waits for its store, answers health checks, stops in good order."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from worchflow_core.cli import announce, collector, exits, output
from worchflow_core.cli.flags import Flags
from worchflow_core.cli.health import Vitals, serving
from worchflow_core.cli.signals import Stopper, stoppable
from worchflow_core.errors import StoreUnavailable

if TYPE_CHECKING:
    from worchflow_core.app import Worchflow

_REPORT_INTERVAL = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a worker process is asked to do.

    Attributes:
        only: ids of the functions to take; all if empty.
        burst: end when nothing is due.
        name: what people call it.
        max_executions: end after this many attempts.
        health_port: where to answer health checks; None: nowhere.
        supervised: the file descriptor of a socket to the parent; None without one.
        is_announced: print the start-up lines.
        scheduler: whether it also fires schedules; None: as the settings say.
        only_schedules: fire schedules, and take no executions.
    """

    only: tuple[str, ...] = ()
    burst: bool = False
    name: str | None = None
    max_executions: int | None = None
    health_port: int | None = None
    supervised: int | None = None
    is_announced: bool = True
    scheduler: bool | None = None
    only_schedules: bool = False


class WorkerProcess:
    """Run one worker until it is told to stop or has done what the plan says."""

    def __init__(self, app: Worchflow, plan: Plan, flags: Flags) -> None:
        self._app = app
        self._plan = plan
        self._flags = flags
        self._waits_for = "starting"

    async def run(self) -> int:
        """Work; return the exit code."""
        if self._plan.only:
            self._app.registry = self._app.registry.only(self._plan.only)
        if not len(self._app.registry):
            raise exits.CommandError(
                "there are no functions to run",
                hint="install a package that has some, or name a module: worchflow worker -m flows",
            )
        async with AsyncExitStack() as stack:
            stopper = await stack.enter_async_context(stoppable())
            if self._plan.health_port is not None:
                server = serving(self._plan.health_port, self._vitals)
                port = await stack.enter_async_context(server)
                self._say(f"health   http://127.0.0.1:{port}/healthz, /readyz")
            if self._plan.supervised is not None:
                await self._join_parent(stack, stopper, self._plan.supervised)
            if not await self._open(stopper):
                return exits.DONE
            stack.push_async_exit(self._app)
            if self._plan.is_announced and not self._flags.quiet:
                announce.start(self._app)
            await (self._schedule if self._plan.only_schedules else self._work)(stopper)
        return exits.DONE

    async def _work(self, stopper: Stopper) -> None:
        worker = self._app.worker
        if self._plan.name:
            worker.name = self._plan.name
        self._waits_for = ""
        stopper.listen(lambda count: worker.stop(now=count > 1))
        if not stopper.count:
            with collector.at_ease():
                await worker.run(
                    burst=self._plan.burst,
                    max_executions=self._plan.max_executions,
                    scheduler=self._plan.scheduler,
                )

    async def _schedule(self, stopper: Stopper) -> None:
        scheduler = self._app.scheduler
        scheduler.leadership.name = self._plan.name or scheduler.leadership.name
        running = asyncio.create_task(scheduler.run())
        asked = asyncio.create_task(stopper.asked.wait())
        try:
            await asyncio.wait([running, asked], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (running, asked):
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running

    async def _open(self, stopper: Stopper) -> bool:
        """Open the application, waiting for its backends; return False when told to stop."""
        began, wait, told = time.monotonic(), 0.25, 0
        while not stopper.count:
            opening = asyncio.create_task(self._app.__aenter__())
            asked = asyncio.create_task(stopper.asked.wait())
            await asyncio.wait([opening, asked], return_when=asyncio.FIRST_COMPLETED)
            asked.cancel()
            if not opening.done():
                opening.cancel()
                await asyncio.wait([opening])
                if not opening.cancelled() and opening.exception() is None:
                    await self._app.__aexit__(None, None, None)
                return False
            try:
                opening.result()
                if told:
                    output.say(f"the store answers, after {time.monotonic() - began:.0f} s")
                return True
            except (StoreUnavailable, ConnectionError) as error:
                if self._plan.burst:
                    raise
                self._waits_for = f"the store does not answer: {error}"
                # Few lines: at once, after about 10 s, then every few minutes.
                if time.monotonic() - began >= (0, 10, 60)[min(told, 2)] * max(1, told - 1):
                    told += 1
                    output.say(announce.planned_store(self._app)) if told == 1 else None
                    output.warn(f"{self._waits_for}; trying again until it does")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopper.asked.wait(), wait * random.uniform(0.5, 1.0))
            wait = min(wait * 2, 5.0)
        return False

    def _vitals(self) -> Vitals:
        if self._waits_for:
            return Vitals(is_alive=False, is_ready=False, reason=self._waits_for)
        health = self._app.worker.health
        return Vitals(is_alive=health.is_alive, is_ready=health.is_ready, reason=health.reason)

    async def _join_parent(self, stack: AsyncExitStack, stopper: Stopper, number: int) -> None:
        """Tell the parent how we are, and stop when it is gone."""
        link = socket.socket(fileno=number)
        reader, writer = await asyncio.open_connection(sock=link)
        stack.callback(writer.close)

        async def watch() -> None:
            with contextlib.suppress(OSError):
                while await reader.read(64):
                    pass
            output.warn("the parent process is gone; stopping")
            stopper.stop()

        async def report() -> None:
            while True:
                vitals = self._vitals()
                facts = [vitals.is_alive, vitals.is_ready, vitals.reason]
                with contextlib.suppress(OSError):
                    writer.write(json.dumps(facts).encode() + b"\n")
                    await writer.drain()
                await asyncio.sleep(_REPORT_INTERVAL)

        for task in (asyncio.create_task(watch()), asyncio.create_task(report())):
            stack.callback(task.cancel)

    def _say(self, text: str) -> None:
        if not self._flags.quiet:
            output.say(text)
