"""Pure helpers of the pages: how moments, spans, ids, texts and tracebacks are put to people."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

from worchflow_core import FINAL, Attempt, Execution, Failure, Status, Worker, WorkerState

_ENDED = frozenset({"completed", "failed", "cancelled"})
_LIBRARY = re.compile(
    r"site-packages|dist-packages|[/\\]lib[/\\]python3|<frozen|"
    r"[/\\]worchflow_(core|plugins)[/\\]"
)
_CONTROLS = {
    **{code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"},
    0x7F: "\u2421",
    **{code: f"\\u{code:04x}" for code in (*range(0x80, 0xA0), 0x200E, 0x200F)},
    **{code: f"\\u{code:04x}" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))},
    **dict.fromkeys(range(0xD800, 0xE000), "\ufffd"),
}


def clean(text: str) -> str:
    """Return text in which terminal codes and reversed writing are seen instead of obeyed."""
    return text if text.isprintable() else text.translate(_CONTROLS)


def span_text(seconds: float) -> str:
    """Return a duration in the two units that matter: "109 ms", "2.7 s", "3m 20s", "2d 4h"."""
    seconds = max(0.0, seconds)
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, size, lower, small in (
        ("d", 86400, "h", 3600),
        ("h", 3600, "m", 60),
        ("m", 60, "s", 1),
    ):
        if whole >= size:
            count, rest = divmod(whole, size)
            return f"{count}{unit} {rest // small}{lower}" if rest // small else f"{count}{unit}"
    return f"{whole} s"


def ago_text(moment: datetime, now: datetime) -> str:
    """Return how long ago a moment was: "2h ago"; or in what time it comes: "in 2d 23h"."""
    seconds = (now - moment).total_seconds()
    size = abs(seconds)
    if seconds <= -60:
        return f"in {span_text(size)}"
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if size >= length or unit == "s":
            text = f"{int(size // length)}{unit}"
            return f"{text} ago" if seconds >= 0 else f"in {text}"
    return "now"


def short_id(execution_id: str) -> str:
    """Return the part of an id that lists show."""
    if re.fullmatch(r"[0-9a-f]{8}-?[0-9a-f-]{20,}", execution_id):
        return execution_id[:8]
    if execution_id.startswith("cron:") and len(execution_id) > 20:
        return f"cron…{execution_id[-15:]}"  # what tells the ticks of a function apart
    return execution_id if len(execution_id) <= 20 else execution_id[:19] + "…"


def url_part(text: str) -> str:
    """Return text as one part of a URL's path; no slash, dot-dot or quote survives."""
    quoted = quote(text.encode("utf-8", errors="replace"), safe="")
    return quoted.replace(".", "%2E") if set(text) <= {"."} else quoted


def first_line(failure: Failure | None, length: int = 160) -> str:
    """Return a failure in one line."""
    if failure is None:
        return ""
    kind = failure.type.rpartition(".")[2]
    lines = failure.message.strip().splitlines()
    text = f"{kind}: {lines[0]}" if lines else kind
    return text if len(text) <= length else text[: length - 1] + "…"


def attempts_text(execution: Execution) -> str:
    """Return which attempt of how many, such as "2/4"; a dash before the first."""
    number = execution.failed_attempts
    if execution.status is Status.QUEUED and not execution.attempts and not number:
        return "–"
    if execution.status is not Status.FAILED:
        number += 1
    if execution.retries is None:
        return str(max(1, number))
    return f"{max(1, number)}/{max(number, execution.retries + 1)}"


@dataclass(frozen=True, slots=True)
class RunTime:
    """When an execution's newest run to an end began, and when it ended if it has."""

    started: datetime | None
    ended: datetime | None

    @property
    def seconds(self) -> float | None:
        """How long it took; None while it goes on."""
        if self.started is None or self.ended is None:
            return None
        return (self.ended - self.started).total_seconds()


def run_time(execution: Execution) -> RunTime:
    """Return when an execution ran, a run before it was reopened left out."""
    groups = attempt_groups(execution.attempts)
    runs = [group for group in groups if not group.is_before_reopen]
    if execution.status in FINAL and not runs and groups:
        runs = [groups[-1]]
    started = runs[0].started_at if runs else execution.claimed_at
    if execution.owner is None and not runs:
        started = None
    return RunTime(started, execution.finished_at if execution.status in FINAL else None)


@dataclass(frozen=True, slots=True)
class AttemptGroup:
    """One attempt as people count them: its claims, between which it slept or crashed.

    Attributes:
        number: 1 for the first, counted through reopenings.
        claims: the history entries that make it up.
        is_before_reopen: it belongs to a run that ended and was reopened.
    """

    number: int
    claims: tuple[Attempt, ...]
    is_before_reopen: bool = False

    @property
    def started_at(self) -> datetime:
        """When its first claim began."""
        return self.claims[0].started_at

    @property
    def ended_at(self) -> datetime:
        """When its last claim ended."""
        return self.claims[-1].ended_at

    @property
    def outcome(self) -> str:
        """How its last claim ended."""
        return self.claims[-1].outcome

    @property
    def error(self) -> Failure | None:
        """What its last claim ended in."""
        return self.claims[-1].error


def attempt_groups(attempts: Sequence[Attempt]) -> list[AttemptGroup]:
    """Return a history as attempts: claims after a sleep or crash belong to one and the same."""
    groups: list[list[Attempt]] = []
    for attempt in attempts:
        previous = groups[-1][-1] if groups else None
        goes_on = previous is not None and (
            previous.number == attempt.number and previous.outcome not in {*_ENDED, "retrying"}
        )
        if goes_on:
            groups[-1].append(attempt)
        else:
            groups.append([attempt])
    last_end = max(
        (index for index, group in enumerate(groups[:-1]) if group[-1].outcome in _ENDED),
        default=-1,
    )
    return [
        AttemptGroup(index + 1, tuple(group), is_before_reopen=index <= last_end)
        for index, group in enumerate(groups)
    ]


@dataclass(frozen=True, slots=True)
class Frames:
    """Neighbouring lines of a traceback: of your own code, or of libraries."""

    lines: tuple[str, ...]
    is_own: bool
    count: int


def traceback_frames(text: str) -> list[Frames]:
    """Return a traceback in parts, so that library frames can be folded."""
    parts: list[tuple[list[str], bool, int]] = []
    for lines, is_own, is_frame in _frames(text):
        if parts and parts[-1][1] == is_own:
            parts[-1] = (parts[-1][0] + lines, is_own, parts[-1][2] + is_frame)
        else:
            parts.append((lines, is_own, int(is_frame)))
    return [Frames(tuple(lines), is_own, count) for lines, is_own, count in parts]


def _frames(text: str) -> Iterator[tuple[list[str], bool, bool]]:
    frame: list[str] = []
    for line in text.splitlines():
        starts = line.startswith('  File "')
        if frame and (starts or not line.startswith("    ")):
            yield frame, not _LIBRARY.search(frame[0]), True
            frame = []
        if starts or frame:
            frame.append(line)
        else:
            yield [line], True, False
    if frame:
        yield frame, not _LIBRARY.search(frame[0]), True


def living(workers: Sequence[Worker], now: datetime) -> list[Worker]:
    """Return the workers that take work."""
    return [
        item
        for item in workers
        if item.state is WorkerState.RUNNING and not is_lost(item.beat_at, item.lease_until, now)
    ]


def is_lost(beat_at: datetime | None, lease_until: datetime | None, now: datetime) -> bool:
    """Return whether a worker's word no longer holds."""
    return beat_at is None or (lease_until is not None and lease_until < now)


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the value below which `share` of the values lie; None where there are none."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
