"""The page of schedules: what runs by itself, when it last did and how that went, when it will."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from worchflow_core import (
    Leader,
    ScheduleInfo,
    ScheduleRun,
    Worker,
    schedule_to_wire,
    to_millis,
)
from worchflow_plugins.dashboard import view
from worchflow_plugins.dashboard.cronwords import cron_words, every_words
from worchflow_plugins.dashboard.reader import Reader, Schedules
from worchflow_plugins.dashboard.rendering import View

_LATE = timedelta(minutes=1)
"""A tick that nobody came to for so long is overdue."""


@dataclass(frozen=True, slots=True)
class Dot:
    """What became of one tick."""

    title: str
    status: str
    execution_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One schedule.

    Attributes:
        function: the id of the function that it runs.
        words, text, zone: its rule in words, as it was written, and its time zone.
        state: active, paused, or no worker.
        dots: its last ticks, the oldest first.
        last: the newest tick that was fired.
        next: the next tick; None while it is paused.
        next_local: the same in its own zone, as text.
        overdue: a tick that should have been fired by now.
        waiting: a tick that waits for an earlier execution to end.
        skipped: how many were let go by because an earlier execution had not ended.
    """

    function: str
    words: str
    text: str
    zone: str
    state: str
    dots: tuple[Dot, ...]
    last: tuple[datetime, Dot] | None
    next: datetime | None
    next_local: str
    overdue: datetime | None
    waiting: datetime | None
    skipped: int

    @property
    def is_paused(self) -> bool:
        """Whether somebody paused it."""
        return self.state == "paused"


async def schedules_view(reader: Reader) -> View:
    """Return the page of all schedules."""
    known, workers = await reader.schedules(), await reader.workers()
    now = datetime.now(UTC)
    data: dict[str, Any] = {
        "rows": [_row(item, known.runs[item.function], workers, now) for item in known.items],
        "leader": known.leader.name if known.leader else None,
        "is_led": is_led(known.leader, now),
    }
    return View(template="schedules.html", title="Schedules", data=data, poll=5000)


def schedules_document(known: Schedules, workers: Sequence[Worker]) -> dict[str, Any]:
    """Return all schedules as the API tells them."""
    now = datetime.now(UTC)
    shapes = [
        {
            **schedule_to_wire(item, now=now, runs=known.runs[item.function]),
            "state": state_of(item, workers, now),
        }
        for item in known.items
    ]
    leader = known.leader
    told = leader and {
        "name": leader.name,
        "until": to_millis(leader.until),
        "isActive": is_led(leader, now),
    }
    return {"schedules": shapes, "total": len(shapes), "scheduler": told}


def is_led(leader: Leader | None, now: datetime) -> bool:
    """Return whether a scheduler fires ticks."""
    return leader is not None and leader.until > now


def state_of(item: ScheduleInfo, workers: Sequence[Worker], now: datetime) -> str:
    """Return active, paused, or no worker."""
    if item.is_paused:
        return "paused"
    has_worker = any(item.function in worker.functions for worker in view.living(workers, now))
    return "active" if has_worker else "no worker"


def _row(
    item: ScheduleInfo, runs: Sequence[ScheduleRun], workers: Sequence[Worker], now: datetime
) -> Row:
    schedule, zone = item.schedule, ZoneInfo(item.schedule.zone)
    coming = None if item.is_paused else next(iter(item.next_ticks(now, 1)), None)
    due = None if item.is_paused else next(iter(item.next_ticks(item.last_tick, 1)), None)
    words = (
        every_words(schedule.rule.span)
        if hasattr(schedule.rule, "span")
        else cron_words(schedule.rule.text)
    )
    fired = next((run for run in runs if run.execution is not None), None)
    return Row(
        function=item.function,
        words=words,
        text=schedule.text,
        zone=schedule.zone,
        state=state_of(item, workers, now),
        dots=tuple(_dot(run, zone) for run in reversed(runs)),
        last=(fired.tick, _dot(fired, zone)) if fired else None,
        next=coming,
        next_local=f"{coming.astimezone(zone):%a %d %b %H:%M:%S} {schedule.zone}" if coming else "",
        overdue=due if due is not None and due < now - _LATE else None,
        waiting=item.waiting,
        skipped=item.skipped,
    )


def _dot(run: ScheduleRun, zone: ZoneInfo) -> Dot:
    moment = f"{run.tick.astimezone(zone):%Y-%m-%d %H:%M:%S}"
    if run.execution is None:
        return Dot(f"{moment}: not fired", "", "")
    status = run.execution.status.value
    return Dot(f"{moment}: {status}", status, run.execution.id)
