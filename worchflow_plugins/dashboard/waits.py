"""What an execution waits for, and until when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from worchflow_core import Execution, Status, waited_children, waited_events

_FOR_EVER = timedelta(days=365 * 50)
"""A due time so far away is none: only an event, or the end of a child, wakes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What wakes an execution.

    Attributes:
        events: names of events.
        has_match: some of them must also have certain fields.
        children: ids of executions whose end it waits for.
        until: when it goes on without; None where nothing but those wake it.
    """

    events: tuple[str, ...] = ()
    has_match: bool = False
    children: tuple[str, ...] = ()
    until: datetime | None = None


def wanted_by(execution: Execution) -> Wanted | None:
    """Return what an execution waits for; None where it does not wait."""
    if execution.owner is not None or execution.status not in (Status.SLEEPING, Status.WAITING):
        return None
    due = execution.due_at
    until = due if due is not None and due - execution.updated_at < _FOR_EVER else None
    events = waited_events(execution)
    return Wanted(
        events=tuple(events),
        has_match=any(events.values()),
        children=tuple(waited_children(execution)),
        until=until,
    )
