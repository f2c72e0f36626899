"""Real Redis and MongoDB servers for tests, on private loopback ports and temporary directories.

A server is stopped by its process id when its `with` block ends, when the interpreter exits, and,
by a small guard process, even when the interpreter is killed.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from worchflow_core.testing import mongo_wire
from worchflow_core.testing.executables import find_executable

_START_TIMEOUT = 30.0
_GUARD = 'read -r _; kill -9 "$1" 2>/dev/null; rm -rf "$2"'
"""Waits until the pipe from the test process closes, then removes what that process left."""


class Server(ABC):
    """A server process that a test may stop, kill, freeze and start again on the same data.

    Attributes:
        port: the loopback port; fixed once started, kept over restarts.
        directory: its data and `log.txt`; removed by `close`.
    """

    def __init__(self, executable: str) -> None:
        self.executable = executable
        self.directory = Path(tempfile.mkdtemp(prefix="worchflow-server-"))
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._home = os.getpid()
        _open_servers.add(self)

    @property
    @abstractmethod
    def url(self) -> str:
        """The address a client connects to."""

    @property
    def pid(self) -> int:
        """The id of the running process."""
        if self._process is None:
            raise RuntimeError("the server is not running; call start()")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process exists."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start the process, on the port and data of the time before, and wait until it serves."""
        tries = 1 if self.port else 5
        for attempt in range(tries):
            port = self.port or free_port()
            try:
                self._launch(port)
            except RuntimeError:
                if attempt + 1 == tries:
                    raise
                continue
            self.port = port
            break
        return self

    def stop(self) -> None:
        """End the process in an orderly way (SIGTERM) and wait until it is gone."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the process at once (SIGKILL) and wait until it is gone; the data stays."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Kill the process and start it again on the same port and data."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """Freeze the process (SIGSTOP): connections stay open and nobody answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen process go on (SIGCONT)."""
        os.kill(self.pid, signal.SIGCONT)

    def log(self) -> str:
        """Return what the server has printed so far."""
        path = self.directory / "log.txt"
        return path.read_text(errors="replace") if path.exists() else ""

    def close(self) -> None:
        """Kill the process and remove its directory."""
        if os.getpid() != self._home:  # a forked child must not end its parent's server
            return
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)
        _open_servers.discard(self)

    def __enter__(self) -> Self:
        if not self.is_running:
            self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @abstractmethod
    def _arguments(self, port: int) -> Sequence[str]:
        """Return the command line behind the program's name."""

    @abstractmethod
    def _is_ready(self, port: int) -> bool:
        """Return whether the server serves; may raise OSError while it does not."""

    def _launch(self, port: int) -> None:
        with (self.directory / "log.txt").open("ab") as log:
            process = subprocess.Popen(
                [self.executable, *self._arguments(port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
            )
        self._process = process
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "sh", str(process.pid), str(self.directory)],
            stdin=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in the terminal must not end the guard first
        )
        deadline = time.monotonic() + _START_TIMEOUT
        while time.monotonic() < deadline:
            if process.poll() is not None:
                break
            try:
                if self._is_ready(port):
                    return
            except OSError:
                pass
            time.sleep(0.02)
        self.kill()
        tail = "\n".join(self.log().splitlines()[-15:])
        raise RuntimeError(f"{self.executable} did not start on port {port}:\n{tail}")

    def _end(self, number: signal.Signals) -> None:
        process, guard = self._process, self._guard
        self._process = self._guard = None
        if guard is not None:  # first, while the process id is surely still ours
            guard.kill()
            guard.wait()
            if guard.stdin is not None:
                guard.stdin.close()
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(number)
            process.send_signal(signal.SIGCONT)  # a frozen process notices SIGTERM only then
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class RedisServer(Server):
    """A `redis-server` that keeps nothing on disk unless asked to.

    Args:
        wheel: see `find_executable`.
        password: what clients must give.
        arguments: more of its command line, such as `("--appendonly", "yes")`.
    """

    def __init__(
        self,
        *,
        wheel: str | None = None,
        password: str | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        super().__init__(find_executable("redis-server", wheel=wheel))
        self.password = password
        self.extra = tuple(arguments)

    @property
    def url(self) -> str:
        """The address a client connects to."""
        secret = f":{quote(self.password, safe='')}@" if self.password else ""
        return f"redis://{secret}127.0.0.1:{self.port}/0"

    def _arguments(self, port: int) -> Sequence[str]:
        secret = ("--requirepass", self.password) if self.password else ()
        place = ("--bind", "127.0.0.1", "--port", str(port), "--dir", str(self.directory))
        return (*place, "--save", "", "--appendonly", "no", "--daemonize", "no", *secret,
                *self.extra)  # fmt: skip

    def _is_ready(self, port: int) -> bool:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(b"PING\r\n")
            answer = connection.recv(64)
        return answer.startswith((b"+PONG", b"-NOAUTH", b"-DENIED"))


class MongoServer(Server):
    """A `mongod`, as a replica set of one member unless asked to stand alone.

    Args:
        standalone: without a replica set.
        arguments: more of its command line.
    """

    def __init__(self, *, standalone: bool = False, arguments: Sequence[str] = ()) -> None:
        super().__init__(find_executable("mongod"))
        self.standalone = standalone
        self.extra = tuple(arguments)

    @property
    def url(self) -> str:
        """The address a client connects to."""
        option = "directConnection=true" if self.standalone else "replicaSet=rs0"
        return f"mongodb://127.0.0.1:{self.port}/?{option}"

    def _arguments(self, port: int) -> Sequence[str]:
        data = self.directory / "data"
        data.mkdir(exist_ok=True)
        place = ("--bind_ip", "127.0.0.1", "--port", str(port), "--dbpath", str(data))
        lean = ("--wiredTigerCacheSizeGB", "0.5", "--nounixsocket", "--quiet")
        parameters = (
            "--setParameter", "enableTestCommands=1",
            "--setParameter", "diagnosticDataCollectionEnabled=false",
        )  # fmt: skip
        members = () if self.standalone else ("--replSet", "rs0", "--oplogSize", "128")
        return (*place, *lean, *parameters, *members, *self.extra)

    def _is_ready(self, port: int) -> bool:
        hello = mongo_wire.run_command(port, {"hello": 1})
        if mongo_wire.is_true(hello, "isWritablePrimary"):
            return True
        if not self.standalone:
            member = {"_id": 0, "host": f"127.0.0.1:{port}"}
            # Refused once it is initiated, and while it still starts: asking again is harmless.
            mongo_wire.run_command(port, {"replSetInitiate": {"_id": "rs0", "members": [member]}})
        return False


def free_port() -> int:
    """Return a loopback port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


_open_servers: set[Server] = set()


@atexit.register
def close_all() -> None:
    """Close every server this process still has open."""
    for server in list(_open_servers):
        server.close()
