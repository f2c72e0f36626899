"""What is wrong, in plain sentences: the checks of `worchflow doctor` and of the dashboard.

Also the answers to "who would run this": which workers live, what no live worker has.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worchflow_core.durations import format_duration
from worchflow_core.liveness import SLACK, is_live, no_worker
from worchflow_core.models import (
    CLAIMABLE,
    Finding,
    Status,
)
from worchflow_core.query import Condition, Operator, Query
from worchflow_core.words import human_age

if TYPE_CHECKING:
    from worchflow_core.app import Worchflow
    from worchflow_core.protocols import Backend, Store
    from worchflow_core.settings import Settings

_SAMPLE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingInfo:
    """A setting as `doctor` shows it; secrets in URLs are masked."""

    name: str
    variable: str
    value: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unserved:
    """Due executions of a function that no live worker has; `count` looks at the oldest 1,000."""

    function: str
    count: int
    oldest: datetime


async def unserved(store: Store, now: datetime | None = None) -> list[Unserved]:
    """Return the functions that have due executions and no live worker, most first."""
    moment = now or datetime.now(UTC)
    served = {
        name
        for worker in await store.workers()
        if is_live(worker, moment)
        for name in worker.functions
    }
    where = [Condition("status", Operator.IN, tuple(sorted(CLAIMABLE)))]
    if served:
        where.append(Condition("function", Operator.NOT_IN, tuple(sorted(served))))
    page = await store.find(Query(where=tuple(where), descending=False, limit=_SAMPLE))
    counts: Counter[str] = Counter()
    oldest: dict[str, datetime] = {}
    for item in page.items:
        if item.due_at is None or item.due_at <= moment:
            counts[item.function] += 1
            oldest.setdefault(item.function, item.created_at)
    return [
        Unserved(function=name, count=count, oldest=oldest[name])
        for name, count in counts.most_common()
    ]


def list_settings(
    settings: Settings,
    overrides: Mapping[str, Any] | None = None,
    *,
    env_file: str | Path | None = ".env",
) -> list[SettingInfo]:
    """Return every setting with its value and where it comes from."""
    from worchflow_core.settings import PREFIX, setting_source

    return [
        SettingInfo(
            name=name,
            variable=PREFIX + name.upper(),
            value=_shown(getattr(settings, name)),
            source=setting_source(name, overrides, env_file=env_file),
        )
        for name in type(settings).model_fields
    ]


def versions(app: Worchflow) -> list[Finding]:
    """Return what can be said of an application without opening it."""
    from worchflow_core.version import __version__

    infos = app.plugins.infos
    foreign = [
        f"{info.name} of {info.distribution} {info.version}"
        for info in infos
        if info.distribution not in (None, "worchflow")
    ]
    names = f": {', '.join(foreign)}" if foreign else ""
    text = f"{__version__}, {len(infos)} plugins loaded{names}"
    return [
        Finding(level="ok", subject="python", text=platform.python_version()),
        Finding(level="ok", subject="worchflow", text=text),
        *(Finding(level="warning", subject="settings", text=text) for text in app.choice.warnings),
    ]


async def diagnose(app: Worchflow) -> list[Finding]:
    """Examine an open application: versions, backends, functions, workers, what waits in vain."""
    journal = app.journal
    findings = versions(app)
    findings += await _check("store", journal.store)
    findings += await _check("queue", journal.queue)
    if journal.cache is not None:
        findings += await _check("step cache", journal.cache)
    findings.append(_functions(app))
    findings += await _workers(journal.store)
    findings += await _schedules(app)
    return findings


def is_healthy(findings: Iterable[Finding]) -> bool:
    """Return whether no finding is a problem."""
    return all(finding.level != "problem" for finding in findings)


async def _check(subject: str, backend: Backend) -> list[Finding]:
    found = [Finding(level="ok", subject=subject, text=backend.describe())]
    try:
        return found + list(await backend.check())
    except Exception as error:  # a backend that cannot even be examined is what doctor is for
        return [*found, Finding(level="problem", subject=subject, text=f"check failed: {error}")]


def _functions(app: Worchflow) -> Finding:
    packages = {item.distribution for item in app.registry if item.distribution}
    scheduled = sum(1 for item in app.registry if item.schedule)
    origin = f"of {', '.join(sorted(packages))}" if packages else "of modules"
    text = f"{len(app.registry)} {origin}, {scheduled} with a schedule"
    if len(app.registry):
        return Finding(level="ok", subject="functions", text=text)
    advice = "none found here; install a package that has some, or name a module with -m"
    return Finding(level="warning", subject="functions", text=advice)


async def _workers(store: Store) -> list[Finding]:
    now = datetime.now(UTC)
    workers = await store.workers()
    live = [worker for worker in workers if is_live(worker, now)]
    waiting = await unserved(store, now)
    findings: list[Finding] = []
    if live:
        names = ", ".join(sorted(worker.name for worker in live)[:5])
        findings.append(Finding(level="ok", subject="workers", text=f"{len(live)} live: {names}"))
    else:
        beats = [worker.beat_at for worker in workers if worker.beat_at]
        last = f"; the last beat was {human_age(max(beats), now)}" if beats else ""
        counts = await store.stats()
        some = sum(counts.get(status, 0) for status in Status if not status.is_final)
        level = "problem" if some else "ok"
        text = f"none is live{last}; {some:,} executions are not finished"
        findings.append(Finding(level=level, subject="workers", text=text))
    for item in waiting if live else ():
        text = f"{no_worker(item.function)}; {item.count:,} of its executions wait"
        findings.append(Finding(level="problem", subject="workers", text=text))
    return findings


async def _schedules(app: Worchflow) -> list[Finding]:
    """Say who fires the schedules; no line where there are none."""
    active = [item for item in await app.client.schedules() if not item.is_paused]
    if not active:
        return []
    leader, now = await app.client.scheduler(), datetime.now(UTC)
    if leader is not None and leader.until + SLACK > now:
        text = f"{len(active)} active, fired by {leader.name}"
        return [Finding(level="ok", subject="schedules", text=text)]
    text = f"{len(active)} active, and nobody fires them; start a worker or worchflow scheduler"
    return [Finding(level="warning", subject="schedules", text=text)]


def _shown(value: Any) -> str:
    from worchflow_core.settings import mask_url

    if value is None:
        return "not set"
    if isinstance(value, timedelta):
        return format_duration(value)
    if isinstance(value, tuple):
        return ", ".join(value) or "none"
    return mask_url(str(value))
