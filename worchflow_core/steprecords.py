"""The records of steps, made at their place in an execution."""

from __future__ import annotations

from datetime import datetime

from worchflow_core.identities import Slot, StepCall
from worchflow_core.models import Execution, Payload, StepRecord, StepStatus


def recorded_step(
    execution: Execution,
    place: StepCall | Slot,
    *,
    kind: str = "run",
    status: StepStatus = StepStatus.COMPLETED,
    result: Payload | None = None,
    started_at: datetime,
    ended_at: datetime | None,
) -> StepRecord:
    """Return the record of a step at its place in an execution."""
    return StepRecord(
        execution_id=execution.id,
        step_id=place.step_id,
        title=place.title,
        kind=kind,
        status=status,
        result=result,
        seq=place.seq,
        fence=execution.fence,
        attempt=execution.failed_attempts + 1,
        started_at=started_at,
        ended_at=ended_at,
        execution_created_at=execution.created_at,
    )
