"""The waterfall: where each step of one attempt lies on a time axis whose gaps are folded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from worchflow_core import Execution, Failure, RunningExecution, Status, StepRecord, StepStatus
from worchflow_plugins.dashboard.axis import Axis
from worchflow_plugins.dashboard.view import AttemptGroup, attempt_groups
from worchflow_plugins.dashboard.waits import Wanted, wanted_by

Mark = Literal["done", "failed", "running", "replayed", "sleep", "wait", "started"]

_SLEEPS = frozenset({"sleep", "wait", "invoke"})
"""Kinds of steps that take up no slot while they take their time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row: a step, a try that failed, or a time of waiting.

    Attributes:
        key: tells rows apart through refreshes.
        title: what people read.
        mark: how it is drawn.
        started_at, ended_at: its time; the end is None while it goes on.
        left, width: its bar, in percent of the axis.
        step: the record, where it is a step that was recorded.
        error: why it failed.
        from_attempt: the attempt that recorded a replayed step.
        tries: how often it failed before, in this attempt.
        wanted: what is waited for, where the wait goes on.
    """

    key: str
    title: str
    mark: Mark
    started_at: datetime
    ended_at: datetime | None
    left: float = 0.0
    width: float = 0.0
    step: StepRecord | None = None
    error: Failure | None = None
    from_attempt: int | None = None
    tries: int = 0
    wanted: Wanted | None = None

    @property
    def seconds(self) -> float | None:
        """How long it took; None while it goes on."""
        return (self.ended_at - self.started_at).total_seconds() if self.ended_at else None

    @property
    def child(self) -> str | None:
        """The execution it invoked."""
        if self.step is None or self.step.kind != "invoke" or self.step.result is None:
            return None
        try:
            return str(json.loads(self.step.result)["child"])
        except (ValueError, LookupError, TypeError):  # written by a foreign client
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waterfall:
    """The rows of one attempt.

    Attributes:
        rows: in order of time, replayed steps first.
        start, end: the ends of the axis; the end is None while the attempt runs.
        folds: where gaps were folded: place in percent, and seconds left out.
        number: the attempt shown.
        count: how many attempts there are.
        failed: how many rows failed.
        is_live: the attempt runs now.
    """

    rows: tuple[Row, ...]
    start: datetime
    end: datetime | None
    folds: tuple[tuple[float, float], ...]
    number: int
    count: int
    failed: int
    is_live: bool


@dataclass(frozen=True, slots=True)
class _Window:
    """One attempt: when, and what its history says."""

    number: int
    start: datetime
    end: datetime | None
    group: AttemptGroup | None


def _windows(execution: Execution) -> list[_Window]:
    groups = attempt_groups(execution.attempts)
    windows = [_Window(item.number, item.started_at, item.ended_at, item) for item in groups]
    if execution.owner is not None and execution.claimed_at is not None:
        last = groups[-1] if groups else None
        goes_on = last is not None and last.outcome in (
            "sleeping",
            "waiting",
            "released",
            "crashed",
        )
        if goes_on and last is not None:
            windows[-1] = replace(windows[-1], end=None)
        else:
            windows.append(_Window(len(groups) + 1, execution.claimed_at, None, None))
    if not windows:
        windows = [_Window(1, execution.created_at, execution.finished_at, None)]
    return windows


def make_waterfall(
    execution: Execution,
    steps: Sequence[StepRecord],
    *,
    now: datetime,
    attempt: int | None = None,
    running: Sequence[RunningExecution] = (),
) -> Waterfall:
    """Return the waterfall of one attempt, the newest unless `attempt` names another.

    Args:
        execution: the execution.
        steps: its recorded steps.
        now: the moment up to which running bars reach.
        attempt: the number of an attempt, from 1.
        running: what workers say they are running of it.
    """
    windows = _windows(execution)
    index = next((i for i, item in enumerate(windows) if item.number == attempt), len(windows) - 1)
    window = windows[index]
    following = windows[index + 1].start if index + 1 < len(windows) else None
    rows = _waits(execution, windows, index)
    rows += _steps(execution, windows, index, following, steps)
    rows += _tries(window)
    is_live = window.end is None and execution.owner is not None
    if is_live:
        rows += _running(window, rows, running)
    if index == len(windows) - 1:
        rows = _ahead(execution, rows)
    rows.sort(key=lambda row: (row.mark != "replayed", row.started_at))
    start = min((row.started_at for row in rows if row.mark != "replayed"), default=window.start)
    end = max((row.ended_at or now for row in rows if row.mark != "replayed"), default=window.start)
    if not is_live:
        end = max(end, window.end or end)
    placed, folds = _placed(rows, start, max(end, now if is_live else end), now)
    return Waterfall(
        rows=tuple(placed),
        start=start,
        end=None if is_live else end,
        folds=folds,
        number=window.number,
        count=len(windows),
        failed=sum(row.mark == "failed" for row in placed),
        is_live=is_live,
    )


def _waits(execution: Execution, windows: Sequence[_Window], index: int) -> list[Row]:
    window = windows[index]
    if index == 0:
        ended = window.start if window.group or execution.owner else execution.finished_at
        if execution.created_at < (ended or window.start) or not (window.group or execution.owner):
            return [_wait("queued", "queued", execution.created_at, ended)]
        return []
    before = windows[index - 1]
    if before.end is None:
        return []
    name = "back-off" if before.group and before.group.outcome == "retrying" else "queued again"
    return [_wait("back-off", name, before.end, window.start)]


def _ahead(execution: Execution, rows: list[Row]) -> list[Row]:
    """Return the rows with the wait that lies before an execution that is due later."""
    names = {
        Status.RETRYING: "back-off",
        Status.SLEEPING: "sleeping",
        Status.WAITING: "waiting",
    }
    if execution.status not in names or execution.owner is not None:
        return rows
    wanted, until = wanted_by(execution), execution.due_at
    if wanted is not None:
        until = wanted.until
    asleep = [
        row
        for row in rows
        if row.mark == "sleep" and row.ended_at and row.ended_at > execution.updated_at
    ]
    if execution.status is Status.SLEEPING and asleep:
        return [
            replace(row, wanted=Wanted(until=row.ended_at)) if row in asleep else row
            for row in rows
        ]
    row = _wait("ahead", names[execution.status], execution.updated_at, until)
    return [*rows, replace(row, wanted=wanted or Wanted(until=until))]


def _wait(key: str, title: str, start: datetime, end: datetime | None) -> Row:
    return Row(key=key, title=title, mark="wait", started_at=start, ended_at=end)


def _steps(
    execution: Execution,
    windows: Sequence[_Window],
    index: int,
    following: datetime | None,
    steps: Sequence[StepRecord],
) -> list[Row]:
    window = windows[index]
    rows = []
    for step in steps:
        if following is not None and step.started_at >= following:
            continue
        if step.started_at < window.start and index > 0:
            if step.status is StepStatus.COMPLETED:
                rows.append(_replayed(step, windows, index))
            continue
        mark: Mark = "done" if step.status is StepStatus.COMPLETED else "started"
        began, ended = step.started_at, step.ended_at
        if step.kind in _SLEEPS:
            mark = "sleep"
            began = _waited_since(window, step, rows)
            if ended is not None and execution.finished_at is not None:
                ended = max(began, min(ended, execution.finished_at))
        rows.append(
            Row(
                key=step.step_id,
                title=step.title,
                mark=mark,
                started_at=began,
                ended_at=ended or (window.end if mark == "started" else None),
                step=step,
                tries=_failures(window, step.step_id),
            )
        )
    return rows


def _waited_since(window: _Window, step: StepRecord, before: Sequence[Row]) -> datetime:
    """Return when a wait began: the record says when it was over, the history when it was left."""
    if step.kind == "sleep":
        return step.started_at
    ends = [row.ended_at for row in before if row.ended_at and row.ended_at <= step.started_at]
    since = max(ends, default=window.start)
    claims = window.group.claims if window.group else ()
    left = [
        item.ended_at
        for item in claims
        if item.outcome in ("waiting", "sleeping") and since <= item.ended_at <= step.started_at
    ]
    return min(left, default=step.started_at)


def _replayed(step: StepRecord, windows: Sequence[_Window], index: int) -> Row:
    origin = max(
        (item.number for item in windows[:index] if item.start <= step.started_at), default=1
    )
    return Row(
        key=step.step_id,
        title=step.title,
        mark="replayed",
        started_at=step.started_at,
        ended_at=step.ended_at,
        step=step,
        from_attempt=origin,
    )


def _failures(window: _Window, step_id: str) -> int:
    claims = window.group.claims if window.group else ()
    return sum(item.step_id == step_id for claim in claims for item in claim.tries)


def _tries(window: _Window) -> list[Row]:
    claims = window.group.claims if window.group else ()
    tries = [item for claim in claims for item in claim.tries]
    return [
        Row(
            key=f"{item.step_id}-try-{number}",
            title=item.title,
            mark="failed",
            started_at=item.started_at,
            ended_at=item.ended_at,
            error=item.error,
        )
        for number, item in enumerate(tries)
    ]


def _running(
    window: _Window, rows: Sequence[Row], running: Sequence[RunningExecution]
) -> list[Row]:
    """Return the bars that grow: the steps workers tell of, or the time since the last one."""
    known = {row.title for row in rows if row.mark == "started"}
    told = [item for item in running if item.step and item.since >= window.start]
    if told:
        return [
            Row(
                key=f"running-{item.step}",
                title=item.step or "",
                mark="running",
                started_at=item.since,
                ended_at=None,
            )
            for item in told
            if item.step not in known
        ]
    ends = [row.ended_at for row in rows if row.ended_at and row.mark != "replayed"]
    since = max([window.start, *ends])
    return [Row(key="running", title="running", mark="running", started_at=since, ended_at=None)]


def _placed(
    rows: Sequence[Row], start: datetime, end: datetime, now: datetime
) -> tuple[list[Row], tuple[tuple[float, float], ...]]:
    """Return the rows with their bars, and the gaps that were folded."""
    waits = [(row.started_at, row.ended_at or now) for row in rows if row.mark in ("wait", "sleep")]
    work = [
        (row.started_at, row.ended_at or now)
        for row in rows
        if row.mark not in ("wait", "sleep", "replayed")
    ]
    axis = Axis(start, end, work, waits)
    placed = []
    for row in rows:
        if row.mark == "replayed":
            placed.append(replace(row, left=0.0, width=1.2))
            continue
        left = axis.place(row.started_at)
        right = axis.place(row.ended_at or max(now, row.started_at))
        placed.append(replace(row, left=round(left, 2), width=round(max(0.6, right - left), 2)))
    return placed, axis.folds
