"""Cron expressions: five fields, or six with seconds first, in an IANA time zone.

The daylight-saving rule is cronsim's (Debian's): a fixed time that a shift skips runs just after
it, one that a shift repeats runs once; intervals follow real time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from worchflow_core.errors import FunctionError

_ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cron:
    """A checked schedule; build it with `parse_cron`."""

    text: str
    zone: str = "UTC"


def parse_cron(text: str, zone: str = "UTC") -> Cron:
    """Return the schedule that `text` describes.

    Args:
        text: five fields (minute hour day month weekday), six with seconds first, or an alias
            such as `@daily`.
        zone: an IANA time zone such as `Europe/Paris`.

    Raises:
        FunctionError: a field is wrong, the moment never comes (30 February), or no such zone.
    """
    from cronsim import CronSim, CronSimError

    if not isinstance(text, str):
        raise FunctionError(f"cron is {text!r}; give text such as '0 9 * * 1-5'")
    try:
        place = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError, TypeError):
        raise FunctionError(
            f"tz is {zone!r}, which is no time zone; give an IANA name such as 'Europe/Paris'"
        ) from None
    fields = _ALIASES.get(text.strip().lower(), text).split()
    if len(fields) not in (5, 6):
        raise FunctionError(
            f"cron is {text!r}, which has {len(fields)} fields; "
            "give five, or six with seconds first"
        )
    if len(fields) == 6:
        parse_seconds(fields[0], text)
    try:
        next(iter(CronSim(" ".join(fields[-5:]), datetime.now(UTC).astimezone(place))))
    except CronSimError as error:
        raise FunctionError(f"cron is {text!r}: {str(error).lower()}") from None
    except StopIteration:
        raise FunctionError(f"cron is {text!r}, a moment that never comes") from None
    return Cron(text=" ".join(fields), zone=zone)


def parse_seconds(field: str, text: str) -> tuple[int, ...]:
    """Return the seconds that the first of six fields names, sorted.

    Raises:
        FunctionError: it is no list of numbers, ranges and steps from 0 to 59.
    """
    chosen: set[int] = set()
    for part in field.split(","):
        span, _, step_text = part.partition("/")
        low, dash, high = span.partition("-")
        try:
            step = int(step_text) if step_text else 1
            first = 0 if span == "*" else int(low)
            last = 59 if span == "*" or (step_text and not dash) else int(high or low)
        except ValueError:
            first, last, step = -1, -1, 0
        if not (0 <= first <= last <= 59 and step > 0):
            raise FunctionError(f"cron is {text!r}: bad seconds {part!r}; give 0 to 59")
        chosen.update(range(first, last + 1, step))
    return tuple(sorted(chosen))
