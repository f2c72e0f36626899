"""One entry of the step cache: `{"cached":true,"step":{...},"value":...}`.

`cached` and `value` are the original's. `step` is ours and comes first, so that the value can be
cut out of the text as it stands, unread.
"""

from __future__ import annotations

import json
from typing import Any

from worchflow_core import StepRecord, StepStatus, from_millis, to_millis

_HEAD = '{"cached":true,"step":'
_VALUE = ',"value":'
_DECODER = json.JSONDecoder()


def entry_of(step: StepRecord) -> bytes:
    """Return a completed step as an entry."""
    about: dict[str, Any] = {
        "createdAt": to_millis(step.execution_created_at),
        "name": step.title,
        "kind": step.kind,
        "seq": step.seq,
        "fence": step.fence,
        "attempt": step.attempt,
        "startedAt": to_millis(step.started_at),
    }
    if step.ended_at is not None:
        about["endedAt"] = to_millis(step.ended_at)
    text = f"{_HEAD}{json.dumps(about, separators=(',', ':'))}{_VALUE}{step.result}}}"
    return text.encode("utf-8", "surrogatepass")


def step_of(execution_id: str, step_id: str, entry: str) -> StepRecord | None:
    """Return the step an entry holds; None for an entry that another program wrote."""
    if not entry.startswith(_HEAD):
        return None
    try:
        about, end = _DECODER.raw_decode(entry, len(_HEAD))
        if not entry.startswith(_VALUE, end) or not entry.endswith("}"):
            return None
        ended = about.get("endedAt")
        return StepRecord(
            execution_id=execution_id,
            step_id=step_id,
            title=about["name"],
            kind=about["kind"],
            status=StepStatus.COMPLETED,
            result=entry[end + len(_VALUE) : -1],
            seq=about["seq"],
            fence=about["fence"],
            attempt=about["attempt"],
            started_at=from_millis(about["startedAt"]),
            ended_at=None if ended is None else from_millis(ended),
            execution_created_at=from_millis(about["createdAt"]),
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
