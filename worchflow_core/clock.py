"""The clock every part of a worker shares: local time corrected to the store's."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache

_LEASE_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock:
    """Tell the time in UTC, in whole milliseconds, as the store would tell it.

    Stored times carry milliseconds, so a time that was never stored must not carry more: a first
    run and a replay then see the same value. The heart corrects it after each beat. Between two
    beats it goes on with a clock that cannot be set: this machine's own may jump by a day, and
    all that is due in that day would be taken for due.
    """

    def __init__(self) -> None:
        self.offset = timedelta(0)
        self._corrected_at: float | None = None
        self._anchor: float | None = None

    def now(self) -> datetime:
        """Return the store's time: local time plus the offset the last beat measured."""
        if self._anchor is None or not self.is_measured:
            return self.local() + self.offset
        return from_millis(int(self._anchor + self.lease_time() * 1000))

    def local(self) -> datetime:
        """Return this machine's own time, whatever the store's is."""
        return from_millis(time.time_ns() // 1_000_000)

    @property
    def is_measured(self) -> bool:
        """Whether the store told its time lately, so that clocks have not drifted apart since."""
        corrected_at = self._corrected_at
        return corrected_at is not None and self.lease_time() - corrected_at < 600

    def correct(self, told: datetime, *, local: datetime, trip: float) -> None:
        """Take over the store's time, as it told it.

        Args:
            told: the store's time, somewhere within the trip.
            local: this machine's own time when it was asked.
            trip: how many seconds the answer took; a slow one measures the network, not the clock.
        """
        if trip < 1.0:
            middle = to_millis(local) + round(trip * 500)
            asked_at = self.lease_time() - trip
            self.offset = (to_millis(told) - middle) * _MILLISECOND
            # In one go, for other threads ask meanwhile: the store's time at this clock's zero.
            self._anchor = to_millis(local) + to_millis(told) - middle - asked_at * 1000
            self._corrected_at = asked_at + trip

    def shift(self, span: timedelta) -> None:
        """Move on by a span, as tests do that skip time; nobody has to measure it from now on."""
        self.offset += span
        if self._anchor is not None:
            self._anchor += span / _MILLISECOND
        self._corrected_at = math.inf

    def lease_time(self) -> float:
        """Return seconds on a clock that also counts while the machine sleeps.

        A lease must not outlive a suspended laptop: CLOCK_BOOTTIME where there is one, else the
        monotonic clock.
        """
        return time.clock_gettime(_LEASE_CLOCK)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


@lru_cache(maxsize=1024)  # what is claimed together was mostly sent and claimed together
def from_millis(millis: int) -> datetime:
    """Return the moment `millis` milliseconds after the epoch, in UTC."""
    return _EPOCH + timedelta(milliseconds=millis)


def to_millis(moment: datetime) -> int:
    """Return an aware moment as whole milliseconds since the epoch, rounded down."""
    return (moment - _EPOCH) // _MILLISECOND
