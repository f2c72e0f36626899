"""Moving between SQLite and MongoDB: both ways, killed in the middle, and working on afterwards."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from tests.core.migrating import fill, open_stores
from tests.core.support import run, until
from tests.core.test_migration import kill_in_the_middle
from worchflow_core import Event, Execution, Step, Worchflow, function
from worchflow_core.cli.entry import run as command
from worchflow_core.migration import Migration, Moved, moved
from worchflow_core.proof import pages, prove

pytestmark = pytest.mark.servers

COUNT = 2000


@pytest.fixture
def database(mongodb_url: str) -> Iterator[str]:
    """Return the URL of a database that is dropped afterwards."""
    yield mongodb_url
    with MongoClient[Any](mongodb_url) as client:
        client.drop_database(client.get_default_database().name)


async def move(source: str, target: str) -> Moved:
    """Move everything between two URLs."""
    left, right = open_stores(source, target)
    async with left, right:
        return await Migration(left, right).run()


def test_two_thousand_move_to_mongodb_and_back(tmp_path: Path, database: str) -> None:
    async def main() -> None:
        first, last = f"sqlite:///{tmp_path}/first.db", f"sqlite:///{tmp_path}/last.db"
        source, _ = open_stores(first, "memory://")
        async with source:
            await fill(source, COUNT)
            before = await prove(source, moved)
        there = await move(first, database)
        back = await move(database, last)
        assert (there.executions, back.executions) == (COUNT, COUNT)
        assert (there.records, back.records) == (1000, 1000)
        assert before == there.source == there.target == back.source == back.target
        left, right = open_stores(first, last)
        async with left, right:
            after = {item.id: item async for page in pages(right) for item in page}
            assert after == {item.id: moved(item) async for page in pages(left) for item in page}

    run(main(), limit=110)


@pytest.mark.parametrize("towards", ["mongodb", "sqlite"])
def test_a_killed_move_is_run_again(tmp_path: Path, database: str, towards: str) -> None:
    file = f"sqlite:///{tmp_path}/file.db"
    source, target = (file, database) if towards == "mongodb" else (database, file)

    async def prepare() -> None:
        store, _ = open_stores(source, "memory://")
        async with store:
            await fill(store, 500)

    run(prepare())
    kill_in_the_middle(source, target, "create", 1, "after")
    kill_in_the_middle(source, target, "record", 3, "after")
    kill_in_the_middle(source, target, "update", 7, "before")
    done = run(move(source, target))
    assert done.source == done.target
    assert done.target.executions == 500
    assert 0 < done.executions < 500


def test_work_goes_on_where_it_stopped(
    tmp_path: Path,
    database: str,
    redis_url: str,
    unique_name: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORCHFLOW_DISABLED_PLUGINS", "logs,sample-audit")
    monkeypatch.setenv("WORCHFLOW_PREFIX", unique_name)
    ran: Counter[str] = Counter()
    has_moved = False

    @function(id="pay", retries=5, retry_delay="1h")
    async def pay(event: Event[Any], step: Step) -> str:
        async def note(title: str) -> str:
            ran[title] += 1
            return title

        await step.run("Validate", note, "Validate")
        await step.run("Charge", note, "Charge")
        if not has_moved:
            raise RuntimeError("the provider is down")
        return await step.run("Send receipt", note, "Send receipt")

    @function(id="greet")
    async def greet(event: Event[Any], step: Step) -> str:
        ran["greet"] += 1
        return "hello"

    async def before() -> None:
        overrides = {"store_url": f"sqlite:///{tmp_path}/w.db"}
        async with Worchflow(functions=[pay, greet], overrides=overrides, env_file=None) as app:
            await app.client.send(pay, None, id="retried")
            await app.worker.run(burst=True)
            await app.client.send(greet, None, id="queued")
            await app.client.send(greet, None, id="later", delay="1d")

    async def after() -> list[Execution]:
        overrides = {"store_url": database, "queue_url": redis_url, "sweep_interval": "0.2s"}
        async with Worchflow(functions=[pay, greet], overrides=overrides, env_file=None) as app:
            task = asyncio.create_task(app.worker.run())
            await until(lambda: ran["greet"])
            # What waits for a retry waits on; its time is moved here, as no test waits an hour.
            with MongoClient[Any](database) as client:
                due = {"$set": {"dueAt": 1, "hintAt": 1}}
                client.get_default_database().executions.update_one({"id": "retried"}, due)
            await app.client.wait("retried", timeout=30)
            await app.client.wait("queued", timeout=30)
            app.worker.stop()
            await task
            return [await app.client.get(key) for key in ("retried", "queued", "later")]

    run(before())
    arguments = ["migrate", "--from", f"sqlite:///{tmp_path}/w.db", "--to", database]
    assert command([*arguments, "--dry-run"]) == 0
    assert "would move 3 executions" in capsys.readouterr().out
    assert command(arguments) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("moved 3 executions and ")
    assert shown[1].removeprefix("source") == shown[2].removeprefix("target")
    assert "3 executions  2 steps  checksum " in shown[1]
    has_moved = True
    retried, queued, later = run(after())
    assert [item.status for item in (retried, queued, later)] == [
        "completed",
        "completed",
        "queued",
    ]
    assert (retried.fence, retried.failed_attempts) == (2, 1)
    assert ran == {"Validate": 1, "Charge": 1, "Send receipt": 1, "greet": 1}
