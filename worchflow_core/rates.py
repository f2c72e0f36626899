"""Rates: when the next starts are allowed, so that no span of time sees more than a number.

Pure: what was allowed is a list of moments, kept in one record per key.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise

from worchflow_core.clock import from_millis, to_millis
from worchflow_core.models import Payload

KIND = "token"


def reserved(
    starts: Sequence[datetime], *, count: int, per: timedelta, now: datetime, wanted: int
) -> list[datetime]:
    """Return the next `wanted` moments at which a start is allowed, the earliest first.

    A start is allowed at the first moment, not before `now`, for which the start `count` places
    before it lies `per` in the past: so no span of length `per` holds more than `count`.

    Args:
        starts: those that were allowed before, sorted; only the newest `count` matter.
        count: how many starts a span may hold.
        per: how long the span is.
        now: the moment.
        wanted: how many to find.
    """
    known = list(starts[-count:])
    found = []
    for _ in range(wanted):
        moment = max(now, known[-1]) if known else now
        if len(known) >= count:
            moment = max(moment, known[-count] + per)
        known.append(moment)
        found.append(moment)
    return found


def body_of(starts: Sequence[datetime]) -> Payload:
    """Return the body of the record that keeps starts: one number, then the gaps between them."""
    millis = [to_millis(item) for item in starts]
    gaps = [later - earlier for earlier, later in pairwise(millis)]
    return json.dumps([*millis[:1], *gaps], separators=(",", ":"))


def starts_of(body: Payload | None) -> list[datetime]:
    """Return the starts that a record keeps, sorted."""
    starts = []
    millis = 0
    for gap in json.loads(body or "[]"):
        millis += gap
        starts.append(from_millis(millis))
    return starts
