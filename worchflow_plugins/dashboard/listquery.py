"""The query string of the list of executions, understood, and how to change it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from starlette.datastructures import QueryParams

from worchflow_core import FINAL, InvalidInput, to_millis
from worchflow_plugins.dashboard.chart import WINDOWS
from worchflow_plugins.dashboard.parameters import (
    CHOICE_NAMES,
    LIMIT_MAX,
    Choice,
    floor,
    parse_choice,
    parse_cursor,
    parse_whole,
)

SPANS: Mapping[str, tuple[timedelta, str]] = {
    "15m": (timedelta(minutes=15), "last 15 minutes"),
    "1h": (timedelta(hours=1), "last hour"),
    "6h": (timedelta(hours=6), "last 6 hours"),
    "24h": (timedelta(hours=24), "last 24 hours"),
    "7d": (timedelta(days=7), "last 7 days"),
}
_OTHERS = ("when", "window", "after", "before", "n", "limit", "sort")


class ListQuery:
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
        if query.get("sort", "created") != "created":
            raise InvalidInput(f"sort is {query['sort'][:80]!r}; give created, or leave it out")
        self.is_by_creation = "sort" in query
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
        if choice.finished_since or choice.finished_until:
            return "finished_at"
        only_final = choice.status and all(status in FINAL for status in choice.status)
        by_end = only_final and not choice.since and not self.is_by_creation
        return "finished_at" if by_end else "created_at"

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
