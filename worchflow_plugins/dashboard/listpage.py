"""The page of executions: tiles, chart, filters, rows."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from markupsafe import Markup
from starlette.datastructures import QueryParams

from worchflow_core import (
    FINAL,
    Execution,
    InvalidInput,
    Status,
    StoreUnavailable,
    Worker,
    to_millis,
)
from worchflow_plugins.dashboard import view
from worchflow_plugins.dashboard.chart import WINDOWS, make_chart
from worchflow_plugins.dashboard.parameters import (
    CHOICE_NAMES,
    LIMIT_MAX,
    Choice,
    floor,
    format_cursor,
    parse_choice,
    parse_cursor,
    parse_whole,
)
from worchflow_plugins.dashboard.reader import Listing, Reader
from worchflow_plugins.dashboard.rendering import View
from worchflow_plugins.dashboard.shapes import Shapes
from worchflow_plugins.dashboard.ui import Ui

SPANS: Mapping[str, tuple[timedelta, str]] = {
    "15m": (timedelta(minutes=15), "last 15 minutes"),
    "1h": (timedelta(hours=1), "last hour"),
    "6h": (timedelta(hours=6), "last 6 hours"),
    "24h": (timedelta(hours=24), "last 24 hours"),
    "7d": (timedelta(days=7), "last 7 days"),
}
_OTHERS = ("when", "window", "after", "before", "n", "limit")


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
    state = _State(query)
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
            "is_by_end": order == "finished_at",
            "columns": ui.column_labels("executions"),
            "paging": _paging(listing, state),
        },
    )


class _State:
    """The query string of the list, understood."""

    def __init__(self, query: QueryParams) -> None:
        self._query = query
        choice = parse_choice(query, others=_OTHERS)
        self.when = query.get("when", "")
        self.window = query.get("window", "1h")
        if self.window not in WINDOWS:
            raise InvalidInput(f"window is {self.window[:80]!r}; give one of {', '.join(WINDOWS)}")
        self.choice = self._with_span(choice)
        self.limit = parse_whole(query, "limit", 25, 1, LIMIT_MAX)
        self.first = parse_whole(query, "n", 0, 0, 10_000_000)
        self.after = parse_cursor("after", query.get("after"))
        self.before = parse_cursor("before", query.get("before"))
        if self.after and self.before:
            raise InvalidInput("both after and before are given; give one of them")
        names = {name for name in query if query[name]}
        self.is_filtered = bool(names & (CHOICE_NAMES | {"when"}))

    def _with_span(self, choice: Choice) -> Choice:
        if not self.when:
            return choice
        field, _, name = self.when.partition(":")
        if field not in ("created", "ended") or name not in SPANS:
            raise InvalidInput(f"when is {self.when[:80]!r}; give such as created:1h or ended:24h")
        # Rounded, so that tabs which ask within the same seconds share one query.
        since = floor(datetime.now(UTC), timedelta(seconds=5)) - SPANS[name][0]
        if field == "created":
            return replace(choice, since=since)
        return replace(choice, finished_since=since)

    @property
    def order(self) -> str:
        """By end where only ended executions are wanted: a failure counts when it failed."""
        choice = self.choice
        by_end = choice.finished_since or choice.finished_until
        only_final = choice.status and all(status in FINAL for status in choice.status)
        return "finished_at" if by_end or (only_final and not choice.since) else "created_at"

    def href(self, **changes: str | Sequence[str] | None) -> str:
        """Return the query string with some parameters changed, back on the first page."""
        pairs = [
            (name, value)
            for name, value in self._query.multi_items()
            if value and name not in changes and name not in ("after", "before", "n")
        ]
        for name, given in changes.items():
            values = [given] if isinstance(given, str) else given or ()
            pairs += [(name, value) for value in values if value]
        return "?" + urlencode(pairs) if pairs else "?"

    def chips(self) -> list[tuple[str, str]]:
        """Return what is filtered by moments, as (text, link that takes it away)."""
        found = []
        for name, words in (
            ("since", "created from"),
            ("until", "created before"),
            ("finished_since", "ended from"),
            ("finished_until", "ended before"),
        ):
            moment = getattr(self.choice, name)
            if self._query.get(name) and moment is not None:
                found.append((f"{words} {moment:%Y-%m-%d %H:%M:%S} UTC", self.href(**{name: None})))
        return found

    def filter_json(self) -> dict[str, Any]:
        """Return the filter as the bulk routes of the API take it."""
        choice = self.choice
        moments = {
            name: to_millis(moment)
            for name in ("since", "until", "finished_since", "finished_until")
            if (moment := getattr(choice, name)) is not None
        }
        lists = {
            name: [str(item) for item in items]
            for name, items in (("status", choice.status), ("function", choice.function))
            if items
        }
        return {**lists, **moments, **({"search": choice.search} if choice.search else {})}


async def _chart(reader: Reader, window: str) -> dict[str, Any] | None:
    span, bucket, unit = WINDOWS[window]
    try:
        since, tallies = await reader.tally(span, bucket)
    except StoreUnavailable:
        raise
    except Exception:  # a store that cannot count must not take the list along
        return None
    return {"bars": make_chart(tallies, since, span, bucket), "unit": unit}


def _bar_hrefs(state: _State, chart: dict[str, Any] | None) -> list[str]:
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


def _tiles(stats: Mapping[Status, int], state: _State) -> list[Tile]:
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


def _paging(listing: Listing, state: _State) -> dict[str, Any]:
    items, first = listing.items, state.first
    order = state.order
    older = newer = None
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
        "last": first + len(items),
        "total": listing.total,
        "is_capped": listing.is_capped,
        "older": older,
        "newer": newer,
        "is_first": not first,
    }
