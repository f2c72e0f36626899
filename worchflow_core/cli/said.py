"""What an execution says of itself, as lines: its progress, and what it logged."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worchflow_core.notes import LogLine, Notes, Progress

SHOWN = 10
"""How many log lines are shown beside everything else, the newest."""


def progress_line(progress: Progress, space: int) -> str:
    """Return a line that says how far an execution is, with a bar where the end is known."""
    from worchflow_core.words import printable

    said = progress.text
    note = f"  {printable(progress.note, 60)}" if progress.note else ""
    if progress.total is None:
        return f"progress {said}{note}"
    share = min(1.0, progress.done / progress.total)
    width = max(10, min(24, space - len(said) - len(note) - 18))
    full = round(share * width)
    return f"progress [{'#' * full}{'.' * (width - full)}] {said}  {share:.0%}{note}"


def log_lines(notes: Notes, count: int | None = SHOWN) -> list[str]:
    """Return the newest log lines, and a word on those that are not shown."""
    chosen = notes.lines if count is None else notes.lines[-count:]
    hidden = notes.dropped + len(notes.lines) - len(chosen)
    head = [f"... {hidden} earlier lines" + (" (--log shows those kept)" if count else "")]
    return [*(head if hidden else []), *(log_line(item) for item in chosen)]


def log_line(item: LogLine) -> str:
    """Return a log line: time, step, text, fields."""
    from worchflow_core.words import printable

    where = f"{printable(item.step, 30)}: " if item.step else ""
    facts = "".join(
        f"  {printable(name, 40)}={printable(_text(value), 200)}"
        for name, value in item.fields.items()
    )
    return f"{item.at.astimezone():%H:%M:%S}  {where}{printable(item.text, 500)}{facts}"


def new_lines(before: Notes, now: Notes) -> Sequence[LogLine]:
    """Return the lines that came since notes were read before."""
    known = before.dropped + len(before.lines)
    return now.lines[max(0, known - now.dropped) :]


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
