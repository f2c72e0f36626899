"""What the code of a function takes: an event, a step, and resources that a worker opens once."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

from worchflow_core.annotations import type_hints
from worchflow_core.codec import UNTYPED
from worchflow_core.errors import FunctionError
from worchflow_core.events import Event

V = TypeVar("V")

Opener = Callable[[], AbstractAsyncContextManager[Any] | AbstractContextManager[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class ResourceMarker:
    """Marks a parameter that a worker fills with something it opened once; see `Resource`."""

    open: Opener


def Resource(
    open: Callable[[], AbstractAsyncContextManager[V] | AbstractContextManager[V]],
) -> V:
    """Declare a parameter whose value is opened once per worker: a pool, a client.

    `async def pay(event, step, *, pool: Pool = Resource(open_pool))`. All functions that name the
    same opener share one value. It is opened when the worker starts and closed when it stops.

    Args:
        open: takes nothing, returns a context manager, async or plain.
    """
    return typing.cast(V, ResourceMarker(open))


def read_signature(code: Callable[..., Any], name: str) -> tuple[dict[str, Opener], Any, Any]:
    """Return the resources a function asks for, and the types of its event's data and its result.

    Raises:
        FunctionError: it does not take an event and a step; the message says what to write.
    """
    if inspect.isgeneratorfunction(code) or inspect.isasyncgenfunction(code):
        raise FunctionError(f"function {name!r} is a generator; use return instead of yield")
    parameters = list(inspect.signature(code).parameters.values())
    resources: dict[str, Opener] = {}
    plain = []
    for parameter in parameters:
        if isinstance(parameter.default, ResourceMarker):
            resources[parameter.name] = parameter.default.open
        elif parameter.default is inspect.Parameter.empty:
            plain.append(parameter)
    positional = [
        item
        for item in plain
        if item.kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    ]
    if len(positional) != 2 or len(plain) != 2:
        raise FunctionError(
            f"function {name!r} must take an event and a step: write def f(event, step), and give "
            "every further parameter a default or Resource(...)"
        )
    hints = type_hints(code)
    return resources, _event_type(hints.get(positional[0].name)), hints.get("return", UNTYPED)


def _event_type(hint: Any) -> Any:
    if typing.get_origin(hint) is Event:
        (data_type,) = typing.get_args(hint)
        return UNTYPED if isinstance(data_type, TypeVar) else data_type
    return UNTYPED
