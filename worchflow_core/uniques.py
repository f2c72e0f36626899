"""Unique keys: which execution has one, and for how long.

Pure: one record per key. The key is taken when an event is sent, where the sender knows the
function, and at the latest when its execution is first claimed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta

from worchflow_core.clock import from_millis, to_millis
from worchflow_core.models import Execution, Payload

KIND = "unique"

RESERVED = timedelta(minutes=1)
"""How long a sender that took a key is believed to be about to create its execution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A key that is taken.

    Attributes:
        id: the execution that has it.
        until: when it is free again; None when that execution has ended.
        reserved: its sender took it, and creates the execution by then; None once it was claimed.
    """

    id: str
    until: datetime | None = None
    reserved: datetime | None = None


def is_coming(held: Held, execution: Execution | None, now: datetime) -> bool:
    """Return whether a sender took a key whose execution is still to be created."""
    return execution is None and held.reserved is not None and held.reserved > now


def is_over(held: Held, execution: Execution | None, now: datetime) -> bool:
    """Return whether a key is free, given the execution that has it, None where there is none."""
    if is_coming(held, execution, now):
        return False
    if held.until is not None:
        return held.until <= now or (execution is None and held.reserved is not None)
    return execution is None or execution.status.is_final


def body_of(held: Held) -> Payload:
    """Return the body of a key's record."""
    moments = (held.until, held.reserved)
    return json.dumps([held.id, *(None if item is None else to_millis(item) for item in moments)])


def held_of(body: Payload | None) -> Held | None:
    """Return who has a key, as its record says."""
    if body is None:
        return None
    execution_id, *moments = json.loads(body)
    until, reserved = (None if item is None else from_millis(item) for item in moments)
    return Held(id=execution_id, until=until, reserved=reserved)
