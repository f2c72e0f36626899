"""How records look as rows: positional, times in milliseconds, nothing written for empty."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from worchflow_core import (
    Attempt,
    Execution,
    Failure,
    Status,
    StepRecord,
    StepStatus,
    Worker,
    attempt_from_wire,
    attempt_to_wire,
    failure_from_wire,
    failure_to_wire,
    from_millis,
    to_millis,
    worker_from_wire,
    worker_to_wire,
)
from worchflow_plugins.sqlite.connection import Row

EXECUTION_FIELDS = (
    "id",
    "function",
    "status",
    "owner",
    "fence",
    "created_at",
    "updated_at",
    "due_at",
    "hint_at",
    "hinted_at",
    "claimed_at",
    "finished_at",
    "deadline_at",
    "cancel_requested_at",
    "scheduled_for",
    "priority",
    "failed_attempts",
    "crashes",
    "retries",
    "steps_recorded",
    "handlers_due",
    "gates_passed",
    "event",
    "input_hash",
    "code_version",
    "parent",
    "forked_from",
    "waits",
    "tags",
    "step_failures",
    "headers",
    "error",
    "attempts",
    "data",
    "result",
)
"""The fields of an execution, in the order in which its row holds them."""

EXECUTION_COLUMNS = ", ".join(EXECUTION_FIELDS)

STEP_COLUMNS = (
    "step_id, title, kind, status, seq, fence, attempt, started_at, ended_at, "
    "execution_created_at, result"
)

DEFAULTS: Mapping[str, int] = {
    "fence": 0,
    "priority": 0,
    "failed_attempts": 0,
    "crashes": 0,
    "handlers_due": 0,
    "gates_passed": 0,
}
"""What a column holds when nothing is written to it; all others then hold NULL."""


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _millis(value: datetime | None) -> int | None:
    return None if value is None else to_millis(value)


def _list(value: tuple[str, ...]) -> str | None:
    return _text(value) if value else None


def _mapping(value: Mapping[str, Any]) -> str | None:
    return _text(dict(value)) if value else None


def _failure(value: Failure | None) -> str | None:
    return None if value is None else _text(failure_to_wire(value))


def _attempts(value: tuple[Attempt, ...]) -> str | None:
    return _text([attempt_to_wire(item) for item in value]) if value else None


_ENCODERS: Mapping[str, Callable[[Any], Any]] = {
    **{
        name: _millis
        for name in EXECUTION_FIELDS
        if name.endswith("_at") or name == "scheduled_for"
    },
    "waits": _list,
    "tags": _list,
    "step_failures": _mapping,
    "headers": _mapping,
    "error": _failure,
    "attempts": _attempts,
    "handlers_due": int,
}


def encoded(name: str, value: Any) -> Any:
    """Return one field's value as its column holds it."""
    encoder = _ENCODERS.get(name)
    return value if encoder is None else encoder(value)


def error_type(failure: Failure | None) -> str | None:
    """Return an error's type read backwards, so that an index finds it by its last part."""
    return None if failure is None else ("." + failure.type)[::-1]


def execution_row(item: Execution) -> Row:
    """Return the row of an execution: `EXECUTION_FIELDS`, then the error's type."""
    return [
        item.id,
        item.function,
        item.status,
        item.owner,
        item.fence,
        to_millis(item.created_at),
        to_millis(item.updated_at),
        _millis(item.due_at),
        _millis(item.hint_at),
        _millis(item.hinted_at),
        _millis(item.claimed_at),
        _millis(item.finished_at),
        _millis(item.deadline_at),
        _millis(item.cancel_requested_at),
        _millis(item.scheduled_for),
        item.priority,
        item.failed_attempts,
        item.crashes,
        item.retries,
        item.steps_recorded,
        int(item.handlers_due),
        item.gates_passed,
        item.event,
        item.input_hash,
        item.code_version,
        item.parent,
        item.forked_from,
        _list(item.waits),
        _list(item.tags),
        _mapping(item.step_failures),
        _mapping(item.headers),
        _failure(item.error),
        _attempts(item.attempts),
        item.data,
        item.result,
        error_type(item.error),
    ]


def _moment(value: int | None) -> datetime | None:
    return None if value is None else from_millis(value)


def execution_from(row: Row) -> Execution:
    """Return the execution of a row of `EXECUTION_COLUMNS`."""
    return Execution(
        id=row[0],
        function=row[1],
        status=Status(row[2]),
        owner=row[3],
        fence=row[4],
        created_at=from_millis(row[5]),
        updated_at=from_millis(row[6]),
        due_at=_moment(row[7]),
        hint_at=_moment(row[8]),
        hinted_at=_moment(row[9]),
        claimed_at=_moment(row[10]),
        finished_at=_moment(row[11]),
        deadline_at=_moment(row[12]),
        cancel_requested_at=_moment(row[13]),
        scheduled_for=_moment(row[14]),
        priority=row[15],
        failed_attempts=row[16],
        crashes=row[17],
        retries=row[18],
        steps_recorded=row[19],
        handlers_due=bool(row[20]),
        gates_passed=row[21],
        event=row[22],
        input_hash=row[23],
        code_version=row[24],
        parent=row[25],
        forked_from=row[26],
        waits=tuple(json.loads(row[27])) if row[27] else (),
        tags=tuple(json.loads(row[28])) if row[28] else (),
        step_failures=json.loads(row[29]) if row[29] else {},
        headers=json.loads(row[30]) if row[30] else {},
        error=failure_from_wire(json.loads(row[31])) if row[31] else None,
        attempts=tuple(attempt_from_wire(item) for item in json.loads(row[32])) if row[32] else (),
        data=row[33],
        result=row[34],
    )


def step_row(step: StepRecord) -> Row:
    """Return the row of a step: its execution's id, then `STEP_COLUMNS`."""
    return [
        step.execution_id,
        step.step_id,
        step.title,
        step.kind,
        step.status,
        step.seq,
        step.fence,
        step.attempt,
        to_millis(step.started_at),
        _millis(step.ended_at),
        to_millis(step.execution_created_at),
        step.result,
    ]


def step_from(row: Row) -> StepRecord:
    """Return the step of a row: its execution's id, then `STEP_COLUMNS`."""
    return StepRecord(
        execution_id=row[0],
        step_id=row[1],
        title=row[2],
        kind=row[3],
        status=StepStatus(row[4]),
        seq=row[5],
        fence=row[6],
        attempt=row[7],
        started_at=from_millis(row[8]),
        ended_at=_moment(row[9]),
        execution_created_at=from_millis(row[10]),
        result=row[11],
    )


def worker_row(worker: Worker) -> Row:
    """Return the row of a worker: body, state, beat_at, lease_until, drain_requested_at."""
    return [
        _text(worker_to_wire(worker)),
        worker.state.value,
        _millis(worker.beat_at),
        _millis(worker.lease_until),
        _millis(worker.drain_requested_at),
    ]


def worker_from(row: Row) -> Worker:
    """Return the worker of a row: body, state, beat_at, lease_until, drain_requested_at."""
    document = json.loads(row[0])
    names = ("state", "beatAt", "leaseUntil", "drainRequestedAt")
    return worker_from_wire({**document, **dict(zip(names, row[1:], strict=True))})
