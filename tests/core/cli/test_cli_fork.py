from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from worchflow_core.cli import exits

GOOD = '{"amount": 3, "customer_id": "ana"}'
ODD = """
from worchflow_core import Event, function

@function(id="odd", retries=0)
async def odd(event: Event, step):
    print("between the steps")
    first = await step.run("a=b", lambda: 1)
    second = await step.run("evil \\u202e", lambda: first + 1)
    return [first, second]
"""

LEAVING = """
import asyncio, sys, time
from worchflow_core import Event, function

async def leave():
    sys.exit(0)

@function(id="odd", retries=0)
async def odd(event: Event, step):
    asyncio.get_running_loop().run_in_executor(None, time.sleep, 60)
    await asyncio.gather(leave())
"""


@pytest.fixture
def done(cli: Callable[..., Any], flows: str) -> str:
    """One execution that completed; the module's name."""
    assert cli("run", "pay", GOOD, "-m", flows, "-q", "--id", "done-0001").code == 0
    return flows


@pytest.fixture
def odd(cli: Callable[..., Any], place: Path) -> str:
    """One execution whose steps have odd titles; the module's name."""
    (place / "odd.py").write_text(ODD, encoding="utf-8")
    assert cli("run", "odd", "-m", "odd", "-q", "--id", "odd-0001").code == 0
    return "odd"


def count(cli: Callable[..., Any]) -> int:
    return int(json.loads(cli("list", "--json").out)["total"])


def test_a_title_may_hold_an_equals_sign(cli: Callable[..., Any], odd: str) -> None:
    fork = cli("fork", "odd-0001", "--result", "a=b=41", "--id", "fork-0001")
    assert fork.code == 0
    assert "forked odd-0001 as fork-0001" in fork.err
    assert cli("worker", "--burst", "-q", "-m", odd).code == 0
    assert json.loads(cli("show", "fork-0001", "--result").out) == [41, 42]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--from-step", "Nope"), "has no step 'Nope'; there are: 'Validate', 'Charge'"),
        (("--result", "Charge"), "is no STEP=JSON; write --result 'Quote=5'"),
        (("--result", "=5"), "is no STEP=JSON"),
        (("--result", "Charge=five"), "--result of step 'Charge' is not JSON"),
        (("--result", "Charge=NaN"), "--result of step 'Charge'"),
        (("--result", "Charge=1", "--result", "Charge=2"), "gives step 'Charge' twice"),
        (("--result", "Nope=1"), "has no step 'Nope'"),
        (("--data", '{"amount": "x"}'), "event data does not fit pay"),
        (("--data", "{"), "--data is not JSON"),
        (("--data", "@gone.json"), "gone.json cannot be read"),
        (("--id", "no spaces please"), "execution id"),
        (("--timeout", "soon"), "--timeout"),
    ],
)
def test_a_mistake_is_one_line_and_forks_nothing(
    cli: Callable[..., Any], done: str, arguments: tuple[str, ...], said: str
) -> None:
    cli("worker", "--burst", "-q", "-m", done)  # which describes its functions to the store
    failed = cli("fork", "done-0001", *arguments)
    assert failed.code == exits.USAGE
    assert said in failed.err
    assert "Traceback" not in failed.err
    assert count(cli) == 1


def test_an_id_that_means_something_else_is_a_conflict(cli: Callable[..., Any], done: str) -> None:
    assert cli("fork", "done-0001", "--id", "fork-0001").code == 0
    again = cli("fork", "done-0001", "--id", "fork-0001")
    assert "was forked before; nothing new was created" in again.err
    other = cli("fork", "done-0001", "--id", "fork-0001", "--from-step", "Charge")
    assert other.code == exits.USAGE
    assert "'fork-0001' exists" in other.err


def test_fork_waits_for_the_end(
    cli: Callable[..., Any], program: Callable[..., Any], done: str
) -> None:
    worker = program("worker", "-m", done, "-q")
    try:
        waited = cli("fork", "done-0001", "--wait", "--timeout", "30s", "-q")
    finally:
        worker.close()
    assert waited.code == 0
    assert json.loads(waited.out) == {"charged": 3.0, "id": "ch_1"}


def test_check_tells_steps_apart_and_keeps_stdout_for_data(
    cli: Callable[..., Any], odd: str, place: Path
) -> None:
    changed = ODD.replace('"a=b"', '"renamed \\u202e"')
    (place / "changed.py").write_text(changed, encoding="utf-8")
    checked = cli("check", "-m", "changed", "--function", "odd")
    assert checked.code == 0
    assert "between the steps" not in checked.out
    assert "1 changed" in checked.out
    assert "is new to 1 that completed" in checked.out
    assert "step 'a=b' is recorded of 1 and not reached" in checked.out
    assert "nothing would break" in checked.err
    assert "\u202e" not in checked.out + checked.err
    assert json.loads(cli("check", "-m", "changed", "--json").out)["breaksLive"] == 0


def test_check_keeps_what_a_module_prints_out_of_its_answer(
    cli: Callable[..., Any], odd: str, place: Path
) -> None:
    (place / "loud.py").write_text('print("imported")\n' + ODD, encoding="utf-8")
    checked = cli("check", "-m", "loud", "--function", "odd", "--json")
    assert json.loads(checked.out)["total"] == 1
    assert "imported" in checked.err


def test_check_is_not_ended_by_the_code_it_checks(
    program: Callable[..., Any], odd: str, place: Path
) -> None:
    (place / "leaving.py").write_text(LEAVING, encoding="utf-8")
    began = time.monotonic()
    checked = program("check", "-m", "leaving", "--function", "odd", "--json").end()
    assert time.monotonic() - began < 25  # a thread of the code runs on, and nobody waits for it
    assert checked.code == 0  # what completed is in no danger
    (report,) = json.loads(checked.out)["items"]
    assert report["raises"] == 1
    assert "its code raises SystemExit: 0" in report["troubles"][0]["why"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--function", "nope"), "no function 'nope'"),
        (("--last", "0"), "--last"),
        (("--limit", "soon"), "limit"),
        (("-m", "no_such_module"), "no_such_module"),
    ],
)
def test_check_refuses_what_it_cannot_do(
    cli: Callable[..., Any], done: str, arguments: tuple[str, ...], said: str
) -> None:
    failed = cli("check", "-m", done, *arguments)
    assert failed.code == exits.USAGE
    assert said in failed.err
    assert "Traceback" not in failed.err


def test_check_creates_no_database(cli: Callable[..., Any], place: Path, flows: str) -> None:
    checked = cli("check", "-m", flows)
    assert checked.code == exits.NOT_FOUND
    assert not list(place.glob("*.db"))


def test_explain_prints_hostile_text_safely(cli: Callable[..., Any], flows: str) -> None:
    assert cli("run", "boom", "-m", flows, "-q", "--id", "fail-0001").code == 6
    explained = cli("explain", "fail-0001")
    assert explained.code == 0
    head, line = explained.out.splitlines()
    assert head.startswith("boom  fail-0001")
    assert "it failed" in line
    assert "ValueError: evil \\x1b[31mred second line" in line
    assert cli("explain", "nobody").code == exits.NOT_FOUND


def test_hints_name_ids_that_begin_alike(cli: Callable[..., Any], flows: str) -> None:
    first = cli("run", "boom", "-m", flows, "--id", "fail-000001")
    assert "hint: worchflow show fail-000001 --trace" in first.err
    assert cli("run", "boom", "-m", flows, "-q", "--id", "fail-000002").code == 6
    shown = cli("show", "fail-000001").out
    assert "retry: worchflow retry fail-000001" in shown
