"""What a function says of when it runs by itself, and which of its ticks are due."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import islice, takewhile
from typing import TypeVar

from worchflow_core.cron import Cron, Rule, next_tick, parse_cron, parse_every, ticks_until
from worchflow_core.durations import Duration
from worchflow_core.errors import FunctionError
from worchflow_core.models import Payload

GRACE = timedelta(minutes=1)
"""A tick nobody came to for this long was missed; what is younger is on time."""

MOST = 100
"""How many ticks are fired at once, however many are due."""


class Overlap(StrEnum):
    """What to do at a tick while an earlier execution of the schedule has not ended."""

    ALLOW = "allow"
    SKIP = "skip"
    QUEUE = "queue"  # fire it when the earlier one has ended; at most one tick waits


class CatchUp(StrEnum):
    """Which of the ticks that were missed, because no scheduler ran, to fire afterwards."""

    LATEST = "latest"
    SKIP = "skip"
    ALL = "all"  # the newest hundred


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When a function runs by itself, and how; `@function` makes it.

    Attributes:
        rule: when it ticks.
        data: the event data of its executions, JSON text.
        overlap: what to do while an earlier execution has not ended.
        catch_up: which missed ticks to fire.
    """

    rule: Rule
    data: Payload | None = None
    overlap: Overlap = Overlap.ALLOW
    catch_up: CatchUp = CatchUp.LATEST

    @property
    def text(self) -> str:
        """The rule as people wrote it: "0 9 * * 1-5" or "every 15m"."""
        return self.rule.text if isinstance(self.rule, Cron) else f"every {self.rule.text}"

    @property
    def zone(self) -> str:
        """The time zone of the rule."""
        return self.rule.zone if isinstance(self.rule, Cron) else "UTC"


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """What is to be done about a schedule now.

    Attributes:
        ticks: to fire, oldest first.
        upto: the newest tick that has come; None when none has.
        dropped: whether ticks before `upto` are left out.
    """

    ticks: tuple[datetime, ...] = ()
    upto: datetime | None = None
    dropped: bool = False


def make_rule(cron: str | None, tz: str, every: Duration | None) -> Rule | None:
    """Return the rule that the options of `@function` describe; None without one.

    Raises:
        FunctionError: a wrong option, or one that does not go with another.
    """
    if cron is not None and every is not None:
        raise FunctionError("both cron and every are given; give one of them")
    if cron is not None:
        return parse_cron(cron, tz)
    if tz != "UTC":
        raise FunctionError(f"tz is {tz!r}, but there is no cron it could be of; take it out")
    return None if every is None else parse_every(every)


def due_ticks(rule: Rule, catch_up: CatchUp, last_tick: datetime, now: datetime) -> Due:
    """Return which ticks after `last_tick` are to be fired at `now`.

    While schedulers run, every tick is on time and is fired. Where the oldest is older than
    `GRACE`, nobody was there, and `catch_up` chooses.
    """
    first = next_tick(rule, last_tick)
    if first is None or first > now:
        return Due()
    missed = takewhile(lambda tick: tick > last_tick, ticks_until(rule, now))
    newest = list(islice(missed, MOST + 1))
    upto = newest[0]
    if first >= now - GRACE or catch_up is CatchUp.ALL:
        chosen = newest[:MOST]
    elif catch_up is CatchUp.LATEST or upto >= now - GRACE:
        chosen = [upto]
    else:
        chosen = []
    return Due(ticks=tuple(reversed(chosen)), upto=upto, dropped=len(newest) > len(chosen))


def next_ticks(rule: Rule, after: datetime, count: int) -> list[datetime]:
    """Return the next `count` ticks after a moment; fewer where fewer will come."""
    found: list[datetime] = []
    while len(found) < count and (tick := next_tick(rule, after)) is not None:
        found.append(tick)
        after = tick
    return found


def id_prefix(function_id: str) -> str:
    """Return what the ids of all executions of a schedule begin with."""
    prefix = f"cron:{function_id}:"
    if len(prefix) + len("2030-01-31T09:00:00Z") <= 128:
        return prefix
    return f"cron:{hashlib.sha256(function_id.encode()).hexdigest()}:"


def tick_id(function_id: str, tick: datetime) -> str:
    """Return the id of the execution of a tick: the same whoever fires it, and however often."""
    return f"{id_prefix(function_id)}{tick.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


WordT = TypeVar("WordT", bound=StrEnum)


def parse_word(kind: type[WordT], value: object, name: str) -> WordT:
    """Return the word of an option; raise `FunctionError` with those there are."""
    words: Sequence[str] = [word.value for word in kind]
    if not isinstance(value, str) or value not in words:
        raise FunctionError(f"{name} is {value!r}; give one of {', '.join(words)}")
    return kind(value)
