from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.core.support import application, run, until
from worchflow_core import Event, Filter, Step, Worchflow, function
from worchflow_core.cli import exits

NAMES = ("daily", "tick")
TICKING = """
from worchflow_core import function

@function(cron="* * * * * *", tz="Europe/Paris", schedule_data={"a": 1})
async def tick(event, step):
    return event.scheduled_for.isoformat() if event.scheduled_for else "by hand"

@function(every="1d", overlap="queue")
async def daily(event, step):
    return None
"""


@pytest.fixture
def ticking(place: Path) -> str:
    """A module of two functions with schedules."""
    (place / "ticking.py").write_text(TICKING, encoding="utf-8")
    return "ticking"


@pytest.fixture
def registered(cli: Callable[..., Any], program: Callable[..., Any], ticking: str) -> str:
    """The same, once a scheduler has registered them and fired a tick."""
    scheduler = program("scheduler", "-m", ticking, "--name", "lonely")
    scheduler.until("scheduled for")
    scheduler.signal()
    assert scheduler.end().code == 0
    return ticking


def listed(cli: Callable[..., Any]) -> dict[str, dict[str, Any]]:
    document = json.loads(cli("schedules", "--json").out)
    assert document["total"] == len(document["items"])
    return {item["function"]: item for item in document["items"]}


def test_a_scheduler_fires_and_runs_nothing(cli: Callable[..., Any], registered: str) -> None:
    items = json.loads(cli("list", "--json").out)["items"]
    assert items
    assert {item["status"] for item in items} == {"queued"}
    assert all(item["id"].startswith("cron:tick:") for item in items)
    assert json.loads(cli("workers", "--json").out)["items"] == []


def test_schedules_are_listed(cli: Callable[..., Any], registered: str) -> None:
    done = cli("schedules")
    assert done.code == 0
    head, *rows = done.out.splitlines()
    daily, tick = (next(row for row in rows if row.startswith(f"{name} ")) for name in NAMES)
    columns = ["FUNCTION", "SCHEDULE", "ZONE", "LAST", "OUTCOME", "NEXT", "STATE", "SKIPPED"]
    assert head.split() == columns
    assert daily.split()[1:4] == ["every", "1d", "UTC"]
    assert " * * * * * *  Europe/Paris " in tick
    assert "no worker" in tick
    known = listed(cli)
    assert "queued" in tick
    assert known["tick"]["recent"][0]["status"] == "queued"
    assert known["tick"]["recent"][0]["executionId"].startswith("cron:tick:")
    assert known["daily"]["recent"] == []
    assert known["daily"]["every"] == "1d"
    assert known["daily"]["overlap"] == "queue"
    assert known["daily"]["nextTick"] % 86_400_000 == 0
    assert known["tick"]["cron"] == "* * * * * *"
    assert known["tick"]["nextTick"] > known["tick"]["lastTick"]


def test_pausing_and_resuming(cli: Callable[..., Any], registered: str) -> None:
    done = cli("schedules", "pause", "tick")
    assert done.code == 0
    assert "tick is paused" in done.err
    assert listed(cli)["tick"]["state"] == "paused"
    assert listed(cli)["tick"]["nextTick"] is None
    assert "it is paused" in cli("schedules", "next", "tick").err
    document = json.loads(cli("schedules", "resume", "tick", "--json").out)
    assert document["pausedAt"] is None


def test_next_ticks_are_shown_in_their_zone(cli: Callable[..., Any], registered: str) -> None:
    lines = cli("schedules", "next", "daily").out.splitlines()
    assert len(lines) == 5
    assert all("T00:00:00+00:00  in " in line for line in lines)
    (line,) = cli("schedules", "next", "tick", "-n", "1").out.splitlines()
    assert "+01:00" in line or "+02:00" in line
    assert len(json.loads(cli("schedules", "next", "tick", "-n", "9", "--json").out)["items"]) == 9


def test_run_now_prints_the_id(cli: Callable[..., Any], registered: str) -> None:
    done = cli("schedules", "run", "tick")
    assert done.code == 0
    shown = json.loads(cli("show", done.out.strip(), "--json").out)["execution"]
    assert shown["status"] == "queued"
    assert json.loads(shown["eventData"]) == {"a": 1}
    assert cli("worker", "-m", registered, "--burst", "-q").code == 0
    assert json.loads(cli("show", done.out.strip(), "--json").out)["execution"]["result"] == (
        "by hand"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("schedules", "stop", "tick"), exits.USAGE, "list, run, pause, resume, next"),
        (("schedules", "pause"), exits.USAGE, "worchflow schedules pause FUNCTION"),
        (("schedules", "list", "tick"), exits.USAGE, "list takes no function"),
        (("schedules", "pause", "tock"), exits.NOT_FOUND, "daily, "),
        (("schedules", "next", "tock"), exits.NOT_FOUND, "daily, "),
        (("schedules", "run", "tock"), exits.NOT_FOUND, "daily, "),
    ],
)
def test_mistakes_say_what_there_is(
    cli: Callable[..., Any], registered: str, arguments: tuple[str, ...], code: int, words: str
) -> None:
    done = cli(*arguments)
    assert done.code == code
    assert words in done.err


def test_a_scheduler_with_nothing_to_fire_says_so(
    cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    @function
    async def plain(event: Event[Any], step: Step) -> None: ...

    app = application(plain)
    monkeypatch.setattr("worchflow_core.cli.opening.load_app", lambda *_, **__: app)
    done = cli("scheduler")
    assert done.code == exits.USAGE
    assert "no function has a schedule" in done.err


def test_workers_schedule_unless_told_not_to(
    cli: Callable[..., Any], program: Callable[..., Any], ticking: str
) -> None:
    without = program("worker", "-m", ticking, "--no-scheduler", "--burst")
    assert without.end().code == 0
    assert listed(cli) == {}
    worker = program("worker", "-m", ticking)
    worker.until("✓ tick")
    worker.signal()
    assert worker.end().code == 0
    assert "tick" in listed(cli)


def test_dev_schedules(cli: Callable[..., Any], program: Callable[..., Any], ticking: str) -> None:
    dev = program("dev", "--no-dashboard", "--no-reload", "-m", ticking)
    dev.until("✓ tick")
    dev.signal()
    assert dev.end().code == 0
    assert "tick" in listed(cli)


def test_processes_pass_the_choice_on(
    cli: Callable[..., Any], program: Callable[..., Any], ticking: str
) -> None:
    workers = program("worker", "-m", ticking, "-w", "2", "--no-scheduler", "--burst")
    assert workers.end().code == 0
    assert listed(cli) == {}


@pytest.mark.servers
def test_a_frozen_leader_is_replaced_and_its_return_does_no_harm(
    program: Callable[..., Any], ticking: str, mongodb_url: str
) -> None:
    # In MongoDB, because a process that is frozen within a write to SQLite keeps the file locked.
    quick = {"WORCHFLOW_LEASE": "1s", "WORCHFLOW_HEARTBEAT": "0.2s"}
    command = ("scheduler", "-m", ticking, "--store-url", mongodb_url, "--name")

    async def leader(app: Worchflow) -> str:
        found = await app.client.scheduler()
        return found.name if found and found.until > app.journal.clock.now() else ""

    async def ticks(app: Worchflow) -> list[datetime]:
        page = await app.client.find(Filter(function="tick", limit=1000))
        return sorted(item.scheduled_for for item in page.items if item.scheduled_for)

    async def main() -> None:
        both = {name: program(*command, name, **quick) for name in ("first", "second")}
        app = application(url=mongodb_url, disabled_plugins="logs,redis,sqlite,sample-audit")
        both["first"].until("functions")
        both["second"].until("functions")
        async with app:
            await until(lambda: ticks(app))
            frozen = await until(lambda: leader(app))
            other = "second" if frozen == "first" else "first"
            both[frozen].signal(signal.SIGSTOP)
            await until(lambda: is_led_by(app, other))
            await until(lambda: "scheduled for" in both[other].err)
            count = len(await ticks(app))
            both[frozen].signal(signal.SIGCONT)
            await until(lambda: grown(app, count + 2))
            both[other].signal()
            await asyncio.to_thread(both[other].end)
            await until(lambda: is_led_by(app, frozen))
            both[frozen].signal()
            await asyncio.to_thread(both[frozen].end)
            fired = await ticks(app)
            assert all(after - before == timedelta(seconds=1) for before, after in pairwise(fired))
            told = sum(each.err.count("scheduled for") for each in both.values())
            assert told <= len(fired)  # told at most once each

    async def is_led_by(app: Worchflow, name: str) -> bool:
        return await leader(app) == name

    async def grown(app: Worchflow, count: int) -> bool:
        return len(await ticks(app)) >= count

    run(main())
