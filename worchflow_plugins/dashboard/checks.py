"""What the About page examines: the checks of `worchflow doctor`, and how quick the store is."""

from __future__ import annotations

import time
from dataclasses import dataclass

from worchflow_core import Finding, StoreUnavailable, diagnose
from worchflow_plugins.dashboard.source import Source


@dataclass(frozen=True, slots=True)
class Report:
    """What was found, and how many seconds the store took for one small question."""

    findings: tuple[Finding, ...]
    latency: float | None


async def examine(source: Source) -> Report:
    """Examine everything; a store that does not answer is a finding, not an error."""
    client, app = source.client, source.app
    try:
        began = time.perf_counter()
        await client.stats()
        latency = time.perf_counter() - began
        # With a client alone there are no settings or functions to examine, only backends.
        findings = await diagnose(app) if app is not None else await client.check()
    except StoreUnavailable as error:
        return Report((Finding(level="problem", subject="store", text=str(error)),), None)
    # Rounded, so that a page which found the same is the same.
    return Report(tuple(findings), round(latency, 3))
