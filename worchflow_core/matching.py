"""Matching: whether an event's data has the fields that somebody who waits or subscribes names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from worchflow_core.errors import InvalidInput


def fits(match: Mapping[str, Any], data: Any) -> bool:
    """Return whether an event's data has all these fields with equal values."""
    return all(field_of(data, field) == value for field, value in match.items())


def field_of(data: Any, path: str) -> Any:
    """Return a field of an event's data, a dot steps into objects; None where it is missing."""
    for part in path.split("."):
        if not isinstance(data, dict) or part not in data:
            return None
        data = data[part]
    return data


def check_match(match: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a copy of the fields to compare; raise `InvalidInput` where one cannot be."""
    if match is not None and not isinstance(match, Mapping):
        raise InvalidInput(f"match is {match!r}; give fields and values: match={{'region': 'eu'}}")
    fields = dict(match or {})
    for field, value in fields.items():
        is_plain = isinstance(value, (str, int, float, bool, type(None)))
        if not isinstance(field, str) or not is_plain:
            raise InvalidInput(
                f"match {field!r} must compare a field with text, a number, a boolean or None"
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidInput(f"match {field!r} is {value!r}, which no JSON holds; leave it out")
    return fields
