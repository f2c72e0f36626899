"""All executions that match: cancel, retry or delete them page by page, against running workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from worchflow_core.changing import Changer
from worchflow_core.errors import InvalidInput, NotAllowed, WorchflowError
from worchflow_core.filters import Filter, parse_statuses
from worchflow_core.models import Change, Execution, Status
from worchflow_core.protocols import Store
from worchflow_core.query import COUNT_CAP, Query

PART = 500
"""How many executions are read and changed at once."""

_MOMENT = timedelta(milliseconds=1)


class Verb(StrEnum):
    """What is done to all that match."""

    CANCEL = "cancel"
    RETRY = "retry"
    DELETE = "delete"


POSSIBLE: Mapping[Verb, tuple[Status, ...]] = {
    Verb.CANCEL: tuple(status for status in Status if not status.is_final),
    Verb.RETRY: (Status.FAILED, Status.CANCELLED),
    Verb.DELETE: tuple(status for status in Status if status.is_final),
}
"""The statuses in which each can be done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkChange:
    """What became of all that matched.

    Attributes:
        matched: how many matched: those that were looked at, or with `dry_run` those there are.
        is_capped: counting stopped at `matched`; there are more.
        changed: the ids that were changed.
        skipped: why others were not: each had moved on between being found and being changed.
        edge: with `dry_run`, the filter restricted to what was counted, so that what arrives
            meanwhile is left alone; None where nothing matches.
        next: where to go on, as `after` of the filter, when `at_most` ended it; else None.
    """

    matched: int = 0
    is_capped: bool = False
    changed: tuple[str, ...] = ()
    skipped: Mapping[str, WorchflowError] = field(default_factory=dict)
    edge: Filter | None = None
    next: tuple[datetime, str] | None = None


def choose(verb: Verb, given: Filter, *, everything: bool = False) -> Filter:
    """Return the filter for what a verb can be done to, newest first.

    Newest first makes it end: what arrives, or ends once more, comes before the place reached.

    Raises:
        InvalidInput: it restricts nothing and `everything` is false, or it says how a list is
            read, which would not hold here.
        NotAllowed: it can be done in none of the statuses it names.
    """
    query = given.query()
    if not everything and not query.where and not query.search:
        raise InvalidInput(
            f"the filter restricts nothing: this would {verb} every execution there is; "
            "restrict it, or say everything=True"
        )
    plain = Filter()
    for name in ("limit", "skip", "counted"):
        if getattr(given, name) != getattr(plain, name):
            raise InvalidInput(
                f"{name} is for lists; all that match are changed, or the newest `at_most`"
            )
    possible = POSSIBLE[verb]
    status = possible
    if given.status is not None:
        named = parse_statuses(given.status)
        status = tuple(item for item in named if item in possible)
        if named and not status:
            raise NotAllowed(
                f"{verb} is for {', '.join(possible)}, and the filter names {', '.join(named)}"
            )
    is_by_end = given.finished_since is not None or given.finished_until is not None
    order = "finished_at" if is_by_end else "created_at"
    return replace(given, status=status, order=order, descending=True)


class Bulk:
    """Change all executions that match.

    Args:
        changer: changes them.
        store: finds them.
    """

    def __init__(self, changer: Changer, store: Store) -> None:
        self._changer = changer
        self._store = store

    async def change(
        self,
        verb: Verb,
        given: Filter,
        *,
        dry_run: bool = False,
        everything: bool = False,
        at_most: int | None = None,
    ) -> BulkChange:
        """Do it, or with `dry_run` count only; see `Client.cancel_matching`."""
        is_whole = isinstance(at_most, int) and not isinstance(at_most, bool) and at_most > 0
        if at_most is not None and not is_whole:
            raise InvalidInput(f"at_most is {at_most!r}; give a whole number from 1, or leave it")
        chosen = choose(verb, given, everything=everything)
        return await (self._count(chosen) if dry_run else self._walk(verb, chosen, at_most))

    async def _walk(self, verb: Verb, chosen: Filter, at_most: int | None) -> BulkChange:
        query, after = chosen.query(), chosen.after
        seen = 0
        changed: list[str] = []
        skipped: dict[str, WorchflowError] = {}
        while at_most is None or seen < at_most:
            limit = PART if at_most is None else min(PART, at_most - seen)
            page = await self._store.find(replace(query, after=after, limit=limit))
            errors = await self._apply(verb, query, page.items)
            seen += len(page.items)
            skipped.update(errors)
            changed += [item.id for item in page.items if item.id not in errors]
            after = query.order_key(page.items[-1]) if len(page.items) == limit else None
            if after is None:
                break
        return BulkChange(matched=seen, changed=tuple(changed), skipped=skipped, next=after)

    async def _apply(
        self, verb: Verb, query: Query, found: Sequence[Execution]
    ) -> dict[str, WorchflowError]:
        if verb is Verb.DELETE:
            return dict(await self._changer.delete([item.id for item in found]))
        decide = self._changer.cancelled if verb is Verb.CANCEL else self._changer.reopened

        def decide_anew(execution: Execution) -> Change | WorchflowError:
            change = decide(execution)
            if isinstance(change, WorchflowError) or query.matches(execution):
                return change
            return NotAllowed(
                f"execution {execution.id} is {execution.status} by now and matches no more"
            )

        answers = await self._changer.many([item.id for item in found], decide_anew, known=found)
        return {key: item for key, item in answers.items() if isinstance(item, WorchflowError)}

    async def _count(self, chosen: Filter) -> BulkChange:
        query = chosen.query()
        is_status_only = len(query.where) == 1 and not query.search
        page = await self._store.find(replace(query, limit=1, counted=not is_status_only))
        if not page.items:
            return BulkChange()
        total = page.total
        if total is None:
            stats = await self._store.stats()
            return BulkChange(
                matched=sum(stats.get(item, 0) for item in parse_statuses(chosen.status or ())),
                edge=_edge(chosen, page.items[0]),
            )
        is_capped = total >= COUNT_CAP
        return BulkChange(
            matched=COUNT_CAP - 1 if is_capped else total,
            is_capped=is_capped,
            edge=_edge(chosen, page.items[0]),
        )


def _edge(chosen: Filter, newest: Execution) -> Filter:
    """Return the filter without what is newer than the newest that was counted."""
    if chosen.order == "finished_at" and newest.finished_at is not None:
        return replace(chosen, finished_until=newest.finished_at + _MOMENT)
    return replace(chosen, until=newest.created_at + _MOMENT)
