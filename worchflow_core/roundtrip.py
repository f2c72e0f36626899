"""Finding the place in a value that JSON cannot carry, to name it in a message."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_json

Place = tuple[str, Any]
"""A path such as `.lines[2].price`, and what stands there."""


def difference(value: Any, loaded: Any, path: str = "") -> Place | None:
    """Return the first place where a value was changed by its round trip; None if nowhere.

    A tuple that became a list is no change. Objects that know no equality of their own are
    compared field by field.
    """
    if _same(value, loaded):
        return None
    if isinstance(value, dict) and isinstance(loaded, dict):
        return _dict_difference(value, loaded, path)
    pairs = _pairs(value, loaded)
    if pairs is None:
        return path, value
    for step, left, right in pairs:
        found = difference(left, right, path + step)
        if found is not None:
            return found
    return None


def unwritable(value: Any, *, typed: bool) -> Place:
    """Return the first place that cannot be written, as deep as it can be told.

    `typed` values may hold all that pydantic writes, others only plain JSON.
    """
    path = ""
    for _ in range(1000):  # a value that holds itself would go on for ever
        for step, item in _children(value):
            if not _is_writable(item, typed):
                path, value = path + step, item
                break
        else:
            return path, value
    raise RecursionError


def surrogate(value: Any) -> str | None:
    """Return the path of the first text that holds a lone surrogate; None if there is none."""
    found = _first(value, lambda item: isinstance(item, str) and _has_surrogate(item))
    return None if found is None else found[0]


def not_finite(value: Any) -> Place | None:
    """Return the first place that holds a float that is NaN or infinite; None if none does."""
    return _first(value, lambda item: isinstance(item, float) and not math.isfinite(item))


def _first(value: Any, test: Callable[[Any], bool], path: str = "") -> Place | None:
    if test(value):
        return path, value
    if isinstance(value, dict):
        for key in value:
            if test(key):
                return f"{path}.{key!a}", key
    for step, item in _children(value):
        found = _first(item, test, path + step)
        if found is not None:
            return found
    return None


def _dict_difference(value: dict[Any, Any], loaded: dict[Any, Any], path: str) -> Place | None:
    for key, left in value.items():
        if key not in loaded:
            return f"{path}.{key!r}", value
        found = difference(left, loaded[key], f"{path}.{key}")
        if found is not None:
            return found
    return None if len(value) == len(loaded) else (path, value)


def _pairs(value: Any, loaded: Any) -> Iterator[tuple[str, Any, Any]] | None:
    """Return the parts of two values side by side; None where they cannot be laid so."""
    if not (isinstance(value, (list, tuple)) and isinstance(loaded, (list, tuple))) and (
        type(value) is not type(loaded) or not _has_fields(value)
    ):
        return None
    left, right = list(_children(value)), list(_children(loaded))
    if [step for step, _ in left] != [step for step, _ in right]:
        return None
    return iter([(a[0], a[1], b[1]) for a, b in zip(left, right, strict=True)])


def _children(value: Any) -> Iterator[Place]:
    if isinstance(value, dict):
        yield from ((f".{key}", item) for key, item in value.items())
    elif isinstance(value, (list, tuple)):
        yield from ((f"[{index}]", item) for index, item in enumerate(value))
    elif isinstance(value, BaseModel):
        yield from ((f".{name}", getattr(value, name)) for name in type(value).model_fields)
    elif _has_fields(value):
        yield from (
            (f".{field.name}", getattr(value, field.name)) for field in dataclasses.fields(value)
        )


def _has_fields(value: Any) -> bool:
    return isinstance(value, BaseModel) or (
        dataclasses.is_dataclass(value) and not isinstance(value, type)
    )


def _is_writable(value: Any, typed: bool) -> bool:
    try:
        if typed:
            to_json(value)
        else:
            json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _same(value: Any, loaded: Any) -> bool:
    try:
        return bool(value == loaded)
    except Exception:  # a user's __eq__ may do anything
        return False


def _has_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
