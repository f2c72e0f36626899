"""Paused functions: none of their executions is begun until they are resumed.

A pause is one record. Workers read them about once a second; what runs already goes on.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from worchflow_core.clock import from_millis, to_millis
from worchflow_core.errors import InvalidInput
from worchflow_core.lookup import read_record
from worchflow_core.models import Record
from worchflow_core.protocols import Records

KIND = "pause"
REASON_LENGTH = 500
_PAGE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """That a function is paused.

    Attributes:
        function: the function's id.
        paused_at: since when.
        reason: why, in the words of who paused it; may be empty.
    """

    function: str
    paused_at: datetime
    reason: str = ""


def check_reason(reason: str) -> None:
    """Raise `InvalidInput` where a reason cannot be kept."""
    if not isinstance(reason, str) or len(reason) > REASON_LENGTH:
        raise InvalidInput(f"reason must be text of up to {REASON_LENGTH} characters")


async def pause(records: Records, function_id: str, *, reason: str, now: datetime) -> Pause:
    """Pause a function, and return the pause that holds: an earlier one stands."""
    body = json.dumps({"at": to_millis(now), "reason": reason})
    await records.insert([Record(kind=KIND, key=function_id, body=body)])
    found = await read_record(records, KIND, function_id)
    return Pause(function=function_id, paused_at=now, reason=reason) if not found else _of(found)


async def resume(records: Records, function_id: str) -> None:
    """Let a function's executions begin again; one that is not paused stays so."""
    await records.delete(KIND, [function_id])


async def paused(records: Records) -> Mapping[str, Pause]:
    """Return the pauses there are, by function."""
    found: dict[str, Pause] = {}
    after = ""
    while page := await records.scan(KIND, after=after, limit=_PAGE):
        found.update({record.key: _of(record) for record in page})
        after = page[-1].key
        if len(page) < _PAGE:
            break
    return found


def open_functions(ids: Collection[str], pauses: Collection[str]) -> tuple[str, ...]:
    """Return which of these functions are not paused, in their order."""
    return tuple(item for item in ids if item not in pauses)


def _of(record: Record) -> Pause:
    body = json.loads(record.body)
    return Pause(
        function=record.key, paused_at=from_millis(body["at"]), reason=body.get("reason", "")
    )
