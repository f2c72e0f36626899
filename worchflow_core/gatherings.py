"""Gatherings: events that come together, as a burst of which the last runs, or as one batch.

Pure: what a burst or a batch is after one more execution has come, and what becomes of it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from worchflow_core.clock import from_millis, to_millis
from worchflow_core.limits import Batch, Debounce
from worchflow_core.models import Execution, Payload

BURSTS = "debounce"
OPEN = "batch"
CLOSED = "batch-closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Burst:
    """Events of which only the last is to run.

    Attributes:
        latest: the id of the last one's execution.
        sent_at: when that was sent.
        first_at: when the first of them was.
    """

    latest: str
    sent_at: datetime
    first_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Debounced:
    """What becomes of an execution, and of its burst.

    Attributes:
        burst: the burst as it is now; None when it is over.
        until: when the execution is to be looked at again; None for now or never.
        gives_way_to: the execution that runs in its place; None where it may run.
    """

    burst: Burst | None
    until: datetime | None = None
    gives_way_to: str | None = None


def debounced(
    burst: Burst | None, execution: Execution, option: Debounce, now: datetime
) -> Debounced:
    """Return what becomes of an execution that has come, now or again, to be debounced.

    Times are those of sending: a worker that was away for an hour finds the same bursts.
    """
    came = (execution.created_at, execution.id)
    if burst is not None and came < (burst.sent_at, burst.latest):
        if execution.created_at >= burst.first_at:
            return Debounced(burst=burst, gives_way_to=burst.latest)
        return Debounced(burst=burst)  # of a burst that was over before this one began
    is_same = burst is not None and (
        burst.latest == execution.id or execution.created_at < _end(burst, option)
    )
    first_at = burst.first_at if burst is not None and is_same else execution.created_at
    grown = Burst(latest=execution.id, sent_at=execution.created_at, first_at=first_at)
    end = _end(grown, option)
    return Debounced(burst=None) if end <= now else Debounced(burst=grown, until=end)


def _end(burst: Burst, option: Debounce) -> datetime:
    """Return when a burst is over unless something more comes."""
    end = burst.sent_at + option.quiet
    return end if option.longest is None else min(end, burst.first_at + option.longest)


def burst_body(burst: Burst | None) -> Payload:
    """Return the body of a burst's record; empty, so that it is removed, when it is over."""
    if burst is None:
        return ""
    return json.dumps([burst.latest, to_millis(burst.sent_at), to_millis(burst.first_at)])


def burst_of(body: Payload | None) -> Burst | None:
    """Return the burst that a record's body describes."""
    if body is None:
        return None
    latest, sent_at, first_at = json.loads(body)
    return Burst(latest=latest, sent_at=from_millis(sent_at), first_at=from_millis(first_at))


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathering:
    """Events that one execution, the leader's, is to take together.

    Attributes:
        members: their executions' ids, the leader's first.
        closes_at: when the leader runs at the latest.
        is_closed: nobody comes in any more.
    """

    members: tuple[str, ...]
    closes_at: datetime
    is_closed: bool = False

    @property
    def leader(self) -> str:
        """The execution that runs for all."""
        return self.members[0]


def joined(
    gathering: Gathering | None, entrants: Sequence[Execution], option: Batch
) -> tuple[Gathering | None, Sequence[Execution]]:
    """Return a gathering with as many of these as still fit, and those that do not."""
    left = list(entrants)
    if gathering is None and left:
        first = left.pop(0)
        gathering = Gathering(members=(first.id,), closes_at=first.created_at + option.longest)
    if gathering is None or gathering.is_closed:
        return gathering, left
    there = set(gathering.members)
    coming = [item for item in left if item.id not in there]
    taken = coming[: max(0, option.size - len(gathering.members))]
    members = (*gathering.members, *(item.id for item in taken))
    return replace(gathering, members=members), coming[len(taken) :]


def closed(gathering: Gathering, option: Batch, now: datetime) -> Gathering:
    """Return a gathering that is full, or whose time has come, as one that takes no more."""
    is_due = len(gathering.members) >= option.size or gathering.closes_at <= now
    return replace(gathering, is_closed=gathering.is_closed or is_due)


def gathering_body(gathering: Gathering) -> Payload:
    """Return the body of a gathering's record."""
    return json.dumps(
        [list(gathering.members), to_millis(gathering.closes_at), gathering.is_closed],
        separators=(",", ":"),
    )


def gathering_of(body: Payload | None) -> Gathering | None:
    """Return the gathering that a record's body describes."""
    if body is None:
        return None
    members, closes_at, is_closed = json.loads(body)
    return Gathering(members=tuple(members), closes_at=from_millis(closes_at), is_closed=is_closed)
