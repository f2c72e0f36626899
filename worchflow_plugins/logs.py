"""The built-in `logs` plugin: one readable line, or one JSON object, per lifecycle event.

WORCHFLOW_LOG chooses `text`, `json` or `off`; with `off` nothing is registered and nothing is
spent. Lines go to standard error. Payloads are never printed; titles and error messages are made
safe to print, so that no event can steer a terminal or fake a line. An entry point named `logs`
in another package replaces this plugin.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TextIO

from worchflow_core import hookimpl, human_duration, printable, short_id

if TYPE_CHECKING:
    from worchflow_core import Execution, Failure, Settings, StepRecord, StepTry, Worker

_MARKS = {
    "started": ("▶", ">", "36"),
    "done": ("✓", "+", "32"),
    "replayed": ("↺", "=", "2"),
    "failed": ("✗", "x", "31"),
    "again": ("↻", "~", "33"),
    "stopped": ("–", "-", "33"),
    "paused": ("…", ".", "2"),
}
_TITLE_WIDTH = 30


@hookimpl
def worchflow_add_plugins(settings: Settings) -> Sequence[object]:
    """Add the lines that this application's settings ask for; none with `off`."""
    if settings.log == "text":
        return [TextLines()]
    return [JsonLines()] if settings.log == "json" else []


class TextLines:
    """Print lifecycle lines for people: time, mark, what, how long, why.

    Args:
        stream: where to; standard error, as it is at that moment, if left out.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    @hookimpl
    def worchflow_worker_started(self, worker: Worker) -> None:
        """Print that a worker takes work."""
        count = f"{worker.concurrency} at once, {len(worker.functions)} functions"
        self._print("started", f"worker {printable(worker.name)} started", count)

    @hookimpl
    def worchflow_worker_stopped(self, worker: Worker) -> None:
        """Print that a worker left."""
        self._print("stopped", f"worker {printable(worker.name)} stopped")

    @hookimpl
    def worchflow_schedule_fired(self, execution: Execution, tick: datetime) -> None:
        """Print that a schedule became an execution."""
        self._print("started", _name(execution), f"scheduled for {_clock(tick)}")

    @hookimpl
    def worchflow_execution_started(self, execution: Execution) -> None:
        """Print that an attempt begins, and which."""
        self._print("started", _name(execution), _which_attempt(execution))

    @hookimpl
    def worchflow_step_completed(self, execution: Execution, step: StepRecord) -> None:
        """Print a step with its duration."""
        span = human_duration((step.ended_at or step.started_at) - step.started_at)
        self._step("done", execution, step.title, span)

    @hookimpl
    def worchflow_step_replayed(self, execution: Execution, step: StepRecord) -> None:
        """Print that a stored step was handed on."""
        self._step("replayed", execution, step.title, "replayed")

    @hookimpl
    def worchflow_step_failed(self, execution: Execution, step: StepTry) -> None:
        """Print a step that raised."""
        span = human_duration(step.ended_at - step.started_at)
        self._step("failed", execution, step.title, f"{span}  {_reason(step.error)}")

    @hookimpl
    def worchflow_execution_suspended(self, execution: Execution) -> None:
        """Print that an execution sleeps or waits, and until when."""
        until = f" until {_clock(execution.due_at)}" if execution.due_at else ""
        self._print("paused", _name(execution), f"{execution.status.value}{until}")

    @hookimpl
    def worchflow_execution_retrying(self, execution: Execution, failure: Failure) -> None:
        """Print that an attempt failed, why, and when the next is made."""
        text = f"attempt {execution.failed_attempts} failed: {_reason(failure)}"
        self._print("again", _name(execution), text + _again(execution))

    @hookimpl
    def worchflow_execution_completed(self, execution: Execution) -> None:
        """Print that an execution completed, and how long it ran."""
        self._print("done", _name(execution), _ran(execution))

    @hookimpl
    def worchflow_execution_failed(self, execution: Execution, failure: Failure) -> None:
        """Print that an execution failed for good, and why."""
        self._print("failed", _name(execution), f"failed: {_reason(failure)}")

    @hookimpl
    def worchflow_execution_cancelled(self, execution: Execution) -> None:
        """Print that an execution was cancelled."""
        self._print("stopped", _name(execution), "cancelled")

    @hookimpl
    def worchflow_execution_superseded(self, execution: Execution) -> None:
        """Print that another worker has taken an execution over."""
        self._print("stopped", _name(execution), "taken over by another worker; nothing written")

    def _step(self, mark: str, execution: Execution, title: str, text: str) -> None:
        name = f"  {printable(title, _TITLE_WIDTH):<{_TITLE_WIDTH}}"
        self._print(mark, name, text, tail=short_id(execution.id), indent="  ")

    def _print(
        self, mark: str, what: str, text: str = "", tail: str = "", indent: str = ""
    ) -> None:
        stream = self._stream or sys.stderr
        unicode_mark, ascii_mark, colour = _MARKS[mark]
        encoding = (getattr(stream, "encoding", None) or "ascii").lower().replace("-", "")
        sign = unicode_mark if encoding.startswith("utf") else ascii_mark
        now, dim = datetime.now().strftime("%H:%M:%S"), tail and f"  {tail}"
        if _has_colour(stream):
            sign, now, dim = f"\x1b[{colour}m{sign}\x1b[0m", _dim(now), dim and _dim(dim)
        space = "   " if text else ""
        _write(stream, f"{now} {indent}{sign} {what.lstrip()}{space}{text}{dim}")


class JsonLines:
    """Print lifecycle events as JSON, one object a line, for machines.

    Args:
        stream: where to; standard error, as it is at that moment, if left out.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    @hookimpl
    def worchflow_worker_started(self, worker: Worker) -> None:
        """Print that a worker takes work."""
        self._print("worker_started", worker=worker.name, workerId=worker.id)

    @hookimpl
    def worchflow_worker_stopped(self, worker: Worker) -> None:
        """Print that a worker left."""
        self._print("worker_stopped", worker=worker.name, workerId=worker.id)

    @hookimpl
    def worchflow_schedule_fired(self, execution: Execution, tick: datetime) -> None:
        """Print that a schedule became an execution."""
        self._execution("schedule_fired", execution, tick=tick.isoformat())

    @hookimpl
    def worchflow_execution_queued(self, execution: Execution) -> None:
        """Print that an execution was stored."""
        self._execution("execution_queued", execution)

    @hookimpl
    def worchflow_execution_started(self, execution: Execution) -> None:
        """Print that an attempt begins."""
        self._execution("execution_started", execution, attempt=execution.failed_attempts + 1)

    @hookimpl
    def worchflow_step_completed(self, execution: Execution, step: StepRecord) -> None:
        """Print a step with its duration."""
        span = (step.ended_at or step.started_at) - step.started_at
        self._execution("step_completed", execution, step=step.title, ms=_millis(span))

    @hookimpl
    def worchflow_step_replayed(self, execution: Execution, step: StepRecord) -> None:
        """Print that a stored step was handed on."""
        self._execution("step_replayed", execution, step=step.title)

    @hookimpl
    def worchflow_step_failed(self, execution: Execution, step: StepTry) -> None:
        """Print a step that raised."""
        span = _millis(step.ended_at - step.started_at)
        self._execution("step_failed", execution, step=step.title, ms=span, error=step.error)

    @hookimpl
    def worchflow_execution_suspended(self, execution: Execution) -> None:
        """Print that an execution sleeps or waits."""
        self._execution("execution_suspended", execution, dueAt=_iso(execution.due_at))

    @hookimpl
    def worchflow_execution_retrying(self, execution: Execution, failure: Failure) -> None:
        """Print that an attempt failed and when the next is made."""
        attempt, due = execution.failed_attempts, _iso(execution.due_at)
        self._execution("execution_retrying", execution, attempt=attempt, dueAt=due, error=failure)

    @hookimpl
    def worchflow_execution_completed(self, execution: Execution) -> None:
        """Print that an execution completed."""
        self._execution("execution_completed", execution, ms=_millis(_running_time(execution)))

    @hookimpl
    def worchflow_execution_failed(self, execution: Execution, failure: Failure) -> None:
        """Print that an execution failed for good."""
        self._execution("execution_failed", execution, error=failure)

    @hookimpl
    def worchflow_execution_cancelled(self, execution: Execution) -> None:
        """Print that an execution was cancelled."""
        self._execution("execution_cancelled", execution)

    @hookimpl
    def worchflow_execution_superseded(self, execution: Execution) -> None:
        """Print that another worker has taken an execution over."""
        self._execution("execution_superseded", execution)

    def _execution(self, event: str, execution: Execution, **facts: Any) -> None:
        self._print(event, executionId=execution.id, function=execution.function, **facts)

    def _print(self, event: str, **facts: Any) -> None:
        error: Failure | None = facts.pop("error", None)
        document = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event}
        document |= {name: value for name, value in facts.items() if value is not None}
        if error is not None:
            document |= {"errorType": error.type, "error": error.message}
        _write(self._stream or sys.stderr, json.dumps(document))


def _write(stream: TextIO, line: str) -> None:
    # One write per line, so that lines of several threads do not mix; a reader that went away
    # must not harm the worker.
    with contextlib.suppress(OSError, ValueError):
        encoding = getattr(stream, "encoding", None) or "utf-8"
        stream.write(line.encode(encoding, "replace").decode(encoding) + "\n")
        stream.flush()


def _has_colour(stream: TextIO) -> bool:
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    with contextlib.suppress(ValueError):
        return stream.isatty()
    return False


def _dim(text: str) -> str:
    return f"\x1b[2m{text}\x1b[0m"


def _name(execution: Execution) -> str:
    return f"{printable(execution.function)} {short_id(execution.id)}"


def _reason(failure: Failure | None) -> str:
    if failure is None:
        return "unknown"
    kind = printable(failure.type, 80).rpartition(".")[2]
    message = printable(failure.message, 200)
    return f"{kind}: {message}" if message else kind


def _which_attempt(execution: Execution) -> str:
    number = execution.failed_attempts + 1
    total = f" of {execution.retries + 1}" if execution.retries is not None else ""
    parts = [f"attempt {number}{total}"] if number > 1 else []
    if execution.crashes:
        parts.append("again after its worker was lost")
    elif execution.fence > 1 and number == 1:
        parts.append("resumed")
    return ", ".join(parts)


def _again(execution: Execution) -> str:
    if execution.due_at is None:
        return "; again at once"
    wait = execution.due_at - execution.updated_at
    return f"; again in {human_duration(wait)}" if wait > timedelta(0) else "; again at once"


def _running_time(execution: Execution) -> timedelta:
    first = execution.attempts[0].started_at if execution.attempts else execution.claimed_at
    return (execution.finished_at or execution.updated_at) - (first or execution.created_at)


def _ran(execution: Execution) -> str:
    parts = [human_duration(_running_time(execution))]
    if execution.steps_recorded:
        parts.append(f"{execution.steps_recorded} step{'s' * (execution.steps_recorded > 1)}")
    if execution.failed_attempts:
        many = "y" if execution.failed_attempts == 1 else "ies"
        parts.append(f"{execution.failed_attempts} retr{many}")
    return ", ".join(parts)


def _clock(moment: datetime) -> str:
    local = moment.astimezone()
    return local.strftime(
        "%H:%M:%S" if local.date() == datetime.now().date() else "%Y-%m-%d %H:%M:%S"
    )


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="milliseconds")


def _millis(span: timedelta) -> int:
    return round(span.total_seconds() * 1000)
