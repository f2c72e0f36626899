"""Flow control: how many executions of a function may run, start, or be there at once.

The options of `@function`, as a user writes them. What they mean is decided in `lines.py`,
`rates.py` and `gatherings.py`, and carried out by `admission.py` when an execution is claimed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any, TypeVar

from worchflow_core.durations import Duration, format_duration, parse_duration
from worchflow_core.errors import FunctionError
from worchflow_core.matching import field_of
from worchflow_core.models import Execution, Payload

MOST_AT_ONCE = 10_000
"""How many executions of one key a `Limit` may let run: all of them stand in one record."""

MOST_IN_A_PERIOD = 1_000
"""How many starts a `Rate` may count: all of them stand in one record."""

MOST_IN_A_BATCH = 1_000
"""How many events one execution may take together."""

_KEY = re.compile(r"data(\.[^.\s]+)*")
_DIGEST_LENGTH = 24
_TURN_LENGTH = 4


class WhenTaken(StrEnum):
    """What a `Singleton` does with a new execution while an earlier one has not ended."""

    SKIP = "skip"  # the new one is cancelled
    CANCEL = "cancel"  # the earlier one is cancelled, the new one follows it
    QUEUE = "queue"  # the new one waits


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `count` executions run at once, for each value of `key`; others wait their turn.

    One that sleeps or waits for an event runs no more, and lets another have its place.

    Args:
        count: how many, 1 to 10,000.
        key: a field of the event's data, such as "data.tenant": each value has its own places.
        fair_by: a field by whose values those who wait take turns, so that a tenant with a
            thousand executions does not keep one with two waiting.
    """

    count: int
    key: str | None = field(default=None, kw_only=True)
    fair_by: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        """Check what was given."""
        _check_count("Limit", self.count, MOST_AT_ONCE)
        _check_key("Limit key", self.key)
        _check_key("Limit fair_by", self.fair_by)


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` executions start in any span of length `per`, for each value of `key`.

    Args:
        count: how many, 1 to 1,000. `Rate(1, "100ms")` spreads starts evenly.
        per: how long the span is: "1m", seconds, or a timedelta.
        key: a field of the event's data: each value is counted by itself.
    """

    count: int
    per: Duration
    key: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        """Check what was given."""
        _check_count("Rate", self.count, MOST_IN_A_PERIOD)
        _span("Rate per", self.per)
        _check_key("Rate key", self.key)

    @property
    def span(self) -> timedelta:
        """How long the span is."""
        return _span("Rate per", self.per)

    @property
    def text(self) -> str:
        """How long the span is, for people."""
        return format_duration(self.span)


@dataclass(frozen=True, slots=True)
class Debounce:
    """Run once for a burst of events, with the last of them, when none came for `wait`.

    The executions of the earlier ones are cancelled.

    Args:
        wait: how long no further event must have come.
        max_wait: how long the first of a burst is put off at the most.
        key: a field of the event's data: each value has bursts of its own.
    """

    wait: Duration
    max_wait: Duration | None = field(default=None, kw_only=True)
    key: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        """Check what was given."""
        wait = _span("Debounce wait", self.wait)
        _check_key("Debounce key", self.key)
        if self.max_wait is not None and _span("Debounce max_wait", self.max_wait) < wait:
            raise FunctionError(
                f"Debounce max_wait is {self.max_wait!r}, less than wait, {self.wait!r}; give more"
            )

    @property
    def quiet(self) -> timedelta:
        """How long no further event must have come."""
        return _span("Debounce wait", self.wait)

    @property
    def text(self) -> str:
        """How long no further event must have come, for people."""
        return format_duration(self.quiet)

    @property
    def longest(self) -> timedelta | None:
        """How long the first of a burst is put off at the most."""
        return None if self.max_wait is None else _span("Debounce max_wait", self.max_wait)


@dataclass(frozen=True, slots=True)
class Batch:
    """Run once for many events: `event.batch` holds them all, and each gets the one result.

    Args:
        size: run as soon as there are so many, 2 to 1,000.
        wait: run at the latest so long after the first of them was sent.
        key: a field of the event's data: each value has batches of its own.
    """

    size: int
    wait: Duration
    key: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        """Check what was given."""
        _check_count("Batch", self.size, MOST_IN_A_BATCH, least=2)
        _span("Batch wait", self.wait)
        _check_key("Batch key", self.key)

    @property
    def longest(self) -> timedelta:
        """How long the first event of a batch waits at the most."""
        return _span("Batch wait", self.wait)


@dataclass(frozen=True, slots=True)
class Singleton:
    """At most one execution is under way, from its start to its end, for each value of `key`.

    Args:
        when_taken: what to do with a new one meanwhile: `skip` it, `cancel` the earlier, or
            `queue` the new one behind it.
        key: a field of the event's data: each value has one of its own.
    """

    when_taken: WhenTaken | str = WhenTaken.QUEUE
    key: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        """Check what was given."""
        if self.when_taken not in list(WhenTaken):
            raise FunctionError(
                f"Singleton when_taken is {self.when_taken!r}; give one of {', '.join(WhenTaken)}"
            )
        _check_key("Singleton key", self.key)


@dataclass(frozen=True, slots=True)
class Unique:
    """Take an event only once: further ones with this value of `key` are cancelled at once.

    Args:
        key: a field of the event's data, "data" for all of it.
        window: for how long after the first was sent; until it has ended if left out.
    """

    key: str = "data"
    window: Duration | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        """Check what was given."""
        _check_key("Unique key", self.key)
        if self.window is not None:
            _span("Unique window", self.window)

    @property
    def span(self) -> timedelta | None:
        """For how long; None until the first has ended."""
        return None if self.window is None else _span("Unique window", self.window)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowControl:
    """What a function asks of flow control; `@function` makes it."""

    concurrency: tuple[Limit, ...] = ()
    rate_limit: Rate | None = None
    throttle: Rate | None = None
    debounce: Debounce | None = None
    batch: Batch | None = None
    singleton: Singleton | None = None
    unique: Unique | None = None


def make_flow(
    concurrency: int | Limit | Sequence[Limit] | None,
    rate_limit: Rate | None,
    throttle: Rate | None,
    debounce: Debounce | Duration | None,
    batch: Batch | None,
    singleton: Singleton | str | None,
    unique: Unique | str | None,
) -> FlowControl | None:
    """Return what the options of `@function` ask for; None where they ask for nothing.

    Raises:
        FunctionError: an option is of another kind; the message says what to write.
    """
    if isinstance(concurrency, int):
        concurrency = Limit(concurrency)
    if concurrency is None:
        concurrency = ()
    limits = concurrency if isinstance(concurrency, (list, tuple)) else (concurrency,)
    if isinstance(debounce, (int, float, str, timedelta)):
        debounce = Debounce(debounce)
    if isinstance(singleton, str):
        singleton = Singleton(singleton)
    if isinstance(unique, str):
        unique = Unique(unique)
    flow = FlowControl(
        concurrency=_narrow_first(
            [item for item in limits if _checked("concurrency", item, Limit, "Limit(10)")]
        ),
        rate_limit=_checked("rate_limit", rate_limit, Rate, 'Rate(10, "1m")'),
        throttle=_checked("throttle", throttle, Rate, 'Rate(10, "1m")'),
        debounce=_checked("debounce", debounce, Debounce, 'Debounce("10s")'),
        batch=_checked("batch", batch, Batch, 'Batch(100, "5s")'),
        singleton=_checked("singleton", singleton, Singleton, 'Singleton("skip")'),
        unique=_checked("unique", unique, Unique, 'Unique("data.order")'),
    )
    if flow.batch is not None and (flow.debounce or flow.unique):
        raise FunctionError(
            "batch keeps every event, debounce and unique drop some; give one or the other"
        )
    return None if flow == FlowControl() else flow


def described(flow: FlowControl | None) -> tuple[str, ...]:
    """Return what a function asks of flow control, a sentence's worth for each option."""
    if flow is None:
        return ()
    texts = [
        f"at most {limit.count:,} at once{_each(limit.key)}"
        + (f", {limit.fair_by} taking turns" if limit.fair_by else "")
        for limit in flow.concurrency
    ]
    if flow.singleton is not None:
        texts.append(f"one under way at a time{_each(flow.singleton.key)}, else {_taken(flow)}")
    if flow.rate_limit is not None:
        rate = flow.rate_limit
        texts.append(f"{rate.count:,} in {rate.text}{_each(rate.key)}, more are turned away")
    if flow.throttle is not None:
        rate = flow.throttle
        texts.append(f"{rate.count:,} in {rate.text}{_each(rate.key)}, more start later")
    if flow.debounce is not None:
        burst = f"the last of a burst{_each(flow.debounce.key)}"
        texts.append(f"{burst}, when none came for {flow.debounce.text}")
    if flow.batch is not None:
        wait = format_duration(flow.batch.longest)
        texts.append(f"{flow.batch.size:,} together, within {wait}{_each(flow.batch.key)}")
    if flow.unique is not None:
        span = flow.unique.span
        until = "until it ends" if span is None else f"for {format_duration(span)}"
        texts.append(f"each {flow.unique.key} once {until}")
    return tuple(texts)


def _each(key: str | None) -> str:
    return f" for each {key}" if key else ""


def _taken(flow: FlowControl) -> str:
    assert flow.singleton is not None
    return {
        WhenTaken.SKIP: "the new one is skipped",
        WhenTaken.CANCEL: "the new one replaces it",
        WhenTaken.QUEUE: "the new one waits",
    }[WhenTaken(flow.singleton.when_taken)]


def value_of(path: str | None, data: Payload | None) -> Any:
    """Return the value that a key such as "data.tenant" names in an event's data; None without.

    None as well for data that is no JSON, which a foreign client may write: its execution fails by
    itself, once it runs.
    """
    if path is None or data is None:
        return None
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    inner = path.partition(".")[2]
    return field_of(value, inner) if inner else value


def digest_of(value: Any) -> str:
    """Return a short text that is equal for equal values of a key, and empty for None."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # as JSON has it, 1 and 1.0 are one number
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_LENGTH]


def key_of(execution: Execution, what: str, path: str | None) -> str:
    """Return the key of a limit: which function, which limit, and for which value."""
    return f"{execution.function}|{what}|{digest_of(value_of(path, execution.data))}"


def turn_of(path: str | None, data: Payload | None) -> str:
    """Return a text for whose turn it is; short, for all who wait in a line are told apart by it.

    Of a few hundred values hardly two share a turn; of any number, no line gets too long.
    """
    return digest_of(value_of(path, data))[:_TURN_LENGTH]


T = TypeVar("T")


def _narrow_first(limits: Sequence[Limit]) -> tuple[Limit, ...]:
    """Return limits in the order in which their places are taken.

    Who waits under a later one keeps its place under an earlier: it must be in nobody else's way.
    """
    return tuple(sorted(limits, key=lambda limit: limit.key is None))


def _checked(name: str, value: T | None, kind: type[T], example: str) -> T | None:
    if value is not None and not isinstance(value, kind):
        raise FunctionError(f"{name} is {value!r}; give {kind.__name__}, such as {example}")
    return value


def _check_count(what: str, count: object, most: int, *, least: int = 1) -> None:
    if not isinstance(count, int) or isinstance(count, bool) or not least <= count <= most:
        raise FunctionError(f"{what} of {count!r}; give a whole number, {least} to {most:,}")


def _check_key(what: str, key: object) -> None:
    if key is not None and not (isinstance(key, str) and _KEY.fullmatch(key)):
        raise FunctionError(f'{what} is {key!r}; give a field of the event, such as "data.tenant"')


def _span(what: str, value: Duration) -> timedelta:
    try:
        span = parse_duration(value, name=what)
    except ValueError as error:
        raise FunctionError(str(error)) from None
    if not span:
        raise FunctionError(f"{what} is {value!r}; give a span above 0")
    return span
