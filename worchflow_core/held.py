"""Why flow control holds an execution back, in words."""

from __future__ import annotations

from datetime import datetime, timedelta

from worchflow_core import lines, pauses
from worchflow_core.batches import leader_of
from worchflow_core.clock import to_millis
from worchflow_core.lookup import read_record
from worchflow_core.models import Execution, Status
from worchflow_core.protocols import Store

_NAMED = 3


async def why_held(execution: Execution, store: Store, now: datetime) -> str | None:
    """Return why an execution does not begin yet; None where nothing holds it back."""
    if execution.owner is not None or execution.status.is_final:
        return None
    pause = (await pauses.paused(store.records)).get(execution.function)
    if pause is not None:
        why = f": {pause.reason}" if pause.reason else ""
        since = pause.paused_at.isoformat(sep=" ", timespec="seconds")
        return f"{execution.function} is paused since {since}{why}"
    if execution.status is Status.WAITING and (leader := leader_of(execution)) is not None:
        return f"runs together with execution {leader}, as one batch"
    if lines.is_parked(execution):
        return await _in_line(execution, store)
    is_new = not execution.attempts and execution.status is Status.QUEUED
    was_seen = to_millis(execution.updated_at) > to_millis(execution.created_at)
    if is_new and was_seen and execution.due_at is not None and execution.due_at > now:
        wait = execution.due_at - now
        return f"put off by the options of {execution.function} for {_seconds(wait)} more"
    return None


async def _in_line(execution: Execution, store: Store) -> str:
    line_key, _ = lines.parted(execution.waits[0])
    record = await read_record(store.records, lines.KIND, line_key)
    line = lines.line_of(line_key, None if record is None else record.body)
    named = sorted(line.holders)[:_NAMED]
    more = len(line.holders) - len(named)
    held = ", ".join(named) + (f" and {more:,} more" if more > 0 else "")
    places = "the only place" if line.limit == 1 else f"one of {line.limit:,} places"
    what = "under its singleton" if "|singleton|" in line_key else "under its limit"
    return f"waits for {places} {what}, held by {held}" if held else f"waits for {places} {what}"


def _seconds(span: timedelta) -> str:
    return f"{span.total_seconds():,.1f} s"
