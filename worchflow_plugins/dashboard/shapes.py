"""What the HTTP API answers: the original's shapes, new fields added, none renamed."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

from worchflow_core import (
    BulkChange,
    Execution,
    Failure,
    FunctionInfo,
    Notes,
    Pause,
    Reason,
    StepRecord,
    Trigger,
    Worker,
    execution_to_wire,
    reason_to_wire,
    step_to_wire,
    to_millis,
    worker_to_wire,
)
from worchflow_plugins.dashboard.parameters import format_cursor
from worchflow_plugins.dashboard.redaction import Redact, redacted

LIST_PAYLOAD_MAX = 16 * 1024
"""The longest data or result that a list carries; what is longer stands in the detail."""


def load(payload: str | None) -> Any:
    """Return the value of JSON text; text that is none, from a foreign client, as it stands."""
    if payload is None:
        return None
    try:
        return json.loads(payload)
    except (ValueError, RecursionError):
        return payload


class Shapes:
    """Turn records into what the API answers, redacted.

    Args:
        redact: a callable that values pass before anybody sees them.
    """

    def __init__(self, redact: Redact | None) -> None:
        self.redact = redact

    def execution(self, execution: Execution, *, is_listed: bool = False) -> dict[str, Any]:
        """Return an execution: `eventData` is JSON text, `result` the value itself."""
        document = execution_to_wire(self.failure_hidden(execution))
        document.pop("resultJson", None)
        document.pop("inputHash", None)
        document.setdefault("eventData", None)
        document.setdefault("error", None)
        document["result"] = None
        too_long = [
            name
            for name, payload in (("eventData", execution.data), ("result", execution.result))
            if is_listed and payload is not None and len(payload) > LIST_PAYLOAD_MAX
        ]
        if too_long:
            document["omitted"] = too_long
        if "eventData" in too_long:
            document["eventData"] = None
        elif self.redact is not None and execution.data is not None:
            document["eventData"] = json.dumps(self.data(execution), ensure_ascii=False)
        if "result" not in too_long:
            document["result"] = self.result(execution)
        return document

    def data(self, execution: Execution) -> Any:
        """Return the event's data as people may see it."""
        return redacted(self.redact, "data", load(execution.data))

    def result(self, execution: Execution) -> Any:
        """Return the result as people may see it."""
        return redacted(self.redact, "result", load(execution.result))

    def step(self, step: StepRecord) -> dict[str, Any]:
        """Return a step; `result` is the value itself."""
        document = step_to_wire(step)
        document.pop("resultJson", None)
        document["result"] = self.step_result(step)
        return document

    def step_result(self, step: StepRecord) -> Any:
        """Return a step's result as people may see it."""
        return redacted(self.redact, "step", load(step.result))

    def notes(self, notes: Notes) -> Notes:
        """Return what an execution says of itself, as people may see it."""
        if self.redact is None:
            return notes
        lines = [
            replace(
                line,
                text=str(redacted(self.redact, "log", line.text)),
                fields=redacted(self.redact, "log", dict(line.fields)),
            )
            for line in notes.lines
        ]
        return replace(notes, lines=tuple(lines))

    def mirror(self, fields: dict[str, str]) -> dict[str, str]:
        """Return the hash that Redis shows, its data and result redacted as everywhere."""
        if self.redact is None:
            return fields
        hidden = {
            name: json.dumps(redacted(self.redact, root, load(fields[name])), ensure_ascii=False)
            for name, root in (("eventData", "data"), ("result", "result"))
            if name in fields
        }
        error = {"error": self.text(fields["error"])} if "error" in fields else {}
        return {**fields, **hidden, **error}

    def text(self, value: str) -> str:
        """Return the text of an error as people may see it."""
        return str(redacted(self.redact, "error", value))

    def reason(self, reason: Reason) -> dict[str, Any]:
        """Return a reason; what it quotes of an error is as people may see it."""
        message = reason.facts.get("message")
        if message and self.redact is not None:
            seen = self.text(message)
            text = reason.text.replace(
                f": {message}", f": {seen}", 1
            )  # a short one is elsewhere too
            reason = replace(reason, text=text, facts={**reason.facts, "message": seen})
        return reason_to_wire(reason)

    def failure(self, failure: Failure | None) -> Failure | None:
        """Return a failure as people may see it."""
        if failure is None or self.redact is None:
            return failure
        return Failure(
            type=failure.type,
            message=self.text(failure.message),
            traceback=self.text(failure.traceback) if failure.traceback else None,
            cause=self.failure(failure.cause),
            reason=failure.reason,
            undone=failure.undone,
        )

    def failure_hidden(self, execution: Execution) -> Execution:
        """Return an execution whose errors are as people may see them."""
        if self.redact is None:
            return execution
        attempts = tuple(
            replace(
                attempt,
                error=self.failure(attempt.error),
                tries=tuple(
                    replace(item, error=self.failure(item.error)) for item in attempt.tries
                ),
            )
            for attempt in execution.attempts
        )
        return replace(execution, error=self.failure(execution.error), attempts=attempts)


def function_shape(info: FunctionInfo, pause: Pause | None) -> dict[str, Any]:
    """Return a function as the API tells it."""
    shape = {item.name: _plain(getattr(info, item.name)) for item in fields(info)}
    return {**shape, "paused": pause and pause_shape(pause)}


def pause_shape(pause: Pause) -> dict[str, Any]:
    """Return a pause as the API tells it."""
    return {"at": to_millis(pause.paused_at), "reason": pause.reason}


def bulk_shape(answer: BulkChange) -> dict[str, Any]:
    """Return what became of many as the API tells it."""
    edge = {
        name: to_millis(moment)
        for name in ("until", "finished_until")
        if answer.edge is not None and (moment := getattr(answer.edge, name)) is not None
    }
    return {
        "matched": answer.matched,
        "isMatchedCapped": answer.is_capped,
        "edge": edge,
        "changed": list(answer.changed),
        "skipped": [{"id": key, "error": str(error)} for key, error in answer.skipped.items()],
        "next": format_cursor(*answer.next) if answer.next else None,
    }


def worker_shape(worker: Worker) -> dict[str, Any]:
    """Return a worker as the API tells it."""
    return worker_to_wire(worker)


def _plain(value: Any) -> Any:
    if isinstance(value, Trigger):
        return {"name": value.name, "match": dict(value.match)}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
