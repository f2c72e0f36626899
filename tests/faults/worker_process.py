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

from tests.faults.flows import FUNCTIONS, Tracing
from worchflow_core import Worchflow


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a process is to be.

    Attributes:
        environment: variables to set; those of Worchflow that it has are dropped.
        log: the file that takes all it prints.
        sends: instead of working, send this one: function, id, data.
        memory: bytes of address space it may take; None any.
    """

    environment: Mapping[str, str]
    log: str
    sends: tuple[str, str, dict[str, object]] | None = None
    memory: int | None = None


def serve(order: Order) -> None:
    """Be that process until it has done its work or is told to stop."""
    _die_with_parent()
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
    if order.memory is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (order.memory, order.memory))
    asyncio.run(_work() if order.sends is None else _send(*order.sends))


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
    try:
        async with app:
            running = asyncio.create_task(app.worker.run())
            await running
    except asyncio.CancelledError:
        if not is_stopping:
            raise


async def _send(function: str, execution_id: str, data: dict[str, object]) -> None:
    async with Worchflow(functions=FUNCTIONS, env_file=None) as app:
        await app.client.send(function, data, id=execution_id)


def _die_with_parent() -> None:
    """End, on Linux, when the process that forked this one does: nothing outlives the tests."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
