"""What every backend must answer, as pure functions: may it be claimed, does a change apply, ...

Backends in memory call them; the contract suites hold the others to them.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from worchflow_core.making import execution_of
from worchflow_core.models import (
    CLAIMABLE,
    Change,
    Created,
    Execution,
    Fields,
    Status,
    StepRecord,
    StepStatus,
    Worker,
    WorkerState,
)


def is_claimable(execution: Execution, now: datetime) -> bool:
    """Return whether a worker may take this execution now: the one central definition."""
    return (
        execution.owner is None
        and execution.status in CLAIMABLE
        and (execution.due_at is None or execution.due_at <= now)
        and execution.cancel_requested_at is None
    )


def claim_order(
    executions: Iterable[Execution], functions: Collection[str], *, limit: int, now: datetime
) -> list[Execution]:
    """Return which of these executions a claim takes: the most urgent claimable ones."""
    return heapq.nsmallest(
        limit,
        (item for item in executions if item.function in functions and is_claimable(item, now)),
        key=urgency,
    )


def created(known: Execution | None, given: Execution) -> Created:
    """Return what `create` answers for an execution, given the one of its id that is there."""
    if known is None:
        return Created.NEW
    is_same = (known.function, known.input_hash) == (given.function, given.input_hash)
    return Created.SAME if is_same else Created.CONFLICT


def claimed(execution: Execution, owner: str, now: datetime) -> Execution:
    """Return a claimable execution as it is once `owner` has claimed it."""
    return changed(
        execution,
        {
            "status": Status.PROCESSING,
            "owner": owner,
            "fence": execution.fence + 1,
            "claimed_at": now,
            "updated_at": now,
            "due_at": None,
            "hint_at": None,
        },
    )


def changed(execution: Execution, values: Fields) -> Execution:
    """Return an execution with some of its fields changed."""
    return execution_of(vars(execution), values)


def applied(execution: Execution, change: Change) -> Execution | None:
    """Return the execution with the change applied, or None where `expect` does not hold."""
    if any(getattr(execution, name) != value for name, value in change.expect.items()):
        return None
    return changed(execution, change.values)


def is_applied(execution: Execution, change: Change) -> bool:
    """Return whether this very change was applied already, by a try whose answer was lost."""
    if "fence" in change.expect and execution.fence != change.expect["fence"]:
        return False
    compared = ("status", "owner", "updated_at")
    values: Mapping[str, object] = {**change.values}
    return "updated_at" in values and all(
        getattr(execution, name) == values[name] for name in compared if name in values
    )


def urgency(execution: Execution) -> tuple[int, bool, datetime, str]:
    """Return the key by which executions are claimed: higher priority, then oldest due."""
    due = execution.due_at
    return (-execution.priority, due is not None, due or execution.created_at, execution.id)


def standing(
    execution: Execution | None, recorded: StepRecord | None, step: StepRecord
) -> StepRecord | None:
    """Return the record of a step that stands after `step` was offered; None where refused.

    Args:
        execution: the step's execution as the store has it; None when it is gone.
        recorded: the record of this step that is there already.
        step: the record offered; it is to be kept where it is what is returned.
    """
    if execution is None:
        return None
    gives_way = recorded is None or (
        recorded.status is StepStatus.STARTED
        and step.status is StepStatus.COMPLETED
        and recorded.fence == step.fence
    )
    if not gives_way:
        return recorded
    return step if step.fence == execution.fence else None


def beaten(
    known: Worker | None, worker: Worker, *, now: datetime, lease: timedelta
) -> tuple[Worker | None, bool]:
    """Return what a beat leaves of a worker's record (None: nothing), and whether it is alive.

    Args:
        known: the record as the store has it.
        worker: the worker as it describes itself.
        now: the store's time.
        lease: for how long the beat holds.
    """
    if worker.state is WorkerState.STOPPED:
        return None, known is None or known.state is not WorkerState.DEAD
    if known is not None and known.state is WorkerState.DEAD:
        return known, False
    if known is None and worker.state is not WorkerState.STARTING:
        return None, False
    drain = known.drain_requested_at if known is not None else None
    renewed = replace(worker, beat_at=now, lease_until=now + lease, drain_requested_at=drain)
    return renewed, True
