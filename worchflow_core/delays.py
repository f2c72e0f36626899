"""Delays: the reasons why an execution that nobody has is not to be taken yet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from worchflow_core.batches import leader_of
from worchflow_core.clock import from_millis
from worchflow_core.facts import Facts, Reason, listed, waited_children, waited_events
from worchflow_core.forking import is_half_made
from worchflow_core.identities import DEADLINE, Slot
from worchflow_core.models import Execution, Status, StepRecord, StepTry
from worchflow_core.stages import Stage
from worchflow_core.undos import is_being_undone

# --- held back ------------------------------------------------------------------------------------


def paused(facts: Facts) -> Iterator[Reason]:
    """Say that its function is paused."""
    pause = facts.pause
    if facts.is_free and pause is not None:
        why = f" ({pause.reason})" if pause.reason else ""
        yield Reason(
            code="function_paused",
            text=f"{pause.function} was paused {facts.age(pause.paused_at)}{why}; none of its "
            "executions begins until it is resumed",
            facts={"paused_at": pause.paused_at, "reason": pause.reason},
        )


def in_line(facts: Facts) -> Iterator[Reason]:
    """Say which place it waits for, of those that flow control allows."""
    if not facts.is_free or facts.is_due:
        return
    if (leader := leader_of(facts.execution)) is not None:
        yield Reason(
            code="in_batch",
            text=f"it runs together with execution {leader}, as one batch",
            facts={"leader": leader},
        )
        return
    for key in facts.execution.waits:
        if "|" not in key:
            continue
        line = facts.lines.get(key)
        if line is None or not line.limit:
            yield Reason(
                code="held_back",
                text="flow control holds it back until it is called",
                facts={"wait_key": key},
            )
            continue
        holders = sorted(line.holders)
        used = f"{len(holders):,} of {line.limit:,}"
        what = "its singleton" if "|singleton|" in line.key else "a limit"
        taken = f"{used} are taken, by {listed(holders)}" if holders else "the next one is its own"
        yield Reason(
            code="limit",
            text=f"it waits for a place under {what} of {facts.execution.function}: {taken}",
            facts={"key": line.key, "limit": line.limit, "holders": holders},
        )


# --- later ----------------------------------------------------------------------------------------


def waiting(facts: Facts) -> Iterator[Reason]:
    """Say which events and children it waits for, and until when."""
    execution = facts.execution
    if not facts.is_free or facts.is_due or execution.status is Status.RETRYING:
        return
    for child_id in waited_children(execution):
        child = facts.children.get(child_id)
        state = "is not there any more" if child is None else f"is {child.status}"
        yield Reason(
            code="waiting_for_child",
            text=f"it waits for the end of execution {child_id}"
            + (f" of {child.function}" if child else "")
            + f", which {state}",
            facts={
                "execution_id": child_id,
                "function": child.function if child else None,
                "status": str(child.status) if child else None,
            },
        )
    for event, is_matched in waited_events(execution).items():
        what = f"event {event!r}" + (" whose data matches" if is_matched else "")
        yield Reason(
            code="waiting_for_event",
            text=f"it waits for an {what}",
            facts={"event": event, "has_match": is_matched},
        )
    over = {
        Slot(step.step_id, step.title, step.seq).inner("until").step_id
        for step in facts.steps
        if step.kind in ("wait", "invoke")
    }
    for step in facts.steps if execution.waits else ():
        until = _until(step)
        if until is not None and _may_end(facts, until) and step.step_id not in over:
            yield Reason(
                code="wait_timeout",
                text=f"step {step.title!r} stops waiting {facts.age(until)}",
                facts={"step": step.title, "until": until},
            )


def _may_end(facts: Facts, moment: datetime) -> bool:
    """Return whether what ends at a moment may be waited for: the first of all is what it is due.

    Code may have given up a sleep, or a wait, whose record stays.
    """
    due = facts.execution.due_at
    return moment > facts.now and due is not None and due <= moment


def _until(step: StepRecord) -> datetime | None:
    if step.kind != DEADLINE:
        return None
    return from_millis(json.loads(step.result or "{}")["until"])


def sleeping(facts: Facts) -> Iterator[Reason]:
    """Say which sleep it is in."""
    if not facts.is_free or facts.is_due:
        return
    for step in facts.steps:
        if step.kind == "sleep" and step.ended_at is not None and _may_end(facts, step.ended_at):
            yield Reason(
                code="sleeping",
                text=f"it sleeps in step {step.title!r} and wakes {facts.age(step.ended_at)}",
                facts={"step": step.title, "until": step.ended_at},
            )


def later(facts: Facts) -> Iterator[Reason]:
    """Say why it is due at a moment that has not come."""
    execution = facts.execution
    due = execution.due_at
    if not facts.is_free or due is None or not facts.is_timed or is_half_made(execution):
        return
    known: dict[str, Any] = {"due_at": due}
    first = 0 if execution.forked_from is None else 1
    if execution.status is Status.RETRYING:
        if not is_being_undone(facts.steps):
            yield _retry_later(facts, due)
    elif execution.status is Status.QUEUED and execution.crashes > 1:
        yield Reason(
            code="crash_backoff",
            text=f"its worker died {execution.crashes} times in a row; it may be taken again "
            f"{facts.age(due)}",
            facts=known | {"crashes": execution.crashes},
        )
    elif execution.status is Status.QUEUED and execution.fence > first:
        yield Reason(  # it was claimed, and given back without an attempt
            code="put_off",
            text=f"flow control lets it start {facts.age(due)}{_why_then(execution)}",
            facts=known,
        )
    elif execution.status is Status.QUEUED:
        yield Reason(
            code="delayed",
            text=f"it was sent not to begin before {due:%Y-%m-%d %H:%M:%S} UTC, {facts.age(due)}",
            facts=known | {"scheduled_for": execution.scheduled_for},
        )


def _why_then(execution: Execution) -> str:
    """Return what flow control waits for, as the gate tells that it comes to next."""
    match execution.gates_passed + 1:
        case Stage.DEBOUNCE:
            return ": that is when its burst is over, unless another event comes"
        case Stage.BATCH:
            return ": that is when its batch is closed, unless it is full before"
        case Stage.THROTTLE:
            return ": that is when its rate allows it"
        case _:
            return ""


def undoing(facts: Facts) -> Iterator[Reason]:
    """Say that it goes forward no more, and which undo is tried again."""
    execution = facts.execution
    if not facts.is_free or not is_being_undone(facts.steps):
        return
    text = "it has failed"
    known: dict[str, Any] = {"due_at": execution.due_at}
    if execution.error is not None:
        text += f" with {execution.error.type}: {execution.error.message}"
        known |= {"error": execution.error.type, "message": execution.error.message}
    text += "; its steps are being undone"
    tried = _last_try(execution)
    if facts.is_timed and execution.due_at is not None:
        what = repr(tried.title) if tried is not None else "it"
        text += f", {what} is tried again {facts.age(execution.due_at)}"
    yield Reason(code="undoing", text=text, facts=known)


def _last_try(execution: Execution) -> StepTry | None:
    """Return the step that failed last; of several, the one whose error the execution has."""
    tries = execution.attempts[-1].tries if execution.attempts else ()
    error = execution.error
    for tried in reversed(tries):
        found = tried.error
        if found and error and (found.type, found.message) == (error.type, error.message):
            return tried
    return tries[-1] if tries else None


def _retry_later(facts: Facts, due: datetime) -> Reason:
    execution = facts.execution
    tried = _last_try(execution)
    # A step with retries of its own makes its execution begin again, and uses up no attempt.
    if tried is not None and execution.attempts[-1].number > execution.failed_attempts:
        return _step_later(facts, due, tried)
    number = execution.failed_attempts + 1
    of = f" of {max(number, execution.retries + 1)}" if execution.retries is not None else ""
    text = f"attempt {number}{of} begins {facts.age(due)}"
    known: dict[str, Any] = {
        "due_at": due,
        "attempt": number,
        "attempts": None if execution.retries is None else execution.retries + 1,
    }
    if execution.error is not None:
        text += f"; the last failed with {execution.error.type}: {execution.error.message}"
        known |= {"error": execution.error.type, "message": execution.error.message}
    return Reason(code="retry_later", text=text, facts=known)


def _step_later(facts: Facts, due: datetime, tried: StepTry) -> Reason:
    text = f"step {tried.title!r} is tried again {facts.age(due)}"
    known: dict[str, Any] = {"due_at": due, "step": tried.title}
    error = facts.execution.error
    if error is not None:
        text += f"; it failed with {error.type}: {error.message}"
        known |= {"error": error.type, "message": error.message}
    return Reason(code="step_retry_later", text=text, facts=known)
