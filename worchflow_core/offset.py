"""The offset: how far this machine's clock is from the store's, asked without being a worker."""

from __future__ import annotations

import asyncio
import os
import socket
from datetime import timedelta
from uuid import uuid4

from worchflow_core.clock import Clock
from worchflow_core.models import Worker, WorkerState
from worchflow_core.protocols import Store
from worchflow_core.version import __version__


async def measure(store: Store, clock: Clock, lease: timedelta) -> None:
    """Ask the store for its time, and let the clock tell it from now on.

    Signing off a worker that never signed on changes nothing, and is answered with the time.
    """
    local = clock.local()
    nobody = Worker(
        id=uuid4().hex,
        name="nobody",
        host=socket.gethostname(),
        pid=os.getpid(),
        version=__version__,
        state=WorkerState.STOPPED,
        started_at=local,
        concurrency=1,
        functions=(),
    )
    asked_at = clock.lease_time()
    beat = await asyncio.to_thread(store.beat, nobody, lease=lease)
    clock.correct(beat.now, local=local, trip=clock.lease_time() - asked_at)
