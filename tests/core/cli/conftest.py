"""Fixtures for the command line: a directory of its own, run in this process or as a program."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.core.cli.programs import Done, Program, wait_for

FLOWS = '''
import asyncio
from pathlib import Path

from pydantic import BaseModel

from worchflow_core import Event, function


class Payment(BaseModel):
    amount: float
    customer_id: str
    note: str = ""


@function(id="pay", retries=2, retry_delay=0)
async def pay(event: Event[Payment], step) -> dict:
    """Take a payment."""
    await step.run("Validate", lambda: True)
    charge = await step.run("Charge", lambda: {"id": "ch_1"})
    return {"charged": event.data.amount, **charge}


@function(retries=0)
async def boom(event: Event, step) -> None:
    def bad():
        raise ValueError("evil \\x1b[31mred\\nsecond line")

    await step.run("Bad \\x9bstep".replace("\\x9b", ""), bad)


@function
async def until_file(event: Event, step) -> str:
    async def wait():
        while not Path(event.data["path"]).exists():
            await asyncio.sleep(0.02)
        return "seen"

    Path(event.data["path"] + ".began").touch()
    return await step.run("Wait", wait)
'''


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty directory and no setting of Worchflow; what is imported from it is forgotten."""
    for name in [name for name in os.environ if name.startswith("WORCHFLOW_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if Path(getattr(module, "__file__", None) or "/").is_relative_to(tmp_path):
            del sys.modules[name]
    importlib.invalidate_caches()


@pytest.fixture
def flows(place: Path) -> str:
    """The name of a module with functions; another in each test, as imports are remembered."""
    name = f"flows_{uuid4().hex[:8]}"
    (place / f"{name}.py").write_text(FLOWS, encoding="utf-8")
    return name


@pytest.fixture
def cli(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Done]:
    """Run a command line in this process."""
    from worchflow_core.cli.entry import run

    path = list(sys.path)

    def call(*arguments: str) -> Done:
        capsys.readouterr()
        monkeypatch.setattr(sys, "path", [*path])
        code = run(arguments)
        captured = capsys.readouterr()
        return Done(code=code, out=captured.out, err=captured.err)

    return call


@pytest.fixture
def program(place: Path) -> Iterator[Callable[..., Program]]:
    """Start a command line as a process; it is killed at the end of the test."""
    started: list[Program] = []

    def start(*arguments: str, **env: str) -> Program:
        started.append(Program(place, arguments, env))
        return started[-1]

    yield start
    for item in started:
        item.close()


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """Wait for a condition, with a deadline."""
    return wait_for
