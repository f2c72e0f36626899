"""A line: the places that executions hold under a limit, and who waits for one.

Pure: each function returns the line as it is afterwards. One record of the store is one line, and
is written over the version that was read, so that a place is never given twice.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from worchflow_core.clock import from_millis, to_millis
from worchflow_core.models import Execution, Payload

KIND = "slot"


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """What holds a place.

    Attributes:
        fence: the claim that holds it, for a place held while an execution runs; None for one
            that is held until the execution has ended.
        until: when the place is free whatever became of the execution; None: never by itself.
    """

    fence: int | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The places under one limit.

    Attributes:
        key: which limit, of which function, for which value.
        limit: how many places there are.
        holders: who holds one, by execution id.
        turns: those who wait, by the value they take turns by; sorted. An empty text is the
            turn of all who are not told apart.
        last: whose turn it was last.
    """

    key: str
    limit: int = 0
    holders: Mapping[str, Holder] = field(default_factory=dict)
    turns: tuple[str, ...] = ()
    last: str = ""

    @property
    def free(self) -> int:
        """How many places nobody holds; fewer than none where the limit was lowered."""
        return max(0, self.limit - len(self.holders))

    @property
    def is_idle(self) -> bool:
        """Whether nobody holds a place and nobody waits for one."""
        return not self.holders and not self.turns


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrant:
    """An execution that asks for a place.

    Attributes:
        id: the execution's id.
        holder: how it is to hold its place.
        turn: the value by which it takes turns with others.
        was_called: it waited in this line, and was told that a place is free.
    """

    id: str
    holder: Holder
    turn: str = ""
    was_called: bool = False


def admitted(
    line: Line, entrants: Sequence[Entrant], *, limit: int, now: datetime
) -> tuple[Line, Collection[str]]:
    """Give places to those who ask, and return who has one; the others are to wait.

    Whoever holds a place already keeps it. Where others wait, only who was called goes in: who
    comes later stands behind them.
    """
    holders = {
        key: holder
        for key, holder in line.holders.items()
        if holder.until is None or holder.until > now
    }
    inside: set[str] = set()
    turns = set(line.turns)
    has_queue = bool(line.turns)
    for entrant in sorted(entrants, key=lambda item: not item.was_called):
        is_next = entrant.was_called or not has_queue
        if entrant.id in holders or (len(holders) < limit and is_next):
            holders[entrant.id] = entrant.holder
            inside.add(entrant.id)
        else:
            turns.add(entrant.turn)
    return replace(line, limit=limit, holders=holders, turns=tuple(sorted(turns))), inside


def left(line: Line, ids: Collection[str]) -> Line:
    """Free the places of executions."""
    holders = {key: holder for key, holder in line.holders.items() if key not in ids}
    return replace(line, holders=holders)


def is_stale(holder: Holder, execution: Execution | None, now: datetime) -> bool:
    """Return whether a place is held for nothing: its holder runs no more, or has ended."""
    if holder.until is not None:
        return holder.until <= now
    if execution is None:
        return True
    if holder.fence is None:
        return execution.status.is_final
    return execution.owner is None or execution.fence != holder.fence


def order_of_turns(line: Line) -> Sequence[str]:
    """Return whose turn it is, first to last: the one after whose turn it was goes first."""
    start = bisect_right(line.turns, line.last)
    return (*line.turns[start:], *line.turns[:start])


def called(line: Line, *, served: Sequence[str], over: Collection[str]) -> Line:
    """Note whose turns were taken, and who waits no more."""
    turns = tuple(turn for turn in line.turns if turn not in over)
    return replace(line, turns=turns, last=served[-1] if served else line.last)


def wait_key(line_key: str, turn: str) -> str:
    """Return the wait key of those who wait in a line for one turn."""
    return f"{line_key}|{turn}"


def body_of(line: Line) -> Payload:
    """Return the body of a line's record; empty, so that it is removed, where nobody is there."""
    if line.is_idle:
        return ""
    body = {
        "limit": line.limit,
        "holders": {
            key: [holder.fence, None if holder.until is None else to_millis(holder.until)]
            for key, holder in line.holders.items()
        },
        "turns": list(line.turns),
        "last": line.last,
    }
    return json.dumps(body, separators=(",", ":"))


def line_of(key: str, body: Payload | None) -> Line:
    """Return the line that a record's body describes; an empty one where there is none."""
    if body is None:
        return Line(key=key)
    fields = json.loads(body)
    return Line(
        key=key,
        limit=fields["limit"],
        holders={
            name: Holder(fence=fence, until=None if until is None else from_millis(until))
            for name, (fence, until) in fields["holders"].items()
        },
        turns=tuple(fields["turns"]),
        last=fields["last"],
    )
