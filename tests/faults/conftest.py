"""Places for fault tests: a file, or servers; and what must be as before when a test is over."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import forkserver
from pathlib import Path

import pytest

from tests.combinations import Combination
from tests.faults.arena import Place
from tests.faults.checker import clients, handles


@pytest.fixture
def place(combination: Combination, tmp_path: Path) -> Iterator[Place]:
    """A place of this test's own, on each combination of backends."""
    yield from guarded(Place(directory=tmp_path, **combination.settings))


def guarded(found: Place) -> Iterator[Place]:
    """Hand out a place; fail when something is left behind that was not there before."""
    forkserver.ensure_running()
    before = (handles(), clients(found))
    yield found
    _back_to(before[0], handles, "open files")
    _back_to(before[1], lambda: clients(found), "clients of Redis")
    _back_to(0, _threads, "threads of ours")


def _threads() -> int:
    return sum(item.name.startswith("worchflow-") for item in threading.enumerate())


def _back_to(most: int, count: Callable[[], int], what: str) -> None:
    """Fail unless a count falls back to what it was; those who closed may need a moment."""
    deadline = time.monotonic() + 10
    while (now := count()) > most:
        assert time.monotonic() < deadline, f"(i) {now} {what}, {most} before the test"
        time.sleep(0.02)
