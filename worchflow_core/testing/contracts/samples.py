"""Records that the contract tests feed to a backend."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from worchflow_core.clock import from_millis
from worchflow_core.models import (
    Attempt,
    Change,
    Execution,
    Failure,
    Record,
    RunningExecution,
    Status,
    StepRecord,
    StepTry,
    Worker,
    WorkerState,
)
from worchflow_core.transitions import Outcome, settle

NOW = from_millis(1_800_000_000_123)
"""The moment the contract tests play at."""

HOSTILE = (
    "$owner",
    '{"$set":1}',
    "{{ x }}",
    "a.b.$c",
    "'; DROP TABLE executions; --",
    "\"double\" 'single' `tick`",
    "back\\slash \\u0000 \\n",
    "100%_*?[a]",
    "new\nline\ttab\r",
    "nul\x00inside",
    "\x7f\x01\x1f",
    "emoji \U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\u202eright to left \u05e9\u05dc\u05d5\u05dd",
    "\u00e9 e\u0301 \u1e9b\u0323 \ufeff \uffff \U0010ffff",
    "l" * 10_000,
)
"""Texts of users that must be kept literally wherever a text is kept."""


def at(seconds: float) -> datetime:
    """Return the moment `seconds` after `NOW`."""
    return NOW + timedelta(seconds=seconds)


def execution(execution_id: str, **fields: Any) -> Execution:
    """Return a queued execution of the function `f` that is due now."""
    given = {"function": "f", "created_at": NOW, "updated_at": NOW, "due_at": NOW, **fields}
    return Execution(id=execution_id, **given)


def full_execution(execution_id: str, text: str = "text") -> Execution:
    """Return an execution in which every field says something, and every free text is `text`."""
    failure = Failure(
        type=f"{text}.Error",
        message=text,
        traceback=text,
        cause=Failure(type="KeyError", message=text),
        reason="timeout",
    )
    tried = StepTry(
        step_id="s",
        title=text,
        started_at=at(1),
        ended_at=at(2),
        error=Failure(type="E", message=text),
        seq=3,
    )
    attempt = Attempt(
        number=1,
        worker=text,
        started_at=at(1),
        ended_at=at(3),
        outcome="retrying",
        error=Failure(type="ValueError", message=text),
        tries=(tried,),
    )
    return Execution(
        id=execution_id,
        function=text,
        event=text,
        data=f'{{"x": "{len(text)}"}}',
        status=Status.RETRYING,
        failed_attempts=2,
        retries=5,
        created_at=at(-10),
        updated_at=at(-9),
        result=text,
        error=failure,
        due_at=at(-8),
        hint_at=at(-7),
        hinted_at=at(-6),
        owner=None,
        fence=7,
        claimed_at=at(-5),
        crashes=3,
        steps_recorded=4,
        step_failures={"s": 2, "t": 1},
        attempts=(attempt, attempt),
        cancel_requested_at=None,
        deadline_at=at(100),
        waits=(text, "other"),
        input_hash=text,
        scheduled_for=at(-11),
        finished_at=at(-4),
        code_version=text,
        parent=text,
        forked_from=text,
        priority=-3,
        tags=("a", text),
        headers={"traceparent": text},
        handlers_due=True,
        gates_passed=3,
    )


def release(item: Execution, *, now: datetime) -> Change:
    """Return the change by which the owner of `item` gives it back unfinished, due at once."""
    return settle(item, Outcome(status=Status.QUEUED), now=now)


def step(execution_id: str, step_id: str = "s1", **fields: Any) -> StepRecord:
    """Return a completed step with fence 1, as the first claim would record it."""
    given = {
        "title": step_id,
        "result": '"done"',
        "seq": 1,
        "fence": 1,
        "started_at": NOW,
        "ended_at": at(1),
        "execution_created_at": NOW,
        **fields,
    }
    return StepRecord(execution_id=execution_id, step_id=step_id, **given)


def worker(worker_id: str, state: WorkerState = WorkerState.STARTING, **fields: Any) -> Worker:
    """Return a worker as it would describe itself in a beat."""
    given: dict[str, Any] = {
        "name": f"host-{worker_id}",
        "host": "host",
        "pid": 7,
        "version": "1.0",
        "started_at": NOW,
        "concurrency": 10,
        "functions": ("f", "g"),
        **fields,
    }
    return Worker(id=worker_id, state=state, **given)


def running(execution_id: str) -> RunningExecution:
    """Return what a worker says of one of its slots."""
    return RunningExecution(execution_id=execution_id, function="f", step="s", since=at(2))


def record(key: str, body: str = "{}", *, kind: str = "meta", version: int = 1) -> Record:
    """Return a record."""
    return Record(kind=kind, key=key, body=body, version=version)
