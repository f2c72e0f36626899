"""Executions, steps and workers as `--json` prints them: the names of the HTTP API."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from worchflow_core.models import Execution, StepRecord, Worker
from worchflow_core.notes import LogLine, Notes, notes_to_wire
from worchflow_core.wire import execution_to_wire, step_to_wire, worker_to_wire


def load(payload: str | None) -> Any:
    """Return the value of JSON text; text that is none, from a foreign client, as it stands."""
    if payload is None:
        return None
    try:
        return json.loads(payload)
    except (ValueError, RecursionError):
        return payload


def execution(item: Execution) -> dict[str, Any]:
    """Return an execution: `eventData` is JSON text, `result` the value itself."""
    document = execution_to_wire(item)
    document.pop("resultJson", None)
    document.pop("inputHash", None)
    document.setdefault("eventData", None)
    document.setdefault("error", None)
    return {**document, "result": load(item.result)}


def step(item: StepRecord) -> dict[str, Any]:
    """Return a step; `result` is the value itself."""
    document = step_to_wire(item)
    document.pop("resultJson", None)
    return {**document, "result": load(item.result)}


def notes(said: Notes) -> dict[str, Any]:
    """Return what an execution says of itself: `progress` where it does, and `log`."""
    document = notes_to_wire(said)
    progress = {"progress": document["progress"]} if "progress" in document else {}
    return {**progress, "log": document["lines"]}


def log(lines: Sequence[LogLine]) -> list[dict[str, Any]]:
    """Return log lines."""
    return list(notes_to_wire(Notes(lines=tuple(lines)))["lines"])


def worker(item: Worker, *, is_live: bool) -> dict[str, Any]:
    """Return a worker, and whether it is live."""
    return {**worker_to_wire(item), "isLive": is_live}
