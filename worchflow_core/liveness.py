"""Who lives: which workers' word still holds, and which of them would run a function."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from worchflow_core.models import Worker, WorkerState

SLACK = timedelta(seconds=2)
"""How far this machine's clock may be from the store's before a lease is misjudged."""


def is_live(worker: Worker, now: datetime) -> bool:
    """Return whether a worker's word still holds."""
    if worker.state in (WorkerState.DEAD, WorkerState.STOPPED):
        return False
    return worker.lease_until is None or worker.lease_until + SLACK > now


def live_workers_with(
    function: str, workers: Iterable[Worker], now: datetime | None = None
) -> list[Worker]:
    """Return the live workers that have a function and take work."""
    moment = now or datetime.now(UTC)
    return [
        worker
        for worker in workers
        if is_live(worker, moment)
        and worker.state is not WorkerState.DRAINING
        and function in worker.functions
    ]


def no_worker(function: str) -> str:
    """Return the sentence said of a function that no live worker has."""
    return f"no live worker has {function}"
