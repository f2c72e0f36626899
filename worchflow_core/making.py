"""Making executions where thousands a second are claimed and settled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from worchflow_core.models import Execution


def execution_of(*parts: Mapping[str, Any]) -> Execution:
    """Return an execution with all fields of these parts; what a later one has stands.

    Nothing is filled in, so all fields must be there. It costs a fifth of a call of the class.
    """
    made = object.__new__(Execution)
    for part in parts:
        made.__dict__.update(part)
    return made
