"""Functions: workflow code with its options, declared by `@function`, gathered in a registry."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from worchflow_core.annotations import is_async
from worchflow_core.codec import Codec
from worchflow_core.cron import Cron, Rule
from worchflow_core.drift import OnChange
from worchflow_core.durations import Duration, parse_duration
from worchflow_core.errors import ConfigurationError, FunctionError, InvalidInput
from worchflow_core.events import Event
from worchflow_core.limits import (
    Batch,
    Debounce,
    FlowControl,
    Limit,
    Rate,
    Singleton,
    Unique,
    make_flow,
)
from worchflow_core.models import Payload
from worchflow_core.retries import RetryPolicy, make_retry_policy
from worchflow_core.schedules import CatchUp, Overlap, Schedule, make_rule, parse_word
from worchflow_core.signatures import Opener, read_signature
from worchflow_core.step import BlockingStep, Step
from worchflow_core.triggers import Trigger, parse_triggers
from worchflow_core.validation import check_function_id, check_tags

DataT = TypeVar("DataT")
ResultT = TypeVar("ResultT")
ResultT_co = TypeVar("ResultT_co", covariant=True)
DataT_contra = TypeVar("DataT_contra", contravariant=True)
P = ParamSpec("P")
V = TypeVar("V")

MAX_SCHEDULE_DATA = 65_536
"""How many bytes the event data of a schedule may take: it is read again and again."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Function(Generic[DataT_contra, ResultT_co]):
    """A durable function: its code, its id and its options. `@function` makes it.

    Calling it calls the code, so a test may pass an event and a fake step.

    Attributes:
        id: its name in the store; events of this name run it.
        code: what was decorated.
        retry: how often and how soon a failed attempt is repeated.
        timeout: how long after the first attempt began the execution fails for good.
        schedule: when it runs by itself, and how.
        on_failure, on_success: ids of functions to run when an execution has ended.
        priority: what its executions are sent with unless the send says otherwise.
        tags: what its executions are labelled with.
        on_change: what becomes of an execution whose stored step no longer fits the code.
        triggers: the events it subscribes to; each runs it in an execution of its own.
        flow: how many may run, start or be there at once; None where nothing limits it.
        data_codec, result_codec: how its event data and its result are written.
        resources: parameters to fill with what a worker opened.
        distribution, version: the installed package it came with, if any.
        origin: where it was found, for messages: a module or an entry point.
    """

    id: str
    code: Callable[..., Any]
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    timeout: timedelta | None = None
    schedule: Schedule | None = None
    on_failure: str | None = None
    on_success: str | None = None
    priority: int = 0
    tags: tuple[str, ...] = ()
    on_change: OnChange = OnChange.FAIL
    triggers: tuple[Trigger, ...] = ()
    flow: FlowControl | None = None
    data_codec: Codec
    result_codec: Codec
    resources: MappingProxyType[str, Opener]
    distribution: str | None = None
    version: str | None = None
    origin: str = ""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the code as it was written; nothing is stored."""
        return self.code(*args, **kwargs)

    @property
    def is_async(self) -> bool:
        """Whether the code is `async def`; plain code runs in a thread."""
        return is_async(self.code)

    @property
    def cron(self) -> Cron | None:
        """The cron expression of its schedule, where it has one."""
        rule = self.schedule.rule if self.schedule else None
        return rule if isinstance(rule, Cron) else None

    @property
    def code_version(self) -> str | None:
        """Distribution and version in one text; None for unpackaged functions."""
        return f"{self.distribution} {self.version}" if self.distribution else None

    @property
    def description(self) -> str:
        """The first paragraph of its docstring."""
        return (inspect.getdoc(self.code) or "").partition("\n\n")[0]

    @property
    def source(self) -> str:
        """The file and line it was written in, as far as known."""
        try:
            return f"{inspect.getsourcefile(self.code)}:{inspect.getsourcelines(self.code)[1]}"
        except (OSError, TypeError):
            return self.code.__module__


@overload
def function(
    code: Callable[Concatenate[Event[DataT], Step, P], Awaitable[ResultT]], /
) -> Function[DataT, ResultT]: ...


@overload
def function(
    code: Callable[Concatenate[Event[DataT], BlockingStep, P], ResultT], /
) -> Function[DataT, ResultT]: ...


@overload
def function(
    *,
    id: str | None = None,
    retries: int | None = None,
    retry_delay: Duration | None = None,
    timeout: Duration | None = None,
    cron: str | None = None,
    tz: str = "UTC",
    every: Duration | None = None,
    schedule_data: Any = None,
    overlap: Overlap | str = Overlap.ALLOW,
    catch_up: CatchUp | str = CatchUp.LATEST,
    on_failure: Function[Any, Any] | str | None = None,
    on_success: Function[Any, Any] | str | None = None,
    priority: int = 0,
    tags: Iterable[str] = (),
    on_change: OnChange | str = OnChange.FAIL,
    triggers: Iterable[Trigger | str] = (),
    concurrency: int | Limit | Sequence[Limit] | None = None,
    rate_limit: Rate | None = None,
    throttle: Rate | None = None,
    debounce: Debounce | Duration | None = None,
    batch: Batch | None = None,
    singleton: Singleton | str | None = None,
    unique: Unique | str | None = None,
) -> _Decorator: ...


def function(
    code: Callable[..., Any] | None = None,
    /,
    *,
    id: str | None = None,
    retries: int | None = None,
    retry_delay: Duration | None = None,
    timeout: Duration | None = None,
    cron: str | None = None,
    tz: str = "UTC",
    every: Duration | None = None,
    schedule_data: Any = None,
    overlap: Overlap | str = Overlap.ALLOW,
    catch_up: CatchUp | str = CatchUp.LATEST,
    on_failure: Function[Any, Any] | str | None = None,
    on_success: Function[Any, Any] | str | None = None,
    priority: int = 0,
    tags: Iterable[str] = (),
    on_change: OnChange | str = OnChange.FAIL,
    triggers: Iterable[Trigger | str] = (),
    concurrency: int | Limit | Sequence[Limit] | None = None,
    rate_limit: Rate | None = None,
    throttle: Rate | None = None,
    debounce: Debounce | Duration | None = None,
    batch: Batch | None = None,
    singleton: Singleton | str | None = None,
    unique: Unique | str | None = None,
) -> Any:
    """Make a durable function of `async def f(event, step)` or `def f(event, step)`.

    Args:
        code: the function, when used without parentheses.
        id: its name in the store; its own name with dashes if left out.
        retries: failed attempts to survive, 3 by default; 0 means the first error is final.
        retry_delay: the first wait, one second by default, doubled after each failure with
            jitter; 0 retries at once.
        timeout: fail for good this long after the first attempt began.
        cron: run by itself: five fields, or six with seconds first.
        tz: the IANA time zone of `cron`.
        every: run by itself at this interval, counted from 1970 in UTC: "15m".
        schedule_data: the event data of the executions that a schedule creates.
        overlap: what to do at a tick while an earlier execution of the schedule has not ended:
            `allow` both, `skip` the tick, or `queue` it until then.
        catch_up: which ticks to fire that were missed while no scheduler ran: the `latest`, none
            (`skip`), or `all`, at most the newest hundred.
        on_failure: a function to run, as an execution of its own, when one has failed for good;
            its event data is `{"execution": {...}}`.
        on_success: the same for one that completed.
        priority: higher is claimed first, -100 to 100.
        tags: labels for each of its executions.
        on_change: what to do where a stored step no longer fits this code: `fail` for good,
            `warn` and run the step anew, or `adopt` what is stored as it is.
        triggers: names of events that run it as well, beside a send to its id: `"order/*"`, where
            `*` stands for any characters, or `Trigger("order/paid", match={"region": "eu"})`.
        concurrency: at most so many run at once, on all workers together; see `Limit`.
        rate_limit: what comes faster than this `Rate` is cancelled.
        throttle: what comes faster than this `Rate` starts later.
        debounce: of a burst only the last runs; see `Debounce`.
        batch: one execution for many events; see `Batch`.
        singleton: one at a time from start to end; see `Singleton`.
        unique: an event with the same key runs only once; see `Unique`.

    Raises:
        FunctionError: an option or the signature is wrong; the message says what to write.
    """
    if code is not None and not callable(code):
        raise FunctionError(f"@function takes options by name; write @function(id={code!r})")

    def decorate(target: Callable[..., Any]) -> Function[Any, Any]:
        name = id if id is not None else getattr(target, "__name__", "").replace("_", "-")
        try:
            resources, data_type, result_type = read_signature(target, name)
            if isinstance(priority, bool) or priority not in range(-100, 101):
                raise ValueError(f"priority is {priority!r}; give a whole number, -100 to 100")
            span = None if timeout is None else parse_duration(timeout, name="timeout")
            if span is not None and not span:
                raise ValueError("timeout is 0; give a span above 0, or leave it out")
            data_codec = Codec(data_type, f"event data of {name}")
            schedule = _schedule(
                make_rule(cron, tz, every), data_codec, schedule_data, overlap, catch_up
            )
            return Function(
                id=check_function_id(name),
                code=target,
                retry=make_retry_policy(retries, retry_delay),
                timeout=span,
                schedule=schedule,
                on_failure=_handler_id(on_failure, "on_failure"),
                on_success=_handler_id(on_success, "on_success"),
                priority=priority,
                tags=check_tags(tags),
                on_change=parse_word(OnChange, on_change, "on_change"),
                triggers=parse_triggers(triggers),
                flow=make_flow(
                    concurrency, rate_limit, throttle, debounce, batch, singleton, unique
                ),
                data_codec=data_codec,
                result_codec=Codec(result_type, f"result of {name}"),
                resources=MappingProxyType(resources),
                origin=target.__module__,
            )
        except (InvalidInput, ValueError) as error:
            if isinstance(error, ConfigurationError) and str(error).startswith("function "):
                raise
            raise FunctionError(f"function {name!r}: {error}") from None

    return decorate if code is None else decorate(code)


class _Decorator(typing.Protocol):
    @overload
    def __call__(
        self, code: Callable[Concatenate[Event[DataT], Step, P], Awaitable[ResultT]], /
    ) -> Function[DataT, ResultT]: ...

    @overload
    def __call__(
        self, code: Callable[Concatenate[Event[DataT], BlockingStep, P], ResultT], /
    ) -> Function[DataT, ResultT]: ...


class Registry:
    """The functions a process has, by id; two of one id are refused."""

    def __init__(self, functions: Iterable[Function[Any, Any]] = ()) -> None:
        self._functions: dict[str, Function[Any, Any]] = {}
        for item in functions:
            self.add(item)

    def add(self, function: Function[Any, Any]) -> None:
        """Add a function; the very same one twice is fine.

        Raises:
            FunctionError: another function has this id; the message names both origins.
        """
        known = self._functions.get(function.id)
        if known is not None and known.code is not function.code:
            raise FunctionError(
                f"two functions have the id {function.id!r}: one from {_origin(known)}, one from "
                f"{_origin(function)}; rename one with @function(id=...) or uninstall it"
            )
        if known is None or known.distribution is None:
            self._functions[function.id] = function

    def get(self, function_id: str) -> Function[Any, Any] | None:
        """Return the function with this id, or None."""
        return self._functions.get(function_id)

    def only(self, ids: Iterable[str]) -> Registry:
        """Return a registry of just these functions.

        Raises:
            FunctionError: one of them is not here; the message lists what is.
        """
        wanted = list(ids)
        missing = [name for name in wanted if name not in self._functions]
        if missing:
            known = ", ".join(sorted(self._functions)) or "none"
            raise FunctionError(f"no function {missing[0]!r}; there are: {known}")
        return Registry(self._functions[name] for name in wanted)

    @property
    def has_flow(self) -> bool:
        """Whether flow control concerns any of them."""
        return any(item.flow is not None for item in self._functions.values())

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of all functions, sorted."""
        return tuple(sorted(self._functions))

    def __iter__(self) -> Iterator[Function[Any, Any]]:
        return iter([self._functions[name] for name in self.ids])

    def __len__(self) -> int:
        return len(self._functions)


def stamped(
    function: Function[Any, Any],
    *,
    origin: str,
    distribution: str | None = None,
    version: str | None = None,
) -> Function[Any, Any]:
    """Return the function with the place it was found written on it."""
    return replace(function, origin=origin, distribution=distribution, version=version)


def _schedule(
    rule: Rule | None, codec: Codec, data: Any, overlap: Overlap | str, catch_up: CatchUp | str
) -> Schedule | None:
    overlapping = parse_word(Overlap, overlap, "overlap")
    catching_up = parse_word(CatchUp, catch_up, "catch_up")
    if rule is None:
        return None
    payload = _schedule_data(codec, data)
    return Schedule(rule=rule, data=payload, overlap=overlapping, catch_up=catching_up)


def _schedule_data(codec: Codec, value: Any) -> Payload:
    try:
        return codec.encode(codec.coerce(value), limit=MAX_SCHEDULE_DATA)[0]
    except InvalidInput as error:
        raise FunctionError(
            f"schedule_data is {value!r}, which it does not take: {error}"
        ) from None


def _handler_id(handler: Function[Any, Any] | str | None, option: str) -> str | None:
    if handler is None:
        return None
    if isinstance(handler, Function):
        return handler.id
    if not isinstance(handler, str):
        raise FunctionError(f"{option} is {handler!r}; give a function or its id")
    return check_function_id(handler)


def _origin(function: Function[Any, Any]) -> str:
    package = f" ({function.code_version})" if function.code_version else ""
    return f"{function.origin or function.code.__module__}{package}"
