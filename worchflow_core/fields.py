"""A field of an event's data, named by a path: `customer.country` steps into objects."""

from __future__ import annotations

from typing import Any


def field_of(data: Any, path: str) -> Any:
    """Return what stands at a path; None where there is nothing."""
    for part in path.split("."):
        if not isinstance(data, dict) or part not in data:
            return None
        data = data[part]
    return data
