"""The page of one execution: facts, failure, waterfall, data and result."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from markupsafe import Markup
from starlette.datastructures import QueryParams

from worchflow_core import FINAL, Execution, InvalidInput, Status, StepRecord
from worchflow_plugins.dashboard import view
from worchflow_plugins.dashboard.jsontree import json_tree
from worchflow_plugins.dashboard.listpage import worker_name, worker_names
from worchflow_plugins.dashboard.parameters import check_names, parse_whole
from worchflow_plugins.dashboard.reader import CHILDREN_MAX, Reader
from worchflow_plugins.dashboard.redaction import redacted
from worchflow_plugins.dashboard.rendering import View
from worchflow_plugins.dashboard.shapes import Shapes, load
from worchflow_plugins.dashboard.ui import Ui
from worchflow_plugins.dashboard.waits import wanted_by
from worchflow_plugins.dashboard.waterfall import make_waterfall

STEPS_SHOWN = 200
_STEPS_MAX = 10_000
_STEP_NODES, _STEP_CHARS = 120, 4096
_TRACEBACK_MAX = 64 * 1024
_FORKS_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Block:
    """A JSON value to show; it prints as its text, and becomes HTML only when rendered."""

    text: str | None
    root: str
    shapes: Shapes

    def __repr__(self) -> str:
        return f"Block({self.text!r})"

    @property
    def value(self) -> Any:
        """The value, redacted."""
        return redacted(self.shapes.redact, self.root, load(self.text))

    def tree(self) -> Markup:
        """Return it as a folding tree."""
        return json_tree(self.value)

    def small_tree(self) -> Markup:
        """Return the beginning of it."""
        return json_tree(self.value, nodes=_STEP_NODES, chars=_STEP_CHARS)

    def pretty(self) -> str:
        """Return its text, indented, for copying."""
        return json.dumps(self.value, indent=2, ensure_ascii=False)

    @property
    def is_long(self) -> bool:
        """Whether the page shows only the beginning."""
        return self.text is not None and len(self.text) > 64 * 1024


async def execution_view(
    reader: Reader,
    shapes: Shapes,
    ui: Ui,
    execution_id: str,
    query: QueryParams,
) -> View:
    """Return the page of an execution, its newest attempt unless the query names another."""
    check_names(query, ("attempt", "only", "steps"))
    attempt = parse_whole(query, "attempt", 0, 0, 1000) or None
    shown = parse_whole(query, "steps", STEPS_SHOWN, 1, _STEPS_MAX)
    only = query.get("only", "")
    if only not in ("", "failed"):
        raise InvalidInput(f"only is {only[:80]!r}; give failed, or leave it out")
    execution, steps = await reader.execution(execution_id)
    workers, children, notes = await asyncio.gather(
        reader.workers(), reader.children(execution_id), reader.notes(execution_id)
    )
    running = [item for worker in workers for item in worker.running]
    fall = make_waterfall(
        execution,
        steps,
        now=datetime.now(UTC),
        attempt=attempt,
        running=[item for item in running if item.execution_id == execution.id],
    )
    rows = [row for row in fall.rows if not only or row.mark == "failed"]
    seen = shapes.failure_hidden(execution)
    short = view.short_id(execution.id)
    return View(
        template="execution.html",
        title=f"{execution.status.value} · {execution.function} {short}",
        poll=30_000 if execution.status in FINAL else 2_000,
        data={
            "execution": seen,
            "status": execution.status.value,
            "facts": _facts(execution, worker_name(execution, worker_names(workers))),
            "failure": _failure(seen),
            "fall": fall,
            "rows": rows[:shown],
            "row_count": len(rows),
            "blocks": {
                row.key: Block(row.step.result, "step", shapes) for row in rows[:shown] if row.step
            },
            "attempts": _attempts(execution, fall.number, fall.count, only),
            "only": only,
            "only_href": _href(attempt, "" if only else "failed"),
            "more_href": _href(attempt, only, steps=shown + STEPS_SHOWN * 5),
            "data": Block(execution.data, "data", shapes),
            "result": Block(execution.result, "result", shapes),
            "stored": _stored(execution, shapes),
            "mirrored": shapes.mirror(dict(await reader.mirrored(execution_id))),
            "children": [
                (item, view.run_time(item), item.status is Status.PROCESSING)
                for item in children[:CHILDREN_MAX]
            ],
            "has_more_children": len(children) > CHILDREN_MAX,
            "reasons": await _reasons(reader, shapes, execution),
            "notes": shapes.notes(notes),
            "progress": None if execution.status in FINAL else notes.progress,
            "wanted": wanted_by(execution),
            "forks": _forks(execution, steps),
            "panels": await ui.panels_of("execution", execution),
            "can_be_retried": execution.status in (Status.FAILED, Status.CANCELLED),
            "can_be_cancelled": execution.status not in FINAL,
            "is_cancelling": execution.cancel_requested_at is not None,
        },
    )


async def _reasons(reader: Reader, shapes: Shapes, execution: Execution) -> Sequence[str]:
    """Return why an execution is not running; nothing of one that runs or has ended."""
    if execution.status in FINAL:
        return ()
    reasons = await reader.reasons(execution.id)
    return [shapes.reason(item)["text"] for item in reasons if item.code != "running"]


def _forks(execution: Execution, steps: Sequence[StepRecord]) -> dict[str, str]:
    """Return id and title of the steps it can be forked from: those recorded, and what failed."""
    found = {step.step_id: step.title for step in steps[:_FORKS_SHOWN] if step.kind != "undo"}
    for attempt in execution.attempts:
        for item in attempt.tries:
            if item.seq or not item.title.startswith("Undo "):  # only undos are not counted
                found.setdefault(item.step_id, item.title)
    return found


def _href(attempt: int | None, only: str, **more: int) -> str:
    pairs = {"attempt": attempt, "only": only, **more}
    return "?" + urlencode({name: value for name, value in pairs.items() if value})


@dataclass(frozen=True, slots=True)
class AttemptLink:
    """One attempt of the selector."""

    number: int
    href: str
    outcome: str
    is_shown: bool


def _attempts(execution: Execution, shown: int, count: int, only: str) -> list[AttemptLink]:
    outcomes = {item.number: item.outcome for item in view.attempt_groups(execution.attempts)}
    return [
        AttemptLink(
            number=number,
            href=_href(number, only),
            outcome=outcomes.get(number, execution.status.value)
            if not (number == count and execution.owner)
            else "processing",
            is_shown=number == shown,
        )
        for number in range(1, count + 1)
    ]


def _facts(execution: Execution, worker: str) -> dict[str, Any]:
    run = view.run_time(execution)
    groups = view.attempt_groups(execution.attempts)
    first = groups[0].started_at if groups else execution.claimed_at
    trigger = f"event {execution.event[:128]}" if execution.event else "event"
    if execution.scheduled_for is not None:
        trigger = "cron"
    elif execution.parent is not None:
        trigger = "parent"
    return {
        "run": run,
        "waited": (first - execution.created_at).total_seconds() if first else None,
        "is_running": execution.status is Status.PROCESSING,
        "attempts": view.attempts_text(execution).replace("/", " of "),
        "worker": worker,
        "trigger": trigger,
        "due": _due(execution),
    }


def _due(execution: Execution) -> datetime | None:
    if execution.status in FINAL or execution.owner is not None:
        return None
    wanted = wanted_by(execution)
    return wanted.until if wanted else execution.due_at


def _failure(execution: Execution) -> dict[str, Any] | None:
    error = execution.error
    if error is None or execution.status is Status.COMPLETED:
        return None
    text = (error.traceback or "")[-_TRACEBACK_MAX:]
    causes: list[str] = []
    cause = error.cause
    while cause is not None and len(causes) < 5:
        causes.append(view.first_line(cause))
        cause = cause.cause
    return {
        "headline": f"{error.type.rpartition('.')[2]}: {error.message}"[:2000],
        "type": error.type,
        "reason": error.reason,
        "frames": view.traceback_frames(text),
        "text": text or f"{error.type}: {error.message}",
        "causes": causes,
        "is_final": execution.status is Status.FAILED,
    }


def _stored(execution: Execution, shapes: Shapes) -> Block:
    document = shapes.execution(execution)
    for name in ("eventData", "result", "errorStack", "errorInfo"):
        document.pop(name, None)
    return Block(json.dumps(document, ensure_ascii=False), "stored", Shapes(None))
