"""Cron expressions and intervals in plain words, where a sentence says them better."""

from __future__ import annotations

import re
from datetime import timedelta

_DAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_SHORT = {name[:3].lower(): number for number, name in enumerate(_DAYS[:7])}
_UNITS = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))


def cron_words(text: str | None) -> str:
    """Return an expression in words; the text itself where words would be no shorter."""
    if not text:
        return ""
    fields = text.split()
    if len(fields) == 6 and re.fullmatch(r"\*(/\d+)?", fields[0]) and fields[1:] == ["*"] * 5:
        return _each(fields[0], "second")
    if len(fields) == 6 and fields[0] == "0":
        fields = fields[1:]
    if len(fields) != 5:
        return text
    minute, hour, day, month, weekday = fields
    when, which = _time(minute, hour), _day(day, month, weekday)
    if when is None or which is None:
        return text
    if which == "every day" and not when.startswith("at "):
        return when
    return f"{which} {when}" if when.startswith("at ") else f"{when}, {which}"


def every_words(span: timedelta) -> str:
    """Return an interval in words: "every 15 minutes"."""
    seconds = int(span.total_seconds())
    name, size = next((name, size) for name, size in _UNITS if seconds % size == 0)
    count = seconds // size
    return f"every {name}" if count == 1 else f"every {count:,} {name}s"


def _each(field: str, unit: str) -> str:
    step = field.partition("/")[2] or "1"
    return f"every {unit}" if int(step) == 1 else f"every {int(step)} {unit}s"


def _time(minute: str, hour: str) -> str | None:
    """Return "every 15 minutes", "every 2 hours at :05", or "at 09:00 and 17:00"."""
    is_step = re.compile(r"\*(/\d+)?").fullmatch
    if is_step(minute) and hour == "*":
        return _each(minute, "minute")
    if not minute.isdigit():
        return None
    if is_step(hour):
        past = "" if int(minute) == 0 else f" at :{int(minute):02}"
        return _each(hour, "hour") + past
    hours = hour.split(",")
    if len(hours) > 4 or not all(item.isdigit() for item in hours):
        return None
    return "at " + _joined([f"{int(item):02}:{int(minute):02}" for item in hours])


def _day(day: str, month: str, weekday: str) -> str | None:
    if month != "*" or (day != "*" and weekday != "*"):
        return None
    if day.isdigit():
        return "on the first of every month" if int(day) == 1 else f"on day {int(day)} of the month"
    if day != "*":
        return None
    if weekday == "*":
        return "every day"
    names: list[str] = []
    for part in weekday.split(","):
        ends = [_weekday(item) for item in part.split("-")]
        if None in ends or len(ends) > 2:
            return None
        names.append(" to ".join(_DAYS[item] for item in ends if item is not None))
    return names[0] if " to " in names[0] and len(names) == 1 else f"every {_joined(names)}"


def _weekday(text: str) -> int | None:
    if text.isdigit() and int(text) <= 7:
        return int(text)
    return _SHORT.get(text.lower())


def _joined(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
