"""Matching: whether an event's data has the fields that somebody who waits or subscribes names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from worchflow_core.errors import InvalidInput


def fits(match: Mapping[str, Any], data: Any) -> bool:
    """Return whether an event's data has all these fields with equal values."""
    return all(token(field_of(data, path)) == token(value) for path, value in match.items())


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
        try:
            token(value)
        except ValueError as error:  # not finite, or with too many digits
            raise InvalidInput(
                f"match {field!r} is a number that no event can hold: {error}"
            ) from None
    return fields


def token(value: Any) -> str:
    """Return the text by which values of a field are compared: equal as JSON has them equal.

    1 and 1.0 are one number there, and true is none.

    Raises:
        ValueError: JSON has no such value.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, allow_nan=False)
