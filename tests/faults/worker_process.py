"""A worker in a process of its own, as the fault tests start, freeze and kill it."""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import logging
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from tests.faults.drivers import die_at_write, die_between_deletes
from tests.faults.flows import FUNCTIONS, Tracing
from worchflow_core import Worchflow, WorkerWornOut, origin
from worchflow_core.cli import exits


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a process is to be.

    Attributes:
        environment: variables to set; those of Worchflow that it has are dropped.
        log: the file that takes all it prints.
        asks: instead of working, ask this of the client: method, arguments.
        dies_between_deletes: die when a store has deleted the steps of an execution, and not yet
            the execution itself.
        dies_at_write: the number of the write at which to die; 0: none.
        dies_after: die when that write was made, and not before it.
        machine: a name, to be taken for a process of another machine: its lease alone tells then
            whether it lives. Empty: of this one.
    """

    environment: Mapping[str, str]
    log: str
    asks: tuple[str, dict[str, object]] | None = None
    dies_between_deletes: bool = False
    dies_at_write: int = 0
    dies_after: bool = False
    machine: str = ""


def serve(order: Order) -> None:
    """Be that process until it has done its work or is told to stop."""
    end_with_parent()
    for name in [name for name in os.environ if name.startswith("WORCHFLOW_")]:
        del os.environ[name]
    os.environ.update(order.environment)
    log = os.open(order.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    faulthandler.enable()
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        stream=sys.stderr,
    )
    if order.machine:
        origin._place = lambda: order.machine
    if order.dies_between_deletes:
        die_between_deletes()
    if order.dies_at_write:
        die_at_write(order.dies_at_write, after=order.dies_after)
    try:
        asyncio.run(_work() if order.asks is None else _ask(*order.asks))
    except WorkerWornOut as error:
        sys.exit(exits.code_of(error))


async def _work() -> None:
    app = Worchflow(functions=FUNCTIONS, plugins=[Tracing()], env_file=None)
    loop = asyncio.get_running_loop()
    is_stopping = False
    running: asyncio.Task[None] | None = None

    def stop() -> None:
        nonlocal is_stopping
        if running is None:
            task.cancel()
        else:
            app.worker.stop(now=is_stopping)
        is_stopping = True

    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGUSR1, _tell_tasks)
    try:
        async with app:
            running = asyncio.create_task(app.worker.run())
            await running
    except asyncio.CancelledError:
        if not is_stopping:
            raise


def _tell_tasks() -> None:
    """Print what every task waits for: asked of a process that ought to have ended."""
    for task in asyncio.all_tasks():
        task.print_stack(file=sys.stderr)
    faulthandler.dump_traceback(file=sys.stderr, all_threads=True)


async def _ask(method: str, arguments: Mapping[str, object]) -> None:
    async with Worchflow(functions=FUNCTIONS, env_file=None) as app:
        await getattr(app.client, method)(**arguments)


def end_with_parent() -> None:
    """End, on Linux, when the process that forked this one does: nothing outlives the tests."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
