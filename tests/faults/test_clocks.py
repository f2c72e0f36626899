"""Clocks that are off by an hour or a day on one machine, or are set while its worker runs."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from worchflow_core import Execution, Status, Worchflow, WorkerState
from worchflow_core.query import Condition, Operator, Query
from worchflow_core.testing.executables import find_executable

ROOT = Path(__file__).parents[2]
SKEWS = ("+1h", "-1h", "+1d", "-1d")
SETTINGS = {"lease": "3s", "heartbeat": "0.4s", "sweep_interval": "0.4s", "concurrency": "1"}
HELD = 3.5
NAP = 6.0
MINUTE = timedelta(minutes=1)


def library() -> str:
    """Return what the program `faketime` loads into the one that it starts."""
    ask = [find_executable("faketime"), "-f", "+0", sys.executable, "-c"]
    code = "import os; print(os.environ['LD_PRELOAD'])"
    return subprocess.run([*ask, code], check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def workers(
    folder: Path, clocks: Mapping[str, Mapping[str, str]], settings: Mapping[str, str]
) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Start a worker for each of these clocks; end them by their ids."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("WORCHFLOW_")}
    own |= {f"WORCHFLOW_{key.upper()}": value for key, value in settings.items()}
    started: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name, clock in clocks.items():
            with (folder / f"{name}.log").open("wb") as log:
                started[name] = subprocess.Popen(
                    [sys.executable, "-m", "tests.faults.skewed_worker"],
                    **{"cwd": ROOT, "env": own | clock, "stdout": log, "stderr": log},  # type: ignore[call-overload]
                )
        yield started
    finally:
        for process in started.values():
            process.kill()
            process.wait(10)


@pytest.mark.servers
def test_clocks_that_are_off_bury_nobody_and_fire_no_tick_twice(
    mongodb_url: str, unique_name: str, tmp_path: Path
) -> None:
    """F42: four clocks off by an hour or a day, one that is set twice, and one that is right."""
    moving = tmp_path / "moving"
    moving.write_text("+0")
    faked = {"LD_PRELOAD": library(), "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    set_twice = {**faked, "FAKETIME_TIMESTAMP_FILE": str(moving), "FAKETIME_NO_CACHE": "1"}
    clocks = {skew: {**faked, "FAKETIME": skew} for skew in SKEWS}
    clocks |= {"moving": set_twice, "right": {}}
    settings = {**SETTINGS, "store_url": mongodb_url, "prefix": unique_name}

    async def main() -> None:
        overrides: dict[str, Any] = {**settings}
        async with Worchflow(functions=[], overrides=overrides, env_file=None) as app:
            with workers(tmp_path, clocks, settings) as processes:
                await all_run(app, {item.pid for item in processes.values()}, tmp_path)
                began = datetime.now(UTC)
                naps = [await app.client.send("nap", NAP) for _ in clocks]
                await asyncio.sleep(1.0)  # each sleeps before a worker is held
                holds = [await app.client.send("hold", HELD) for _ in clocks]
                await asyncio.sleep(HELD / 3)
                moving.write_text("+1d")
                await asyncio.sleep(HELD / 3)
                moving.write_text("-1d")
                ended = [await app.client.wait(item.id, timeout=20) for item in (*holds, *naps)]
                check_work(ended, began)
                logs = {name: (tmp_path / f"{name}.log").read_text() for name in clocks}
                check_workers(await app.journal.store.workers(), logs)
                check_ticks(await ticks(app), began)

    asyncio.run(main())


async def all_run(app: Worchflow, wanted: set[int], folder: Path) -> None:
    """Return once a worker of each process takes work."""
    for _ in range(400):
        known = await app.journal.store.workers()
        if {item.pid for item in known if item.state is WorkerState.RUNNING} >= wanted:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("\n".join(["not all workers came", *read_logs(folder)]))


def read_logs(folder: Path) -> list[str]:
    return [path.read_text()[-2000:] for path in folder.glob("*.log")]


def check_work(ended: list[Execution], began: datetime) -> None:
    """Each ran once, by the store's clock; nobody woke before its time."""
    for item in ended:
        assert item.status is Status.COMPLETED, item
        assert item.crashes == 0
        assert item.finished_at is not None
        assert began - MINUTE < item.finished_at < datetime.now(UTC) + MINUTE
        if item.function == "nap":
            first, *_ = item.attempts
            slept = item.finished_at - first.started_at
            assert slept > timedelta(seconds=NAP - 1), "what a worker knows of the store's clock"
    holds = [item for item in ended if item.function == "hold"]
    assert [len(item.attempts) for item in holds] == [1] * len(holds)
    assert len({item.attempts[0].worker for item in holds}) > len(SKEWS), "all have worked"


def check_workers(known: Any, logs: Mapping[str, str]) -> None:
    """Nobody was declared dead, and whoever's clock is off said so."""
    assert {item.state for item in known} == {WorkerState.RUNNING}
    assert len(known) == len(logs)
    for name, log in logs.items():
        assert "declared dead" not in log, (name, log)
        if name in SKEWS:
            side = "ahead of" if name.startswith("+") else "behind"
            assert f"{side} the store's; no schedule is fired here" in log, (name, log)
    assert "the store's" not in logs["right"], logs["right"]


async def ticks(app: Worchflow) -> list[datetime]:
    query = Query(where=(Condition("function", Operator.EQUAL, "tick"),), limit=1000)
    found = (await app.journal.store.find(query)).items
    return sorted(item.scheduled_for for item in found if item.scheduled_for is not None)


def check_ticks(found: list[datetime], began: datetime) -> None:
    """Each second has one tick, none is of another hour or day."""
    assert len(found) > HELD
    assert len(found) == len(set(found))
    assert began - MINUTE < found[0]
    assert found[-1] < datetime.now(UTC) + timedelta(seconds=2)
