"""What code declares of its types: annotations as types, wherever they were written."""

from __future__ import annotations

import contextlib
import inspect
import re
import typing
from collections import abc
from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from worchflow_core.codec import UNTYPED
from worchflow_core.errors import FunctionError

_declared: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


_UNKNOWN: Any = object()


def is_async(code: Callable[..., Any]) -> bool:
    """Return whether calling `code` gives a coroutine; `inspect` asks the same at five times."""
    written = getattr(code, "__code__", None)
    flags = getattr(written, "co_flags", 0)
    return bool(flags & inspect.CO_COROUTINE) or inspect.iscoroutinefunction(code)


def declared_result(code: Callable[..., Any]) -> Any:
    """Return the type that a step's code declares to return, or `UNTYPED`."""
    if type(code) is FunctionType and (known := _declared.get(code, _UNKNOWN)) is not _UNKNOWN:
        return known
    target = inspect.unwrap(getattr(code, "func", code))
    if not inspect.isroutine(target):
        target = getattr(type(target), "__call__", target)  # noqa: B004 - its annotations are wanted
    if isinstance(target, type) or not getattr(target, "__annotations__", None):
        return UNTYPED
    try:
        return _declared[target]
    except (KeyError, TypeError):
        hint = type_hints(target).get("return", UNTYPED)
    if typing.get_origin(hint) in (abc.Awaitable, abc.Coroutine):  # it is awaited before it is kept
        hint = typing.get_args(hint)[-1]
    declared = UNTYPED if isinstance(hint, TypeVar) else hint
    with contextlib.suppress(TypeError):  # not every callable can be referred to weakly
        _declared[target] = declared
    return declared


def type_hints(code: Callable[..., Any]) -> dict[str, Any]:
    """Return a callable's annotations as types; what cannot be resolved counts as undeclared."""
    try:
        return typing.get_type_hints(code, include_extras=True)
    except Exception:  # names under TYPE_CHECKING, or local to a function
        return _resolvable_hints(code)


def _resolvable_hints(code: Callable[..., Any]) -> dict[str, Any]:
    closure = inspect.getclosurevars(code).nonlocals if inspect.isfunction(code) else {}
    scope = {**getattr(code, "__globals__", {}), **closure}
    hints: dict[str, Any] = {}
    for name, hint in getattr(code, "__annotations__", {}).items():
        holder = type("holder", (), {"__annotations__": {name: hint}})
        try:
            hints.update(typing.get_type_hints(holder, scope, include_extras=True))
        except Exception as error:
            if re.search(r"\bEvent\b", str(hint)) or name == "return":
                raise FunctionError(
                    f"the annotation {hint!r} of {name!r} cannot be resolved ({error}); import or "
                    "define the type at the top of the module, not under TYPE_CHECKING"
                ) from None
    return hints
