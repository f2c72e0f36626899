"""Several processes on one file: nobody hears of locks, nothing is lost or done twice."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import apsw

from worchflow_core import Condition, Hint, Operator, Query, Status, StepRecord
from worchflow_core.testing.contracts.opening import until
from worchflow_core.testing.contracts.samples import at, execution, record
from worchflow_core.transitions import release_crashed
from worchflow_plugins.sqlite import SqliteQueue, SqliteStore

LONG_AGO = at(-1e9)
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

_WORKER = """
import asyncio, sys
from datetime import timedelta
from worchflow_core import Clock, Status, WorkerState
from worchflow_core.testing.contracts.samples import step, worker
from worchflow_core.transitions import Outcome, settle
from worchflow_plugins.sqlite import SqliteStore

path, name = sys.argv[1:]
clock = Clock()

async def run(store, item):
    for number in range(3):
        given = step(item.id, f"s{number}", seq=number, fence=item.fence, result=f'"{name}"')
        (found,) = await store.record([given])
        if found is None:
            return  # another claim has it by now
    await store.update([settle(item, Outcome(status=Status.COMPLETED), now=clock.now())])

async def main():
    async with SqliteStore(path) as store:
        state, lease = WorkerState.STARTING, timedelta(seconds=30)
        while True:
            beat = await asyncio.to_thread(store.beat, worker(name, state), lease=lease)
            assert beat.is_alive
            state = WorkerState.RUNNING
            claimed = await store.claim(name, ["f"], limit=4, now=clock.now())
            await asyncio.gather(*(run(store, item) for item in claimed))

asyncio.run(main())
"""


class _Workers:
    """Worker processes, one of which is killed now and then and replaced."""

    def __init__(self, path: Path, count: int) -> None:
        self._path = path
        self._number = 0
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.errors = path.with_suffix(".errors")
        for _ in range(count):
            self.start()

    def start(self) -> None:
        name = f"w{self._number}"
        self._number += 1
        with self.errors.open("ab") as errors:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-c", _WORKER, str(self._path), name],
                env=ENVIRONMENT,
                stderr=errors,
            )

    def kill_one(self) -> str:
        name = random.choice(list(self.running))
        process = self.running.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()
        return name

    def stop(self) -> None:
        for process in self.running.values():
            process.kill()
        for process in self.running.values():
            process.wait()


def test_workers_that_are_killed_lose_nothing_and_repeat_no_step(tmp_path: Path) -> None:
    path, count = tmp_path / "w.db", 400
    ids = [f"e{number:03}" for number in range(count)]

    async def release(store: SqliteStore, dead: set[str]) -> None:
        where = (Condition("owner", Operator.IN, tuple(dead)),)
        found = (await store.find(Query(where=where, limit=1000))).items
        await store.update(
            [
                release_crashed(item, now=LONG_AGO, max_crashes=99, has_grown=False, has_hint=False)
                for item in found
            ]
        )

    async def main(workers: _Workers) -> dict[str, list[StepRecord]]:
        dead: set[str] = set()
        async with SqliteStore(str(path)) as store:
            for kills in range(1000):
                done = (await store.stats())[Status.COMPLETED]
                if done == count:
                    break

                async def is_moving(done: int = done) -> bool:
                    now = (await store.stats())[Status.COMPLETED]
                    assert workers.errors.read_text() == ""
                    await release(store, dead)
                    return now > done + 20 or now == count

                await until(is_moving, within=60)
                if kills < 8:
                    dead.add(workers.kill_one())
                    workers.start()
            assert {item.status for item in await store.get(ids)} == {Status.COMPLETED}
            assert len(dead) >= 3
            return {key: list(found) for key, found in (await store.steps(ids)).items()}

    async def prepare() -> None:
        async with SqliteStore(str(path)) as store:
            await store.create([execution(item, due_at=LONG_AGO) for item in ids])

    asyncio.run(prepare())
    workers = _Workers(path, 4)
    try:
        steps = asyncio.run(main(workers))
    finally:
        workers.stop()
    assert workers.errors.read_text() == ""
    assert set(steps) == set(ids)
    for found in steps.values():
        assert [item.step_id for item in found] == ["s0", "s1", "s2"]
        fences = [item.fence for item in found]
        assert fences == sorted(fences)  # what an older claim recorded was never overwritten
    connection = apsw.Connection(str(path))
    assert connection.execute("PRAGMA integrity_check").get == "ok"
    connection.close()


_HAMMER = """
import asyncio, sys
from worchflow_core.testing.contracts.samples import execution, record
from worchflow_plugins.sqlite import SqliteStore

async def main():
    path, name = sys.argv[1:]
    async with SqliteStore(path) as store:
        for number in range(300):
            await store.create([execution(f"{name}-{number}")])
            await store.create([execution(f"shared-{number}", input_hash=name)])
            version = (await store.records.scan("meta"))[0].version
            await store.records.replace([record("count", version=version + 1)])
        print("done")

asyncio.run(main())
"""


def test_processes_that_write_as_fast_as_they_can_meet_no_locks(tmp_path: Path) -> None:
    path = tmp_path / "w.db"

    async def prepare() -> None:
        async with SqliteStore(str(path)) as store:
            await store.records.insert([record("count")])

    async def verify() -> None:
        async with SqliteStore(str(path)) as store:
            assert sum((await store.stats()).values()) == 4 * 300 + 300
            (count,) = await store.records.scan("meta")
            assert 300 < count.version <= 4 * 300 + 1

    asyncio.run(prepare())
    running = [
        subprocess.Popen(
            [sys.executable, "-c", _HAMMER, str(path), f"p{number}"],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    try:
        for process in running:
            out, errors = process.communicate(timeout=100)
            assert (out, errors) == ("done\n", "")
    finally:
        for process in running:
            process.kill()
            process.wait()
    asyncio.run(verify())


_LISTENER = """
import asyncio, sys
from datetime import timedelta
from worchflow_plugins.sqlite import SqliteQueue

async def main():
    async with SqliteQueue(sys.argv[1]) as queue:
        await queue.pop(["f"], limit=1, wait=timedelta(0))  # listens from here on
        print("listening", flush=True)
        await queue.pop(["f"], limit=1, wait=timedelta(seconds=90))
        print("woken", flush=True)
        if sys.argv[2:] == ["stay"]:
            await asyncio.sleep(90)

asyncio.run(main())
"""


def _listen(path: Path, *more: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _LISTENER, str(path), *more],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "listening\n"
    return process


def test_a_push_wakes_a_worker_of_another_process(tmp_path: Path) -> None:
    for path in (tmp_path / "w.db", tmp_path / ("d" * 120) / "w.db"):
        process = _listen(path)
        try:
            start = time.monotonic()

            async def push(path: Path = path) -> None:
                async with SqliteQueue(str(path)) as queue:
                    await queue.push([Hint(execution=execution("a"))])

            asyncio.run(push())
            out, _ = process.communicate(timeout=60)
            assert out == "woken\n"
            assert time.monotonic() - start < 60  # its own wait is longer
        finally:
            process.kill()
            process.wait()
    assert list(tmp_path.iterdir()) == []  # sockets go with their workers


def test_the_socket_of_a_killed_worker_is_cleared_away(tmp_path: Path) -> None:
    path = tmp_path / "w.db"
    process = _listen(path, "stay")
    (name,) = [item.name for item in tmp_path.iterdir()]
    assert name.startswith("w.db.")
    assert name.endswith(".sock")
    process.kill()
    process.communicate()
    assert [item.name for item in tmp_path.iterdir()] == [name]

    async def push() -> None:
        async with SqliteQueue(str(path)) as queue:
            await queue.push([Hint(execution=execution("a"))])
            await queue.pop(["f"], limit=1, wait=timedelta(0))
            await queue.push([Hint(execution=execution("a"))])

    asyncio.run(push())
    assert list(tmp_path.iterdir()) == []
