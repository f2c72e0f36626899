"""How facts are put before people: safe text, spans and ages they can read, short ids."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb"
    "\ud800-\udfff]"
)
_RANDOM = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))


def printable(text: object, limit: int | None = None) -> str:
    """Return text on one line that cannot steer a terminal or fake a second line.

    Line breaks and tabs become spaces, other control, direction and surrogate characters their
    escapes. The result is cut to `limit` characters.
    """
    safe = _UNSAFE.sub(_visible, re.sub(r"\s*[\t\n\r\v\f\x85\u2028\u2029]+\s*", " ", str(text)))
    safe = safe.strip()
    return safe if limit is None or len(safe) <= limit else safe[: max(limit - 1, 0)] + "…"


def printable_lines(text: str) -> list[str]:
    """Return text as lines that are each safe to print; indents stay."""
    lines = text.replace("\t", "    ").replace("\r\n", "\n").split("\n")
    return [_UNSAFE.sub(_visible, line).rstrip() for line in lines]


def short_id(execution_id: str) -> str:
    """Return the first eight characters of an id, as lists and logs show it.

    Those of a schedule's executions begin alike, and stay whole.
    """
    text = printable(execution_id)
    return text if text.startswith("cron:") else text[:8]


def telling_id(execution_id: str) -> str:
    """Return an id as a command can be given it: the ids that people choose often begin alike."""
    text = printable(execution_id)
    return text[:8] if _RANDOM.fullmatch(text) else text


def human_duration(span: timedelta) -> str:
    """Return a span as people say it: `218 ms`, `3.3 s`, `2m 5s`, `3h 20m`, `4d 2h`."""
    seconds = max(span.total_seconds(), 0.0)
    if seconds < 0.9995:
        return f"{round(seconds * 1000)} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    left = round(seconds)
    for index, (size, unit) in enumerate(_UNITS[:-1]):
        if left >= size:
            small, small_unit = _UNITS[index + 1]
            rest = left % size // small
            return f"{left // size}{unit} {rest}{small_unit}" if rest else f"{left // size}{unit}"
    return f"{left}s"


def human_age(moment: datetime, now: datetime) -> str:
    """Return how long ago a moment was, or how soon it will be: `3m ago`, `in 2d 23h`.

    What is to come is told in two units: people wait for it.
    """
    seconds = (now - moment).total_seconds()
    left = round(abs(seconds))
    if seconds < 0 and left >= 60:
        return f"in {human_duration(timedelta(seconds=left))}"
    for size, unit in _UNITS:
        if left >= size:
            return f"{left // size}{unit} ago" if seconds > 0 else f"in {left // size}{unit}"
    return "now"


def _visible(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
