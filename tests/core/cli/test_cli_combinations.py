"""Every command, end to end, on each combination of backends: what it prints, how it ends, what
the store holds then."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.combinations import Combination
from worchflow_core import Execution, Status, Worchflow
from worchflow_core.cli import exits
from worchflow_core.cli.entry import build
from worchflow_core.testing.servers import free_port

GOOD = '{"amount": 3, "customer_id": "ana"}'
QUICK = {
    "WORCHFLOW_LEASE": "3s",
    "WORCHFLOW_HEARTBEAT": "200ms",
    "WORCHFLOW_SWEEP_INTERVAL": "200ms",
}
TICKING = """
from worchflow_core import function

@function(cron="* * * * * *", schedule_data={"a": 1})
async def tick(event, step):
    return event.data
"""
T = TypeVar("T")


@dataclass(frozen=True)
class Here:
    """The command line on one combination, and its store as it is behind."""

    combination: Combination
    cli: Callable[..., Any]
    program: Callable[..., Any]
    eventually: Callable[..., Any]
    flows: str

    def ok(self, *arguments: str) -> str:
        """Run a command that must succeed; return its stdout."""
        done = self.cli(*arguments)
        assert done.code == exits.DONE, done.err
        assert "Traceback" not in done.err
        return str(done.out)

    def document(self, *arguments: str) -> dict[str, Any]:
        """Return what a command prints as JSON."""
        document = json.loads(self.ok(*arguments, "--json"))
        assert isinstance(document, dict)
        return document

    def send(self, *arguments: str) -> str:
        """Send an event and return the id that is printed."""
        return self.ok("send", *arguments, "-m", self.flows).strip()

    def burst(self) -> None:
        """Let a worker do all that is due."""
        self.ok("worker", "--burst", "-q", "-m", self.flows)

    def asked(self, question: Callable[[Worchflow], Coroutine[Any, Any, T]]) -> T:
        """Ask the store, past the command line."""

        async def main() -> T:
            async with Worchflow(functions=(), env_file=None) as app:
                return await question(app)

        return asyncio.run(main())

    def stored(self, *ids: str) -> list[Execution]:
        """Return what the store holds of these."""

        async def question(app: Worchflow) -> list[Execution]:
            found = {item.id: item for item in await app.journal.store.get(ids)}
            return [found[key] for key in ids if key in found]

        return self.asked(question)

    def statuses(self, *ids: str) -> list[Status]:
        """Return the statuses of those that are stored."""
        return [item.status for item in self.stored(*ids)]


@pytest.fixture
def here(
    combination: Combination,
    cli: Callable[..., Any],
    program: Callable[..., Any],
    eventually: Callable[..., Any],
    flows: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Here:
    """The command line, told by the environment where its work is kept."""
    for name, value in {**combination.environment, **QUICK}.items():
        monkeypatch.setenv(name, value)
    return Here(combination, cli, program, eventually, flows)


def test_every_command_is_driven_here() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    for name in build().commands:  # type: ignore[attr-defined]
        assert re.search(rf'(ok|cli|document|program)\(\s*"{name}"', source), name


def test_send_worker_and_show(here: Here) -> None:
    assert here.send("pay", GOOD, "--id", "order-1", "--tag", "vip") == "order-1"
    assert here.send("pay", GOOD, "--id", "order-1", "--tag", "vip") == "order-1"
    other = here.cli("send", "pay", GOOD.replace("3", "4"), "--id", "order-1", "-m", here.flows)
    assert other.code == exits.USAGE
    later = here.send("pay", GOOD, "--delay", "1h")
    failing = here.send("boom")
    assert here.statuses("order-1", later, failing) == [Status.QUEUED] * 3
    assert "no live worker has pay" in here.ok("show", "order-1")
    worked = here.cli("worker", "--burst", "-m", here.flows)
    assert worked.code == exits.DONE
    store, queue = worked.err.splitlines()[:2]
    assert store.split()[1] == ("sqlite" if here.combination.name == "sqlite" else "mongodb")
    assert "from WORCHFLOW_STORE_URL" in store
    assert ("redis" in queue) == (here.combination.queue_url is not None)
    assert here.statuses("order-1", later, failing) == ["completed", "queued", "failed"]
    shown = here.document("show", "order-1")
    assert (shown["execution"]["status"], shown["execution"]["attemptCount"]) == ("completed", 0)
    assert [step["name"] for step in shown["steps"]] == ["Validate", "Charge"]
    assert json.loads(here.ok("show", "order-1", "--result")) == {"charged": 3.0, "id": "ch_1"}
    assert json.loads(here.ok("show", "order-1", "--step", "Charge")) == {"id": "ch_1"}
    assert json.loads(here.ok("show", "order-1", "--input"))["customer_id"] == "ana"
    assert here.document("show", "order-1", "--steps")["total"] == 2
    assert "ValueError" in here.ok("show", failing, "--trace")
    assert here.cli("show", "no-such-thing").code == exits.NOT_FOUND


def test_run_prints_a_result_or_says_that_it_failed(here: Here) -> None:
    out = here.ok("run", "pay", GOOD, "-m", here.flows, "--id", "order-1", "-q")
    assert json.loads(out) == {"charged": 3.0, "id": "ch_1"}
    assert here.cli("run", "boom", "-m", here.flows, "--id", "bad-01").code == 6
    assert here.statuses("order-1", "bad-01") == ["completed", "failed"]
    again = here.ok("run", "--replay", "order-1", "-m", here.flows, "-q")
    assert json.loads(again) == json.loads(out)


def test_lists_and_counts(here: Here) -> None:
    here.send("pay", GOOD, "--id", "done-0001")
    here.send("boom", "--id", "fail-0001")
    here.burst()
    here.send("pay", GOOD, "--id", "wait-0001", "--tag", "vip")
    everything = here.document("list")
    assert everything["total"] == 3
    assert [item["id"] for item in everything["items"]] == ["wait-0001", "fail-0001", "done-0001"]
    filters = {
        ("--status", "failed,completed"): ["fail-0001", "done-0001"],
        ("--tag", "vip"): ["wait-0001"],
        ("--function", "boom"): ["fail-0001"],
        ("--search", "done"): ["done-0001"],
        ("--search", "ValueError"): ["fail-0001"],
        ("--since", "1h"): ["wait-0001", "fail-0001", "done-0001"],
        ("--since", "1h", "--until", "30m"): [],
        ("--reverse", "-n", "1"): ["done-0001"],
        ("--skip", "2"): ["done-0001"],
        ("--sort", "finished", "--status", "failed"): ["fail-0001"],
    }
    for arguments, expected in filters.items():
        assert here.ok("list", *arguments, "--ids").split() == expected, arguments
    counts = here.document("stats")
    assert {name: counts[name] for name in ("completed", "failed", "queued", "total")} == {
        "completed": 1,
        "failed": 1,
        "queued": 1,
        "total": 3,
    }
    here.ok("stats", "--by", "function", "--since", "1h")
    names = {item["id"] for item in here.document("functions")["items"]}
    assert {"pay", "boom", "until-file"} <= names
    assert "customer_id" in here.ok("functions", "--schema", "pay")


def test_retry_cancel_delete_and_purge(here: Here) -> None:
    here.send("boom", "--id", "fail-0001")
    here.send("pay", GOOD, "--id", "done-0001")
    here.burst()
    here.send("pay", GOOD, "--id", "wait-0001")
    assert here.cli("retry", "done-0001").code == exits.NOT_ALLOWED
    assert "1 queued" in here.cli("retry", "fail-0001").err
    assert here.statuses("fail-0001") == [Status.QUEUED]
    here.burst()
    (retried,) = here.stored("fail-0001")
    assert (retried.status, retried.failed_attempts, retried.fence) == (Status.FAILED, 1, 2)
    here.send("pay", GOOD, "--id", "wait-0002")
    here.ok("cancel", "wait-0002")
    assert here.statuses("wait-0001", "wait-0002") == ["completed", "cancelled"]
    assert here.ok("retry", "--all", "--status", "failed", "--dry-run") == "fail-0001\n"
    here.ok("delete", "wait-0002")
    assert here.stored("wait-0002") == []
    assert here.ok("purge", "--older-than", "1d", "--dry-run") == ""
    here.ok("purge", "--older-than", "0s", "--status", "failed", "--yes")
    assert here.statuses("fail-0001", "done-0001") == [Status.COMPLETED]
    assert here.asked(lambda app: app.journal.store.steps(["fail-0001"])) == {}


def test_explain_fork_and_check(here: Here, place: Path) -> None:
    first = here.send("pay", GOOD, "--id", "order-1")
    assert "no live worker has pay" in here.ok("explain", "order-1")
    (reason,) = here.document("explain", first)["reasons"]
    assert reason["code"] == "no_live_worker"
    here.burst()
    assert "it completed" in here.ok("explain", "order-1")
    fork = here.ok("fork", "order-1", "--from-step", "Charge", "--id", "order-2").strip()
    assert fork == "order-2"
    forked = here.document("fork", "order-1", "--from-step", "Charge", "--id", "order-2")
    assert forked == {"executionId": "order-2", "isNew": False, "forkedFrom": "order-1"}
    edited = here.ok("fork", first, "--result", 'Charge={"id": "ch_9"}', "-q").strip()
    cheaper = here.ok("fork", first, "-q", "--data", GOOD.replace("3", "7")).strip()
    here.burst()
    assert here.statuses("order-1", "order-2", edited, cheaper) == [Status.COMPLETED] * 4
    assert json.loads(here.ok("show", edited, "--result")) == {"charged": 3.0, "id": "ch_9"}
    assert json.loads(here.ok("show", cheaper, "--result"))["charged"] == 7.0
    assert "forked from order-1" in here.ok("show", edited)
    assert here.document("show", "order-2")["execution"]["forkedFrom"] == "order-1"
    unknown = here.cli("fork", "order-1", "--from-step", "Nope")
    assert unknown.code == exits.USAGE
    assert "there are: 'Validate', 'Charge'" in unknown.err
    assert here.cli("fork", "no-such-thing").code == exits.NOT_FOUND
    assert "4 fine" in here.ok("check", "-m", here.flows, "--function", "pay")
    waiting = here.send("pay", GOOD)
    changed = (place / f"{here.flows}.py").read_text().replace("amount: float", "amount: list")
    (place / "changed.py").write_text(changed, encoding="utf-8")
    done = here.cli("check", "-m", "changed", "--last", "10", "--json")
    assert done.code == exits.FAILED
    (report,) = [item for item in json.loads(done.out)["items"] if item["function"] == "pay"]
    assert report["breaks"] == 5
    (live,) = [item for item in report["troubles"] if item["isLive"]]
    assert live["executionId"] == waiting
    shown = here.cli("check", "-m", "changed")
    assert shown.code == exits.FAILED
    assert "1 unfinished execution would break" in shown.err
    assert f"{waiting[:8]} queued: event data of pay does not fit" in shown.out


def test_a_paused_function_waits(here: Here) -> None:
    here.burst()  # which describes the functions
    here.ok("pause", "pay", "--reason", "a migration")
    waiting = here.send("pay", GOOD)
    here.burst()
    assert here.statuses(waiting) == [Status.QUEUED]
    assert "(a migration)" in here.ok("explain", waiting)
    here.ok("resume", "pay")
    here.burst()
    assert here.statuses(waiting) == [Status.COMPLETED]


def test_a_worker_is_seen_waited_for_and_drained(here: Here, place: Path) -> None:
    worker = here.program("worker", "-m", here.flows, "--name", "ana", "--health-port", "0")
    worker.until(" started ")
    assert json.loads(here.ok("send", "pay", GOOD, "--wait"))["charged"] == 3.0
    assert here.cli("send", "boom", "--wait").code == exits.EXECUTION_FAILED
    held = here.send("until-file", json.dumps({"path": str(place / "seen")}))
    here.eventually(lambda: (place / "seen.began").exists())
    (item,) = here.document("workers")["items"]
    assert (item["name"], item["state"]) == ("ana", "running")
    here.eventually(lambda: _running(here) == [held])  # its next beat tells
    here.ok("cancel", held)
    here.eventually(lambda: here.statuses(held) == [Status.CANCELLED])
    doctor = here.document("doctor")
    assert doctor["healthy"]
    assert any(finding["text"] == "1 live: ana" for finding in doctor["findings"])
    here.ok("workers", "--drain", "ana")
    assert worker.end().code == exits.DONE
    assert here.document("workers")["items"] == []


def test_doctor_names_what_is_wrong(here: Here) -> None:
    assert here.cli("send", "pay", GOOD, "-m", here.flows).code == exits.DONE
    done = here.cli("doctor", "--json")
    assert done.code == exits.FAILED
    document = json.loads(done.out)
    problems = [item["text"] for item in document["findings"] if item["level"] == "problem"]
    assert problems == ["none is live; 1 executions are not finished"]
    sources = {item["name"]: item["source"] for item in document["settings"]}
    assert sources["WORCHFLOW_STORE_URL"] == "environment"
    assert sources["WORCHFLOW_RETENTION"] == "default"
    subjects = {item["subject"] for item in document["findings"]}
    if here.combination.name != "sqlite":
        assert {"topology", "write concern", "indexes", "clock"} <= subjects
    if here.combination.queue_url is not None:
        assert {"memory", "persistence", "role"} <= subjects
    names = {item["name"] for item in here.document("plugins")["items"]}
    assert {"logs", "sqlite", "redis", "mongo"} <= names


def test_schedules_fire_pause_and_run(here: Here, place: Path) -> None:
    (place / "ticking.py").write_text(TICKING, encoding="utf-8")
    scheduler = here.program("scheduler", "-m", "ticking", "--name", "lonely")
    scheduler.until("scheduled for")
    scheduler.signal()
    assert scheduler.end().code == exits.DONE
    here.ok("schedules", "pause", "tick")
    schedules = {item["function"]: item for item in here.document("schedules")["items"]}
    assert (schedules["tick"]["cron"], schedules["tick"]["state"]) == ("* * * * * *", "paused")
    here.ok("schedules", "resume", "tick")
    assert len(here.ok("schedules", "next", "tick", "-n", "3").splitlines()) == 3
    by_hand = here.ok("schedules", "run", "tick").strip()
    fired = [item["id"] for item in here.document("list", "-f", "tick")["items"]]
    assert by_hand in fired
    assert all(key.startswith("cron:tick:") for key in fired if key != by_hand)
    assert len(fired) >= 2
    here.ok("worker", "--burst", "-q", "-m", "ticking")
    assert set(here.statuses(*fired)) == {Status.COMPLETED}
    assert {item.result for item in here.stored(*fired)} == {'{"a":1}'}


def test_migrating_there_and_back(here: Here, place: Path) -> None:
    here.send("boom", "--id", "fail-0001")
    here.burst()
    here.send("pay", GOOD, "--id", "wait-0001")
    before = here.stored("fail-0001", "wait-0001")
    there = here.document(
        "migrate", "--from", here.combination.store_url, "--to", "sqlite:///there.db"
    )
    assert there["executions"] == 2
    assert there["source"] == there["target"]
    here.ok("purge", "--older-than", "0s", "--yes")
    here.ok("cancel", "wait-0001")
    here.ok("delete", "wait-0001")
    back = here.document(
        "migrate", "--from", "sqlite:///there.db", "--to", here.combination.store_url
    )
    assert back["source"] == back["target"] == there["target"]
    after = here.stored("fail-0001", "wait-0001")
    assert [(item.id, item.status, item.data, item.error) for item in after] == [
        (item.id, item.status, item.data, item.error) for item in before
    ]
    here.burst()
    assert here.statuses("wait-0001") == [Status.COMPLETED]


def test_dev_works_and_serves_the_dashboard(here: Here) -> None:
    port = str(free_port())
    dev = here.program("dev", "-m", here.flows, "--no-reload", "--port", port)
    address = _address(dev)
    here.eventually(lambda: _is_served(address))
    dev.until(" started ")
    sent = here.send("pay", GOOD)
    here.eventually(lambda: here.statuses(sent) == [Status.COMPLETED])
    here.eventually(lambda: _fetched(f"{address}/api/stats")["completed"] == 1)
    dev.signal(signal.SIGINT)
    assert dev.end().code == exits.DONE


def test_the_dashboard_reads_and_sends(here: Here) -> None:
    sent = here.send("pay", GOOD)
    here.burst()
    dashboard = here.program("dashboard", "--port", str(free_port()))
    address = _address(dashboard)
    here.eventually(lambda: _is_served(address))
    listed = _fetched(f"{address}/api/executions")
    assert [item["id"] for item in listed["executions"]] == [sent]
    assert len(_fetched(f"{address}/api/executions/{sent}")["steps"]) == 2
    body = {"name": "pay", "data": json.loads(GOOD)}
    answer = _fetched(f"{address}/api/send", body)
    assert answer["success"]
    assert here.statuses(answer["executionId"]) == [Status.QUEUED]
    dashboard.signal(signal.SIGINT)
    assert dashboard.end().code in (exits.DONE, exits.INTERRUPTED)


def _running(here: Here) -> list[str]:
    (item,) = here.document("workers")["items"]
    return [running["executionId"] for running in item["running"]]


def _address(program: Any) -> str:
    text = program.until("http://127.0.0.1:")
    found = re.search(r"http://127\.0\.0\.1:\d+", text)
    assert found is not None
    return found[0]


def _is_served(address: str) -> bool:
    try:
        return "total" in _fetched(f"{address}/api/stats")
    except urllib.error.URLError:
        return False  # it says where it will be before it listens


def _fetched(url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", "Origin": url.partition("/api")[0]}
    request = urllib.request.Request(url, data=data, headers=headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        document = json.load(answer)
    assert isinstance(document, dict)
    return document
