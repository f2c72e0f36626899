"""Tables fit the terminal, and say all there is where nobody looks at the width."""

from __future__ import annotations

import pytest

from worchflow_core.cli import output
from worchflow_core.cli.tables import Column, table

COLUMNS = (
    Column(title="FUNCTION", shrinks=True),
    Column(title="EVENTS", shrinks=True, drops=1),
    Column(title="RETRIES", is_number=True, drops=2),
    Column(title="DESCRIPTION", shrinks=True, drops=3),
)


def heads(rows: list[list[str]]) -> list[str]:
    return table(COLUMNS, rows)[0].split()


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(output, "is_terminal", lambda stream: True)
    monkeypatch.setattr(output, "has_colour", lambda stream: False)
    monkeypatch.setattr(output, "width", lambda: 80)
    return monkeypatch


def test_a_column_that_says_nothing_is_left_out() -> None:
    assert heads([["pay", "-", "3", ""]]) == ["FUNCTION", "RETRIES"]
    assert heads([["pay", "-", "3", ""], ["go", "paid", "3", ""]]) == [
        "FUNCTION",
        "EVENTS",
        "RETRIES",
    ]
    assert heads([]) == ["FUNCTION"]


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (80, ["FUNCTION", "EVENTS", "RETRIES", "DESCRIPTION"]),
        (30, ["FUNCTION", "EVENTS", "RETRIES"]),
        (20, ["FUNCTION", "EVENTS"]),
        (9, ["FUNCTION"]),
    ],
)
def test_columns_go_where_space_is_short(
    terminal: pytest.MonkeyPatch, width: int, shown: list[str]
) -> None:
    terminal.setattr(output, "width", lambda: width)
    rows = [["process-payment", "order/created, order/changed", "3", "Take a payment. " * 5]]
    assert heads(rows) == shown
    assert all(len(line) <= width for line in table(COLUMNS, rows))


def test_a_pipe_gets_all_columns(terminal: pytest.MonkeyPatch) -> None:
    terminal.setattr(output, "is_terminal", lambda stream: False)
    rows = [["process-payment", "-", "3", "Take a payment. " * 9]]
    assert heads(rows) == ["FUNCTION", "EVENTS", "RETRIES", "DESCRIPTION"]
    assert max(map(len, table(COLUMNS, rows))) > 80
