from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from worchflow_core.cli import exits
from worchflow_core.testing.contracts.samples import worker

GOOD = '{"amount": 3, "customer_id": "ana"}'
Cli = Callable[..., Any]


@pytest.fixture
def filled(cli: Cli, flows: str) -> str:
    """A file with an execution that completed and one that waits; its URL."""
    assert cli("run", "pay", GOOD, "-m", flows, "-q", "--id", "done-0001").code == 0
    assert cli("send", "pay", GOOD, "-m", flows, "-q", "--id", "wait-0001").code == 0
    return "sqlite:///worchflow.db"


def test_migrate_moves_and_prints_equal_proofs(cli: Cli, filled: str) -> None:
    moved = cli("migrate", "--from", filled, "--to", "sqlite:///new.db")
    assert moved.code == 0
    lines = moved.out.splitlines()
    assert re.match(r"moved 2 executions and \d+ records$", lines[0])
    found = re.findall(r"(\w+)  2 executions  2 steps  checksum ([0-9a-f]{64})", moved.out)
    assert [name for name, _ in found] == ["source", "target"]
    assert len({checksum for _, checksum in found}) == 1
    assert lines[-1] == "both hold the same"
    listed = cli("list", "--store-url", "sqlite:///new.db", "--json")
    assert {item["id"] for item in json.loads(listed.out)["items"]} == {"done-0001", "wait-0001"}
    assert (
        cli("stats", "--store-url", filled, "--json").out
        == cli("stats", "--store-url", "sqlite:///new.db", "--json").out
    )


def test_migrate_twice_moves_nothing_more(cli: Cli, filled: str) -> None:
    arguments = ("migrate", "--from", filled, "--to", "sqlite:///new.db", "--json")
    first, second = json.loads(cli(*arguments).out), json.loads(cli(*arguments).out)
    assert (first["executions"], second["executions"], second["records"]) == (2, 0, 0)
    assert first["source"] == first["target"] == second["target"]


def test_a_dry_run_makes_no_file(cli: Cli, filled: str) -> None:
    planned = cli("migrate", "--from", filled, "--to", "sqlite:///new.db", "--dry-run")
    assert planned.code == 0
    assert re.match(r"would move 2 executions and \d+ records; 0 executions are", planned.out)
    assert not Path("new.db").exists()
    cli("migrate", "--from", filled, "--to", "sqlite:///new.db")
    again = cli("migrate", "--from", filled, "--to", "sqlite:///new.db", "--dry-run", "--json")
    assert json.loads(again.out) == {"executions": 0, "records": 0, "present": 2}


def test_nothing_to_move_from_is_said_and_made(cli: Cli) -> None:
    refused = cli("migrate", "--from", "sqlite:///none.db", "--to", "sqlite:///new.db")
    assert refused.code == exits.NOT_FOUND
    assert "none.db" in refused.err
    assert not Path("none.db").exists()
    assert not Path("new.db").exists()


def test_a_live_worker_is_named(cli: Cli, filled: str) -> None:
    import asyncio

    from worchflow_plugins.sqlite import SqliteStore

    async def register() -> None:
        async with SqliteStore("worchflow.db") as store:
            lease = timedelta(seconds=60)
            await asyncio.to_thread(store.beat, worker("w1", name="api-7"), lease=lease)

    asyncio.run(register())
    refused = cli("migrate", "--from", filled, "--to", "sqlite:///new.db")
    assert refused.code == exits.FAILED
    assert "api-7 (w1)" in refused.err


def test_a_scheme_that_nobody_opens_is_named(cli: Cli, filled: str) -> None:
    refused = cli("migrate", "--from", filled, "--to", "nowhere://x")
    assert refused.code == exits.USAGE
    assert "nowhere://" in refused.err
