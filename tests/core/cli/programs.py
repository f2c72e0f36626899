"""A command line as a process of its own, and waiting for what it does."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Done:
    """What a command line left behind."""

    code: int
    out: str
    err: str


class Program:
    """A command line running as a process of its own."""

    def __init__(self, place: Path, arguments: tuple[str, ...], env: dict[str, str]) -> None:
        self.log = place / f"{uuid4().hex[:8]}.log"
        self._file = self.log.open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "worchflow_core.cli", *arguments],
            cwd=place,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._file,
        )

    @property
    def err(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def until(self, text: str, seconds: float = 20) -> str:
        """Wait until standard error holds this text."""
        wait_for(lambda: text in self.err or self.process.poll() is not None, seconds)
        assert text in self.err, self.err
        return self.err

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def end(self, seconds: float = 30) -> Done:
        """Wait for the end."""
        out, _ = self.process.communicate(timeout=seconds)
        return Done(code=self.process.returncode, out=out.decode(), err=self.err)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._file.close()


def wait_for(condition: Callable[[], Any], seconds: float = 20) -> Any:
    """Return the first true answer of a condition; fail when there is none in time."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return answer
