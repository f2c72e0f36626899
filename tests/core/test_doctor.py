from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from worchflow_core import Event, Execution, Worchflow, Worker, WorkerState, function
from worchflow_core.doctor import (
    diagnose,
    is_healthy,
    list_settings,
    unserved,
)
from worchflow_core.liveness import is_live, live_workers_with
from worchflow_core.settings import load_settings

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
WORKER = Worker(
    id="w1",
    name="ana:1",
    host="ana",
    pid=1,
    version="0.1.0",
    state=WorkerState.RUNNING,
    started_at=NOW - timedelta(hours=1),
    concurrency=10,
    functions=("pay",),
    beat_at=NOW - timedelta(seconds=3),
    lease_until=NOW + timedelta(seconds=27),
)
EXECUTION = Execution(id="e1", function="pay", created_at=NOW, updated_at=NOW)


@function(id="pay")
async def pay(event: Event[int], step: Any) -> None:
    """Pay."""


def test_a_worker_lives_until_its_lease_ends() -> None:
    assert is_live(WORKER, NOW)
    assert not is_live(WORKER, NOW + timedelta(minutes=1))
    assert not is_live(replace(WORKER, state=WorkerState.DEAD), NOW)
    assert not is_live(replace(WORKER, state=WorkerState.STOPPED), NOW)


def test_a_draining_worker_takes_no_more() -> None:
    assert live_workers_with("pay", [WORKER], NOW) == [WORKER]
    assert live_workers_with("other", [WORKER], NOW) == []
    assert live_workers_with("pay", [replace(WORKER, state=WorkerState.DRAINING)], NOW) == []


def opened(**overrides: Any) -> Worchflow:
    return Worchflow(
        functions=[pay], overrides={"store_url": "memory:doctor", **overrides}, env_file=None
    )


def test_due_executions_without_a_worker_are_found() -> None:
    async def main() -> None:
        async with opened() as app:
            await app.client.send("orphan", 1)
            await app.client.send("orphan", 2)
            await app.client.send("later", 1, delay="1h")
            await app.client.send("pay", 1)
            store = app.journal.store
            moment = datetime.now(UTC)
            found = {item.function: item.count for item in await unserved(store, moment)}
            assert found == {"orphan": 2, "pay": 1}
            lease = timedelta(minutes=1)
            worker = replace(WORKER, state=WorkerState.STARTING, started_at=moment)
            await asyncio.to_thread(store.beat, worker, lease=lease)
            found = {item.function: item.count for item in await unserved(store)}
            assert found == {"orphan": 2}
            findings = await diagnose(app)
            assert not is_healthy(findings)
            texts = [item.text for item in findings if item.level == "problem"]
            assert texts == ["no live worker has orphan; 2 of its executions wait"]

    asyncio.run(main())


def test_settings_are_listed_with_their_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORCHFLOW_STORE_URL", "mongodb://ana:secret@host/worchflow")
    overrides = {"concurrency": 3}
    rows = {
        row.name: row for row in list_settings(load_settings(overrides, env_file=None), overrides)
    }
    assert rows["store_url"].value == "mongodb://ana:***@host/worchflow"
    assert rows["store_url"].source == "environment"
    assert (rows["concurrency"].value, rows["concurrency"].source) == ("3", "flag")
    assert (rows["retention"].value, rows["retention"].source) == ("30d", "default")
    assert rows["queue_url"].value == "not set"
