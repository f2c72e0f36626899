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
from worchflow_core.identities import DEADLINE
from worchflow_core.lines import Line
from worchflow_core.models import RunningExecution, StepRecord
from worchflow_core.pauses import Pause
from worchflow_core.reasons import explain
from worchflow_core.transitions import UNTIL_WOKEN

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
ERROR = Failure(type="ValueError", message="no money")
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
        ({"due_at": LATER, "fence": 1}, {}, {"put_off": "flow control lets it start in 5m"}),
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
