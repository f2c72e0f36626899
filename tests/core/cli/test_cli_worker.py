from __future__ import annotations

import gc
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from worchflow_core.cli import exits

ROOT = Path(__file__).resolve().parents[3]
GOOD = '{"amount": 3, "customer_id": "ana"}'

LATE_STORE = '''
from pathlib import Path

from worchflow_core import StoreUnavailable, hookimpl


class Late:
    """A store that cannot be reached until a file is there."""

    def __init__(self, inner):
        self.inner = inner

    async def __aenter__(self):
        if not Path("up").exists():
            raise StoreUnavailable("late://host: connection refused")
        return await self.inner.__aenter__()

    async def __aexit__(self, *about):
        return await self.inner.__aexit__(*about)


@hookimpl
def worchflow_open_store(url):
    if url.startswith("late:"):
        from worchflow_plugins.sqlite import SqliteStore

        return Late(SqliteStore("late.db"))
'''


def status_of(cli: Callable[..., Any], execution_id: str) -> str:
    document = json.loads(cli("show", execution_id, "--json").out)
    return str(document["execution"]["status"])


def ask(port: int, path: str) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def port_of(text: str) -> int:
    found = re.search(r"http://127\.0\.0\.1:(\d+)/healthz", text)
    assert found is not None, text
    return int(found[1])


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def children_of(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(part) for part in text.split()]


def test_a_burst_runs_what_is_due_and_ends(cli: Callable[..., Any], flows: str) -> None:
    cli("send", "pay", GOOD, "-m", flows, "--id", "order-1")
    done = cli("worker", "--burst", "-m", flows)
    assert done.code == 0
    assert status_of(cli, "order-1") == "completed"
    lines = done.err.splitlines()
    assert lines[0].startswith("store ")
    assert "worchflow.db   default: one machine, no server; WORCHFLOW_STORE_URL" in lines[0]
    assert any(line.startswith("queue ") for line in lines)
    assert any("boom, pay, until-file" in line and flows in line for line in lines)
    assert any("✓ Charge" in line or "+ Charge" in line for line in lines)


def test_a_worker_that_ended_leaves_its_garbage_to_be_collected(
    cli: Callable[..., Any], flows: str
) -> None:
    before = (gc.get_freeze_count(), gc.get_threshold())
    assert cli("worker", "--burst", "-m", flows).code == 0
    assert (gc.get_freeze_count(), gc.get_threshold()) == before


def test_only_takes_a_subset(cli: Callable[..., Any], flows: str) -> None:
    cli("send", "pay", GOOD, "-m", flows, "--id", "order-1")
    assert cli("worker", "--burst", "--only", "boom", "-m", flows).code == 0
    assert status_of(cli, "order-1") == "queued"
    wrong = cli("worker", "--burst", "--only", "nope", "-m", flows)
    assert wrong.code == exits.USAGE
    assert "no function 'nope'; there are: boom, " in wrong.err


def test_log_lines_as_json_or_not_at_all(cli: Callable[..., Any], flows: str) -> None:
    cli("send", "pay", GOOD, "-m", flows, "--id", "order-1")
    done = cli("worker", "--burst", "--log-format", "json", "-m", flows)
    events = [json.loads(line) for line in done.err.splitlines() if line.startswith("{")]
    names = [event["event"] for event in events]
    assert names.count("step_completed") == 2
    assert "execution_completed" in names
    cli("send", "pay", GOOD, "-m", flows, "--id", "order-2")
    assert cli("worker", "--burst", "-q", "-m", flows).err == ""
    assert cli("worker", "--log-format", "loud", "-m", flows).code == exits.USAGE


def test_unknown_variables_are_only_warned_of(
    cli: Callable[..., Any], flows: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORCHFLOW_CONCURENCY", "3")
    done = cli("worker", "--burst", "-m", flows)
    assert done.code == 0
    assert "warning: WORCHFLOW_CONCURENCY is no setting" in done.err
    assert "did you mean WORCHFLOW_CONCURRENCY?" in done.err


def test_a_worker_without_functions_says_what_to_do(cli: Callable[..., Any], place: Path) -> None:
    (place / "empty_flows.py").write_text("", encoding="utf-8")
    done = cli("worker", "-m", "empty_flows")
    assert done.code == exits.USAGE
    assert "holds no function" in done.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_drains_and_the_worker_leaves_well(
    cli: Callable[..., Any],
    program: Callable[..., Any],
    flows: str,
    place: Path,
    eventually: Callable[..., Any],
    number: signal.Signals,
) -> None:
    seen = place / "seen"
    cli("send", "until-file", json.dumps({"path": str(seen)}), "-m", flows, "--id", "wait-1")
    worker = program("worker", "-m", flows, "--grace", "20s")
    eventually(lambda: (place / "seen.began").exists())
    worker.signal(number)
    eventually(lambda: "draining" in cli("workers").out or worker.process.poll() is not None)
    seen.touch()
    done = worker.end()
    assert done.code == 0
    assert "Traceback" not in done.err
    assert status_of(cli, "wait-1") in ("completed", "queued")
    assert json.loads(cli("show", "wait-1", "--steps", "--json").out)["total"] == 1
    assert "no workers" in cli("workers").err


def test_the_second_signal_stops_now(
    cli: Callable[..., Any],
    program: Callable[..., Any],
    flows: str,
    place: Path,
    eventually: Callable[..., Any],
) -> None:
    cli(
        "send", "until-file", json.dumps({"path": str(place / "no")}), "-m", flows, "--id", "wait-1"
    )
    worker = program("worker", "-m", flows, "--grace", "100s")
    eventually(lambda: (place / "no.began").exists())
    worker.signal(signal.SIGINT)
    worker.until("Ctrl-C again stops now")
    worker.signal(signal.SIGINT)
    done = worker.end(20)
    assert done.code == 0
    assert "Traceback" not in done.err
    document = json.loads(cli("show", "wait-1", "--json").out)["execution"]
    assert document["status"] == "queued"
    assert document["attemptCount"] == 0
    assert "crashes" not in document


def test_run_that_is_interrupted_leaves_the_execution_to_others(
    cli: Callable[..., Any],
    program: Callable[..., Any],
    flows: str,
    place: Path,
    eventually: Callable[..., Any],
) -> None:
    data = json.dumps({"path": str(place / "no")})
    running = program("run", "until-file", data, "-m", flows, "--id", "wait-1")
    eventually(lambda: (place / "no.began").exists())
    running.signal(signal.SIGINT)
    running.until("Ctrl-C again stops now")
    running.signal(signal.SIGINT)
    done = running.end(20)
    assert done.code == exits.INTERRUPTED
    assert done.out == ""
    assert status_of(cli, "wait-1") == "queued"


def test_waiting_that_is_interrupted_exits_130(
    program: Callable[..., Any], flows: str, cli: Callable[..., Any]
) -> None:
    waiting = program("send", "pay", GOOD, "-m", flows, "--id", "order-1", "--wait")
    waiting.until("no live worker has pay")
    waiting.signal(signal.SIGINT)
    done = waiting.end()
    assert done.code == exits.INTERRUPTED
    assert "Traceback" not in done.err
    assert status_of(cli, "order-1") == "queued"


def test_a_worker_waits_for_its_store_and_says_so(
    program: Callable[..., Any], flows: str, place: Path, eventually: Callable[..., Any]
) -> None:
    (place / "late_store.py").write_text(LATE_STORE, encoding="utf-8")
    worker = program(
        *("worker", "-m", flows, "--store-url", "late:x", "--health-port", "0"),
        WORCHFLOW_PLUGINS="late_store",
    )
    text = worker.until("trying again")
    assert "late:x" in text
    port = port_of(text)
    code, body = ask(port, "/healthz")
    assert code == 503
    assert "connection refused" in body["reason"]
    (place / "up").touch()
    eventually(lambda: ask(port, "/healthz")[0] == 200)
    eventually(lambda: ask(port, "/readyz")[0] == 200)
    assert ask(port, "/else")[0] == 404
    worker.signal()
    assert worker.end().code == 0
    assert worker.err.count("trying again") <= 2


def test_a_worker_that_waits_for_its_store_stops_at_once(
    program: Callable[..., Any], flows: str, place: Path
) -> None:
    (place / "late_store.py").write_text(LATE_STORE, encoding="utf-8")
    worker = program(
        *("worker", "-m", flows, "--store-url", "late:x"), WORCHFLOW_PLUGINS="late_store"
    )
    worker.until("trying again")
    worker.signal()
    done = worker.end(10)
    assert done.code == 0
    assert "Traceback" not in done.err


def test_other_commands_do_not_wait_for_a_store(
    cli: Callable[..., Any], flows: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "late_store.py").write_text(LATE_STORE, encoding="utf-8")
    monkeypatch.setenv("WORCHFLOW_PLUGINS", "late_store")
    monkeypatch.setenv("WORCHFLOW_STORE_URL", "late:x")
    for command in (("list",), ("send", "pay", GOOD, "-m", flows), ("worker", "--burst")):
        done = cli(*command, "-m", flows)
        assert done.code == exits.UNREACHABLE, done.err
        assert "error: late://host: connection refused" in done.err
    doctor = cli("doctor", "-m", flows)
    assert doctor.code == exits.FAILED
    assert "connection refused" in doctor.out


def test_processes_are_kept_and_stopped_together(
    program: Callable[..., Any],
    cli: Callable[..., Any],
    flows: str,
    eventually: Callable[..., Any],
) -> None:
    parent = program("worker", "-m", flows, "-w", "2", "--health-port", "0")
    port = port_of(parent.until("/healthz"))
    eventually(lambda: parent.err.count(" started ") == 2)
    eventually(lambda: ask(port, "/readyz")[0] == 200)
    assert parent.err.count("store  ") == 1
    first, second = children_of(parent.process.pid)
    os.kill(first, signal.SIGKILL)
    parent.until("was killed by SIGKILL; starting another")
    eventually(lambda: parent.err.count(" started ") == 3)
    parent.signal()
    assert parent.end().code == 0
    assert not is_running(second)
    live = [
        item for item in json.loads(cli("workers", "--json").out)["items"] if item["pid"] != first
    ]
    assert live == []


def test_no_process_outlives_its_parent(
    program: Callable[..., Any], flows: str, eventually: Callable[..., Any]
) -> None:
    parent = program("worker", "-m", flows, "-w", "2")
    eventually(lambda: parent.err.count(" started ") == 2)
    children = children_of(parent.process.pid)
    parent.signal(signal.SIGKILL)
    eventually(lambda: not any(is_running(pid) for pid in children))


def test_a_mistake_ends_all_processes(program: Callable[..., Any], flows: str) -> None:
    done = program("worker", "-m", flows, "-w", "2", "--only", "nope").end()
    assert done.code == exits.USAGE
    assert "no function 'nope'" in done.err


def test_a_changed_file_is_loaded_anew(
    program: Callable[..., Any],
    cli: Callable[..., Any],
    flows: str,
    place: Path,
    eventually: Callable[..., Any],
) -> None:
    pytest.importorskip("watchfiles")
    worker = program("dev", "--no-dashboard", "-m", flows)
    worker.until(" started ")
    path = place / f"{flows}.py"
    path.write_text(path.read_text() + "\n\n@function\nasync def added(event, step): ...\n")
    worker.until(f"{flows}.py changed, reloading")
    eventually(lambda: worker.err.count(" started ") == 2)
    worker.signal(signal.SIGINT)
    assert worker.end().code == 0
    assert "added" in cli("functions").out


def test_a_drained_worker_leaves(
    program: Callable[..., Any],
    cli: Callable[..., Any],
    flows: str,
) -> None:
    worker = program("worker", "-m", flows, "--name", "ana", WORCHFLOW_HEARTBEAT="100ms")
    worker.until(" started ")
    assert "ana" in cli("workers").out
    drained = cli("workers", "--drain", "ana", "--json")
    assert drained.code == 0
    assert json.loads(drained.out)["name"] == "ana"
    assert worker.end().code == 0
    missing = cli("workers", "--drain", "nobody")
    assert missing.code == exits.NOT_FOUND


def test_send_does_not_warn_while_a_worker_has_the_function(
    program: Callable[..., Any], cli: Callable[..., Any], flows: str
) -> None:
    worker = program("worker", "-m", flows)
    worker.until(" started ")
    done = cli("send", "pay", GOOD, "--wait", "--timeout", "20s")
    assert done.code == 0
    assert json.loads(done.out)["charged"] == 3.0
    assert "warning" not in done.err.replace("warning: this is a container", "")
    assert cli("doctor").code == 0


def test_a_guarded_command_leaves_with_its_parent(place: Path, flows: str) -> None:
    ours, theirs = socket.socketpair()
    log = place / "guarded.log"
    with ours, log.open("wb") as file:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "worchflow_core.cli.guarded", str(theirs.fileno())),
                *("worker", "-m", flows),
            ],
            cwd=place,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            pass_fds=(theirs.fileno(),),
            stderr=file,
        )
        theirs.close()
        try:
            deadline = time.monotonic() + 20
            while " started " not in log.read_text() and time.monotonic() < deadline:
                time.sleep(0.02)
            assert process.poll() is None
            ours.close()
            assert process.wait(20) == 0
        finally:
            process.kill()
            process.wait()
