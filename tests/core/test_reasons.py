"""The reasons why an execution is not running, from facts alone."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from worchflow_core import Execution, Failure, Reason, Status, Worker, WorkerState, reason_to_wire
from worchflow_core.clock import to_millis
from worchflow_core.facts import Facts
from worchflow_core.identities import DEADLINE, UNDOABLE, UNDOING, Slot
from worchflow_core.lines import Line
from worchflow_core.models import Attempt, RunningExecution, StepRecord, StepTry
from worchflow_core.pauses import Pause
from worchflow_core.reasons import explain
from worchflow_core.stages import Stage
from worchflow_core.transitions import UNTIL_WOKEN

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
ERROR = Failure(type="ValueError", message="no money")
GONE_ERROR = Failure(type="OSError", message="gone")
WORKER = Worker(
    id="w1",
    name="ana:1",
    host="ana",
    pid=1,
    version="0.1.0",
    state=WorkerState.RUNNING,
    started_at=NOW - timedelta(hours=1),
    concurrency=2,
    functions=("pay",),
    beat_at=NOW - timedelta(seconds=3),
    lease_until=NOW + timedelta(seconds=27),
)
BUSY = replace(
    WORKER,
    running=(
        RunningExecution(execution_id="e1", function="pay", step="Charge", since=NOW),
        RunningExecution(execution_id="e2", function="pay", since=NOW),
    ),
)
SILENT = replace(
    WORKER, beat_at=NOW - timedelta(seconds=20), lease_until=NOW + timedelta(seconds=10)
)
GONE = replace(WORKER, lease_until=NOW - timedelta(minutes=1))
EXECUTION = Execution(
    id="e1", function="pay", created_at=NOW, updated_at=NOW, input_hash="x", retries=3
)


def step(title: str, kind: str, ends: datetime, body: dict[str, Any]) -> StepRecord:
    return StepRecord(
        execution_id="e1",
        step_id=title,
        title=title,
        kind=kind,
        result=json.dumps(body),
        seq=1,
        started_at=NOW,
        ended_at=ends,
        execution_created_at=NOW,
    )


def reasons(changes: dict[str, Any] | None = None, **facts: Any) -> dict[str, str]:
    execution = replace(EXECUTION, **(changes or {}))
    found = explain(Facts(execution=execution, now=NOW, **{"workers": [WORKER], **facts}))
    return {reason.code: reason.text for reason in found}


OWNED: dict[str, Any] = {
    "status": Status.PROCESSING,
    "owner": "w1",
    "fence": 1,
    "claimed_at": NOW - timedelta(seconds=12),
}
RETRYING: dict[str, Any] = {
    "status": Status.RETRYING,
    "due_at": LATER,
    "failed_attempts": 1,
    "error": ERROR,
    "fence": 1,
}
PARKED = {"due_at": NOW + UNTIL_WOKEN, "fence": 1, "waits": ("pay|limit|abc|ana",)}


@pytest.mark.parametrize(
    ("changes", "facts", "expected"),
    [
        (
            {"status": Status.COMPLETED, "finished_at": NOW - timedelta(minutes=3)},
            {},
            {"completed": "it completed 3m ago"},
        ),
        (
            {"status": Status.FAILED, "error": ERROR, "finished_at": NOW - timedelta(hours=1)},
            {},
            {"failed": "it failed 1h ago of ValueError: no money"},
        ),
        ({"status": Status.CANCELLED}, {}, {"cancelled": "it was cancelled"}),
        (
            OWNED,
            {"workers": [BUSY]},
            {
                "running": "it runs on ana:1, claimed 12s ago, in step 'Charge' at the last beat; "
                "the worker's lease ends in 27s unless it is renewed"
            },
        ),
        (
            OWNED,
            {"workers": [SILENT]},
            {
                "running": "it runs on ana:1, claimed 12s ago; the worker's lease ends in 10s "
                "unless it is renewed",
                "worker_silent": "its worker ana:1 was last heard of 20s ago; others may take it "
                "over in 10s",
            },
        ),
        (
            {**OWNED, "owner": "w9"},
            {},
            {"worker_lost": "its worker is gone; the next sweep of a live worker releases it"},
        ),
        (
            OWNED,
            {"workers": [GONE]},
            {
                "worker_lost": "its worker ana:1 is gone, its lease ended 1m ago; no worker is "
                "live, so nobody releases it until one starts"
            },
        ),
        (
            RETRYING,
            {},
            {
                "retry_later": "attempt 2 of 4 begins in 5m; the last failed with ValueError: no "
                "money"
            },
        ),
        (
            {"due_at": LATER},
            {},
            {"delayed": "it was sent not to begin before 2030-01-01 12:05:00 UTC, in 5m"},
        ),
        (
            {"due_at": LATER, "fence": 1, "crashes": 3},
            {"max_crashes": 5},
            {
                "crash_backoff": "its worker died 3 times in a row; it may be taken again in 5m",
                "crashes": "its worker died 3 times in a row while running it, so it runs alone on "
                "its worker; at 5 it fails for good",
            },
        ),
        (
            {"status": Status.SLEEPING, "due_at": LATER, "fence": 1},
            {"steps": [step("Nap", "sleep", LATER, {}), step("Done", "sleep", NOW, {})]},
            {"sleeping": "it sleeps in step 'Nap' and wakes in 5m"},
        ),
        (
            {
                "status": Status.WAITING,
                "due_at": LATER,
                "fence": 1,
                "waits": ("paid", "paid@e1", f"order/x:{'a' * 24}", f"order/x@e1:{'a' * 24}"),
            },
            {"steps": [step("Wait", DEADLINE, LATER, {"until": to_millis(LATER)})]},
            {
                "waiting_for_event": "it waits for an event 'order/x' whose data matches",
                "wait_timeout": "step 'Wait' stops waiting in 5m",
            },
        ),
        (
            {
                "status": Status.WAITING,
                "due_at": NOW + UNTIL_WOKEN,
                "fence": 1,
                "waits": ("child:c1",),
            },
            {"children": {"c1": replace(EXECUTION, id="c1", function="mail")}},
            {"waiting_for_child": "it waits for the end of execution c1 of mail, which is queued"},
        ),
        (
            {
                "status": Status.WAITING,
                "due_at": NOW + UNTIL_WOKEN,
                "fence": 1,
                "waits": ("child:c1",),
            },
            {},
            {
                "waiting_for_child": "it waits for the end of execution c1, which is not there any "
                "more"
            },
        ),
        (
            {},
            {"workers": []},
            {"no_live_worker": "no live worker has pay: none is live; start one: worchflow worker"},
        ),
        (
            {"function": "pya"},
            {"functions": ["pay", "mail"]},
            {"no_worker": "no live worker has pya; live are ana:1; did you mean pay?"},
        ),
        (
            {},
            {"workers": [replace(WORKER, state=WorkerState.DRAINING)]},
            {"workers_draining": "the live workers that have pay take no more work: ana:1"},
        ),
        (
            {},
            {"workers": [replace(WORKER, drain_requested_at=NOW)]},
            {"workers_draining": "the live workers that have pay take no more work: ana:1"},
        ),
        (
            {},
            {"workers": [BUSY], "ahead": 1234},
            {
                "workers_full": "all live workers that have pay are full: ana:1 (2 of 2); 1,234 "
                "executions are due before it"
            },
        ),
        (
            {},
            {"keeps_hints": True},
            {
                "about_to_run": "it is due, and ana:1 had room at the last beat: it is taken "
                "within a moment"
            },
        ),
        (
            {},
            {"pause": Pause(function="pay", paused_at=NOW - timedelta(hours=2), reason="a fix")},
            {
                "function_paused": "pay was paused 2h ago (a fix); none of its executions begins "
                "until it is resumed"
            },
        ),
        (
            PARKED,
            {
                "lines": {
                    PARKED["waits"][0]: Line(key="k", limit=2, holders={"b": 1, "a": 1})  # type: ignore[index]
                }
            },
            {
                "limit": "it waits for a place under a limit of pay: 2 of 2 are taken, by a, b",
            },
        ),
        (PARKED, {}, {"held_back": "flow control holds it back until it is called"}),
        (
            {"forked_from": "e0", "due_at": NOW + UNTIL_WOKEN},
            {},
            {
                "fork_unfinished": "it is a fork of e0 whose steps are still being copied; if its "
                "maker has died, forking again with its id finishes it"
            },
        ),
    ],
)
def test_it_is_said_why(
    changes: dict[str, Any], facts: dict[str, Any], expected: dict[str, str]
) -> None:
    assert reasons(changes, **facts) == expected


BEGUN = step("Undoing", UNDOING, NOW, {})
UNDOING_NOW = {**RETRYING, "failed_attempts": 0, "deadline_at": LATER}


def tried(title: str, error: Failure = ERROR) -> Attempt:
    found = StepTry(step_id=title, title=title, started_at=NOW, ended_at=NOW, error=error)
    return Attempt(
        number=1, worker="w", started_at=NOW, ended_at=NOW, outcome="retrying", tries=(found,)
    )


def test_what_is_being_undone_begins_no_attempt_and_has_no_deadline() -> None:
    changes = {**UNDOING_NOW, "attempts": (tried("Undo Pay"),)}
    text = "it has failed with ValueError: no money; its steps are being undone"
    assert reasons(changes, steps=[BEGUN]) == {
        "undoing": f"{text}, 'Undo Pay' is tried again in 5m"
    }
    past = {**UNDOING_NOW, "due_at": NOW, "deadline_at": NOW - timedelta(hours=1)}
    assert reasons(past, steps=[BEGUN], keeps_hints=True)["undoing"] == text
    assert "deadline_passed" not in reasons(past, steps=[BEGUN])


def test_a_step_that_is_tried_again_is_no_attempt() -> None:
    others = replace(tried("Pay"), tries=(*tried("Pay").tries, *tried("Mail", GONE_ERROR).tries))
    changes = {**RETRYING, "failed_attempts": 0, "attempts": (others,)}
    assert reasons(changes) == {
        "step_retry_later": "step 'Pay' is tried again in 5m; it failed with ValueError: no money"
    }
    attempted = {**RETRYING, "attempts": (tried("Pay"),)}  # that attempt is counted
    assert list(reasons(attempted)) == ["retry_later"]


@pytest.mark.parametrize(
    ("passed", "words"),
    [
        (Stage.NONE, ": that is when its burst is over, unless another event comes"),
        (Stage.UNIQUE, ": that is when its batch is closed, unless it is full before"),
        (Stage.SINGLETON, ": that is when its rate allows it"),
        (Stage.RATE_LIMIT, ""),
    ],
)
def test_what_is_put_off_says_for_what(passed: Stage, words: str) -> None:
    found = reasons({"due_at": LATER, "fence": 1, "gates_passed": passed})
    assert found == {"put_off": f"flow control lets it start in 5m{words}"}


def test_one_death_does_not_put_an_execution_off() -> None:
    assert "put_off" in reasons({"due_at": LATER, "fence": 2, "crashes": 1})


def test_the_timeout_of_a_wait_that_is_over_is_not_told() -> None:
    over = Slot("First", "First", 1).inner("until").step_id
    until = {"until": to_millis(LATER)}
    steps = [
        step("First", "wait", NOW, {"event": "e"}),
        replace(step("First", DEADLINE, LATER, until), step_id=over),
        step("Second", DEADLINE, LATER, until),
    ]
    changes = {
        "status": Status.WAITING,
        "due_at": LATER,
        "fence": 1,
        "waits": ("paid", "paid@e1"),
    }
    assert reasons(changes, steps=steps)["wait_timeout"] == "step 'Second' stops waiting in 5m"
    assert "wait_timeout" not in reasons(changes, steps=steps[:2])


def test_an_event_may_have_the_name_of_a_child() -> None:
    changes: dict[str, Any] = {
        "status": Status.WAITING,
        "due_at": NOW + UNTIL_WOKEN,
        "fence": 1,
        "waits": (f"child:a:{'b' * 24}", f"child:a@e1:{'b' * 24}", "child:c", "child:c@e1"),
    }
    found = explain(Facts(execution=replace(EXECUTION, **changes), now=NOW, workers=[WORKER]))
    assert [(item.facts["event"], item.facts["has_match"]) for item in found] == [
        ("child:a", True),
        ("child:c", False),
    ]


def test_a_sleep_that_code_gave_up_is_not_told() -> None:
    changes: dict[str, Any] = {
        "status": Status.WAITING,
        "due_at": NOW + UNTIL_WOKEN,
        "fence": 1,
        "waits": ("paid", "paid@e1"),
    }
    assert list(reasons(changes, steps=[step("Nap", "sleep", LATER, {})])) == ["waiting_for_event"]


def test_what_another_system_processes_is_not_about_to_run() -> None:
    assert list(reasons({"status": Status.PROCESSING})) == ["not_ours"]


def test_a_lease_that_has_just_passed_does_not_end_in_the_past() -> None:
    late = replace(
        WORKER, beat_at=NOW - timedelta(seconds=31), lease_until=NOW - timedelta(seconds=1)
    )
    found = reasons(OWNED, workers=[late])
    assert found["running"].endswith("the worker's lease ends now unless it is renewed")
    assert found["worker_silent"].endswith("others may take it over now")


@pytest.mark.parametrize(
    ("changes", "steps", "words"),
    [
        (OWNED, [], "its worker ends it"),
        (
            {},
            [step("Pay", UNDOABLE, NOW, {})],
            "a worker that has its function undoes its steps, and then it fails",
        ),
    ],
)
def test_a_past_deadline_is_heeded_by_whoever_can(
    changes: dict[str, Any], steps: list[StepRecord], words: str
) -> None:
    found = reasons({**changes, "deadline_at": NOW - timedelta(seconds=9)}, steps=steps)
    assert found["deadline_passed"] == f"its deadline passed 9s ago; {words}"


def test_all_reasons_are_given_together() -> None:
    changes = {**RETRYING, "deadline_at": LATER, "crashes": 1, "cancel_requested_at": NOW}
    found = reasons(changes, workers=[], pause=Pause(function="pay", paused_at=NOW))
    assert list(found) == [
        "cancel_requested",
        "function_paused",
        "retry_later",
        "no_live_worker",
        "crashes",
        "deadline",
    ]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {**OWNED, "cancel_requested_at": NOW},
            "somebody asked now to cancel it; it ends at its next step",
        ),
        (
            {"cancel_requested_at": NOW},
            "somebody asked now to cancel it; it ends at the next sweep",
        ),
    ],
)
def test_a_cancel_request_says_when_it_is_heard(changes: dict[str, Any], expected: str) -> None:
    assert reasons(changes)["cancel_requested"] == expected


def test_a_past_deadline_says_who_ends_it() -> None:
    text = reasons({"deadline_at": NOW - timedelta(seconds=9)})["deadline_passed"]
    assert text == "its deadline passed 9s ago; it fails at the next sweep of a live worker"


@pytest.mark.parametrize(
    ("changes", "facts", "code"),
    [
        ({}, {"keeps_hints": False}, "store_polled"),
        ({}, {"keeps_hints": True, "queue_trouble": "gone"}, "queue_unreachable"),
        ({"hint_at": NOW}, {"keeps_hints": True}, "queue_not_told"),
    ],
)
def test_it_is_said_how_workers_learn_of_it(
    changes: dict[str, Any], facts: dict[str, Any], code: str
) -> None:
    assert list(reasons(changes, **facts)) == ["about_to_run", code]


def test_a_reason_looks_outside_as_everything_does() -> None:
    reason = Reason(code="x", text="y", facts={"due_at": NOW, "names": ("a",), "count": 1})
    assert reason_to_wire(reason) == {
        "code": "x",
        "text": "y",
        "facts": {"dueAt": to_millis(NOW), "names": ["a"], "count": 1},
    }


def test_the_facts_of_every_reason_are_plain() -> None:
    found: list[Reason] = []
    for changes, facts in (
        (OWNED, {"workers": [BUSY]}),
        (RETRYING, {}),
        ({}, {"workers": [BUSY], "ahead": 1}),
        (PARKED, {"lines": {"pay|limit|abc|ana": Line(key="k", limit=1, holders={"b": 1})}}),
        ({"status": Status.FAILED, "error": ERROR}, {}),
    ):
        execution = replace(EXECUTION, **changes)
        found += explain(Facts(execution=execution, now=NOW, **{"workers": [WORKER], **facts}))  # type: ignore[arg-type]
    assert len(found) >= 5
    for reason in found:
        json.dumps(reason_to_wire(reason))
