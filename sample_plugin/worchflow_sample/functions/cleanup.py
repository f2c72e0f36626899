"""A function that runs by itself: every night, on one worker, however many there are."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from worchflow_core import Event, Step, function

KEPT = timedelta(days=7)


@function(id="daily-cleanup", cron="0 3 * * *", tz="UTC", tags=["maintenance"])
async def daily_cleanup(event: Event[Any], step: Step) -> int:
    """Delete uploads that are older than a week, and return how many there were.

    `event.scheduled_for` is the tick this execution stands for, the same on every attempt; the
    clock would say something else on a retry after midnight.
    """
    moment = event.scheduled_for or event.timestamp
    old = await step.run("List old uploads", list_uploads, moment - KEPT)
    return await step.run("Delete old uploads", delete_uploads, old)


def list_uploads(before: datetime) -> list[str]:
    """Stand in for an object store: name what was uploaded on the three days before."""
    days = (before - timedelta(days=age) for age in range(1, 4))
    return [f"uploads/{day:%Y-%m-%d}.bin" for day in days]


def delete_uploads(names: list[str]) -> int:
    """Stand in for the object store; deleting what is gone is no error there."""
    return len(names)
