"""What a client sends: an event with its options, checked and turned into an execution."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import uuid4

from worchflow_core.clock import from_millis, to_millis
from worchflow_core.codec import UNTYPED, Codec, hash_input
from worchflow_core.durations import Duration, parse_duration
from worchflow_core.errors import InvalidInput
from worchflow_core.functions import Function, Registry
from worchflow_core.models import Execution
from worchflow_core.validation import check_execution_id, check_function_id, check_tags

HandleT = TypeVar("HandleT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """One event for `send_many`; the fields are the arguments of `Client.send`."""

    function: Function[Any, Any] | str
    data: Any = None
    id: str | None = None
    delay: Duration | None = None
    at: datetime | None = None
    tags: Iterable[str] = ()
    priority: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SentEvent(Generic[HandleT]):
    """An event that was sent.

    Attributes:
        id: its id; sending again with it delivers nothing twice.
        name: what it was sent as.
        executions: one for each function that subscribed when it was first sent, by function;
            empty where none did.
    """

    id: str
    name: str
    executions: tuple[HandleT, ...] = ()


def prepare(
    event: Send, registry: Registry, *, now: datetime, has_hint: bool, max_payload: int
) -> tuple[Execution, Codec | None]:
    """Return the execution that an event becomes, and how to read its result, if known.

    Raises:
        InvalidInput: something given cannot be taken; the message names it and the remedy.
    """
    function: Function[Any, Any] | None
    if isinstance(event.function, Function):
        function, name = event.function, event.function.id
    else:
        name = check_function_id(event.function)
        function = registry.get(name)
    codec = function.data_codec if function else Codec(UNTYPED, f"event data of {name}")
    payload, _ = codec.encode(codec.coerce(event.data), limit=max_payload)
    due = _due(event, now)
    priority = event.priority if event.priority is not None else 0
    if event.priority is None and function is not None:
        priority = function.priority
    if isinstance(priority, bool) or priority not in range(-100, 101):
        raise InvalidInput(f"priority is {priority!r}; give a whole number, -100 to 100")
    is_due = due <= now
    execution = Execution(
        id=str(uuid4()) if event.id is None else check_execution_id(event.id),
        function=name,
        data=payload,
        created_at=now,
        updated_at=now,
        due_at=due,
        hint_at=None if is_due or not has_hint else due,
        hinted_at=now if is_due and has_hint else None,
        retries=function.retry.retries if function else None,
        input_hash=hash_input(name, payload),
        priority=priority,
        tags=check_tags([*(function.tags if function else ()), *_texts(event.tags)]),
        headers=check_headers(event.headers),
    )
    return execution, function.result_codec if function else None


def _due(event: Send, now: datetime) -> datetime:
    if event.delay is not None and event.at is not None:
        raise InvalidInput("both delay and at are given; give one of them")
    try:
        if event.delay is not None:
            return now + parse_duration(event.delay, name="delay")
        if event.at is None:
            return now
        if not isinstance(event.at, datetime) or event.at.tzinfo is None:
            raise ValueError(
                f"at is {event.at!r}, which has no time zone; give an aware datetime, such as "
                "datetime.now(UTC) + timedelta(hours=1)"
            )
    except (ValueError, OverflowError) as error:
        raise InvalidInput(str(error)) from None
    moment = from_millis(to_millis(event.at))
    return moment if moment > now else now


def _texts(tags: Iterable[str]) -> Iterable[str]:
    if isinstance(tags, str):
        raise InvalidInput(f"tags is the text {tags!r}; give a list of texts")
    return tags


def check_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return a copy of headers; raise `InvalidInput` where they are no short texts."""
    if not isinstance(headers, Mapping):
        raise InvalidInput(f"headers is of type {type(headers).__name__}; give a mapping of texts")
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str) or len(name) > 128:
            raise InvalidInput(f"header {name!r} must be short text with a text value")
    if sum(len(name) + len(value) for name, value in headers.items()) > 8192:
        raise InvalidInput("headers take more than 8,192 characters; pass large facts as data")
    return dict(headers)
