"""Every change an execution can go through, as pure functions: the state machine in one place.

Each returns a `Change`, a compare-and-set that a store applies or refuses; `now` is passed in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from worchflow_core.models import (
    Attempt,
    Change,
    Execution,
    Failure,
    Fields,
    Payload,
    Status,
    StepTry,
)
from worchflow_core.stages import Stage

UNTIL_WOKEN = timedelta(days=36500)
"""Ahead lies the due time of an execution that only an event wakes: a missing one means now."""

ATTEMPTS_KEPT = 50
"""How many attempts an execution's record keeps, the newest."""

TRIES_KEPT = 20
"""How many failed steps an attempt in that history keeps, the newest."""

BRIEF = 1024
"""How many characters of an error's text history keeps; the newest error is kept in full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an attempt ended, as the runner says it.

    Attributes:
        status: completed, failed, retrying, sleeping, waiting, cancelled, or queued for an
            execution that is given back unfinished.
        result: what the function returned, JSON text.
        failure: why it failed, or will be retried.
        due_at: when to go on, for retrying, sleeping and waiting; None waits for an event only.
        waits: wait keys that wake it.
        tries: steps that failed in this attempt.
        steps_recorded: how many steps the store holds; None when that is not known for certain.
        step_failures: failures per step id, for steps with their own policy.
        counts: whether this is a failed attempt in the sense of `retries`.
    """

    status: Status
    result: Payload | None = None
    failure: Failure | None = None
    due_at: datetime | None = None
    waits: tuple[str, ...] = ()
    tries: tuple[StepTry, ...] = ()
    steps_recorded: int | None = None
    step_failures: Mapping[str, int] = field(default_factory=dict)
    counts: bool = False


def settle(
    execution: Execution,
    outcome: Outcome,
    *,
    now: datetime,
    retries: int | None = None,
    code_version: str | None = None,
    has_handler: bool = False,
    has_hint: bool = False,
) -> Change:
    """End an attempt: only the newest claim may, and it gives the execution back.

    Args:
        execution: as it was claimed.
        outcome: how the attempt ended.
        now: the store's time.
        retries: failures the function survives, kept for display.
        code_version: distribution and version of the code that ran.
        has_handler: an execution for `on_failure` or `on_success` is to follow.
        has_hint: the queue keeps hints, so it must be told when the execution goes on.

    One that waits is looked at again once it is stored that it does (`looked`); the same mark as
    for a handler says that somebody still has to.
    """
    status = outcome.status
    values: Fields = {
        "status": status,
        "owner": None,
        "updated_at": now,
        "attempts": _with_attempt(execution, outcome, now),
        "steps_recorded": outcome.steps_recorded,
    }
    if status is not Status.QUEUED:  # given back unfinished, it has not shown that it is harmless
        values["crashes"] = 0
    if retries is not None:
        values["retries"] = retries
    if code_version is not None:
        values["code_version"] = code_version
    if execution.gates_passed:
        values["gates_passed"] = execution.gates_passed
    if outcome.step_failures != execution.step_failures:
        values["step_failures"] = outcome.step_failures
    if outcome.counts:
        values["failed_attempts"] = execution.failed_attempts + 1
    if execution.waits or outcome.waits:
        values["waits"] = outcome.waits
    if outcome.failure is not None or execution.error is not None:
        values["error"] = outcome.failure
    if status.is_final:
        values["finished_at"] = now
        if status is Status.COMPLETED:
            values["result"] = outcome.result
        if execution.cancel_requested_at is not None:
            values["cancel_requested_at"] = None
    else:
        due = now if status is Status.QUEUED else outcome.due_at
        if due is None and status is Status.WAITING:
            due = now + UNTIL_WOKEN
        values["due_at"] = due
        if has_hint and due is not None and due > now:
            values["hint_at"] = due
        elif has_hint and due is not None:
            values["hinted_at"] = now
        if execution.finished_at is not None:
            values["finished_at"] = None
    is_due = has_handler if status.is_final else bool(outcome.waits)
    if is_due or execution.handlers_due:
        values["handlers_due"] = is_due
    return Change(
        id=execution.id, expect={"owner": execution.owner, "fence": execution.fence}, values=values
    )


def release_crashed(
    execution: Execution,
    *,
    now: datetime,
    max_crashes: int,
    has_grown: bool,
    has_hint: bool,
    has_handler: bool = False,
) -> Change:
    """Take an execution from a dead worker: due again soon, or failed when it keeps killing them.

    Args:
        execution: as the store has it, owned by the dead worker.
        now: the store's time.
        max_crashes: deaths it survives.
        has_grown: steps were recorded since the crash before; the count starts anew.
        has_hint: the queue keeps hints, so it must be told.
        has_handler: an execution for `on_failure` is to follow.
    """
    crashes = 1 if has_grown else execution.crashes + 1
    expect: Fields = {"owner": execution.owner, "fence": execution.fence}
    failure = Failure(
        type="WorkerLost",
        message=f"its worker died {crashes} times in a row while running it",
        reason="worker_lost",
    )
    attempts = _crash_attempt(execution, now)
    if crashes >= max_crashes:
        values: Fields = {
            "status": Status.FAILED,
            "owner": None,
            "updated_at": now,
            "finished_at": now,
            "error": failure,
            "crashes": crashes,
            "attempts": attempts,
            "steps_recorded": None,
        }
        if has_handler:
            values["handlers_due"] = True
        return Change(id=execution.id, expect=expect, values=values)
    wait = timedelta(0) if crashes == 1 else timedelta(seconds=min(2**crashes, 60))
    return Change(
        id=execution.id,
        expect=expect,
        values={
            "status": Status.QUEUED,
            "owner": None,
            "updated_at": now,
            "due_at": now + wait,
            "hint_at": now + wait if has_hint else None,
            "crashes": crashes,
            "attempts": attempts,
            "steps_recorded": None,
        },
    )


def request_cancel(execution: Execution, *, now: datetime) -> Change:
    """Cancel: at once where nobody owns it, else ask its owner to at the next beat."""
    expect: Fields = {
        "status": execution.status,
        "owner": execution.owner,
        "fence": execution.fence,
    }
    if execution.owner is not None:
        return Change(
            id=execution.id, expect=expect, values={"cancel_requested_at": now, "updated_at": now}
        )
    return Change(
        id=execution.id,
        expect=expect,
        values={
            "status": Status.CANCELLED,
            "updated_at": now,
            "finished_at": now,
            "due_at": None,
            "hint_at": None,
            "waits": (),
            "cancel_requested_at": None,
            "handlers_due": True,  # its children are to be cancelled, its parent to be woken
        },
    )


def reopen(execution: Execution, *, now: datetime) -> Change:
    """Queue a failed or cancelled execution again: counts start anew, recorded steps stay."""
    return Change(
        id=execution.id,
        expect={"status": execution.status, "owner": None, "fence": execution.fence},
        values={
            "status": Status.QUEUED,
            "failed_attempts": 0,
            "crashes": 0,
            "step_failures": {},
            "updated_at": now,
            "finished_at": None,
            "error": None,
            "due_at": now,
            "hint_at": None,
            "hinted_at": now,
            "deadline_at": None,
            "cancel_requested_at": None,
            "handlers_due": False,
            "waits": (),
            "gates_passed": Stage.DROPPING,  # somebody wants it: it is not dropped again
        },
    )


def wake(execution: Execution, *, now: datetime) -> Change:
    """Make a sleeping or waiting execution due now."""
    return Change(
        id=execution.id,
        expect={"status": execution.status, "owner": None, "fence": execution.fence},
        values={"due_at": now, "hint_at": None, "hinted_at": now},
    )


def looked(execution: Execution, *, is_there: bool, now: datetime) -> Change:
    """Note that a waiting execution was looked at again; make it due if what it waits for came."""
    values: Fields = {"handlers_due": False}
    if is_there:
        values |= {"due_at": now, "hint_at": None, "hinted_at": now}
    return Change(
        id=execution.id,
        expect={
            "status": execution.status,
            "owner": None,
            "fence": execution.fence,
            "handlers_due": True,
        },
        values=values,
    )


def mark_hinted(execution: Execution, *, now: datetime) -> Change:
    """Note that the queue was told of an execution just now."""
    return Change(
        id=execution.id,
        expect={"owner": None, "fence": execution.fence, "hint_at": execution.hint_at},
        values={"hint_at": None, "hinted_at": now},
    )


def expire(execution: Execution, *, now: datetime, has_handler: bool = False) -> Change:
    """Fail an unowned execution whose deadline has passed."""
    failure = Failure(
        type="ExecutionTimeout", message="its deadline passed while it waited", reason="timeout"
    )
    values: Fields = {
        "status": Status.FAILED,
        "updated_at": now,
        "finished_at": now,
        "error": failure,
        "due_at": None,
        "hint_at": None,
        "waits": (),
    }
    if has_handler:
        values["handlers_due"] = True
    return Change(
        id=execution.id,
        expect={"status": execution.status, "owner": None, "fence": execution.fence},
        values=values,
    )


def set_deadline(execution: Execution, deadline: datetime) -> Change:
    """Fix, in its first attempt, when an execution fails for good."""
    return Change(
        id=execution.id,
        expect={"owner": execution.owner, "fence": execution.fence},
        values={"deadline_at": deadline},
    )


def handlers_done(execution: Execution) -> Change:
    """Note that the `on_failure` or `on_success` execution exists."""
    return Change(
        id=execution.id,
        expect={"handlers_due": True, "status": execution.status, "fence": execution.fence},
        values={"handlers_due": False},
    )


def reopen_claimed(execution: Execution) -> Change:
    """Take the marks of an earlier end from a claimed execution; its recorded steps stay.

    A foreign client reopens by setting the status alone; a claim of an execution that has ended
    is therefore a reopening.
    """
    return Change(
        id=execution.id,
        expect={"owner": execution.owner, "fence": execution.fence},
        values={
            "finished_at": None,
            "result": None,
            "error": None,
            "crashes": 0,
            "step_failures": {},
            "steps_recorded": None,
            "deadline_at": None,
            "handlers_due": False,
            "waits": (),
            "gates_passed": Stage.DROPPING,
        },
    )


def _with_attempt(execution: Execution, outcome: Outcome, now: datetime) -> tuple[Attempt, ...]:
    failure = outcome.failure
    attempt = Attempt(
        number=execution.failed_attempts + 1,
        worker=execution.owner or "",
        started_at=execution.claimed_at or now,
        ended_at=now,
        outcome="released" if outcome.status is Status.QUEUED else outcome.status.value,
        error=_brief(failure),
        tries=tuple(
            replace(item, error=_brief(item.error)) for item in outcome.tries[-TRIES_KEPT:]
        ),
    )
    return (*execution.attempts, attempt)[-ATTEMPTS_KEPT:]


def _brief(failure: Failure | None) -> Failure | None:
    """Return a failure as history keeps it: fifty attempts must fit into one record."""
    if failure is None:
        return None
    message = failure.message
    if len(message) > BRIEF:
        message = message[: BRIEF - 1] + "…"
    return replace(failure, message=message, traceback=None, cause=None)


def _crash_attempt(execution: Execution, now: datetime) -> tuple[Attempt, ...]:
    attempt = Attempt(
        number=execution.failed_attempts + 1,
        worker=execution.owner or "",
        started_at=execution.claimed_at or now,
        ended_at=now,
        outcome="crashed",
    )
    return (*execution.attempts, attempt)[-ATTEMPTS_KEPT:]
