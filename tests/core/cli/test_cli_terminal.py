from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
GOOD = '{"amount": 3, "customer_id": "ana"}'
ESCAPES = re.compile("\x1b\\[[0-9;?]*[A-Za-z]")


def on_terminal(
    place: Path,
    *arguments: str,
    answer: str = "",
    columns: int = 80,
    env: dict[str, str] | None = None,
) -> tuple[int, str]:
    """Run a command line on a terminal; return its exit code and what was shown."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "worchflow_core.cli", *arguments],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", **(env or {})},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    deadline = time.monotonic() + 30
    try:
        while time.monotonic() < deadline:
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    part = os.read(ours, 65536)
                except OSError:  # the other end is closed
                    break
                if not part:
                    break
                shown += part
                if answer and b"[y/N]" in shown:
                    os.write(ours, answer.encode())
                    answer = ""
        return process.wait(10), shown.decode(errors="replace").replace("\r\n", "\n")
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
        os.close(ours)


@pytest.fixture
def two(cli: Callable[..., Any], flows: str) -> str:
    assert cli("run", "pay", GOOD, "-m", flows, "-q", "--id", "done-0001").code == 0
    assert cli("run", "boom", "-m", flows, "-q", "--id", "fail-0001").code == 6
    return flows


@pytest.mark.parametrize(
    "arguments",
    [
        ("list",),
        ("show", "fail-0001"),
        ("show", "done-0001"),
        ("stats",),
        ("functions",),
        ("plugins",),
    ],
    ids=" ".join,
)
def test_tables_fit_eighty_columns(place: Path, two: str, arguments: tuple[str, ...]) -> None:
    code, shown = on_terminal(place, *arguments, "-q")
    assert code == 0
    for line in ESCAPES.sub("", shown).splitlines():
        if not line.startswith("  at "):  # a path is never cut: people copy it
            assert len(line) <= 80, line


def test_colours_are_for_terminals_that_want_them(place: Path, two: str) -> None:
    assert "\x1b[32m" in on_terminal(place, "list")[1]
    assert "\x1b" not in on_terminal(place, "list", "--no-color")[1]
    assert "\x1b" not in on_terminal(place, "list", env={"NO_COLOR": "1"})[1]
    assert "\x1b" not in on_terminal(place, "list", env={"TERM": "dumb"})[1]


def test_a_status_is_a_mark_and_a_word(place: Path, two: str) -> None:
    shown = on_terminal(place, "list", "--no-color")[1]
    assert "✓ completed" in shown
    assert "✗ failed" in shown
    plain = on_terminal(place, "list", "--no-color", env={"PYTHONIOENCODING": "ascii"})[1]
    assert "+ completed" in plain
    assert "x failed" in plain


def test_bulk_commands_ask_on_a_terminal(place: Path, two: str, cli: Callable[..., Any]) -> None:
    code, shown = on_terminal(place, "retry", "--all", "--status", "failed", answer="n\n")
    assert "1 execution matches. Retry them? [y/N]" in shown
    assert "nothing was done" in shown
    assert code == 1
    code, shown = on_terminal(place, "retry", "--all", "--status", "failed", answer="y\n")
    assert code == 0
    assert "1 queued" in shown


def test_json_on_a_terminal_is_indented(place: Path, two: str) -> None:
    code, shown = on_terminal(place, "stats", "--json")
    assert code == 0
    assert shown.startswith("{\n  ")


def test_watching_draws_anew_and_ends(place: Path, two: str) -> None:
    code, shown = on_terminal(place, "show", "done-0001", "--watch")
    assert code == 0
    assert "\x1b[H\x1b[2J" in shown
    assert "completed" in shown
