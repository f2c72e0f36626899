"""What executions say of themselves, on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from worchflow_core.cli import said
from worchflow_core.notes import LogLine, Notes, Progress

NOW = datetime(2030, 1, 1, tzinfo=UTC)
TALKING = """
from worchflow_core import function


@function(retries=0)
async def talks(event, step):
    step.progress(1500, 3000, "rows of \\x1b[31mred")
    for number in range(15):
        step.log(f"line {number}", number=number, name="ana")
    await step.run("Charge", lambda: "receipt", undo=lambda receipt: None)
    if event.data == "nap":
        await step.sleep("Nap", "1h")
    raise ValueError("no visa")
"""


@pytest.fixture
def talking(place: Path) -> str:
    (place / "talking.py").write_text(TALKING)
    return "talking"


def test_show_tells_progress_and_the_newest_lines(cli: Callable[..., Any], talking: str) -> None:
    assert cli("send", "talks", '"nap"', "-m", talking, "-q", "--id", "talk-0001").code == 0
    assert cli("worker", "-m", talking, "--burst", "-q").code == 0
    lines = cli("show", "talk-0001").out.splitlines()
    (progress,) = (line for line in lines if line.startswith("progress "))
    assert "1,500 of 3,000  50%" in progress
    assert "\x1b" not in progress
    shown = [line for line in lines if "  name=ana" in line]
    assert len(shown) == said.SHOWN
    assert shown[-1].endswith("line 14  number=14  name=ana")
    assert "... 5 earlier lines (--log shows those kept)" in lines
    everything = cli("show", "talk-0001", "--log").out.splitlines()
    assert len(everything) == 15
    listed = json.loads(cli("show", "talk-0001", "--log", "--json").out)
    assert listed["total"] == 15
    assert listed["items"][3]["fields"] == {"number": 3, "name": "ana"}
    document = json.loads(cli("show", "talk-0001", "--json").out)
    assert document["progress"]["total"] == 3000
    assert len(document["log"]) == 15


def test_show_tells_what_was_undone(cli: Callable[..., Any], talking: str) -> None:
    assert cli("send", "talks", "-m", talking, "-q", "--id", "talk-0002").code == 0
    assert cli("worker", "-m", talking, "--burst", "-q").code == 0
    shown = cli("show", "talk-0002").out
    assert "Undo Charge" in shown
    assert "  1 step undone" in shown
    assert "retry:" not in shown
    refused = cli("retry", "talk-0002")
    assert refused.code == 4
    assert "its steps were undone" in refused.err


def test_watching_tells_each_line_once(cli: Callable[..., Any], talking: str) -> None:
    assert cli("send", "talks", "-m", talking, "-q", "--id", "talk-0003").code == 0
    assert cli("worker", "-m", talking, "--burst", "-q").code == 0
    done = cli("show", "talk-0003", "--watch", "--json")
    documents = [json.loads(line) for line in done.out.splitlines()]
    assert [item["log"]["text"] for item in documents if "log" in item] == [
        f"line {number}" for number in range(15)
    ]
    assert [item["progress"]["done"] for item in documents if "progress" in item] == [1500]


@pytest.mark.parametrize(
    ("done", "total", "expected"),
    [
        (0, 10, "[..........] 0 of 10  0%"),
        (25, 10, "[##########] 25 of 10  100%"),
        (1 / 3, 1, "[###.......] 0.33 of 1  33%"),
        (12, None, "12"),
    ],
)
def test_progress_in_a_narrow_line(done: float, total: float | None, expected: str) -> None:
    progress = Progress(done=done, total=total, at=NOW)
    assert said.progress_line(progress, 20) == f"progress {expected}"


def test_only_new_lines_are_told() -> None:
    def notes(first: int, last: int) -> Notes:
        lines = tuple(LogLine(at=NOW, attempt=1, text=str(n)) for n in range(first, last))
        return Notes(lines=lines, dropped=first)

    for before, now, new in (
        (notes(0, 0), notes(0, 2), ["0", "1"]),
        (notes(0, 2), notes(0, 2), []),
        (notes(0, 5), notes(3, 7), ["5", "6"]),
        (notes(0, 5), notes(9, 11), ["9", "10"]),
    ):
        assert [item.text for item in said.new_lines(before, now)] == new
