"""The native mirror of a JSON text: what other readers of the database see as a value."""

from __future__ import annotations

import json
import math
from typing import Any

_LONGEST = 1_048_576
_DEEPEST = 64
_INT64 = 2**63
MISSING: Any = object()
"""Stands for "no mirror": the text stays the only form."""


def native(text: str) -> Any:
    """Return the value of a JSON text if BSON keeps it exactly, else `MISSING`.

    Left out are whole numbers beyond 64 bits, numbers that are not finite, lone surrogates, keys
    that are empty, start with `$` or hold a dot or NUL, deep nesting, and very long texts.
    """
    if len(text) > _LONGEST:
        return MISSING
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return MISSING
    return value if _is_safe(value, 0) else MISSING


def _is_safe(value: Any, depth: int) -> bool:
    kind: type = type(value)
    if kind is str:
        return _is_encodable(value)
    if kind is int:
        return bool(-_INT64 <= value < _INT64)
    if kind is float:
        return math.isfinite(value)
    if kind is dict:
        return depth < _DEEPEST and all(
            _is_key(key) and _is_safe(item, depth + 1) for key, item in value.items()
        )
    if kind is list:
        return depth < _DEEPEST and all(_is_safe(item, depth + 1) for item in value)
    return True


def _is_key(key: str) -> bool:
    return key != "" and key[0] != "$" and "." not in key and "\0" not in key and _is_encodable(key)


def _is_encodable(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
