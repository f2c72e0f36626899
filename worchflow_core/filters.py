"""What people filter executions by, turned into the conditions of a query."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from worchflow_core.errors import InvalidInput
from worchflow_core.models import Status
from worchflow_core.query import Condition, Operator, Query

ORDERS = ("created_at", "updated_at", "finished_at")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which executions to find; what is left out does not restrict.

    Attributes:
        status: one status or several, as `Status` or text.
        function: the id of a function, or several.
        search: text the id or function starts with, or the error's type.
        id_prefix: text the id starts with.
        tag: a label it has.
        parent: the execution that invoked it.
        since, until: created at or after; created before.
        finished_since, finished_until: the same for its end.
        order: created_at, updated_at or finished_at.
        descending: newest first.
        limit: 1 to 1,000.
        skip: for numbered pages.
        after: the (moment, id) of the last one seen, to go on behind it.
        counted: also count all that match, up to 10,001.
    """

    status: Status | str | Iterable[Status | str] | None = None
    function: str | Iterable[str] | None = None
    search: str | None = None
    id_prefix: str | None = None
    tag: str | None = None
    parent: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    finished_since: datetime | None = None
    finished_until: datetime | None = None
    order: str = "created_at"
    descending: bool = True
    limit: int = 50
    skip: int = 0
    after: tuple[datetime, str] | None = None
    counted: bool = False

    def query(self) -> Query:
        """Return the query; raise `InvalidInput` for a value that is out of range."""
        if self.order not in ORDERS:
            raise InvalidInput(f"order is {self.order!r}; give one of {', '.join(ORDERS)}")
        for name, value, low, high in (
            ("limit", self.limit, 1, 1000),
            ("skip", self.skip, 0, 1_000_000),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise InvalidInput(f"{name} is {value!r}; give a whole number, {low} to {high:,}")
        return Query(
            where=tuple(self._conditions()),
            search=self.search or None,
            order=self.order,
            descending=self.descending,
            after=self.after,
            skip=self.skip,
            limit=self.limit,
            counted=self.counted,
        )

    def _conditions(self) -> Iterable[Condition]:
        if self.status is not None:
            yield _any_of("status", parse_statuses(self.status))
        if self.function is not None:
            functions = [self.function] if isinstance(self.function, str) else self.function
            yield _any_of("function", tuple(functions))
        if self.id_prefix:
            yield Condition("id", Operator.PREFIX, self.id_prefix)
        if self.tag is not None:
            yield Condition("tags", Operator.HAS, (self.tag,))
        if self.parent is not None:
            yield Condition("parent", Operator.EQUAL, self.parent)
        for name, operator, moment in (
            ("created_at", Operator.SINCE, self.since),
            ("created_at", Operator.BEFORE, self.until),
            ("finished_at", Operator.SINCE, self.finished_since),
            ("finished_at", Operator.BEFORE, self.finished_until),
        ):
            if moment is not None:
                if moment.tzinfo is None:
                    raise InvalidInput(f"{name} is {moment!r}, which has no time zone")
                yield Condition(name, operator, moment)


def parse_statuses(value: Status | str | Iterable[Status | str]) -> tuple[Status, ...]:
    """Return the statuses named by text such as "failed,retrying", a status, or several.

    Raises:
        InvalidInput: there is no such status; the message lists those there are.
    """
    given = value.split(",") if isinstance(value, str) else value
    chosen = []
    for item in given:
        try:
            chosen.append(Status(item.strip().lower()))
        except (ValueError, AttributeError):
            known = ", ".join(status.value for status in Status)
            raise InvalidInput(f"no status {item!r}; there are: {known}") from None
    return tuple(dict.fromkeys(chosen))


def _any_of(field: str, values: Sequence[Any]) -> Condition:
    if len(values) == 1:
        return Condition(field, Operator.EQUAL, values[0])
    return Condition(field, Operator.IN, tuple(values))
