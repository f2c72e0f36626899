"""Several worker processes under one parent: signals handed on by pid, crashed ones restarted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from worchflow_core.cli import exits, output
from worchflow_core.cli.health import Vitals, serving
from worchflow_core.cli.signals import Stopper, stoppable
from worchflow_core.words import printable

_STEADY = 60.0
"""A process that ran this long has shown that it can; the next crash waits short again."""


@dataclass(slots=True, kw_only=True)
class Child:
    """One place for a worker process, whichever process holds it at the moment.

    Attributes:
        command: how to start it, without the interpreter.
        name: what it is called in warnings.
        is_worker: it reports its health by socket, and is restarted when files change.
        is_recycled: it ends by itself to be replaced by a fresh one.
    """

    command: Sequence[str]
    name: str = "a worker process"
    is_worker: bool = True
    is_recycled: bool = False
    process: asyncio.subprocess.Process | None = None
    vitals: Vitals = field(
        default_factory=lambda: Vitals(is_alive=False, is_ready=False, reason="starting")
    )
    wanted: bool = True
    has_started: bool = False


class Supervisor:
    """Keep worker processes running until told to stop.

    Args:
        children: the processes to keep.
        patience: seconds a child gets to drain before it is killed.
        health_port: where to answer health checks for all of them.
        watch: directories whose Python files restart the children when they change.
        is_quiet: print warnings only.
    """

    def __init__(
        self,
        children: Sequence[Child],
        *,
        patience: float,
        health_port: int | None = None,
        watch: Sequence[str] = (),
        is_quiet: bool = False,
    ) -> None:
        self._children = list(children)
        self._patience = patience
        self._health_port = health_port
        self._watch = watch
        self._is_quiet = is_quiet
        self._is_stopping = False
        self._code = exits.DONE
        self._changed = asyncio.Event()

    async def run(self) -> int:
        """Start all; return the exit code once all have left."""
        async with contextlib.AsyncExitStack() as stack:
            stopper = await stack.enter_async_context(stoppable())
            if self._health_port is not None:
                port = await stack.enter_async_context(serving(self._health_port, self._vitals))
                self._say(f"health   http://127.0.0.1:{port}/healthz, /readyz")
            stopper.listen(self._stop)
            keepers = [asyncio.create_task(self._keep(child)) for child in self._children]
            helpers = [asyncio.create_task(self._kill_late(stopper))]
            if self._watch:
                helpers.append(asyncio.create_task(self._reload()))
            try:
                await asyncio.gather(*keepers)
            finally:
                for task in (*keepers, *helpers):
                    task.cancel()
                self._signal(signal.SIGKILL)
        return self._code

    async def _keep(self, child: Child) -> None:
        """Start a process again and again, until it has left for good."""
        wait = 0.5
        while not self._is_stopping:
            began = time.monotonic()
            child.wanted = True
            code = await self._live(child)
            if self._is_stopping:
                return
            if not child.wanted:  # it left because its files changed
                continue
            if code == exits.DONE and not child.is_recycled:
                return
            if code == exits.USAGE and not child.is_worker:
                output.warn(f"{child.name} {_how(code)}; the rest goes on without it")
                return
            if code == exits.USAGE and not self._watch:
                self._code = exits.USAGE
                self._stop(1)
                return
            if code == exits.USAGE:
                self._say("waiting for a change")
                await self._changed.wait()
                continue
            if code != exits.DONE:
                wait = 0.5 if time.monotonic() - began > _STEADY else wait
                pause = wait * random.uniform(0.75, 1.0)
                output.warn(f"{child.name} {_how(code)}; starting another in {pause:.1f} s")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), pause)
                wait = min(wait * 2, 30.0)

    async def _live(self, child: Child) -> int:
        ours, theirs = socket.socketpair()
        number = str(theirs.fileno())
        if child.is_worker:
            command = ["worchflow_core.cli", *child.command, "--supervised", number]
        else:
            command = ["worchflow_core.cli.guarded", number, *child.command]
        if child.is_worker and child.has_started:
            command.append("--follower")  # the start-up lines were printed once
        child.has_started = True
        # A session of its own: Ctrl-C reaches this process alone, which hands it on by pid.
        child.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            start_new_session=True,
        )
        theirs.close()
        if self._is_stopping:
            child.process.terminate()
        listening = asyncio.create_task(self._listen(child, ours))
        try:
            return await child.process.wait()
        finally:
            listening.cancel()
            ours.close()
            child.process = None
            child.vitals = Vitals(is_alive=False, is_ready=False, reason="starting again")

    async def _listen(self, child: Child, link: socket.socket) -> None:
        if not child.is_worker:
            return
        reader, writer = await asyncio.open_connection(sock=link)
        try:
            while line := await reader.readline():
                alive, ready, reason = json.loads(line)
                child.vitals = Vitals(is_alive=alive, is_ready=ready, reason=reason)
        except (OSError, ValueError) as error:
            output.warn(f"a worker process reports nonsense: {error}")
        finally:
            writer.close()

    async def _reload(self) -> None:
        from watchfiles import PythonFilter, awatch

        async for changes in awatch(*self._watch, watch_filter=PythonFilter()):
            names = ", ".join(sorted({os.path.basename(path) for _, path in changes})[:3])
            self._say(f"{printable(names)} changed, reloading; executions resume from their steps")
            workers = [child for child in self._children if child.is_worker]
            for child in workers:
                child.wanted = False
            self._changed.set()
            self._changed.clear()
            await self._restart(workers)

    async def _restart(self, workers: Sequence[Child]) -> None:
        # Two requests: the first lets a step that is about to end be recorded, the second gives
        # everything back. What does not leave then is killed; its executions are taken up again.
        old = [child.process for child in workers if child.process is not None]
        for name, patience in ((signal.SIGTERM, 0.7), (signal.SIGTERM, 3.0), (signal.SIGKILL, 3.0)):
            left = [process for process in old if process.returncode is None]
            for process in left:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(name)
            deadline = time.monotonic() + patience
            while left and time.monotonic() < deadline:
                await asyncio.sleep(0.05)
                left = [process for process in left if process.returncode is None]

    def _stop(self, count: int) -> None:
        self._is_stopping = True
        self._changed.set()
        self._signal(signal.SIGTERM)

    async def _kill_late(self, stopper: Stopper) -> None:
        await stopper.asked.wait()
        await asyncio.sleep(self._patience)
        output.warn("worker processes did not leave in time; they are killed")
        self._signal(signal.SIGKILL)

    def _signal(self, name: signal.Signals) -> None:
        for child in self._children:
            if child.process is not None and child.process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    child.process.send_signal(name)

    def _vitals(self) -> Vitals:
        workers = [child for child in self._children if child.is_worker]
        ailing = [child.vitals for child in workers if not child.vitals.is_alive]
        reason = f"{len(ailing)} of {len(workers)} processes: {ailing[0].reason}" if ailing else ""
        ready = any(child.vitals.is_ready for child in workers)
        return Vitals(is_alive=len(ailing) < len(workers), is_ready=ready, reason=reason)

    def _say(self, text: str) -> None:
        if not self._is_quiet:
            output.say(text)


def _how(code: int) -> str:
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
