"""Rates: which starts are allowed, so that no span of time sees more than a number of them.

Pure: what has started, and what is planned to, is one record per key.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise

from worchflow_core.clock import from_millis, to_millis
from worchflow_core.models import Payload

KIND = "token"
_MILLI = timedelta(milliseconds=1)

_NAMED = 100
"""So many of those that started last are known by name, should they come again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Starts:
    """The starts under one rate.

    Attributes:
        made: when executions started, the newest of them; sorted.
        planned: when others are to, the latest of them; sorted.
        names: who started last, and when: whoever of them comes again was counted, and let in,
            and its worker died, or the store was away, before that was noted.
        per: the span in which they are counted, as it was last.
    """

    made: tuple[datetime, ...] = ()
    planned: tuple[datetime, ...] = ()
    names: tuple[tuple[str, datetime], ...] = ()
    per: timedelta = timedelta(0)

    def is_over(self, now: datetime) -> bool:
        """Return whether all of it is too long ago to count."""
        return all(moment + self.per <= now for moment in (*self.made[-1:], *self.planned[-1:]))


def counted(
    starts: Starts, *, per: timedelta, now: datetime, wanted: Collection[str]
) -> Collection[str]:
    """Return who of `wanted` has started already, in the span that ends now."""
    return {name for name, moment in starts.names if name in wanted and _counts(moment, per, now)}


def allowed(
    starts: Starts, *, count: int, per: timedelta, now: datetime, wanted: Sequence[str]
) -> tuple[Starts, int]:
    """Start as many of `wanted` as may start now, and return how many those are.

    Args:
        starts: what has started before.
        count: how many starts a span may hold.
        per: how long the span is.
        now: the moment.
        wanted: who asks, the first served first.
    """
    known = [moment for moment in starts.made if moment <= now + per]  # else a clock was set back
    now = max([now, *known[-1:]])  # of a worker whose clock is behind
    recent = [moment for moment in known if moment > now - per]
    number = max(0, min(len(wanted), count - len(recent)))
    made = (*recent, *[now] * number)
    names = [item for item in starts.names if _counts(item[1], per, now)]
    names += [(name, now) for name in wanted[:number]]
    return replace(starts, made=made, names=tuple(names[-_NAMED:]), per=per), number


def planned(
    starts: Starts, *, count: int, per: timedelta, now: datetime, wanted: Sequence[str]
) -> tuple[Starts, list[datetime]]:
    """Plan the starts of `wanted` executions: behind what is planned, none too close to others.

    Returns the starts, and a moment for each; those of now have started.
    """
    ahead = [moment for moment in starts.planned if moment > now]
    if not ahead:
        starts, number = allowed(starts, count=count, per=per, now=now, wanted=wanted)
    else:
        number = 0
    known = [*starts.made, *ahead][-count:]
    later: list[datetime] = []
    for _ in wanted[number:]:
        moment = max(now, known[-1] if ahead or later else now)
        if len(known) >= count:
            moment = max(moment, known[-count] + per)
        known.append(moment)
        later.append(moment)
    starts = replace(starts, planned=tuple([*ahead, *later][-count:]), per=per)
    return starts, [*[now] * number, *later]


def body_of(starts: Starts) -> Payload:
    """Return the body of the record that keeps starts: of each list one number, then the gaps."""
    names = [[name, to_millis(moment)] for name, moment in starts.names]
    body = [_gaps(starts.made), _gaps(starts.planned), starts.per // _MILLI, names]
    return json.dumps(body, separators=(",", ":"))


def starts_of(body: Payload | None) -> Starts:
    """Return the starts that a record keeps."""
    if body is None:
        return Starts()
    made, ahead, per, *more = json.loads(body)
    names = tuple((name, from_millis(millis)) for name, millis in (more[0] if more else ()))
    return Starts(made=_moments(made), planned=_moments(ahead), names=names, per=per * _MILLI)


def _counts(moment: datetime, per: timedelta, now: datetime) -> bool:
    return now - per < moment <= now + per


def _gaps(moments: Sequence[datetime]) -> list[int]:
    millis = [to_millis(item) for item in moments]
    return [*millis[:1], *(later - earlier for earlier, later in pairwise(millis))]


def _moments(gaps: Sequence[int]) -> tuple[datetime, ...]:
    moments = []
    millis = 0
    for gap in gaps:
        millis += gap
        moments.append(from_millis(millis))
    return tuple(moments)
