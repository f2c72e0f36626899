"""The seven operators as SQL, and which of several conditions is to find the rows.

SQLite keeps no statistics here, so that its plans never change overnight; what it cannot guess
(that few executions have a deadline, and many a status) is said by a `+`, which keeps a term from
choosing the index.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from worchflow_core import Condition, Operator, Query
from worchflow_plugins.sqlite.connection import packed
from worchflow_plugins.sqlite.rows import encoded

_LISTED = "(SELECT value FROM json_each(?))"
_LAST = 0x10FFFF

_TEXTS = frozenset({"id", "function", "status", "owner", "parent", "forked_from"})
_NARROW = frozenset(
    {
        "id",
        "owner",
        "parent",
        "forked_from",
        "waits",
        "tags",
        "handlers_due",
        "hint_at",
        "deadline_at",
        "cancel_requested_at",
    }
)
"""Fields that few executions have set, or that name few of them."""


class Where:
    """The conditions of a query as SQL, and the values bound to them in order."""

    def __init__(self) -> None:
        self.terms: list[str] = []
        self.bindings: list[Any] = []

    def add(self, term: str, *bindings: Any) -> None:
        """Add a term; fields are names of our own, values are always bound."""
        self.terms.append(term)
        self.bindings += bindings

    def condition(self, condition: Condition, *, is_wide: bool = False) -> None:
        """Add one condition; a wide one is only to filter what others find."""
        name, value = ("+" if is_wide else "") + condition.field, condition.value
        match condition.operator:
            case Operator.EQUAL if value is None:
                self.add(f"{name} IS NULL")
            case Operator.EQUAL if isinstance(value, bool):
                self.add(f"{name} = {int(value)}")  # spelled out, to match the partial index
            case Operator.EQUAL:
                self.add(f"{name} = ?", encoded(condition.field, value))
            case Operator.IN:
                self.add(f"{name} IN {_LISTED}", _list(condition.field, value))
            case Operator.NOT_IN:
                is_set = ">= ''" if condition.field in _TEXTS else "IS NOT NULL"
                self.add(
                    f"{name} {is_set} AND {name} NOT IN {_LISTED}", _list(condition.field, value)
                )
            case Operator.BEFORE:
                self.add(f"{name} < ?", encoded(condition.field, value))
            case Operator.SINCE:
                self.add(f"{name} >= ?", encoded(condition.field, value))
            case Operator.PREFIX:
                term, bindings = _range(name, value)
                self.add(term, *bindings)
            case Operator.HAS:
                side = f"(SELECT execution FROM {condition.field} WHERE key IN {_LISTED})"
                self.add(f"number IN {side}", packed([*value]))

    def search(self, text: str) -> None:
        """Add that id, function or error are what somebody looks for."""
        parts = [
            _range("id", text),
            _range("function", text),
            _range("error_type", ("." + text)[::-1]),
        ]
        self.add(
            "(" + " OR ".join(f"({term})" for term, _ in parts) + ")",
            *(value for _, bindings in parts for value in bindings),
        )

    def text(self) -> str:
        """Return the WHERE clause."""
        return "WHERE " + " AND ".join(self.terms)


def matching(query: Query) -> tuple[Where, str, str]:
    """Return the conditions of a query, cursor aside, the field to sort by, and the tables, as SQL.

    Where something narrow is asked for, it finds the rows, and they are sorted afterwards;
    otherwise rows are found in the order in which they are wanted.
    """
    listed = _listed(query)
    has_narrow = bool(query.search) or any(map(_is_narrow, query.where))
    # Lists by creation are read by many indexes, those by other times by one of their own.
    is_ranged = query.order != "created_at" and any(
        item.field == query.order and item.operator in (Operator.BEFORE, Operator.SINCE)
        for item in query.where
    )
    where = Where()
    order, source = query.order, "executions"
    if listed is not None:
        order, source = "sent_at", f"{listed.field} CROSS JOIN executions ON number = execution"
        where.add("key = ?", *listed.value)
    elif has_narrow and order not in _NARROW:
        order = "+" + order
    where.add(f"{order} IS NOT NULL")
    if query.search:
        where.search(query.search)
    for item in query.where:
        if item is listed:
            continue
        is_wide = not _is_narrow(item) if has_narrow else is_ranged and item.field != query.order
        where.condition(item, is_wide=is_wide)
    return where, order, source


def _listed(query: Query) -> Condition | None:
    """Return the condition that a list holds one value, where it can give the order as well.

    Its side table has the rows of each value in order of creation: many may wait for one thing.
    """
    if query.order != "created_at" or query.search:
        return None
    found = [item for item in query.where if item.operator is Operator.HAS]
    return found[0] if len(found) == 1 and len(found[0].value) == 1 else None


def split(query: Query) -> list[Query]:
    """Return queries that together match what `query` does, each served in order by an index.

    A list of statuses, or of functions, is asked for value by value: merging what is in order
    already is cheaper than sorting all that match the list.
    """
    if query.order == "created_at" and not query.search and not any(map(_is_narrow, query.where)):
        for field in ("status", "function"):
            for place, item in enumerate(query.where):
                if item.field == field and item.operator is Operator.IN and len(item.value) > 1:
                    before, behind = query.where[:place], query.where[place + 1 :]
                    return [
                        replace(
                            query, where=(*before, Condition(field, Operator.EQUAL, value), *behind)
                        )
                        for value in dict.fromkeys(item.value)
                    ]
    return [query]


def _is_narrow(item: Condition) -> bool:
    if item.field not in _NARROW or (item.operator is Operator.EQUAL and item.value is None):
        return False
    return item.field != "handlers_due" or bool(item.value)


def _list(name: str, values: Collection[Any]) -> str:
    return packed([encoded(name, value) for value in values])


def _range(name: str, prefix: str) -> tuple[str, tuple[str, ...]]:
    """Return a range of all texts that start with `prefix`, in order of code points."""
    kept = prefix.rstrip(chr(_LAST))
    if not kept:
        return (f"{name} >= ?", (prefix,))
    following = ord(kept[-1]) + 1
    if 0xD800 <= following <= 0xDFFF:
        following = 0xE000
    return (f"{name} >= ? AND {name} < ?", (prefix, kept[:-1] + chr(following)))
