"""The page of executions: tiles, chart, filters, rows."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup
from starlette.datastructures import QueryParams

from worchflow_core import FINAL, Execution, Status, StoreUnavailable, Worker, to_millis
from worchflow_plugins.dashboard import view
from worchflow_plugins.dashboard.chart import WINDOWS, make_chart
from worchflow_plugins.dashboard.listquery import SPANS, ListQuery
from worchflow_plugins.dashboard.parameters import floor, format_cursor
from worchflow_plugins.dashboard.reader import Listing, Reader
from worchflow_plugins.dashboard.rendering import View
from worchflow_plugins.dashboard.shapes import Shapes
from worchflow_plugins.dashboard.ui import Ui

logger = logging.getLogger("worchflow.dashboard")


@dataclass(frozen=True, slots=True)
class Tile:
    """One number at the top; a link to its executions."""

    label: str
    status: str
    count: int
    href: str
    is_active: bool


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the list."""

    execution_id: str
    function: str
    status: str
    moment: datetime
    error: str
    run: view.RunTime
    is_running: bool
    steps: int | None
    attempts: str
    worker: str
    can_retry: bool
    can_cancel: bool
    cells: tuple[Markup, ...] = ()


async def list_view(reader: Reader, shapes: Shapes, ui: Ui, query: QueryParams) -> View:
    """Return the list that a query string asks for."""
    state = ListQuery(query)
    order = state.order
    listing, stats, workers, functions, chart = await asyncio.gather(
        reader.listing(
            state.choice, limit=state.limit, order=order, after=state.after, before=state.before
        ),
        reader.stats(),
        reader.workers(),
        reader.functions(),
        _chart(reader, state.window),
    )
    if order == "finished_at" and not listing.items and listing.total and not state.first:
        # Nothing here has an end on record: what the original's workers ended does not.
        order = "created_at"
        listing = await reader.listing(state.choice, limit=state.limit, order=order)
    names = worker_names(workers)
    lines = [await _line(item, order, names, shapes, ui) for item in listing.items]
    known = [info.id for info in functions]
    return View(
        template="executions.html",
        title="Executions",
        data={
            "lines": lines,
            "tiles": _tiles(stats, state),
            "is_empty": not sum(stats.values()),
            "chart": chart,
            "windows": [(name, state.href(window=name)) for name in WINDOWS],
            "window": state.window,
            "bar_hrefs": _bar_hrefs(state, chart),
            "statuses": [(item.value, item in state.choice.status) for item in Status],
            "functions": sorted({*known, *state.choice.function}),
            "chosen_function": next(iter(state.choice.function), ""),
            "search": state.choice.search,
            "spans": [(name, text) for name, (_, text) in SPANS.items()],
            "when": state.when,
            "chips": state.chips(),
            "is_filtered": state.is_filtered,
            "filter_json": state.filter_json(),
            "is_by_end": order != "created_at",
            "columns": ui.column_labels("executions"),
            "paging": _paging(listing, state, order),
        },
    )


async def _chart(reader: Reader, window: str) -> dict[str, Any] | None:
    span, bucket, unit = WINDOWS[window]
    try:
        found = await reader.tally(span, bucket)
    except StoreUnavailable:
        raise
    except Exception:  # a store that cannot count must not take the list along
        logger.exception("what ended could not be counted; the list is shown without its chart")
        return None
    since, tallies = found or (floor(datetime.now(UTC), bucket) - span + bucket, ())
    bars = make_chart(tallies, since, span, bucket)
    return {"bars": bars, "unit": unit, "is_late": found is None}


def _bar_hrefs(state: ListQuery, chart: dict[str, Any] | None) -> list[str]:
    if chart is None:
        return []
    return [
        state.href(
            finished_since=str(to_millis(bar.start)),
            finished_until=str(to_millis(bar.end)),
            when=None,
        )
        for bar in chart["bars"].bars
    ]


def _tiles(stats: Mapping[Status, int], state: ListQuery) -> list[Tile]:
    chosen = state.choice.status
    total = Tile("Total", "", sum(stats.values()), state.href(status=None), not chosen)
    # Sleeping and waiting take a tile only where there are such executions.
    rare = (Status.SLEEPING, Status.WAITING)
    shown = [item for item in Status if item not in rare or stats[item] or item in chosen]
    shown.sort(key=lambda item: item in FINAL)
    tiles = [
        Tile(
            status.value.capitalize(),
            status.value,
            stats[status],
            state.href(status=status.value),
            chosen == (status,),
        )
        for status in shown
    ]
    return [total, *tiles]


def worker_names(workers: Sequence[Worker]) -> dict[str, str]:
    """Return what people call each worker."""
    return {worker.id: worker.name or worker.id[:8] for worker in workers}


def worker_name(execution: Execution, names: Mapping[str, str]) -> str:
    """Return the worker that has an execution, or had it last; a dash if none had."""
    owner = execution.owner or (execution.attempts[-1].worker if execution.attempts else "")
    return names.get(owner, owner[:12]) or "–"


async def _line(
    execution: Execution, order: str, names: Mapping[str, str], shapes: Shapes, ui: Ui
) -> Line:
    error = shapes.failure(execution.error)
    return Line(
        execution_id=execution.id,
        function=execution.function,
        status=execution.status.value,
        moment=getattr(execution, order),
        error=view.first_line(error) if execution.status is not Status.COMPLETED else "",
        run=view.run_time(execution),
        is_running=execution.status is Status.PROCESSING,
        steps=execution.steps_recorded,
        attempts=view.attempts_text(execution),
        worker=worker_name(execution, names),
        can_retry=execution.status in (Status.FAILED, Status.CANCELLED),
        can_cancel=execution.status not in FINAL and execution.cancel_requested_at is None,
        cells=tuple(await ui.cells_of("executions", execution)),
    )


def _paging(listing: Listing, state: ListQuery, order: str) -> dict[str, Any]:
    items, first = listing.items, state.first
    older = newer = None
    last = first + len(items)
    is_short = order == "finished_at" and state.choice.is_status_only and not listing.has_more
    if items and listing.has_more:
        place = format_cursor(getattr(items[-1], order), items[-1].id)
        older = state.href(after=place, n=str(first + len(items)))
    if first > state.limit and items:
        place = format_cursor(getattr(items[0], order), items[0].id)
        newer = state.href(before=place, n=str(max(0, first - state.limit)))
    elif first:
        newer = state.href()
    return {
        "first": first + 1 if items else 0,
        "last": last,
        "unsorted": max(0, listing.total - last) if is_short else 0,
        "unsorted_href": state.href(sort="created"),
        "total": listing.total,
        "is_capped": listing.is_capped,
        "older": older,
        "newer": newer,
        "is_first": not first,
    }
