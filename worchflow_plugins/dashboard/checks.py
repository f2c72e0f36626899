"""What the About page examines: the same as `worchflow doctor`, as far as it can be seen."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from worchflow_core import Finding, StoreUnavailable, WorkerState, __version__
from worchflow_plugins.dashboard.source import Source
from worchflow_plugins.dashboard.view import is_lost


@dataclass(frozen=True, slots=True)
class Report:
    """What was found, and how long the store took for one small question."""

    findings: tuple[Finding, ...]
    latency: float | None


async def examine(source: Source) -> Report:
    """Examine everything; a store that does not answer is a finding, not an error."""
    findings = [
        Finding(level="ok", subject="python", text=platform.python_version()),
        Finding(level="ok", subject="worchflow", text=__version__),
    ]
    client = source.client
    began = time.perf_counter()
    try:
        await client.stats()
        latency = time.perf_counter() - began
        findings += await client.check()
        findings += await _workers(source)
    except StoreUnavailable as error:
        findings.append(Finding(level="problem", subject="store", text=str(error)))
        return Report(tuple(findings), None)
    # Rounded, so that a page which found the same is the same.
    return Report(tuple(findings), round(latency, 3))


async def _workers(source: Source) -> Sequence[Finding]:
    now = datetime.now(UTC)
    workers = await source.client.workers()
    living = [
        worker
        for worker in workers
        if worker.state in (WorkerState.RUNNING, WorkerState.STARTING)
        and not is_lost(worker.beat_at, worker.lease_until, now)
    ]
    if not living:
        text = "none is running; start one: worchflow worker"
        return [Finding(level="problem", subject="workers", text=text)]
    served = {name for worker in living for name in worker.functions}
    known = {info.id for info in await source.client.functions()}
    findings = [Finding(level="ok", subject="workers", text=f"{len(living)} running")]
    if missing := sorted(known - served):
        text = f"no running worker has {', '.join(missing[:10])}"
        findings.append(Finding(level="warning", subject="functions", text=text))
    return findings
