"""Tables: aligned columns, cut to the terminal's width, never cut when piped."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from worchflow_core.cli import output

_COLOURS = re.compile("\x1b\\[[0-9;]*m")


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column; `shrinks` says that its cells may be cut where space is short."""

    title: str
    is_number: bool = False
    shrinks: bool = False


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table, head first; cells must be safe to print already."""
    titles = [column.title for column in columns]
    cells = [titles, *(list(row) for row in rows)]
    widths = [max(text_width(row[index]) for row in cells) for index in range(len(columns))]
    if output.is_terminal(sys.stdout):
        widths = _fitted(columns, widths, output.width())
    lines = []
    for number, row in enumerate(cells):
        parts = [
            _pad(cell, size, column.is_number)
            for cell, size, column in zip(row, widths, columns, strict=True)
        ]
        line = "  ".join(parts).rstrip()
        lines.append(output.paint(line, "2") if number == 0 else line)
    return lines


def text_width(text: str) -> int:
    """Return how many columns a terminal needs for text."""
    plain = _COLOURS.sub("", text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in plain
    )


def cut(text: str, size: int) -> str:
    """Return text cut to a number of columns, the cut shown."""
    if text_width(text) <= size:
        return text
    kept = _COLOURS.sub("", text)
    while kept and text_width(kept) > size - 1:
        kept = kept[:-1]
    return kept + "…"


def _fitted(columns: Sequence[Column], widths: list[int], space: int) -> list[int]:
    widths = list(widths)
    while sum(widths) + 2 * (len(widths) - 1) > space:
        wide = [
            index
            for index, column in enumerate(columns)
            if column.shrinks and widths[index] > max(8, len(column.title))
        ]
        if not wide:
            break
        widths[max(wide, key=lambda index: widths[index])] -= 1
    return widths


def _pad(cell: str, size: int, is_number: bool) -> str:
    shown = cut(cell, size)
    space = " " * (size - text_width(shown))
    return space + shown if is_number else shown + space
