"""Redaction: values that leave the dashboard pass a callable of yours first."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

Path = tuple[str | int, ...]
Redact = Callable[[Path, Any], Any]
"""Takes the path ("data", "card", 0) and the value; returns what is to be seen."""

HIDDEN = "[redacted]"


def redact_keys(*names: str) -> Redact:
    """Return a redaction that hides every value whose key contains one of these words.

    `redact_keys("password", "token", "card")` hides `{"cardNumber": ...}` at any depth.
    """
    pattern = re.compile("|".join(re.escape(name) for name in names), re.IGNORECASE)

    def redact(path: Path, value: Any) -> Any:
        if len(path) > 1 and isinstance(path[-1], str) and pattern.search(path[-1]):
            return HIDDEN
        return value

    return redact


def redacted(redact: Redact | None, root: str, value: Any) -> Any:
    """Return `value` as people may see it; `root` is the first part of every path."""
    return value if redact is None else _walk(redact, (root,), value)


def _walk(redact: Redact, path: Path, value: Any) -> Any:
    seen = redact(path, value)
    if seen is not value:
        return seen
    if isinstance(value, dict):
        return {key: _walk(redact, (*path, key), item) for key, item in value.items()}
    if isinstance(value, list):
        return [_walk(redact, (*path, index), item) for index, item in enumerate(value)]
    return value
