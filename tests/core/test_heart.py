"""The heart: beats from a thread, notices a hanging loop, tells of death and of requests."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import textwrap
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.core.support import Faulty, outcome, run, until, working
from worchflow_core import (
    Beat,
    Event,
    Status,
    Step,
    StoreUnavailable,
    Worker,
    WorkerState,
    function,
)
from worchflow_core.clock import Clock
from worchflow_core.heart import EXIT_STALLED, Heart
from worchflow_core.lease import Lease
from worchflow_plugins.memory import MemoryStore


class Patient:
    """What a heart tells, kept."""

    def __init__(self) -> None:
        self.beats: list[Beat] = []
        self.lost = 0

    def on_beat(self, beat: Beat) -> None:
        self.beats.append(beat)

    def on_lost(self) -> None:
        self.lost += 1


class Body:
    """A heart over a store in memory, with a lease and a patient."""

    def __init__(self, *, lease: float = 3, interval: float = 0.02) -> None:
        self.clock = Clock()
        self.store = Faulty(MemoryStore())
        self.lease = Lease(timedelta(seconds=lease), self.clock)
        self.patient = Patient()
        self.state = WorkerState.STARTING
        self.heart = Heart(
            self.store,  # type: ignore[arg-type]
            self.lease,
            self.clock,
            self.describe,
            interval=timedelta(seconds=interval),
            listener=self.patient,
        )

    def describe(self) -> Worker:
        return Worker(
            id="w",
            name="w",
            host="h",
            pid=1,
            version="0",
            state=self.state,
            started_at=datetime.now(UTC),
            concurrency=1,
            functions=(),
        )

    def begin(self) -> None:
        self.heart.beat_now()
        self.state = WorkerState.RUNNING
        self.heart.start()


def test_beats_renew_the_lease_and_reach_the_listener() -> None:
    async def main() -> None:
        body = Body(lease=0.6)
        assert not body.lease.is_valid
        body.begin()
        began = time.monotonic()
        await until(lambda: time.monotonic() - began > 1.2)
        assert body.lease.is_valid
        assert len(body.patient.beats) > 3
        await body.heart.stop()

    run(main())


def test_blocking_the_loop_does_not_lose_the_lease_and_is_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        body = Body(lease=1.0)
        body.begin()
        threading.Event().wait(1.5)  # a lease and a half
        assert body.lease.is_valid
        await body.heart.stop()

    with caplog.at_level(logging.WARNING, "worchflow"):
        run(main())
    assert "the event loop has not turned" in caplog.text
    assert "wait" in caplog.text


def test_failed_beats_end_the_lease_early_and_the_next_good_one_restores_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        body = Body(lease=0.3)
        body.begin()
        await until(lambda: body.patient.beats)
        body.store.away.add("beat")
        await until(lambda: not body.lease.is_valid)
        assert not body.lease.is_lost
        waiting = asyncio.ensure_future(body.lease.wait_valid())
        body.store.away.clear()
        await waiting
        assert body.lease.is_valid
        await body.heart.stop()

    with caplog.at_level(logging.INFO, "worchflow"):
        run(main())
    assert "a heartbeat failed" in caplog.text
    assert "the heart beats again" in caplog.text


def test_lease_ends_a_sixth_early() -> None:
    clock = Clock()
    lease = Lease(timedelta(seconds=6), clock)
    now = clock.lease_time()
    lease.confirm(now - 4.9)
    assert lease.is_valid
    lease.confirm(now - 5.1)
    assert not lease.is_valid


def test_death_is_told_once_and_the_heart_falls_silent() -> None:
    async def main() -> None:
        body = Body()
        body.begin()
        await until(lambda: body.patient.beats)
        await body.store.inner.bury(["w"], overdue=timedelta(seconds=-60))
        await until(lambda: body.patient.lost)
        assert body.lease.is_lost
        calls = body.store.calls["beat"]
        await asyncio.to_thread(threading.Event().wait, 0.1)
        assert body.store.calls["beat"] == calls
        assert body.patient.lost == 1
        await body.heart.stop()

    run(main())


def test_strange_error_of_a_store_does_not_stop_the_heart() -> None:
    async def main() -> None:
        body = Body()
        body.begin()
        body.store.refuse = lambda name, args: ZeroDivisionError("a bug")
        await until(lambda: body.store.calls["beat"] > 4)
        body.store.refuse = lambda name, args: None
        await until(lambda: body.patient.beats)
        await body.heart.stop()

    run(main())


def test_clock_takes_the_offset_of_the_store() -> None:
    async def main() -> None:
        body = Body()
        ahead = timedelta(hours=1)
        real = body.store.inner.beat

        def beat(worker: Any, *, lease: Any) -> Beat:
            return Beat(now=real(worker, lease=lease).now + ahead, is_alive=True)

        body.store.inner.beat = beat
        body.heart.beat_now()
        assert abs(body.clock.offset - ahead) < timedelta(seconds=1)

    run(main())


@pytest.mark.parametrize("days", [1, -1])
def test_a_clock_that_is_set_between_two_beats_makes_nothing_due(
    days: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    clock.correct(clock.local(), local=clock.local(), trip=0.0)
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + days * 86_400 * 10**9)
    assert abs(clock.now() - (clock.local() - timedelta(days=days))) < timedelta(seconds=1)
    told = clock.now()
    clock.correct(told, local=clock.local(), trip=0.0)  # the next beat
    assert abs(clock.offset + timedelta(days=days)) < timedelta(seconds=1)
    assert abs(clock.now() - told) < timedelta(seconds=1)


def test_process_that_stood_still_is_no_hanging_loop() -> None:
    # As after SIGSTOP or a suspended laptop: the heart itself did not run meanwhile.
    async def main() -> None:
        body = Body(lease=1.0)
        jump = 0.0
        real = body.clock.lease_time
        body.clock.lease_time = lambda: real() + jump  # type: ignore[method-assign]
        body.begin()
        await until(lambda: body.patient.beats)
        jump = 3600.0
        threading.Event().wait(0.2)  # the heart beats before the loop has turned
        seen = len(body.patient.beats)
        await until(lambda: len(body.patient.beats) > seen + 2)  # this process still lives
        await body.heart.stop()

    run(main())


STALLING = """
import asyncio, threading
from worchflow_core import Worchflow, function

@function
async def wedged(event, step):
    while True:
        pass

async def main():
    overrides = {
        "store_url": "memory://stall", "lease": "600ms", "heartbeat": "100ms",
        "disabled_plugins": "logs,mongo,redis,sample-audit,sqlite",
    }
    async with Worchflow(functions=[wedged], overrides=overrides, env_file=None) as app:
        await app.client.send(wedged, None)
        await app.worker.run()

asyncio.run(main())
"""


def test_loop_that_hangs_past_the_stall_limit_ends_the_process_with_a_stack_dump() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(STALLING)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == EXIT_STALLED == 70, ended.stderr
    assert "the event loop has not turned" in ended.stderr
    assert "in wedged" in ended.stderr


def test_blocking_code_in_a_worker_completes_once() -> None:
    runs: list[int] = []

    @function
    async def blocking(event: Event[Any], step: Step) -> int:
        async def work() -> int:
            runs.append(1)
            time.sleep(1.5)  # noqa: ASYNC251 - blocking is what the test is about
            return 7

        return await step.run("Work", work)

    async def main() -> None:
        async with working(blocking, lease="1s") as app:
            execution = await outcome(app, blocking)
            assert execution.status is Status.COMPLETED
            assert execution.crashes == 0

    run(main())
    assert runs == [1]


def test_store_error_while_registering_is_waited_out() -> None:
    body = Body()
    body.store.away.add("beat")
    with pytest.raises(StoreUnavailable):
        body.heart.beat_now()
