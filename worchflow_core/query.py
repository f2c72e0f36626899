"""Reading many executions: conditions, an order, a cursor. A backend translates seven operators.

`matches` and `order_key` say in Python what every backend must answer; small backends call them,
the contract suite holds the others to them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from worchflow_core.clock import from_millis, to_millis
from worchflow_core.models import Execution, Status, Tally


class Operator(StrEnum):
    """How a field is compared. None (a missing field) matches only EQUAL None."""

    EQUAL = "equal"
    IN = "in"
    NOT_IN = "not_in"  # the field is set, and to none of these
    BEFORE = "before"  # strictly less
    SINCE = "since"  # greater or equal
    PREFIX = "prefix"  # text that starts with this
    HAS = "has"  # a tuple field holds one of these values


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison of a field of `Execution`; a query's conditions must all hold."""

    field: str
    operator: Operator
    value: Any

    def matches(self, execution: Execution) -> bool:
        """Return whether `execution` satisfies this condition."""
        actual = getattr(execution, self.field)
        match self.operator:
            case Operator.EQUAL:
                return bool(actual == self.value)
            case Operator.IN:
                return actual in self.value
            case Operator.NOT_IN:
                return actual is not None and actual not in self.value
            case Operator.BEFORE:
                return actual is not None and bool(actual < self.value)
            case Operator.SINCE:
                return actual is not None and bool(actual >= self.value)
            case Operator.PREFIX:
                return actual is not None and str(actual).startswith(self.value)
            case Operator.HAS:
                return any(value in actual for value in self.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Which executions, in which order, and where to go on.

    Attributes:
        where: conditions, all of which must hold. `field` is a field of `Execution`; the fields
            in use are id, function, status, owner, created_at, updated_at, finished_at, due_at,
            hint_at, hinted_at, deadline_at, cancel_requested_at, handlers_due, waits, tags,
            parent, forked_from.
        search: text; the id or the function starts with it, or the error's type equals it or ends
            with `.` and it.
        order: the field to sort by (created_at, updated_at, finished_at, due_at or hint_at); ties
            by id in the same direction; executions without it are left out, except for created_at.
        descending: newest first.
        after: the (value, id) of the last execution already seen; reading goes on behind it.
        skip: how many to leave out, for numbered pages; a cursor is cheaper.
        limit: how many at the most, 1 to 1,000.
        counted: also count all that match, up to `COUNT_CAP`.
    """

    where: tuple[Condition, ...] = ()
    search: str | None = None
    order: str = "created_at"
    descending: bool = True
    after: tuple[datetime, str] | None = None
    skip: int = 0
    limit: int = 50
    counted: bool = False

    def matches(self, execution: Execution) -> bool:
        """Return whether `execution` belongs to the answer, cursor and limit aside."""
        if getattr(execution, self.order) is None:
            return False
        if self.search and not _found(execution, self.search):
            return False
        return all(condition.matches(execution) for condition in self.where)

    def order_key(self, execution: Execution) -> tuple[datetime, str]:
        """Return the sort key of `execution`, which is also its cursor."""
        return (getattr(execution, self.order), execution.id)

    def page(self, executions: Sequence[Execution]) -> Page:
        """Answer this query over all `executions` in memory: the reference for every backend."""
        found = sorted(
            (item for item in executions if self.matches(item)),
            key=self.order_key,
            reverse=self.descending,
        )
        total = min(len(found), COUNT_CAP) if self.counted else None
        if self.after is not None:
            edge = self.after
            found = [
                item
                for item in found
                if (self.order_key(item) < edge) is self.descending and self.order_key(item) != edge
            ]
        return Page(items=tuple(found[self.skip : self.skip + self.limit]), total=total)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A part of an answer; `total` counts all matches up to `COUNT_CAP`, None when not asked."""

    items: tuple[Execution, ...]
    total: int | None = None


def tallied(
    executions: Iterable[Execution], where: Sequence[Condition], bucket: timedelta
) -> list[Tally]:
    """Answer `Store.tally` over all `executions` in memory: the reference for every backend."""
    counts: Counter[tuple[str, Status, int]] = Counter()
    millis: Counter[tuple[str, Status, int]] = Counter()
    size = bucket // timedelta(milliseconds=1)
    for item in executions:
        if item.finished_at is None or not item.status.is_final:
            continue
        if all(condition.matches(item) for condition in where):
            ended = to_millis(item.finished_at)
            key = (item.function, item.status, ended - ended % size)
            counts[key] += 1
            millis[key] += ended - to_millis(item.created_at)
    return [
        Tally(
            function=function,
            status=status,
            start=from_millis(start),
            count=count,
            total_seconds=millis[function, status, start] / 1000,
        )
        for (function, status, start), count in counts.items()
    ]


COUNT_CAP = 10_001
"""Counting stops here: a list shows "10,000+" rather than walk a million rows."""


def _found(execution: Execution, text: str) -> bool:
    if execution.id.startswith(text) or execution.function.startswith(text):
        return True
    kind = execution.error.type if execution.error else ""
    return kind == text or kind.endswith("." + text)
