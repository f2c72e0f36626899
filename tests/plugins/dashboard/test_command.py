from __future__ import annotations

import asyncio
import gzip
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.plugins.dashboard.serving import Server
from worchflow_plugins.dashboard import connections


def environment() -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("WORCHFLOW_")}
    return {**clean, "PYTHONUNBUFFERED": "1"}


@contextmanager
def command(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "worchflow_core.cli", "dashboard", *arguments],
        cwd=folder,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(15)
        assert process.stderr is not None
        process.stderr.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def fetched(url: str, headers: dict[str, str] | None = None) -> str:
    deadline = time.monotonic() + 20
    while True:
        try:
            request = urllib.request.Request(url, headers=headers or {})
            with urllib.request.urlopen(request, timeout=5) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                return f"{error.code}"
        except OSError:
            assert time.monotonic() < deadline, f"{url} did not answer"
            time.sleep(0.05)


def test_demo_is_served_on_loopback_and_ends_on_ctrl_c(tmp_path: Path) -> None:
    port = free_port()
    with command(tmp_path, "--demo", "--port", str(port)) as process:
        assert process.stderr is not None
        assert f"http://127.0.0.1:{port}/" in process.stderr.readline()
        assert "process-payment" in fetched(f"http://127.0.0.1:{port}/")
        process.send_signal(signal.SIGINT)
        assert process.wait(15) in (0, 130)
    assert list(tmp_path.iterdir()) == []  # a demonstration leaves nothing behind


def test_other_machines_are_refused_without_credentials(tmp_path: Path) -> None:
    with command(tmp_path, "--demo", "--host", "0.0.0.0", "--port", str(free_port())) as process:
        assert process.stderr is not None
        assert process.wait(30) != 0
        told = process.stderr.read()
        assert "--auth token" in told
        assert "Traceback" not in told


def test_a_token_is_made_and_told_once(tmp_path: Path) -> None:
    port = free_port()
    arguments = ("--demo", "--auth", "token", "--port", str(port), "--prefix", "/flows")
    with command(tmp_path, *arguments) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.search(r"token +(\S{40,})", line)
        assert found is not None, line
        url = f"http://127.0.0.1:{port}/flows/api/stats"
        assert fetched(url) == "401"
        assert "total" in fetched(url, {"Authorization": f"Bearer {found[1]}"})


def test_listing_plugins_does_not_import_the_web(tmp_path: Path) -> None:
    code = (
        "import sys, worchflow_plugins.dashboard\n"
        "heavy = {'fastapi', 'starlette', 'jinja2', 'uvicorn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


# --- connections ---------------------------------------------------------------------------------


def test_a_silent_or_slow_client_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.3)
    with Server() as server:
        for beginning in (b"", b"GET / HTTP/1.1\r\nHost: localh"):
            with socket.create_connection(("127.0.0.1", server.port), timeout=10) as silent:
                silent.sendall(beginning)
                assert b"200 OK" not in silent.recv(65536)  # ends, instead of waiting for ever
        assert "total" in fetched(f"{server.url}/api/stats")


def test_a_head_that_is_too_long_is_refused() -> None:
    with Server() as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
            client.sendall(b"".join(b"x-%d: %s\r\n" % (n, b"y" * 90) for n in range(400)))
            client.sendall(b"\r\n")
            with suppress(ConnectionError):  # cut off while still talking
                assert client.recv(100).split()[1] in (b"400", b"431")
        assert "total" in fetched(f"{server.url}/api/stats")


def test_many_idle_connections_do_not_keep_the_loop_busy() -> None:
    with Server() as server:
        idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(200)]
        try:
            began = time.monotonic()
            server.do(asyncio.sleep(0))
            assert "total" in fetched(f"{server.url}/api/stats")
            assert time.monotonic() - began < 5
        finally:
            for connection in idle:
                connection.close()


def test_a_huge_or_packed_body_is_refused_unread() -> None:
    packed = gzip.compress(b'{"name": "a", "data": "' + b"x" * 20_000_000 + b'"}')
    head = "POST /api/send HTTP/1.1\r\nHost: localhost:%d\r\nContent-Type: application/json\r\n"
    with Server() as server:
        for extra, body, wanted in (
            ("Content-Length: 2147483648\r\n", b"{", {b"413"}),
            (
                f"Content-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n",
                packed,
                {b"400", b"415"},
            ),
        ):
            with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
                client.sendall((head % server.port).encode() + extra.encode() + b"\r\n" + body)
                assert client.recv(100).split()[1] in wanted, extra
        assert "total" in fetched(f"{server.url}/api/stats")


def test_a_flood_of_idle_connections_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand connections that say nothing are cut off, and then all is as before."""
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 1.0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * 10_000 + 1_000  # both ends are in this process
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, wanted)), hard))
    flood: list[socket.socket] = []
    try:
        count = min(10_000, (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 1_000) // 2)
        with Server() as server:
            place = ("127.0.0.1", server.port)
            flood += [socket.create_connection(place, timeout=30) for _ in range(count)]
            deadline = time.monotonic() + 60
            while "total" not in fetched(f"{server.url}/api/stats"):
                assert time.monotonic() < deadline, "the flood never passed"
                time.sleep(0.2)
    finally:
        for connection in flood:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# --- where it has to do without ------------------------------------------------------------------


def test_functions_that_cannot_be_loaded_hide_nothing(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "broken_flows.py").write_text("import nowhere_to_be_found\n")
    with command(tmp_path, "-m", "broken_flows", "--port", str(port)) as process:
        assert process.stderr is not None
        assert "functions are known from workers only" in process.stderr.readline()
        assert "No executions yet" in fetched(f"http://127.0.0.1:{port}/")


def test_a_missing_extra_is_named_with_its_remedy(tmp_path: Path) -> None:
    (tmp_path / "fastapi.py").write_text("raise ModuleNotFoundError(name='fastapi')\n")
    process = subprocess.run(
        [sys.executable, "-m", "worchflow_core.cli", "dashboard", "--demo"],
        cwd=tmp_path,
        env={**environment(), "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode == 2
    assert "pip install 'worchflow[dashboard]'" in process.stderr
    assert "Traceback" not in process.stderr
