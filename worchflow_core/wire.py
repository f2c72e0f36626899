"""How records look outside Python: camelCase names, epoch milliseconds, JSON-able values.

The names of the original system are kept (`eventName`, `eventData`, `attemptCount`, `error`,
`errorStack`); what is new is additive, and absent when it has nothing to say. MongoDB documents,
the HTTP API and `--json` all use these shapes; reading forgives what a foreign client left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from datetime import datetime
from typing import Any

from worchflow_core.clock import from_millis, to_millis
from worchflow_core.making import execution_of
from worchflow_core.models import (
    Attempt,
    Execution,
    Failure,
    RunningExecution,
    Status,
    StepRecord,
    StepStatus,
    StepTry,
    Worker,
    WorkerState,
)

EXECUTION_NAMES: Mapping[str, str] = {
    "id": "id",
    "function": "eventName",
    "event": "event",
    "data": "eventData",
    "status": "status",
    "failed_attempts": "attemptCount",
    "retries": "retries",
    "created_at": "createdAt",
    "updated_at": "updatedAt",
    "result": "resultJson",
    "error": "errorInfo",
    "due_at": "dueAt",
    "hint_at": "hintAt",
    "hinted_at": "hintedAt",
    "owner": "owner",
    "fence": "fence",
    "claimed_at": "claimedAt",
    "crashes": "crashes",
    "steps_recorded": "stepsRecorded",
    "step_failures": "stepFailures",
    "attempts": "attempts",
    "cancel_requested_at": "cancelRequestedAt",
    "deadline_at": "deadlineAt",
    "waits": "waits",
    "input_hash": "inputHash",
    "scheduled_for": "scheduledFor",
    "finished_at": "finishedAt",
    "code_version": "codeVersion",
    "parent": "parent",
    "forked_from": "forkedFrom",
    "priority": "priority",
    "tags": "tags",
    "headers": "headers",
    "handlers_due": "handlersDue",
    "gates_passed": "gatesPassed",
}
"""The wire name of each field of `Execution`."""

_DEFAULTS = {item.name: item.default for item in fields(Execution) if item.default is not MISSING}

_ZERO_COUNTS = frozenset({"retries", "steps_recorded"})
_ALWAYS = frozenset({"id", "function", "status", "failed_attempts", "created_at", "updated_at"})


def field_to_wire(name: str, value: Any) -> Any:
    """Return the wire form of one field's value."""
    if value is None or isinstance(value, (str, bool, int)):
        return str(value) if isinstance(value, (Status, StepStatus)) else value
    if isinstance(value, datetime):
        return to_millis(value)
    if isinstance(value, Failure):
        return failure_to_wire(value)
    if name == "attempts":
        return [attempt_to_wire(item) for item in value]
    return dict(value) if isinstance(value, Mapping) else list(value)


def fields_to_wire(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return what to set and which names to remove, in wire form.

    `error` also sets the original's `error` and `errorStack`, and `errorType` for searching;
    `result` is only `resultJson` here: a native mirror is the backend's affair.
    """
    to_set: dict[str, Any] = {}
    to_remove: list[str] = []
    for name, value in values.items():
        wire_name = EXECUTION_NAMES[name]
        if name not in _ALWAYS and _says_nothing(name, value):
            to_remove.append(wire_name)
        else:
            to_set[wire_name] = field_to_wire(name, value)
        if name == "error":
            if value is None:
                to_remove += ["error", "errorStack", "errorType"]
            else:
                to_set["error"] = value.message
                to_set["errorType"] = value.type
                to_set["errorStack"] = value.traceback
    return to_set, to_remove


def _says_nothing(name: str, value: Any) -> bool:
    if value == 0:  # False as well; a count of none is left out, unless none differs from unknown
        return name not in _ZERO_COUNTS
    return value is None or value == () or value == {}


def execution_to_wire(execution: Execution) -> dict[str, Any]:
    """Return an execution as a JSON-able mapping, fields that say nothing left out."""
    values = {name: getattr(execution, name) for name in EXECUTION_NAMES}
    return fields_to_wire(values)[0]


def execution_from_wire(document: Mapping[str, Any]) -> Execution:
    """Return the execution a document describes, also one that a foreign client wrote."""
    own = {"id": str(document["id"]), "function": "", "step_failures": {}, "headers": {}}
    values: dict[str, Any] = _DEFAULTS | own
    for wire_name, value in document.items():
        if value is not None and (reader := _READERS.get(wire_name)) is not None:
            name, read = reader
            values[name] = value if read is None else read(value)
    created = values.get("created_at") or from_millis(0)
    values["created_at"] = created
    values["updated_at"] = values.get("updated_at") or created
    if values["result"] is None and document.get("result") is not None:
        values["result"] = json.dumps(document["result"], default=str)
    if values["error"] is None and document.get("error") is not None:
        values["error"] = Failure(
            type="Error", message=str(document["error"]), traceback=document.get("errorStack")
        )
    return execution_of(values)


def step_to_wire(step: StepRecord) -> dict[str, Any]:
    """Return a step as a JSON-able mapping."""
    document: dict[str, Any] = {
        "executionId": step.execution_id,
        "stepId": step.step_id,
        "name": step.title,
        "kind": step.kind,
        "status": step.status.value,
        "seq": step.seq,
        "fence": step.fence,
        "attempt": step.attempt,
        "startedAt": to_millis(step.started_at),
        "executionCreatedAt": to_millis(step.execution_created_at),
        "timestamp": to_millis(step.ended_at or step.started_at),
    }
    if step.ended_at is not None:
        document["endedAt"] = to_millis(step.ended_at)
    if step.result is not None:
        document["resultJson"] = step.result
    return document


def step_from_wire(document: Mapping[str, Any]) -> StepRecord:
    """Return the step a document describes, also one that the original wrote."""
    get = document.get
    timestamp = _moment(get("timestamp")) or from_millis(0)
    result = get("resultJson")
    if result is None and get("status", "completed") == StepStatus.COMPLETED:
        result = json.dumps(get("result"), default=str)
    return StepRecord(
        execution_id=str(document["executionId"]),
        step_id=str(document["stepId"]),
        title=str(get("name") or get("stepId")),
        kind=str(get("kind") or "run"),
        status=StepStatus(get("status") or StepStatus.COMPLETED),
        result=result,
        seq=_whole(get("seq")),
        fence=_whole(get("fence")),
        attempt=_whole(get("attempt")) or 1,
        started_at=_moment(get("startedAt")) or timestamp,
        ended_at=_moment(get("endedAt")) or (None if get("status") == "started" else timestamp),
        execution_created_at=_moment(get("executionCreatedAt")) or from_millis(0),
    )


def worker_to_wire(worker: Worker) -> dict[str, Any]:
    """Return a worker as a JSON-able mapping; `leaseUntil` and `beatAt` are the store's to set."""
    document: dict[str, Any] = {
        "id": worker.id,
        "name": worker.name,
        "host": worker.host,
        "pid": worker.pid,
        "version": worker.version,
        "origin": worker.origin,
        "state": worker.state.value,
        "startedAt": to_millis(worker.started_at),
        "concurrency": worker.concurrency,
        "functions": list(worker.functions),
        "running": [
            {
                "executionId": item.execution_id,
                "eventName": item.function,
                "step": item.step,
                "since": to_millis(item.since),
            }
            for item in worker.running
        ],
    }
    for name, moment in (
        ("beatAt", worker.beat_at),
        ("leaseUntil", worker.lease_until),
        ("drainRequestedAt", worker.drain_requested_at),
    ):
        if moment is not None:
            document[name] = to_millis(moment)
    return document


def worker_from_wire(document: Mapping[str, Any]) -> Worker:
    """Return the worker a document describes."""
    get = document.get
    return Worker(
        id=str(document["id"]),
        name=str(get("name") or ""),
        host=str(get("host") or ""),
        pid=_whole(get("pid")),
        version=str(get("version") or ""),
        origin=str(get("origin") or ""),
        state=WorkerState(get("state") or WorkerState.RUNNING),
        started_at=_moment(get("startedAt")) or from_millis(0),
        concurrency=_whole(get("concurrency")),
        functions=tuple(get("functions") or ()),
        running=tuple(
            RunningExecution(
                execution_id=str(item["executionId"]),
                function=str(item.get("eventName") or ""),
                step=item.get("step"),
                since=_moment(item.get("since")) or from_millis(0),
            )
            for item in get("running") or ()
        ),
        beat_at=_moment(get("beatAt")),
        lease_until=_moment(get("leaseUntil")),
        drain_requested_at=_moment(get("drainRequestedAt")),
    )


def failure_to_wire(failure: Failure) -> dict[str, Any]:
    """Return a failure and its causes as a JSON-able mapping."""
    document: dict[str, Any] = {
        "type": failure.type,
        "message": failure.message,
        "reason": failure.reason,
    }
    if failure.traceback is not None:
        document["traceback"] = failure.traceback
    if failure.cause is not None:
        document["cause"] = failure_to_wire(failure.cause)
    if failure.undone:
        document["undone"] = failure.undone
    return document


def failure_from_wire(document: Mapping[str, Any]) -> Failure:
    """Return the failure a mapping describes."""
    cause = document.get("cause")
    return Failure(
        type=str(document.get("type") or "Error"),
        message=str(document.get("message") or ""),
        traceback=document.get("traceback"),
        cause=failure_from_wire(cause) if cause else None,
        reason=str(document.get("reason") or "error"),
        undone=_whole(document.get("undone")),
    )


def attempt_to_wire(attempt: Attempt) -> dict[str, Any]:
    """Return an attempt as a JSON-able mapping."""
    document: dict[str, Any] = {
        "number": attempt.number,
        "worker": attempt.worker,
        "from": to_millis(attempt.started_at),
        "to": to_millis(attempt.ended_at),
        "outcome": attempt.outcome,
    }
    if attempt.error is not None:
        document["error"] = failure_to_wire(attempt.error)
    if attempt.tries:
        document["tries"] = [_try_to_wire(item) for item in attempt.tries]
    return document


def attempt_from_wire(document: Mapping[str, Any]) -> Attempt:
    """Return the attempt a mapping describes."""
    error = document.get("error")
    return Attempt(
        number=_whole(document.get("number")),
        worker=str(document.get("worker") or ""),
        started_at=_moment(document.get("from")) or from_millis(0),
        ended_at=_moment(document.get("to")) or from_millis(0),
        outcome=str(document.get("outcome") or ""),
        error=failure_from_wire(error) if error else None,
        tries=tuple(_try_from_wire(item) for item in document.get("tries") or ()),
    )


def _try_to_wire(item: StepTry) -> dict[str, Any]:
    document: dict[str, Any] = {
        "stepId": item.step_id,
        "name": item.title,
        "from": to_millis(item.started_at),
        "to": to_millis(item.ended_at),
    }
    if item.error is not None:
        document["error"] = failure_to_wire(item.error)
    if item.seq:
        document["seq"] = item.seq
    return document


def _try_from_wire(document: Mapping[str, Any]) -> StepTry:
    error = document.get("error")
    return StepTry(
        step_id=str(document["stepId"]),
        title=str(document.get("name") or ""),
        started_at=_moment(document.get("from")) or from_millis(0),
        ended_at=_moment(document.get("to")) or from_millis(0),
        error=failure_from_wire(error) if error else None,
        seq=_whole(document.get("seq")),
    )


def _status(value: Any) -> Status:
    try:
        return Status(value)
    except ValueError:
        return Status.QUEUED


def _moment(value: Any) -> datetime | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return from_millis(int(value))


def _whole(value: Any) -> int:
    return int(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else 0


def _payload(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _failure(value: Any) -> Failure | None:
    return failure_from_wire(value) if value else None


def _attempts(value: Any) -> tuple[Attempt, ...]:
    return tuple(attempt_from_wire(item) for item in value or ())


def _items(value: Any) -> tuple[str, ...]:
    return tuple(value or ())


def _mapping(value: Any) -> Any:
    return value or {}


_MOMENTS = (
    "created_at", "updated_at", "due_at", "hint_at", "hinted_at", "claimed_at",
    "cancel_requested_at", "deadline_at", "scheduled_for", "finished_at",
)  # fmt: skip
_READS: Mapping[str, Callable[[Any], Any]] = {
    **dict.fromkeys(_MOMENTS, _moment),
    **dict.fromkeys(("failed_attempts", "fence", "crashes", "priority", "gates_passed"), _whole),
    **dict.fromkeys(("waits", "tags"), _items),
    **dict.fromkeys(("step_failures", "headers"), _mapping),
    **dict.fromkeys(("id", "function"), str),
    "data": _payload,
    "status": _status,
    "error": _failure,
    "attempts": _attempts,
    "handlers_due": bool,
}
_READERS: Mapping[str, tuple[str, Callable[[Any], Any] | None]] = {
    wire_name: (name, _READS.get(name)) for name, wire_name in EXECUTION_NAMES.items()
}
"""What a wire name becomes: a field, and how to read its value where it is not taken as it is."""
