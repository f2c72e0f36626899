"""Holding executions back: the changes by which flow control lets them wait, or turns them away.

A part of the state machine of `transitions.py`, pure as well: `now` is passed in. None of them is
an attempt.
"""

from __future__ import annotations

from datetime import datetime

from worchflow_core.models import Change, Execution, Failure, Fields, Status
from worchflow_core.transitions import UNTIL_WOKEN


def park(
    execution: Execution,
    *,
    now: datetime,
    key: str,
    gates_passed: int,
    status: Status = Status.QUEUED,
) -> Change:
    """Give a claimed execution back until it is called by its wait key; no attempt was made."""
    change = _given_back(
        execution, now=now, due=now + UNTIL_WOKEN, waits=(key,), gates=gates_passed
    )
    change.values["status"] = status
    return change


def follow(execution: Execution, leader: Execution, *, now: datetime) -> Change:
    """End an execution that waited for its batch as the batch's leader has ended.

    Its wait key stays: it tells in whose batch it ran.
    """
    return Change(
        id=execution.id,
        expect={"status": Status.WAITING, "owner": None, "fence": execution.fence},
        values={
            "status": leader.status,
            "result": leader.result,
            "error": leader.error,
            "updated_at": now,
            "finished_at": now,
            "due_at": None,
            "hint_at": None,
            "code_version": leader.code_version,
            "handlers_due": True,
        },
    )


def call(execution: Execution, *, now: datetime) -> Change:
    """Make who waited in a line due, before whoever was sent later."""
    return Change(
        id=execution.id,
        expect={"status": execution.status, "owner": None, "fence": execution.fence},
        values={"due_at": min(execution.created_at, now), "hint_at": None, "hinted_at": now},
    )


def let_in(execution: Execution, *, gates_passed: int) -> Change:
    """Note, before its first attempt begins, that an execution has passed its gates for good."""
    return Change(
        id=execution.id,
        expect={"owner": execution.owner, "fence": execution.fence},
        values={"gates_passed": gates_passed},
    )


def release_unbegun(execution: Execution, *, now: datetime, has_hint: bool) -> Change:
    """Take an execution from a dead worker that had claimed it, and not let it in yet."""
    return Change(
        id=execution.id,
        expect={"owner": execution.owner, "fence": execution.fence},
        values={
            "status": Status.QUEUED,
            "owner": None,
            "updated_at": now,
            "due_at": now,
            "hint_at": now if has_hint else None,
        },
    )


def put_off(
    execution: Execution, *, now: datetime, until: datetime, gates_passed: int, has_hint: bool
) -> Change:
    """Give a claimed execution back until a moment; no attempt was made.

    Args:
        execution: as it was claimed.
        now: the store's time.
        until: when it may be claimed again.
        gates_passed: how many gates of flow control it has passed.
        has_hint: the queue keeps hints, so it must be told when the moment comes.
    """
    change = _given_back(execution, now=now, due=until, waits=(), gates=gates_passed)
    if has_hint:
        change.values["hint_at"] = until
    return change


def turn_away(execution: Execution, *, now: datetime, failure: Failure) -> Change:
    """Cancel a claimed execution that flow control does not let in."""
    return Change(
        id=execution.id,
        expect={"owner": execution.owner, "fence": execution.fence},
        values={
            "status": Status.CANCELLED,
            "owner": None,
            "updated_at": now,
            "finished_at": now,
            "error": failure,
            "waits": (),
            "handlers_due": True,  # its parent is to be woken
        },
    )


def _given_back(
    execution: Execution, *, now: datetime, due: datetime, waits: tuple[str, ...], gates: int
) -> Change:
    values: Fields = {
        "status": Status.QUEUED,
        "owner": None,
        "updated_at": now,
        "due_at": due,
        "waits": waits,
        "gates_passed": gates,
    }
    # Of our own, nothing was recorded before its first claim; what was, the next one then knows.
    if execution.fence == 1 and execution.input_hash is not None:
        values["steps_recorded"] = 0
    return Change(
        id=execution.id, expect={"owner": execution.owner, "fence": execution.fence}, values=values
    )
