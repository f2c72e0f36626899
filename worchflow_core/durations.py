"""Durations as people write them: a timedelta, seconds as a number, or "1h30m"."""

from __future__ import annotations

import re
from datetime import timedelta

Duration = timedelta | float | int | str
"""How an API takes a span of time: a timedelta, seconds, or text such as "10m" or "1h30m"."""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_LONGEST = timedelta(days=36500)


def parse_duration(value: Duration, *, name: str = "duration") -> timedelta:
    """Return `value` as a timedelta; never negative, at most a hundred years.

    Args:
        value: a timedelta, a number of seconds, or text of numbers with the units ms, s, m, h,
            d, w ("90s", "1h30m", "1.5h").
        name: what the value is called in an error message.

    Raises:
        ValueError: the value is none of these, is negative, not finite, or too long.
    """
    if isinstance(value, timedelta):
        span = value
    elif isinstance(value, str):
        span = timedelta(seconds=_seconds(value, name))
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        if not abs(value) <= _LONGEST.total_seconds():  # neither does NaN hold
            raise ValueError(
                f"{name} is {_short(value)}; give between 0 seconds and a hundred years"
            )
        span = timedelta(seconds=value)
    else:
        raise ValueError(f"{name} is {value!r}; give a timedelta, seconds, or text such as '10m'")
    if not timedelta(0) <= span <= _LONGEST:
        raise ValueError(f"{name} is {value!r}; give between 0 seconds and a hundred years")
    return span


def format_duration(span: timedelta) -> str:
    """Return a span in the shortest exact text that `parse_duration` reads back ("1h30m")."""
    millis = round(span.total_seconds() * 1000)
    if millis == 0:
        return "0s"
    parts = []
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, millis = divmod(millis, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def _short(value: float) -> str:
    """Return a number as text; one of thousands of digits cannot be written out."""
    return "a huge number" if isinstance(value, int) and value.bit_length() > 1024 else repr(value)


def _seconds(text: str, name: str) -> float:
    stripped = text.strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", stripped):
        seconds = float(stripped)
    elif stripped and re.fullmatch(rf"({_PART.pattern})+", stripped):
        seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(stripped))
    else:
        raise ValueError(
            f"{name} is {text!r}; give seconds or text such as '500ms', '10m', '1h30m'"
        )
    if seconds > _LONGEST.total_seconds():
        raise ValueError(f"{name} is {text!r}; give between 0 seconds and a hundred years")
    return seconds
