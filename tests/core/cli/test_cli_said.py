"""What executions say of themselves, on the command line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from worchflow_core import StoreUnavailable
from worchflow_core.cli import following, said
from worchflow_core.cli.flags import Flags
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


LOST = """
from worchflow_core import function


def refund(receipt):
    raise OSError("the till is \\x1b[31mshut")


@function(retries=0)
async def pays(event, step):
    await step.run("Charge", lambda: "receipt", undo=refund)
    await step.run("Reserve", lambda: "seat", undo=lambda seat: None)
    raise ValueError("no visa")
"""


def test_show_marks_an_undo_that_could_not_be_made(cli: Callable[..., Any], place: Path) -> None:
    (place / "lost.py").write_text(LOST)
    assert cli("send", "pays", "-m", "lost", "-q", "--id", "lost-0001").code == 0
    assert cli("worker", "-m", "lost", "--burst", "-q").code == 0
    shown = cli("show", "lost-0001").out
    assert "\x1b" not in shown
    lines = shown.splitlines()
    marks = {line[2:].split("  ")[0]: line[0] for line in lines if line[2:].startswith("Undo ")}
    assert marks["Undo Charge"] != marks["Undo Reserve"]
    assert "'Charge' could not be undone: the till is" in shown
    assert "  1 step undone" in lines


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


def test_run_tells_meanwhile_on_standard_error(cli: Callable[..., Any], talking: str) -> None:
    ran = cli("run", "talks", "-m", talking, "--memory")
    lines = ran.err.splitlines()
    assert sum("  name=ana" in line for line in lines) == 15
    assert sum(line.startswith("progress [") for line in lines) == 1
    assert "\x1b[31m" not in ran.err
    assert "name=ana" not in ran.out
    quiet = cli("run", "talks", "-m", talking, "--memory", "-q")
    assert "name=ana" not in quiet.err


class Talker:
    """A client of one execution, which says the next thing each time it is asked."""

    def __init__(self, *said: Notes) -> None:
        self._said = list(said)

    async def notes(self, execution_id: str) -> Notes:
        assert execution_id == "talk-0001"
        return self._said.pop(0) if len(self._said) > 1 else self._said[0]


def test_a_follower_tells_each_line_once_and_progress_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = tuple(LogLine(at=NOW, attempt=1, text=f"line {number}") for number in range(3))
    counts = [0, 1, 5, 10, 11, 60, 99, 100]
    said_now = [Notes(progress=Progress(done=done, total=100, at=NOW)) for done in counts]
    said_now += [Notes(lines=lines[:2]), Notes(lines=lines), Notes(lines=lines)]
    client: Any = Talker(*said_now)

    async def main() -> None:
        follower = following.Follower(client, "talk-0001")
        for _ in range(len(said_now) + 2):
            await follower.tell()

    asyncio.run(main())
    told = capsys.readouterr().err.splitlines()
    assert [line.split("] ")[1] for line in told if "progress" in line] == [
        "0 of 100  0%",
        "10 of 100  10%",
        "60 of 100  60%",
        "99 of 100  99%",
        "100 of 100  100%",
    ]
    assert [line[10:] for line in told if "line" in line] == ["line 0", "line 1", "line 2"]


def test_a_store_that_is_away_ends_no_following() -> None:
    class Away:
        async def notes(self, execution_id: str) -> Notes:
            raise StoreUnavailable("away")

    async def main() -> None:
        client: Any = Away()
        async with following.following(client, "talk-0001", Flags()):
            await asyncio.sleep(0)

    asyncio.run(main())
