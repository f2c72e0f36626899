"""The pages of functions: what there is, what it takes, how it fares."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from worchflow_core import FINAL, NotFound, Status, StepRecord, StepStatus
from worchflow_plugins.dashboard import view
from worchflow_plugins.dashboard.chart import sparkline
from worchflow_plugins.dashboard.parameters import Choice
from worchflow_plugins.dashboard.reader import Reader
from worchflow_plugins.dashboard.rendering import View
from worchflow_plugins.dashboard.schema import field_list
from worchflow_plugins.dashboard.shapes import Shapes

_DAY = timedelta(hours=24)
_HOUR = timedelta(hours=1)


async def functions_view(reader: Reader) -> View:
    """Return the page of all functions, with what they did in the last day."""
    functions, workers, counted, paused = await asyncio.gather(
        reader.functions(), reader.workers(), reader.tally(_DAY, _HOUR), reader.paused()
    )
    now = datetime.now(UTC)
    since, tallies = counted or (now, ())
    living = view.living(workers, now)
    rows = []
    for info in functions:
        mine = [item for item in tallies if item.function == info.id]
        hours = [0] * 24
        for item in mine:
            hours[min(23, max(0, (item.start - since) // _HOUR))] += item.count
        count = sum(hours)
        failed = sum(item.count for item in mine if item.status is Status.FAILED)
        seconds = sum(item.total_seconds for item in mine)
        rows.append(
            {
                "info": info,
                "pause": paused.get(info.id),
                "count": count,
                "failed": failed,
                "rate": failed / count if count else None,
                "mean": seconds / count if count else None,
                "line": sparkline(hours),
                "workers": sum(info.id in worker.functions for worker in living),
            }
        )
    return View(
        template="functions.html",
        title="Functions",
        data={"rows": rows, "is_late": counted is None},
        poll=5000,
    )


async def function_view(reader: Reader, shapes: Shapes, function_id: str) -> View:
    """Return the page of one function: schema, usual steps, last executions."""
    info = await reader.function(function_id)
    choice = Choice(function=(function_id,))
    last = await reader.listing(choice, limit=200)
    if info is None and not last.items:
        raise NotFound(f"no function {function_id[:200]!r}")
    ended = [item for item in last.items if item.status is Status.COMPLETED]
    times = [run.seconds for item in ended if (run := view.run_time(item)).seconds is not None]
    # Twenty small questions: what is usual does not change by the second.
    usual = await reader.snapshots.get(
        ("usual steps", function_id),
        lambda: _usual_steps(reader, [item.id for item in ended[:10]]),
        seconds=15.0,
    )
    seconds = [item for item in times if item is not None]
    return View(
        template="function.html",
        title=function_id,
        poll=5000,
        data={
            "function_id": function_id,
            "info": info,
            "pause": (await reader.paused()).get(function_id),
            "fields": field_list(info.schema) if info else [],
            "schema": json.dumps(info.schema, indent=2, ensure_ascii=False)
            if info and info.schema
            else "",
            "executions": [
                (item, view.run_time(item), view.first_line(shapes.failure(item.error)))
                for item in last.items[:10]
            ],
            "sample": len(seconds),
            "p50": view.percentile(seconds, 0.5),
            "p95": view.percentile(seconds, 0.95),
            "failed": sum(item.status is Status.FAILED for item in last.items),
            "looked_at": sum(item.status in FINAL for item in last.items),
            "steps": usual.value,
        },
    )


async def _usual_steps(reader: Reader, ids: list[str]) -> list[tuple[str, int, float]]:
    """Return title, count and median seconds of the steps of these executions, in order."""
    seen: dict[str, list[float]] = {}
    for steps in await asyncio.gather(*(_steps(reader, item) for item in ids)):
        for step in steps[:200]:
            if step.status is StepStatus.COMPLETED and step.ended_at is not None:
                taken = (step.ended_at - step.started_at).total_seconds()
                seen.setdefault(step.title, []).append(taken)
    found = [(title, len(taken), view.percentile(taken, 0.5)) for title, taken in seen.items()]
    return [(title, count, median or 0.0) for title, count, median in found[:50]]


async def _steps(reader: Reader, execution_id: str) -> Sequence[StepRecord]:
    try:
        return (await reader.execution(execution_id))[1]
    except NotFound:  # deleted since the list was read
        return ()
