"""Rehearsals: what today's code makes of the newest executions, function by function."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from worchflow_core.forking import is_half_made
from worchflow_core.functions import Function
from worchflow_core.models import FINAL, Execution, Status
from worchflow_core.protocols import Store
from worchflow_core.query import COUNT_CAP, Condition, Operator, Query
from worchflow_core.rehearsal import Rehearsal, Rehearsed, Verdict

MOST = 10_000
"""How many of the newest executions of a function may be asked for."""

_PAGE = 100
_LIVE = tuple(sorted(set(Status) - FINAL))


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """An execution that today's code would break, or of which nobody can say.

    Attributes:
        execution_id, status: the execution.
        verdict: `breaks`, `raises` or `unknown`.
        why: in a sentence.
        is_live: it has not ended.
    """

    execution_id: str
    status: Status
    verdict: Verdict
    why: str
    is_live: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionReport:
    """What today's code makes of the newest executions of one function.

    Attributes:
        function: its id.
        checked: how many were looked at.
        counts: how many there are of each verdict.
        live: how many have not ended, up to 10,001.
        live_checked: how many of those were looked at.
        new_steps: how many completed executions would now reach a step that they did not, by its
            title.
        unreached: how many executions have a step recorded that is no longer reached, by its
            title.
        troubles: those that would break, and those of which nobody can say.
    """

    function: str
    checked: int
    counts: Mapping[Verdict, int]
    live: int
    live_checked: int
    new_steps: Mapping[str, int] = field(default_factory=dict)
    unreached: Mapping[str, int] = field(default_factory=dict)
    troubles: tuple[Trouble, ...] = ()

    @property
    def breaks_live(self) -> tuple[Trouble, ...]:
        """The executions that have not ended and would break."""
        return tuple(
            item for item in self.troubles if item.is_live and item.verdict is not Verdict.UNKNOWN
        )


async def rehearse_function(
    function: Function[Any, Any], store: Store, rehearsal: Rehearsal, *, last: int
) -> FunctionReport:
    """Rehearse the newest executions of a function, and the newest of those that have not ended."""
    of_it = Condition("function", Operator.EQUAL, function.id)
    unfinished = Condition("status", Operator.IN, _LIVE)
    count = Query(where=(of_it, unfinished), limit=1, counted=True)
    live = (await store.find(count)).total or 0
    seen: set[str] = set()
    rehearsed: list[Rehearsed] = []
    for where in ((of_it,), (of_it, unfinished)):
        async for page in _newest(store, where, last):
            fresh = [item for item in page if item.id not in seen]
            seen |= {item.id for item in fresh}
            part = [item for item in fresh if not is_half_made(item)]
            live -= sum(not item.status.is_final for item in fresh if is_half_made(item))
            steps = await store.steps([item.id for item in part]) if part else {}
            for item in part:
                found = await rehearsal.rehearse(function, item, steps.get(item.id, ()))
                rehearsed.append(replace(found, execution=_without_payload(item)))
    return report_of(function.id, rehearsed, live=min(live, COUNT_CAP))


def report_of(function_id: str, rehearsed: Sequence[Rehearsed], *, live: int) -> FunctionReport:
    """Return the report that the rehearsals of a function's executions make together."""
    completed = [item for item in rehearsed if item.execution.status is Status.COMPLETED]
    return FunctionReport(
        function=function_id,
        checked=len(rehearsed),
        counts=Counter(item.verdict for item in rehearsed),
        live=live,
        live_checked=sum(not item.execution.status.is_final for item in rehearsed),
        new_steps=_counted(item.new for item in completed),
        unreached=_counted(item.unreached for item in rehearsed if item.verdict is Verdict.CHANGED),
        troubles=tuple(
            Trouble(
                execution_id=item.execution.id,
                status=item.execution.status,
                verdict=item.verdict,
                why=item.why,
                is_live=not item.execution.status.is_final,
            )
            for item in rehearsed
            if item.verdict in (Verdict.BREAKS, Verdict.RAISES, Verdict.UNKNOWN)
        ),
    )


def report_to_wire(report: FunctionReport) -> dict[str, Any]:
    """Return a report as a JSON-able mapping."""
    return {
        "function": report.function,
        "checked": report.checked,
        **{verdict.value: report.counts.get(verdict, 0) for verdict in Verdict},
        "live": report.live,
        "liveChecked": report.live_checked,
        "newSteps": dict(report.new_steps),
        "unreachedSteps": dict(report.unreached),
        "troubles": [
            {
                "executionId": item.execution_id,
                "status": item.status.value,
                "isLive": item.is_live,
                "verdict": item.verdict.value,
                "why": item.why,
            }
            for item in report.troubles
        ],
    }


def _counted(titles: Iterable[Sequence[str]]) -> Mapping[str, int]:
    """Count in how many executions a title is, the most frequent first."""
    return dict(Counter(title for found in titles for title in dict.fromkeys(found)).most_common())


async def _newest(
    store: Store, where: tuple[Condition, ...], last: int
) -> AsyncIterator[Sequence[Execution]]:
    """Yield pages: of thousands, only those that are being looked at are held."""
    after = None
    left = last
    while left:
        query = Query(where=where, limit=min(_PAGE, left), after=after)
        page = (await store.find(query)).items
        yield page
        if len(page) < query.limit:
            return
        left -= len(page)
        after = query.order_key(page[-1])


def _without_payload(execution: Execution) -> Execution:
    """Return an execution as far as reports tell of it."""
    return replace(execution, data=None, result=None, error=None, attempts=())
