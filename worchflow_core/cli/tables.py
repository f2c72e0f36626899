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
    """A column.

    Attributes:
        title: its head.
        is_number: cells stand at the right.
        shrinks: its cells may be cut where space is short.
        drops: on a terminal it is left out where all its cells are "-" or empty, and where space
            is too short for all, the highest first; 0 is never left out.
    """

    title: str
    is_number: bool = False
    shrinks: bool = False
    drops: int = 0


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table, head first; cells must be safe to print already."""
    cells = [[column.title for column in columns], *(list(row) for row in rows)]
    is_live = output.is_terminal(sys.stdout)
    shown = _shown(columns, cells, output.width()) if is_live else range(len(columns))
    columns = [columns[index] for index in shown]
    cells = [[row[index] for index in shown] for row in cells]
    widths = _widths(cells)
    if is_live:
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


def _widths(cells: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(text_width, column)) for column in zip(*cells, strict=True)]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + 2 * (len(widths) - 1)


def _least(column: Column, width: int) -> int:
    """Return how narrow a column may become."""
    return min(width, max(8, len(column.title))) if column.shrinks else width


def _shown(columns: Sequence[Column], cells: Sequence[Sequence[str]], space: int) -> list[int]:
    """Return the indices of the columns that a terminal of this width is to show."""
    least = list(map(_least, columns, _widths(cells)))
    shown = [
        index
        for index, column in enumerate(columns)
        if not column.drops or any(row[index] not in ("", "-") for row in cells[1:])
    ]
    while _total([least[index] for index in shown]) > space:
        last = max(shown, key=lambda index: columns[index].drops)
        if not columns[last].drops:
            break
        shown.remove(last)
    return shown


def _fitted(columns: Sequence[Column], widths: list[int], space: int) -> list[int]:
    widths = list(widths)
    while _total(widths) > space:
        wide = [
            index
            for index, column in enumerate(columns)
            if widths[index] > _least(column, widths[index])
        ]
        if not wide:
            break
        widths[max(wide, key=lambda index: widths[index])] -= 1
    return widths


def _pad(cell: str, size: int, is_number: bool) -> str:
    shown = cut(cell, size)
    space = " " * (size - text_width(shown))
    return space + shown if is_number else shown + space
