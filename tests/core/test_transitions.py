"""The state machine: each change as a compare-and-set, and what it does to an execution."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from worchflow_core import (
    Change,
    Execution,
    Failure,
    Status,
    applied,
    claimed,
    is_applied,
    is_claimable,
    transitions,
)
from worchflow_core.models import CLAIMABLE, FINAL, StepTry
from worchflow_core.transitions import ATTEMPTS_KEPT, BRIEF, TRIES_KEPT, Outcome

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)
QUEUED = Execution(id="e", function="f", created_at=NOW, updated_at=NOW, due_at=NOW)
MINE = claimed(QUEUED, "me", NOW)
FAILURE = Failure(type="E", message="x" * 5000, traceback="t", cause=Failure(type="C", message=""))


def done(execution: Execution, change: Change) -> Execution:
    after = applied(execution, change)
    assert after is not None
    return after


@pytest.mark.parametrize("status", list(Status))
def test_only_free_due_unfinished_unwanted_executions_are_claimable(status: Status) -> None:
    execution = replace(QUEUED, status=status)
    assert is_claimable(execution, NOW) is (status in CLAIMABLE)
    assert is_claimable(replace(execution, due_at=None), NOW) is (status in CLAIMABLE)
    assert not is_claimable(replace(execution, due_at=LATER), NOW)
    assert not is_claimable(replace(execution, owner="x"), NOW)
    assert not is_claimable(replace(execution, cancel_requested_at=NOW), NOW)


def test_claim_raises_the_fence() -> None:
    assert (MINE.owner, MINE.fence, MINE.status, MINE.due_at) == ("me", 1, Status.PROCESSING, None)


@pytest.mark.parametrize("status", [s for s in Status if s is not Status.PROCESSING])
def test_settle_gives_the_execution_back_and_only_the_newest_claim_may(status: Status) -> None:
    due = LATER + timedelta(minutes=1)
    outcome = Outcome(status=status, failure=FAILURE, due_at=due, counts=True, result="1")
    change = transitions.settle(MINE, outcome, now=LATER, retries=3, has_hint=True)
    after = done(MINE, change)
    assert (after.owner, after.status, after.failed_attempts) == (None, status, 1)
    assert (after.finished_at is not None) is (status in FINAL)
    assert (after.result == "1") is (status is Status.COMPLETED)
    assert after.error == FAILURE
    assert is_applied(after, change)
    newer = claimed(replace(after, status=Status.QUEUED), "other", LATER)
    assert applied(newer, change) is None
    assert not is_applied(newer, change)
    if status in CLAIMABLE and status is not Status.QUEUED:
        assert (after.due_at, after.hint_at) == (due, due)


def test_history_is_bounded_and_brief() -> None:
    tried = StepTry(step_id="s", title="t", started_at=NOW, ended_at=NOW, error=FAILURE)
    outcome = Outcome(status=Status.RETRYING, failure=FAILURE, due_at=NOW, tries=(tried,) * 99)
    execution = MINE
    for _ in range(ATTEMPTS_KEPT + 5):
        after = done(execution, transitions.settle(execution, outcome, now=NOW))
        execution = claimed(after, "me", NOW)
    assert len(execution.attempts) == ATTEMPTS_KEPT
    newest = execution.attempts[-1]
    assert newest.error is not None
    assert len(newest.error.message) == BRIEF
    assert newest.error.traceback is newest.error.cause is None
    assert len(newest.tries) == TRIES_KEPT
    assert newest.tries[0].error is not None
    assert newest.tries[0].error.traceback is None
    assert execution.error == FAILURE


def test_cancel_settles_what_is_free_and_asks_for_what_is_owned() -> None:
    free = done(QUEUED, transitions.request_cancel(QUEUED, now=LATER))
    assert (free.status, free.finished_at, free.due_at) == (Status.CANCELLED, LATER, None)
    asked = done(MINE, transitions.request_cancel(MINE, now=LATER))
    assert (asked.status, asked.cancel_requested_at) == (Status.PROCESSING, LATER)
    assert applied(MINE, transitions.request_cancel(QUEUED, now=LATER)) is None


def test_completion_after_a_cancel_request_wins_and_clears_it() -> None:
    asked = done(MINE, transitions.request_cancel(MINE, now=LATER))
    change = transitions.settle(asked, Outcome(status=Status.COMPLETED, result="1"), now=LATER)
    after = done(asked, change)
    assert (after.status, after.cancel_requested_at) == (Status.COMPLETED, None)


def test_reopening_counts_anew_and_keeps_the_fence() -> None:
    failed = replace(
        QUEUED,
        status=Status.FAILED,
        fence=7,
        failed_attempts=4,
        crashes=3,
        error=FAILURE,
        finished_at=NOW,
        deadline_at=NOW,
        step_failures={"s": 1},
        handlers_due=True,
    )
    after = done(failed, transitions.reopen(failed, now=LATER))
    assert (after.status, after.fence, after.failed_attempts, after.crashes) == (
        Status.QUEUED,
        7,
        0,
        0,
    )
    assert after.error is after.finished_at is after.deadline_at is None
    assert after.step_failures == {}
    assert not after.handlers_due
    assert is_claimable(after, LATER)


def test_crash_is_counted_anew_once_steps_were_recorded() -> None:
    lost = replace(MINE, crashes=3)
    options = {"now": LATER, "max_crashes": 5, "has_hint": False}
    stuck = transitions.release_crashed(lost, has_grown=False, **options)  # type: ignore[arg-type]
    grown = transitions.release_crashed(lost, has_grown=True, **options)  # type: ignore[arg-type]
    assert done(lost, stuck).crashes == 4
    assert done(lost, grown).crashes == 1
    assert done(lost, grown).due_at == LATER


def test_deadline_and_handlers_and_hints_are_compare_and_sets() -> None:
    fixed = done(MINE, transitions.set_deadline(MINE, LATER))
    assert fixed.deadline_at == LATER
    late = replace(QUEUED, deadline_at=NOW)
    failed = done(late, transitions.expire(late, now=LATER, has_handler=True))
    assert (failed.status, failed.handlers_due) == (Status.FAILED, True)
    told = done(failed, transitions.handlers_done(failed))
    assert applied(told, transitions.handlers_done(failed)) is None
    waiting = replace(QUEUED, hint_at=LATER)
    hinted = done(waiting, transitions.mark_hinted(waiting, now=LATER))
    assert (hinted.hint_at, hinted.hinted_at) == (None, LATER)
    assert applied(hinted, transitions.mark_hinted(waiting, now=LATER)) is None
