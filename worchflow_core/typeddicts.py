"""TypedDicts of the standard library, as pydantic takes them.

Before Python 3.12 pydantic refuses `typing.TypedDict` and wants that of `typing_extensions`. Users
write the former, so the types they declare are rebuilt as the latter.
"""

from __future__ import annotations

import functools
import operator
import sys
import types
import typing
from typing import Annotated, Any, Union, get_args, get_origin

import typing_extensions


def modern(declared: Any) -> Any:
    """Return the declared type with every `typing.TypedDict` in it rebuilt; else as it is."""
    if sys.version_info >= (3, 12):
        return declared
    return _rebuilt(declared, {})


def _rebuilt(declared: Any, known: dict[Any, Any]) -> Any:
    if _is_typed_dict(declared):
        return _rebuilt_dict(declared, known)
    origin, arguments = get_origin(declared), get_args(declared)
    if not arguments or origin is typing.Literal:
        return declared
    parts = tuple(_rebuilt(item, known) for item in arguments)
    if all(new is old for new, old in zip(parts, arguments, strict=True)):
        return declared
    if origin in (Union, types.UnionType):
        return functools.reduce(operator.or_, parts)
    if origin is Annotated:
        return Annotated[parts]
    return origin[parts]


def _rebuilt_dict(declared: Any, known: dict[Any, Any]) -> Any:
    if declared in known:
        raise TypeError(f"{declared.__name__} refers to itself")
    known[declared] = None
    fields: dict[str, Any] = {}
    for name, hint in typing.get_type_hints(declared, include_extras=True).items():
        bare = get_args(hint)[0] if get_origin(hint) in _MARKS else hint
        part = _rebuilt(bare, known)
        needed = name in declared.__required_keys__
        fields[name] = typing.Required[part] if needed else typing.NotRequired[part]
    del known[declared]
    rebuilt = typing_extensions.TypedDict(declared.__name__, fields)  # type: ignore[misc]
    rebuilt.__module__, rebuilt.__doc__ = declared.__module__, declared.__doc__
    return rebuilt


def _is_typed_dict(declared: Any) -> bool:
    return typing.is_typeddict(declared) and type(declared).__module__ == "typing"


_MARKS = (typing.Required, typing.NotRequired)
