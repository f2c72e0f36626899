"""Printing: data on standard output, everything else on standard error, colours on a terminal."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from worchflow_core.words import printable

MARKS: Mapping[str, tuple[str, str, str]] = {
    "completed": ("✓", "+", "32"),
    "failed": ("✗", "x", "31"),
    "cancelled": ("–", "-", "2"),
    "processing": ("▶", ">", "36"),
    "queued": ("·", ".", "2"),
    "retrying": ("↻", "~", "33"),
    "sleeping": ("…", "z", "34"),
    "waiting": ("…", "z", "34"),
    "ok": ("✓", "+", "32"),
    "warning": ("!", "!", "33"),
    "problem": ("✗", "x", "31"),
    "running": ("✓", "+", "32"),
    "starting": ("·", ".", "2"),
    "draining": ("–", "-", "33"),
    "stopped": ("–", "-", "2"),
    "dead": ("✗", "x", "31"),
}
"""A sign, its ASCII twin and a colour for each status word."""

_STEERING = re.compile("[\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
"""What json.dumps leaves as it is and a terminal may obey; its escapes are JSON as well."""


def prepare_streams() -> None:
    """Make sure that no character can stop the output; called once per process."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError, OSError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def is_terminal(stream: TextIO) -> bool:
    """Return whether a stream is a terminal that can do more than lines."""
    with contextlib.suppress(ValueError):
        return stream.isatty() and os.environ.get("TERM") != "dumb"
    return False


def has_colour(stream: TextIO) -> bool:
    """Return whether colours may be used on a stream."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def data(text: str) -> None:
    """Write a line of data to standard output."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def document(value: Any, *, lines: bool = False) -> None:
    """Write a JSON document to standard output: indented for people, or on one line."""
    indent = 2 if is_terminal(sys.stdout) and not lines else None
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    data(_STEERING.sub(lambda match: f"\\u{ord(match[0]):04x}", text))


def say(text: str) -> None:
    """Write a line to standard error, whatever the flags say."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def warn(text: str) -> None:
    """Write a line `warning: ...` to standard error."""
    say(f"{paint('warning', '33', sys.stderr)}: {printable(text)}")


def error(text: str, *, details: Sequence[str] = (), hint: str = "") -> None:
    """Write `error: ...`, its details indented, and a hint."""
    first, *more = text.splitlines() or [""]
    say(f"{paint('error', '31', sys.stderr)}: {printable(first)}")
    for line in (*more, *details):
        say(f"  {_kept_indent(line)}")
    if hint:
        say(f"hint: {printable(hint)}")


def paint(text: str, colour: str, stream: TextIO | None = None) -> str:
    """Return text in a colour, where the stream shows colours."""
    return f"\x1b[{colour}m{text}\x1b[0m" if has_colour(stream or sys.stdout) else text


def status(word: str, stream: TextIO | None = None) -> str:
    """Return a status as a mark and a word."""
    target = stream or sys.stdout
    mark, plain, colour = MARKS.get(word, ("?", "?", "2"))
    encoding = (getattr(target, "encoding", None) or "ascii").lower().replace("-", "")
    sign = mark if encoding.startswith("utf") else plain
    return f"{paint(sign, colour, target)} {word}"


def mark(word: str, stream: TextIO | None = None) -> str:
    """Return a status as its mark alone, where the word stands beside it."""
    return status(word, stream).split(" ", 1)[0]


def width() -> int:
    """Return how many columns the terminal has."""
    return shutil.get_terminal_size((80, 24)).columns


def _kept_indent(line: str) -> str:
    return printable(line) if line == line.lstrip() else "  " + printable(line)


def clear() -> None:
    """Clear the terminal, for a view that is drawn again and again."""
    sys.stdout.write("\x1b[H\x1b[2J")
