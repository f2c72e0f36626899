"""Cron expressions and intervals: when a schedule ticks, as pure functions of a moment.

An expression has five fields, or six with seconds first, and an IANA time zone. cronsim reads the
fields and walks the wall clock; how wall clock and real time meet where a zone is shifted is said
here. The rule is Debian's. Minutes and hours that both name *fixed times* (neither begins with
`*`): a time the shift skips ticks right after the gap, one it repeats ticks the first time only.
*Intervals* (either begins with `*`) follow real time: they tick at every real minute whose wall
clock matches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from worchflow_core.durations import Duration, format_duration, parse_duration
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
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cron:
    """A checked expression; build it with `parse_cron`."""

    text: str
    zone: str = "UTC"


@dataclass(frozen=True, slots=True, kw_only=True)
class Every:
    """A checked interval, counted from 1970 in UTC so that all schedulers agree on its ticks."""

    span: timedelta

    @property
    def text(self) -> str:
        """The interval as text, such as "15m"."""
        return format_duration(self.span)


Rule = Cron | Every
"""When a schedule ticks."""


def parse_cron(text: str, zone: str = "UTC") -> Cron:
    """Return the rule that `text` describes.

    Args:
        text: five fields (minute hour day month weekday), six with seconds first, or an alias
            such as `@daily`.
        zone: an IANA time zone such as `Europe/Paris`.

    Raises:
        FunctionError: a field is wrong, the moment never comes (30 February), or no such zone.
    """
    from cronsim import CronSimError

    if not isinstance(text, str):
        raise FunctionError(f"cron is {text!r}; give text such as '0 9 * * 1-5'")
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError, TypeError, AttributeError):
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
        comes = next(_walls(" ".join(fields[-5:]), datetime(2000, 1, 1)), None)
    except CronSimError as error:
        raise FunctionError(f"cron is {text!r}: {str(error).lower()}") from None
    if comes is None:
        raise FunctionError(f"cron is {text!r}, a moment that never comes")
    return Cron(text=" ".join(fields), zone=zone)


def parse_every(value: Duration) -> Every:
    """Return the interval that `value` describes.

    Raises:
        FunctionError: it is no duration, or not a whole number of seconds above 0.
    """
    try:
        span = parse_duration(value, name="every")
    except ValueError as error:
        raise FunctionError(str(error)) from None
    if not span or span % _SECOND:
        raise FunctionError(f"every is {value!r}; give a whole number of seconds, such as '15m'")
    return Every(span=span)


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


# --- the ticks ------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def next_tick(rule: Rule, after: datetime) -> datetime | None:
    """Return the first tick later than `after`, in UTC; None where there is none in 50 years."""
    return next(ticks_after(rule, after), None)


def ticks_after(rule: Rule, after: datetime) -> Iterator[datetime]:
    """Yield the ticks later than `after`, in order, in UTC."""
    after = after.astimezone(UTC)
    if isinstance(rule, Every):
        tick = after - (after - _EPOCH) % rule.span
        while True:
            tick += rule.span
            yield tick
    minute_fields, seconds = _parts(rule)
    minute = after.replace(second=0, microsecond=0)
    for begin in _minutes_after(minute_fields, ZoneInfo(rule.zone), minute - _SECOND):
        for second in seconds:
            tick = begin + second * _SECOND
            if tick > after:
                yield tick


def ticks_until(rule: Rule, until: datetime) -> Iterator[datetime]:
    """Yield the ticks at `until` and before it, the latest first, in UTC."""
    until = until.astimezone(UTC).replace(microsecond=0)
    if isinstance(rule, Every):
        tick = until - (until - _EPOCH) % rule.span
        while tick >= _EPOCH:
            yield tick
            tick -= rule.span
        return
    minute_fields, seconds = _parts(rule)
    for begin in _minutes_until(minute_fields, ZoneInfo(rule.zone), until):
        for second in reversed(seconds):
            tick = begin + second * _SECOND
            if tick <= until:
                yield tick


def _parts(cron: Cron) -> tuple[str, tuple[int, ...]]:
    """Return the five fields, and the seconds of each minute they name."""
    fields = cron.text.split()
    seconds = parse_seconds(fields[0], cron.text) if len(fields) == 6 else (0,)
    return " ".join(fields[-5:]), seconds


def _is_fixed(fields: str) -> bool:
    minute, hour = fields.split()[:2]
    return not minute.startswith("*") and not hour.startswith("*")


def _minutes_after(fields: str, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
    if _is_fixed(fields):
        last = after
        for wall in _walls(fields, _wall(after, zone)):
            moment = _moment(wall, zone)
            if moment > last:  # several times of one gap tick once, right after it
                yield moment
                last = moment
        return
    offset, wall, here = _offset(after, zone), _wall(after, zone), after
    while (found := next(_walls(fields, wall), None)) is not None:
        moment = (found - offset).replace(tzinfo=UTC)
        turn = _first_turn(zone, here, moment)
        if turn is None:
            yield moment
            wall, here = found, moment
        else:
            offset, here = _offset(turn, zone), turn
            wall = _wall(turn, zone) - _SECOND


def _minutes_until(fields: str, zone: ZoneInfo, until: datetime) -> Iterator[datetime]:
    if _is_fixed(fields):
        # Between a repeated time's first and second coming, later walls have been already.
        before = max(_offset(until, zone), _offset(until - _DAY, zone))
        last = until + _SECOND
        for wall in _walls(fields, _naive(until) + before + _SECOND, is_reverse=True):
            moment = _moment(wall, zone)
            if moment < last:
                yield moment
                last = moment
        return
    offset, wall, here = _offset(until, zone), _wall(until, zone) + _SECOND, until
    while (found := next(_walls(fields, wall, is_reverse=True), None)) is not None:
        moment = (found - offset).replace(tzinfo=UTC)
        turn = _last_turn(zone, moment, here)
        if turn is None:
            yield moment
            wall, here = found, moment
        else:
            here = turn - _SECOND
            offset = _offset(here, zone)
            wall = _naive(turn) + offset


def _walls(fields: str, start: datetime, *, is_reverse: bool = False) -> Iterator[datetime]:
    """Yield the wall-clock minutes that match, later (or earlier) than `start`: no zone at all."""
    from cronsim import CronSim

    return iter(CronSim(fields, start.replace(microsecond=0), reverse=is_reverse))


# --- where wall clock and real time meet ----------------------------------------------------------


def _naive(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)


def _wall(moment: datetime, zone: ZoneInfo) -> datetime:
    return moment.astimezone(zone).replace(tzinfo=None)


def _offset(moment: datetime, zone: ZoneInfo) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta(0)


def _moment(wall: datetime, zone: ZoneInfo) -> datetime:
    """Return when a wall clock first shows this; for a skipped time, the end of the gap."""
    moment = wall.replace(tzinfo=zone).astimezone(UTC)
    if _wall(moment, zone) == wall:
        return moment
    early = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
    return _first_turn(zone, early, moment) or moment


def _first_turn(zone: ZoneInfo, start: datetime, end: datetime) -> datetime | None:
    """Return the first moment after `start`, up to `end`, at which the zone's offset changes."""
    while start < end:
        stop = min(start + _DAY, end)
        if _offset(start, zone) != _offset(stop, zone):
            return _turn(zone, start, stop)
        start = stop
    return None


def _last_turn(zone: ZoneInfo, start: datetime, end: datetime) -> datetime | None:
    """Return the last moment after `start`, up to `end`, at which the zone's offset changes."""
    while start < end:
        stop = max(end - _DAY, start)
        if _offset(stop, zone) != _offset(end, zone):
            return _turn(zone, stop, end)
        end = stop
    return None


def _turn(zone: ZoneInfo, before: datetime, after: datetime) -> datetime:
    """Return the first second whose offset differs from that of `before`, by halving."""
    offset = _offset(before, zone)
    while after - before > _SECOND:
        middle = before + (after - before) // 2
        middle = middle.replace(microsecond=0)
        if middle <= before:
            break
        if _offset(middle, zone) == offset:
            before = middle
        else:
            after = middle
    return after
