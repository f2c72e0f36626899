"""Executions and steps as documents, and back.

The names are the core's wire names. On top of them: `_id` is the id, `result` mirrors
`resultJson` natively, maps with user text as keys are arrays of pairs, `errorNames` holds the
error's type with and without its modules, and a free execution without a due time has `dueAt` 0,
so that the index of what is due holds it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from worchflow_core import (
    CLAIMABLE,
    EXECUTION_NAMES,
    Execution,
    Fields,
    Status,
    StepRecord,
    attempt_to_wire,
    execution_from_wire,
    failure_to_wire,
    step_to_wire,
    to_millis,
)
from worchflow_plugins.mongo.native import MISSING, native

Document = dict[str, Any]

ALWAYS_DUE = 0
_ERROR_NAMES_KEPT = 16
_MOMENTS = (
    "hint_at", "hinted_at", "claimed_at", "cancel_requested_at", "deadline_at", "scheduled_for",
    "finished_at",
)  # fmt: skip
_LISTS = ("waits", "tags")
_MAPS = ("step_failures", "headers")


def execution_document(execution: Execution) -> Document:
    """Return a new execution as the document to insert."""
    status = execution.status
    document: Document = {
        "_id": execution.id,
        "id": execution.id,
        "eventName": execution.function,
        "status": status.value,
        "attemptCount": execution.failed_attempts,
        "createdAt": to_millis(execution.created_at),
        "updatedAt": to_millis(execution.updated_at),
        "priority": execution.priority,
    }
    if execution.data is not None:
        document["eventData"] = execution.data
    if execution.input_hash is not None:
        document["inputHash"] = execution.input_hash
    if execution.due_at is not None:
        document["dueAt"] = to_millis(execution.due_at)
    elif execution.owner is None and status in CLAIMABLE:
        document["dueAt"] = ALWAYS_DUE
    if execution.hinted_at is not None:
        document["hintedAt"] = to_millis(execution.hinted_at)
    for name, wire_name in _SELDOM:
        value = getattr(execution, name)
        if not _says_nothing(value):
            _SETTERS[name](document, wire_name, value)
    return document


def update_document(values: Fields) -> tuple[Document, Document]:
    """Return what to `$set` and what to `$unset` so that a document takes these values."""
    to_set: Document = {}
    to_unset: Document = {}
    for name, value in values.items():
        wire_name, write, companions = _WRITERS[name]
        if value or not _says_nothing(value):
            write(to_set, wire_name, value)
        elif name == "due_at" and values.get("status", Status.QUEUED) in CLAIMABLE:
            to_set[wire_name] = ALWAYS_DUE
        else:
            to_unset[wire_name] = ""
        for extra in companions:
            if extra not in to_set:
                to_unset[extra] = ""
    return to_set, to_unset


def expect_filter(expect: Fields) -> Document:
    """Return the filter under which `expect` holds; a missing field counts as None."""
    found: Document = {}
    for name, value in expect.items():
        wire_name = EXECUTION_NAMES[name]
        if name == "due_at" and value is None:
            found[wire_name] = {"$in": [None, ALWAYS_DUE]}
        elif name == "handlers_due":
            found[wire_name] = True if value else {"$ne": True}
        elif name == "fence" and value == 0:
            found[wire_name] = {"$in": [0, None]}
        elif isinstance(value, datetime):
            found[wire_name] = to_millis(value)
        else:
            found[wire_name] = value.value if isinstance(value, Status) else value
    return found


def execution_of(document: Document) -> Execution:
    """Return the execution of a document, also of one that a foreign client wrote."""
    if document.get("dueAt") == ALWAYS_DUE:
        del document["dueAt"]
    for wire_name in ("stepFailures", "headers"):
        pairs = document.get(wire_name)
        if pairs:
            document[wire_name] = dict(pairs)
    return execution_from_wire(document)


def step_document(step: StepRecord) -> Document:
    """Return a step as the document to insert."""
    document = step_to_wire(step)
    if step.result is not None:
        mirror = native(step.result)
        if mirror is not MISSING:
            document["result"] = mirror
    return document


def _says_nothing(value: Any) -> bool:
    """Return whether a field is left out for it: None, False, nothing in it; but 0 and "" speak."""
    return not value and (value is False or not isinstance(value, (int, str)))


def _set_plain(document: Document, wire_name: str, value: Any) -> None:
    document[wire_name] = value


def _set_moment(document: Document, wire_name: str, value: datetime) -> None:
    document[wire_name] = to_millis(value)


def _set_list(document: Document, wire_name: str, value: Any) -> None:
    document[wire_name] = list(value)


def _set_pairs(document: Document, wire_name: str, value: Mapping[str, Any]) -> None:
    document[wire_name] = [[key, item] for key, item in value.items()]


def _set_attempts(document: Document, wire_name: str, value: Any) -> None:
    document[wire_name] = [attempt_to_wire(item) for item in value]


def _set_status(document: Document, wire_name: str, value: Status) -> None:
    document[wire_name] = value.value


def _set_result(document: Document, wire_name: str, value: str) -> None:
    document[wire_name] = value
    mirror = native(value)
    if mirror is not MISSING:
        document["result"] = mirror


def _set_error(document: Document, wire_name: str, value: Any) -> None:
    document[wire_name] = failure_to_wire(value)
    document["error"] = value.message
    document["errorNames"] = _error_names(value.type)
    if value.traceback is not None:
        document["errorStack"] = value.traceback


def _error_names(kind: str) -> list[str]:
    """Return a qualified name with fewer and fewer modules: what a search may ask for."""
    parts = kind.split(".")
    first = max(1, len(parts) - _ERROR_NAMES_KEPT)
    return [kind, *(".".join(parts[start:]) for start in range(first, len(parts)))]


_COMPANIONS: Mapping[str, tuple[str, ...]] = {
    "result": ("result",),
    "error": ("error", "errorStack", "errorNames"),
}
"""Fields that follow another: set with it where it has something to say, removed otherwise."""

_SETTERS: Mapping[str, Callable[[Document, str, Any], None]] = {
    **dict.fromkeys(EXECUTION_NAMES, _set_plain),
    **dict.fromkeys((*_MOMENTS, "due_at", "created_at", "updated_at"), _set_moment),
    **dict.fromkeys(_LISTS, _set_list),
    **dict.fromkeys(_MAPS, _set_pairs),
    "attempts": _set_attempts,
    "status": _set_status,
    "result": _set_result,
    "error": _set_error,
}
_WRITERS: Mapping[str, tuple[str, Callable[[Document, str, Any], None], tuple[str, ...]]] = {
    name: (wire_name, _SETTERS[name], _COMPANIONS.get(name, ()))
    for name, wire_name in EXECUTION_NAMES.items()
}
_FREQUENT = frozenset(
    {"id", "function", "data", "status", "failed_attempts", "created_at", "updated_at", "priority"}
    | {"input_hash", "due_at", "hinted_at"}
)
_SELDOM = tuple(
    (name, wire_name) for name, wire_name in EXECUTION_NAMES.items() if name not in _FREQUENT
)
