"""A line: the places that executions hold under a limit, and who waits for one.

Pure: each function returns the line as it is afterwards. One record of the store is one line, and
is written over the version that was read, so that a place is never given twice. A place that is
freed while others wait is given, in the same write, to who waited longest.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from worchflow_core.models import Execution, Payload, Status

KIND = "slot"

FAR = timedelta(days=3650)
"""What is due later than this from now on waits to be called."""

UNTIL_ENDED = -1
"""The fence of a place that is held, whatever claims there are, until the execution has ended."""

Place = tuple[str, int]
"""A place that is held: by which execution, and by which of its claims."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coming:
    """An execution that was told to wait, and may not be stored as waiting yet.

    Attributes:
        fence: the claim that was told so.
        turn: the value by which it takes turns.
    """

    fence: int
    turn: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The places under one limit.

    Attributes:
        key: which limit, of which function, for which value.
        limit: how many places there are.
        holders: the claim that holds a place, by execution id. Who was called from among those
            that wait holds its place by the claim that it is about to get.
        turns: those who wait, by the value they take turns by; sorted. An empty text is the
            turn of all who are not told apart.
        coming: who is about to wait, by id: as long as it is, its turn is not over.
        last: whose turn it was last.
    """

    key: str
    limit: int = 0
    holders: Mapping[str, int] = field(default_factory=dict)
    turns: tuple[str, ...] = ()
    coming: Mapping[str, Coming] = field(default_factory=dict)
    last: str = ""

    @property
    def free(self) -> int:
        """How many places nobody holds; none where the limit was lowered."""
        return max(0, self.limit - len(self.holders))

    @property
    def is_idle(self) -> bool:
        """Whether nobody holds a place and nobody waits for one."""
        return not self.holders and not self.turns and not self.coming


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrant:
    """An execution that asks for a place.

    Attributes:
        id: the execution's id.
        fence: the claim that asks.
        turn: the value by which it takes turns with others.
        is_lasting: it is to hold its place until it has ended, not just for this claim.
    """

    id: str
    fence: int
    turn: str = ""
    is_lasting: bool = False


def admitted(
    line: Line, entrants: Sequence[Entrant], *, limit: int, waits: bool
) -> tuple[Line, Collection[str]]:
    """Give places to those who ask, and return who has one.

    Whoever holds a place already, because it was called, keeps it. Where others wait, who comes
    later stands behind them. A claim that is older than the one which holds the execution's place
    gets none: it belongs to a worker that was taken for dead, and would make a place that is in
    use look stale.

    Args:
        line: as it is.
        entrants: who asks, the most urgent first.
        limit: how many places there are.
        waits: who gets none is going to wait in the line.
    """
    holders, coming, turns = dict(line.holders), dict(line.coming), set(line.turns)
    inside: set[str] = set()
    for entrant in entrants:
        held = holders.get(entrant.id)
        is_next = not line.turns and len(holders) < limit
        if (held is None and is_next) or (held is not None and held <= entrant.fence):
            holders[entrant.id] = UNTIL_ENDED if entrant.is_lasting else entrant.fence
            coming.pop(entrant.id, None)
            inside.add(entrant.id)
        elif waits:
            turns.add(entrant.turn)
            coming[entrant.id] = Coming(fence=entrant.fence, turn=entrant.turn)
    grown = replace(line, limit=limit, holders=holders, turns=tuple(sorted(turns)), coming=coming)
    return grown, inside


def left(line: Line, places: Collection[Place], arrived: Collection[str] = ()) -> Line:
    """Free places, each only if that very claim holds it, and note who is stored as waiting."""
    gone = set(places)
    return replace(
        line,
        holders={key: fence for key, fence in line.holders.items() if (key, fence) not in gone},
        coming={key: item for key, item in line.coming.items() if key not in arrived},
    )


def handed_on(
    line: Line, waiting: Mapping[str, Sequence[Execution]], *, is_all: Collection[str]
) -> tuple[Line, Sequence[Execution]]:
    """Give free places to those who wait, by turns, and return who is to be called.

    Args:
        line: as it is.
        waiting: by turn who waits, the most urgent first; turns not looked at are missing.
        is_all: the turns of which these are all who wait.
    """
    holders = dict(line.holders)
    left_over = {turn: [e for e in found if e.id not in holders] for turn, found in waiting.items()}
    chosen: list[Execution] = []
    last = line.last
    order = [turn for turn in order_of_turns(line) if turn in left_over]
    while len(holders) < line.limit and any(left_over.values()):
        for turn in order:
            if left_over[turn] and len(holders) < line.limit:
                execution = left_over[turn].pop(0)
                holders[execution.id] = execution.fence + 1
                chosen.append(execution)
                last = turn
    awaited = {item.turn for item in line.coming.values()}
    turns = tuple(
        turn for turn in line.turns if turn in awaited or turn not in is_all or left_over.get(turn)
    )
    return replace(line, holders=holders, turns=turns, last=last), chosen


def is_stale(place: Place, execution: Execution | None) -> bool:
    """Return whether a place is held for nothing: its holder runs no more, or has ended."""
    fence = place[1]
    if execution is None or execution.status.is_final:
        return True
    if fence == UNTIL_ENDED:
        return False
    if execution.owner is not None:
        return execution.fence != fence
    if execution.fence == fence - 1:
        return False  # it was called, and is to be claimed
    return execution.fence != fence or not is_parked(execution)


def is_parked(execution: Execution) -> bool:
    """Return whether an execution waits in some line; where it holds a place, for another one."""
    is_waiting = execution.owner is None and execution.status is Status.QUEUED
    is_far = execution.due_at is not None and execution.due_at > execution.updated_at + FAR
    return is_waiting and is_far and bool(execution.waits)


def has_arrived(coming: Coming, execution: Execution | None) -> bool:
    """Return whether who was told to wait is stored as waiting by now, or never will be."""
    return execution is None or execution.owner is None or execution.fence != coming.fence


def order_of_turns(line: Line) -> Sequence[str]:
    """Return whose turn it is, first to last: the one after whose turn it was goes first."""
    start = bisect_right(line.turns, line.last)
    return (*line.turns[start:], *line.turns[:start])


def wait_key(line_key: str, turn: str) -> str:
    """Return the wait key of those who wait in a line for one turn."""
    return f"{line_key}|{turn}"


def parted(key: str) -> tuple[str, str]:
    """Return the line and the turn of a wait key."""
    line_key, _, turn = key.rpartition("|")
    return line_key, turn


def body_of(line: Line) -> Payload:
    """Return the body of a line's record; empty, so that it is removed, where nobody is there."""
    if line.is_idle:
        return ""
    body = {
        "limit": line.limit,
        "holders": dict(line.holders),
        "turns": list(line.turns),
        "coming": {key: [item.fence, item.turn] for key, item in line.coming.items()},
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
        holders=fields["holders"],
        turns=tuple(fields["turns"]),
        coming={
            name: Coming(fence=fence, turn=turn) for name, (fence, turn) in fields["coming"].items()
        },
        last=fields["last"],
    )
