from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from worchflow_core.cli import exits

LIMITED = """
from worchflow_core import Batch, Limit, Singleton, function

@function(concurrency=Limit(2, key="data.tenant"), singleton="skip")
async def limited(event, step):
    return "done"

@function
async def free(event, step):
    return "done"
"""


@pytest.fixture
def flowing(cli: Callable[..., Any], place: Path) -> str:
    """A module of two functions, once a worker has described them."""
    (place / "flowing.py").write_text(LIMITED, encoding="utf-8")
    assert cli("worker", "--burst", "-m", "flowing").code == 0
    return "flowing"


def described(cli: Callable[..., Any]) -> dict[str, dict[str, Any]]:
    return {item["id"]: item for item in json.loads(cli("functions", "--json").out)["items"]}


def test_functions_shows_what_flow_control_allows(cli: Callable[..., Any], flowing: str) -> None:
    assert described(cli)["limited"]["flow"] == [
        "at most 2 at once for each data.tenant",
        "one under way at a time, else the new one is skipped",
    ]
    assert described(cli)["free"]["flow"] == []
    assert "at most 2 at once" in cli("functions").out


def test_a_function_is_paused_and_resumed(cli: Callable[..., Any], flowing: str) -> None:
    paused = cli("pause", "free", "--reason", "a migration")
    assert (paused.code, paused.out) == (0, "")
    assert "free is paused" in paused.err
    assert described(cli)["free"]["paused"]["reason"] == "a migration"
    assert described(cli)["limited"]["paused"] is None
    execution_id = cli("send", "free", "-q").out.strip()
    assert cli("worker", "--burst", "-m", flowing).code == 0
    shown = cli("show", execution_id).out
    assert re.search(r"free was paused .* ago \(a migration\)", shown)
    assert cli("resume", "free").code == 0
    assert cli("worker", "--burst", "-m", flowing).code == 0
    assert json.loads(cli("show", execution_id, "--result").out) == "done"


def test_what_cannot_be_paused_or_resumed_is_said(cli: Callable[..., Any], flowing: str) -> None:
    unknown = cli("pause", "fre")
    assert unknown.code == exits.NOT_FOUND
    assert "no function 'fre'; there are: " in unknown.err
    idle = cli("resume", "free")
    assert idle.code == exits.NOT_FOUND
    assert "free is not paused" in idle.err


def test_a_second_pause_says_that_the_first_stands(cli: Callable[..., Any], flowing: str) -> None:
    assert cli("pause", "free", "--reason", "a migration").code == 0
    again = cli("pause", "free", "--reason", "another")
    assert again.code == 0
    assert "free was paused before (a migration), and that stands; resume it first" in again.err
    assert "was paused before" not in cli("pause", "free", "--reason", "a migration").err
    typo = cli("resume", "fre")
    assert typo.code == exits.NOT_FOUND
    assert "fre is not paused; paused are: free" in typo.err
    assert (
        "say of which function: worchflow schedules next FUNCTION" in cli("schedules", "next").err
    )
