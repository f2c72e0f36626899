"""Gatherings: events that come together, as a burst of which the last runs, or as one batch.

Pure: what a burst or a batch is after more executions have come, and what becomes of them.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from worchflow_core.clock import from_millis, to_millis
from worchflow_core.limits import Batch, Debounce
from worchflow_core.models import Execution, Payload

BURSTS = "debounce"
GATHERING = "batch"
CLOSED = "batch-closed"
_LEAST = timedelta(milliseconds=250)


@dataclass(frozen=True, slots=True, kw_only=True)
class Burst:
    """Events of which only the last is to run.

    Attributes:
        latest: the id of the last one's execution.
        sent_at: when that was sent.
        first_at: when the first of them was.
        ends_at: when the last runs, unless another comes before.
    """

    latest: str
    sent_at: datetime
    first_at: datetime
    ends_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Debounced:
    """What becomes of an execution.

    Attributes:
        until: when it is to be looked at again; None for now or never.
        gives_way_to: the execution that runs in its place; None where it may run.
    """

    until: datetime | None = None
    gives_way_to: str | None = None


def debounced(
    burst: Burst | None, coming: Sequence[Execution], option: Debounce, now: datetime
) -> tuple[Burst | None, Mapping[str, Debounced]]:
    """Return the burst after executions have come, now or again, and what becomes of each.

    Times are those of sending: a worker that was away for an hour finds the same bursts.

    Args:
        burst: as it was; kept after its end, for those of it that are still to come.
        coming: who comes, the oldest first.
        option: how long a burst goes on.
        now: the moment.
    """
    answers: dict[str, Debounced] = {}
    for item in coming:
        if burst is not None and (item.created_at, item.id) < (burst.sent_at, burst.latest):
            is_in = item.created_at >= burst.first_at
            if (
                not is_in
                and now < burst.ends_at
                and burst.first_at < item.created_at + option.quiet
            ):
                # Sent first, and claimed behind the others, by another worker say.
                is_in, burst = True, replace(burst, first_at=item.created_at)
            answers[item.id] = Debounced(gives_way_to=burst.latest if is_in else None)
            continue
        is_in = burst is not None and (burst.latest == item.id or item.created_at < burst.ends_at)
        if burst is not None and is_in and burst.latest in answers and burst.latest != item.id:
            answers[burst.latest] = Debounced(gives_way_to=item.id)
        first_at = burst.first_at if burst is not None and is_in else item.created_at
        end = item.created_at + option.quiet
        if option.longest is not None:
            end = min(end, first_at + option.longest)
        burst = Burst(latest=item.id, sent_at=item.created_at, first_at=first_at, ends_at=end)
        answers[item.id] = Debounced(until=end if end > now else None)
    return burst, answers


def burst_body(burst: Burst | None) -> Payload:
    """Return the body of a burst's record; empty, so that it is removed, where there is none."""
    if burst is None:
        return ""
    moments = (burst.sent_at, burst.first_at, burst.ends_at)
    return json.dumps([burst.latest, *(to_millis(item) for item in moments)])


def burst_of(body: Payload | None) -> Burst | None:
    """Return the burst that a record's body describes."""
    if body is None:
        return None
    latest, *moments = json.loads(body)
    sent_at, first_at, ends_at = (from_millis(item) for item in moments)
    return Burst(latest=latest, sent_at=sent_at, first_at=first_at, ends_at=ends_at)


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
    gatherings: Sequence[Gathering], coming: Sequence[Execution], option: Batch, now: datetime
) -> Sequence[Gathering]:
    """Return gatherings with a seat for everybody who comes; the last of them may be open.

    Args:
        gatherings: those that have not begun to run.
        coming: who comes, the oldest first; who has a seat already keeps it.
        option: how many seats a gathering has, and how long it stays open.
        now: the moment; of what has waited too long already, a little is still gathered.
    """
    soon = now + min(option.longest, _LEAST)
    grown = list(gatherings)
    seated = {key for item in grown for key in item.members}
    for execution in coming:
        if execution.id in seated:
            continue
        if not grown or grown[-1].is_closed:
            # One whose sender's clock is ahead must not hold up who gathers behind it.
            closes_at = max(soon, min(execution.created_at, now) + option.longest)
            grown.append(Gathering(members=(execution.id,), closes_at=closes_at))
        else:
            last = grown[-1]
            members = (*last.members, execution.id)
            is_closed = len(members) >= option.size
            grown[-1] = replace(last, members=members, is_closed=is_closed)
        seated.add(execution.id)
    return grown


def closed(gatherings: Sequence[Gathering], leaders: Collection[str]) -> Sequence[Gathering]:
    """Return gatherings of which those with these leaders take no more."""
    return [
        replace(item, is_closed=item.is_closed or item.leader in leaders) for item in gatherings
    ]


def gatherings_body(gatherings: Sequence[Gathering]) -> Payload:
    """Return the body of a record of gatherings; empty where there are none."""
    if not gatherings:
        return ""
    return json.dumps(
        [[item.members, to_millis(item.closes_at), item.is_closed] for item in gatherings],
        separators=(",", ":"),
    )


def gatherings_of(body: Payload | None) -> Sequence[Gathering]:
    """Return the gatherings that a record's body describes, the oldest first."""
    return [
        Gathering(members=tuple(members), closes_at=from_millis(closes_at), is_closed=is_closed)
        for members, closes_at, is_closed in json.loads(body or "[]")
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Roll:
    """Who runs as one batch; written once, under its leader's id.

    Attributes:
        members: whose events the leader takes, its own first.
        late: who had a seat, and was not there when the batch was closed.
    """

    members: tuple[str, ...]
    late: tuple[str, ...] = ()


def roll_body(roll: Roll) -> Payload:
    """Return the body of a batch's record."""
    return json.dumps([roll.members, roll.late], separators=(",", ":"))


def roll_of(body: Payload | None) -> Roll | None:
    """Return who runs as one batch, as its record says."""
    if body is None:
        return None
    members, late = json.loads(body)
    return Roll(members=tuple(members), late=tuple(late))
