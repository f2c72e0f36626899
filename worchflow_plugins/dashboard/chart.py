"""The throughput chart: geometry of stacked bars, made on the server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from worchflow_core import Status, Tally

WINDOWS = {
    "15m": (timedelta(minutes=15), timedelta(seconds=15), "15 seconds"),
    "1h": (timedelta(hours=1), timedelta(minutes=1), "minute"),
    "6h": (timedelta(hours=6), timedelta(minutes=6), "6 minutes"),
    "24h": (timedelta(hours=24), timedelta(minutes=24), "24 minutes"),
}
"""Windows by name: how long, how long each bar, and what a bar is called."""

WIDTH, HEIGHT = 1200, 100
_STACK = (Status.COMPLETED, Status.FAILED, Status.CANCELLED)


@dataclass(frozen=True, slots=True)
class Part:
    """One status within a bar, in the units of the view box."""

    status: str
    y: float
    height: float


@dataclass(frozen=True, slots=True)
class Bar:
    """What ended within one bucket.

    Attributes:
        start, end: the bucket.
        x, width: its place.
        parts: its statuses, from the bottom up.
        title: what is said of it.
    """

    start: datetime
    end: datetime
    x: float
    width: float
    parts: tuple[Part, ...]
    title: str


@dataclass(frozen=True, slots=True)
class Chart:
    """All bars, the highest count, and the three moments written below."""

    bars: tuple[Bar, ...]
    highest: int
    counts: tuple[tuple[str, int], ...]
    ticks: tuple[datetime, ...]


def make_chart(
    tallies: Sequence[Tally], since: datetime, span: timedelta, bucket: timedelta
) -> Chart:
    """Return the chart of ended executions from `since` on, `span` long."""
    slots = round(span / bucket)
    counts: list[dict[Status, int]] = [dict.fromkeys(_STACK, 0) for _ in range(slots)]
    for tally in tallies:
        index = (tally.start - since) // bucket
        if 0 <= index < slots and tally.status in counts[index]:
            counts[index][tally.status] += tally.count
    highest = max((sum(slot.values()) for slot in counts), default=0)
    step = WIDTH / slots
    bars = tuple(
        _bar(slot, since + index * bucket, bucket, index * step, step, highest)
        for index, slot in enumerate(counts)
    )
    sums = tuple((status.value, sum(slot[status] for slot in counts)) for status in _STACK)
    return Chart(bars, highest, sums, (since, since + span / 2, since + span - bucket))


def _bar(
    slot: dict[Status, int],
    start: datetime,
    bucket: timedelta,
    x: float,
    step: float,
    highest: int,
) -> Bar:
    parts = []
    top = float(HEIGHT)
    for status in _STACK:
        if slot[status]:
            height = max(1.5, slot[status] / highest * HEIGHT)
            top -= height
            parts.append(Part(status.value, round(max(0.0, top), 1), round(height, 1)))
    told = ", ".join(f"{slot[status]:,} {status.value}" for status in _STACK if slot[status])
    clock = f"{start:%H:%M:%S}" if bucket < timedelta(minutes=1) else f"{start:%H:%M}"
    return Bar(
        start=start,
        end=start + bucket,
        x=round(x + 0.5, 1),
        width=round(step - 1.0, 1),
        parts=tuple(parts),
        title=f"{clock} UTC: {told or 'nothing ended'}",
    )


def sparkline(counts: Sequence[int], width: int = 120, height: int = 24) -> str:
    """Return the points of a line through `counts`, for an SVG polyline."""
    highest = max(counts, default=0) or 1
    step = width / max(1, len(counts) - 1)
    return " ".join(
        f"{index * step:.1f},{height - 2 - count / highest * (height - 4):.1f}"
        for index, count in enumerate(counts)
    )
