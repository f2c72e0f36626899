"""How long to wait before the next try: pure rules, chance passed in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from worchflow_core.durations import Duration, parse_duration


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how soon to try again.

    Attributes:
        retries: failures to survive; 0 means the first error is final.
        first: the wait after the first failure; zero retries at once.
        factor: by how much each further wait grows.
        longest: no wait is longer, jitter aside.
        jitter: up to this share is added by chance, so that many do not return together.
    """

    retries: int = 3
    first: timedelta = timedelta(seconds=1)
    factor: float = 2.0
    longest: timedelta = timedelta(hours=1)
    jitter: float = 0.25

    def delay(self, failures: int, chance: float) -> timedelta:
        """Return the wait after the `failures`-th failure (from 1); `chance` is in [0, 1)."""
        if not self.first:
            return timedelta(0)
        exponent = min(failures - 1, 64)
        seconds = min(
            self.longest.total_seconds(), self.first.total_seconds() * self.factor**exponent
        )
        return timedelta(milliseconds=round(seconds * (1 + self.jitter * chance) * 1000))


def make_retry_policy(
    retries: int | None, retry_delay: Duration | None, *, base: RetryPolicy | None = None
) -> RetryPolicy:
    """Return `base` with what is given replaced.

    Args:
        retries: failures to survive, 0 to 1,000; None keeps the base's.
        retry_delay: the first wait, doubled after each failure; 0 retries at once.
        base: what to start from; the defaults if None.

    Raises:
        ValueError: a value is out of range; the message names it.
    """
    policy = base or RetryPolicy()
    count = policy.retries if retries is None else retries
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= 1000:
        raise ValueError(f"retries is {retries!r}; give a whole number from 0 to 1,000")
    first = policy.first
    if retry_delay is not None:
        first = parse_duration(retry_delay, name="retry_delay")
    return RetryPolicy(
        retries=count,
        first=first,
        factor=policy.factor,
        longest=max(policy.longest, first),
        jitter=policy.jitter,
    )
