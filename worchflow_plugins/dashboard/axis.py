"""A time axis for people: what was busy takes room, long idle stretches are folded."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

_FOLD_FROM = 4.0
"""A gap this many times longer than all work is folded."""


class Axis:
    """A time axis in percent on which long idle stretches take little room."""

    def __init__(
        self,
        start: datetime,
        end: datetime,
        work: Sequence[tuple[datetime, datetime]],
        waits: Sequence[tuple[datetime, datetime]],
    ) -> None:
        total = max((end - start).total_seconds(), 0.001)
        busy = _merged(work)
        active = sum((right - left).total_seconds() for left, right in busy) or total / 20
        longest = max(active * _FOLD_FROM, 0.5)
        self._start = start
        self._cuts: list[tuple[float, float, float]] = []
        edges = [start, *(edge for pair in busy for edge in pair), end]
        for left, right in zip(edges[::2], edges[1::2], strict=True):
            gap = (right - left).total_seconds()
            if gap > longest and busy:
                offset = (left - start).total_seconds()
                self._cuts.append((offset, offset + gap, active * 0.6))
        saved = sum(high - low - kept for low, high, kept in self._cuts)
        self._total = max(total - saved, 0.001)
        self.folds = tuple(
            (round(self._percent((low + high) / 2), 2), high - low) for low, high, _ in self._cuts
        )

    def place(self, moment: datetime) -> float:
        """Return where a moment lies, in percent."""
        return min(100.0, max(0.0, self._percent((moment - self._start).total_seconds())))

    def _percent(self, seconds: float) -> float:
        place = seconds
        for low, high, kept in self._cuts:
            if seconds >= high:
                place -= high - low - kept
            elif seconds > low:
                place -= (seconds - low) * (1 - kept / (high - low))
        return place / self._total * 100


def _merged(spans: Sequence[tuple[datetime, datetime]]) -> list[tuple[datetime, datetime]]:
    merged: list[tuple[datetime, datetime]] = []
    for left, right in sorted(spans):
        if merged and left <= merged[-1][1] + timedelta(milliseconds=1):
            merged[-1] = (merged[-1][0], max(merged[-1][1], right))
        else:
            merged.append((left, right))
    return merged
