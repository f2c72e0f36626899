"""Notes: what a running execution says of itself for people, its progress and its log lines.

They are facts for people and never durable work: kept in memory, written at most about once a
second, many executions together, in one record each. Losing the last second of them loses nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from worchflow_core.clock import from_millis, to_millis
from worchflow_core.errors import InvalidInput
from worchflow_core.lookup import read_record
from worchflow_core.models import Payload
from worchflow_core.protocols import Records

KIND = "note"
LINES_KEPT = 200
"""How many log lines of an execution are kept, the newest."""

BYTES_KEPT = 64 * 1024
"""How many bytes these may take together."""

TEXT_KEPT = 2_000
"""How many characters of one line, and of its fields, are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far an execution is, as it says itself.

    Attributes:
        done: how much is done.
        total: of how much; None where that is not known.
        note: a word on what it is at; may be empty.
        at: when it said so.
    """

    done: float
    total: float | None = None
    note: str = ""
    at: datetime

    @property
    def text(self) -> str:
        """How much of how much, for people."""
        done = _number(self.done)
        return done if self.total is None else f"{done} of {_number(self.total)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """A line that an execution has logged.

    Attributes:
        at: when.
        attempt: in which attempt.
        step: the title of the step whose code logged it; None for the function's own.
        text: what it says.
        fields: facts beside it, plain JSON.
    """

    at: datetime
    attempt: int
    step: str | None = None
    text: str
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Notes:
    """What an execution has said so far.

    Attributes:
        progress: how far it is; None where it never said.
        lines: what it logged, the newest lines, oldest first.
        dropped: how many older lines are no longer kept.
    """

    progress: Progress | None = None
    lines: tuple[LogLine, ...] = ()
    dropped: int = 0

    def with_more(self, said: Notes) -> Notes:
        """Return these with what was said later."""
        lines = (*self.lines, *said.lines)
        kept = lines[-LINES_KEPT:]
        size = 0
        for place in range(len(kept) - 1, -1, -1):
            size += len(kept[place].text) + len(json.dumps(kept[place].fields)) + 64
            if size > BYTES_KEPT:
                kept = kept[place + 1 :]
                break
        return Notes(
            progress=said.progress or self.progress,
            lines=kept,
            dropped=self.dropped + said.dropped + len(lines) - len(kept),
        )


async def read_notes(records: Records, execution_id: str) -> Notes:
    """Return what an execution has said so far, as it was last written."""
    record = await read_record(records, KIND, execution_id)
    return notes_of(None if record is None else record.body)


def checked_progress(done: Any, total: Any, note: Any, at: datetime) -> Progress:
    """Return progress as it is kept; raise `InvalidInput` for what is none."""
    if not _is_number(done) or done < 0:
        raise InvalidInput(f"step.progress: done is {done!r}; give a number, 0 or more")
    if total is not None and (not _is_number(total) or total <= 0):
        raise InvalidInput(f"step.progress: total is {total!r}; give a number above 0, or None")
    return Progress(done=done, total=total, note="" if note is None else _trimmed(note), at=at)


def line(
    text: Any, fields: Mapping[str, Any], *, at: datetime, attempt: int, step: str | None
) -> LogLine:
    """Return a log line as it is kept: trimmed, its fields plain JSON. Never raises."""
    return LogLine(at=at, attempt=attempt, step=step, text=_trimmed(text), fields=_plain(fields))


def body_of(notes: Notes) -> Payload:
    """Return the body of the record that keeps notes."""
    return json.dumps(notes_to_wire(notes), ensure_ascii=False, separators=(",", ":"))


def notes_of(body: Payload | None) -> Notes:
    """Return the notes that a record's body keeps."""
    if body is None:
        return Notes()
    fields = json.loads(body)
    progress = fields.get("progress")
    return Notes(
        progress=None
        if progress is None
        else Progress(
            done=progress["done"],
            total=progress.get("total"),
            note=progress.get("note") or "",
            at=from_millis(progress["at"]),
        ),
        lines=tuple(
            LogLine(
                at=from_millis(item["at"]),
                attempt=item["attempt"],
                step=item.get("step"),
                text=item["text"],
                fields=item.get("fields") or {},
            )
            for item in fields["lines"]
        ),
        dropped=fields["dropped"],
    )


def notes_to_wire(notes: Notes) -> dict[str, Any]:
    """Return notes as a JSON-able mapping; what says nothing is left out."""
    document: dict[str, Any] = {
        "lines": [_line_to_wire(item) for item in notes.lines],
        "dropped": notes.dropped,
    }
    if (progress := notes.progress) is not None:
        document["progress"] = {
            "done": progress.done,
            **({} if progress.total is None else {"total": progress.total}),
            **({"note": progress.note} if progress.note else {}),
            "at": to_millis(progress.at),
        }
    return document


def _line_to_wire(item: LogLine) -> dict[str, Any]:
    document: dict[str, Any] = {"at": to_millis(item.at), "attempt": item.attempt}
    if item.step is not None:
        document["step"] = item.step
    document["text"] = item.text
    if item.fields:
        document["fields"] = dict(item.fields)
    return document


def _number(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else f"{value:,.2f}"


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and abs(value) < 1e15 and not math.isnan(value)


def _trimmed(text: Any) -> str:
    try:
        words = str(text)
    except Exception:
        words = f"<{type(text).__name__} that cannot be printed>"
    words = words.encode("utf-8", "replace").decode()
    return words if len(words) <= TEXT_KEPT else words[: TEXT_KEPT - 1] + "…"


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields as plain JSON: what is none becomes its text, and all too much becomes one."""
    try:
        text = json.dumps(fields, default=_trimmed, ensure_ascii=True, allow_nan=False)
        if len(text) <= TEXT_KEPT:
            return dict(json.loads(text))
    except (ValueError, TypeError, RecursionError):
        pass
    share = max(16, TEXT_KEPT // max(1, len(fields)))
    return {name: _trimmed(value)[:share] for name, value in list(fields.items())[:100]}
