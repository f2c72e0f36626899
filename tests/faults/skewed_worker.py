"""A worker whose process a test may start with another clock than its machine's.

Run by itself, and not forked from the others: libfaketime has to be loaded before Python is.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from datetime import datetime
from typing import Any

from tests.faults.worker_process import end_with_parent
from worchflow_core import Event, Step, Worchflow, function


@function(id="tick", every="1s", retries=0)
async def tick(event: Event[Any], step: Step) -> None:
    """Run every second."""


@function(id="hold", retries=0)
async def hold(event: Event[float], step: Step) -> None:
    """Take longer than a lease."""
    await step.run("Hold", asyncio.sleep, event.data)


@function(id="nap", retries=0)
async def nap(event: Event[float], step: Step) -> datetime:
    """Sleep, without a worker."""
    await step.sleep("Nap", event.data)
    return event.timestamp


async def main() -> None:
    """Work until killed."""
    async with Worchflow(functions=[tick, hold, nap], env_file=None) as app:
        await app.worker.run()


if __name__ == "__main__":
    end_with_parent()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    asyncio.run(main())
