"""Full disks, long readers, stubborn lockers and power cuts."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import apsw
import pytest

from worchflow_core import Created, StoreUnavailable, WorkerState
from worchflow_core.testing.contracts.opening import until
from worchflow_core.testing.contracts.samples import NOW, execution, step, worker
from worchflow_plugins.sqlite import SqliteStore, connection
from worchflow_plugins.sqlite.writer import Kind

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def _size(path: Path) -> int:
    return path.stat().st_size


def _sound(path: Path) -> bool:
    checked = apsw.Connection(str(path))
    try:
        return bool(checked.execute("PRAGMA integrity_check").get == "ok")
    finally:
        checked.close()


def _in_writer(store: SqliteStore, work: Callable[[apsw.Connection], Any]) -> Any:
    """Return what `work` does on the writer's own connection."""
    return store._file.write(Kind(99, lambda writing, members: [work(writing)]), None)


def test_a_full_file_stops_intake_and_recovers(tmp_path: Path) -> None:
    path = tmp_path / "w.db"

    async def main() -> None:
        async with SqliteStore(str(path)) as store:
            await store.create([execution("a")])
            await store.claim("w", ["f"], limit=1, now=NOW)

            def hold(pages: int) -> Callable[[apsw.Connection], Any]:
                return lambda writing: writing.execute(f"PRAGMA max_page_count = {pages}").get

            await _in_writer(store, hold(200))
            taken, told = 0, ""
            while not told:
                assert taken < 1000
                try:
                    await store.create([execution(f"e{taken}", data='"' + "x" * 9000 + '"')])
                    taken += 1
                except StoreUnavailable as error:
                    told = str(error)
            assert told.startswith(f"{path}: the disk")
            assert "make room" in told
            large = step("a", result='"' + "x" * 1_000_000 + '"')
            with pytest.raises(StoreUnavailable):
                await store.record([large])
            # Reading goes on, and what was acknowledged is there.
            assert len(await store.get([f"e{number}" for number in range(taken)])) == taken
            assert await store.get([f"e{taken}"]) == []
            await _in_writer(store, hold(1_000_000))
            assert await store.create([execution(f"e{taken}")]) == [Created.NEW]
            assert await store.record([large]) == [large]

    asyncio.run(main())
    assert _sound(path)


_FULL_DISK = """
import asyncio, resource, signal, sys
from worchflow_core import Created, StoreUnavailable
from worchflow_core.testing.contracts.samples import execution
from worchflow_plugins.sqlite import SqliteStore

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

async def main():
    async with SqliteStore(sys.argv[1]) as store:
        await store.create([execution("a")])
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
        taken, is_full = 0, False
        while not is_full:
            assert taken < 1000
            try:
                await store.create([execution(f"e{taken}", data='"' + "x" * 9000 + '"')])
                taken += 1
            except StoreUnavailable as error:
                assert sys.argv[1] in str(error), error
                is_full = True
        assert len(await store.get([f"e{number}" for number in range(taken)])) == taken
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        assert await store.create([execution("last")]) == [Created.NEW]
        assert len(await store.get(["a", "last"])) == 2
        print(taken)

asyncio.run(main())
"""


@pytest.mark.skipif(
    resource.getrlimit(resource.RLIMIT_FSIZE)[1] != resource.RLIM_INFINITY,
    reason="file sizes are limited here already",
)
def test_a_system_that_takes_no_more_bytes_is_survived(tmp_path: Path) -> None:
    path = tmp_path / "w.db"
    run = subprocess.run(
        [sys.executable, "-c", _FULL_DISK, str(path)],
        capture_output=True,
        text=True,
        timeout=100,
        env=ENVIRONMENT,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) > 10
    assert _sound(path)


def test_a_long_reader_keeps_nobody_waiting_and_the_log_shrinks_after_it(tmp_path: Path) -> None:
    path, log = tmp_path / "w.db", tmp_path / "w.db-wal"

    async def main() -> None:
        async with SqliteStore(str(path)) as store:
            await store.create([execution("a")])
            reader = connection.connect(str(path), is_reader=True)
            reader.execute("BEGIN")
            assert reader.execute("SELECT count(*) FROM executions").get == 1

            async def write(name: str, count: int) -> None:
                for number in range(count):
                    payload = '"' + "x" * 100_000 + '"'
                    await store.create(
                        [execution(f"{name}{number}-{n}", data=payload) for n in range(10)]
                    )

            await write("beside", 60)
            grown = log.stat().st_size
            assert grown > 50_000_000  # it cannot begin anew while somebody reads its beginning
            assert reader.execute("SELECT count(*) FROM executions").get == 1
            reader.close()
            rounds = 0

            async def shrunk() -> bool:
                nonlocal rounds
                rounds += 1
                await write(f"after{rounds}-", 1)
                return log.stat().st_size <= 24_000_000

            await until(shrunk, within=60)

    asyncio.run(main())
    assert not log.exists()


def test_the_log_stays_bounded_under_steady_load(tmp_path: Path) -> None:
    async def main() -> None:
        largest = 0
        async with SqliteStore(str(tmp_path / "w.db")) as store:

            async def write(name: int) -> None:
                for number in range(30):
                    await store.create(
                        [
                            execution(f"{name}-{number}-{n}", data='"' + "x" * 5000 + '"')
                            for n in range(50)
                        ]
                    )

            writing = asyncio.gather(*(write(name) for name in range(8)))
            while not writing.done():
                await asyncio.sleep(0.01)
                largest = max(largest, _size(tmp_path / "w.db-wal"))
            await writing
        size = _size(tmp_path / "w.db")
        assert size > 50_000_000
        assert largest < size, "the log was never begun anew"

    asyncio.run(main())


def test_a_lock_held_by_others_is_waited_for(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "w.db"
        async with SqliteStore(str(path)) as store:
            await store.create([execution("a")])
            other = apsw.Connection(str(path))
            other.execute("BEGIN IMMEDIATE")
            writing = asyncio.create_task(store.create([execution("b")]))
            beating = asyncio.create_task(
                asyncio.to_thread(store.beat, worker("w"), lease=timedelta(seconds=9))
            )
            # Reads do not wait for writers, be they ours or others'.
            assert len(await asyncio.wait_for(store.get(["a", "b"]), 20)) == 1
            assert not writing.done()
            other.execute("COMMIT")
            other.close()
            assert await asyncio.wait_for(writing, 20) == [Created.NEW]
            assert (await asyncio.wait_for(beating, 20)).is_alive

    asyncio.run(main())


def test_a_lock_held_for_too_long_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PATIENCE", 0.05)

    async def main() -> None:
        path = tmp_path / "w.db"
        async with SqliteStore(str(path)) as store:
            await store.create([execution("a")])
            other = apsw.Connection(str(path))
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreUnavailable, match="another process has kept it locked"):
                await store.create([execution("b")])
            with pytest.raises(StoreUnavailable, match="another process has kept it locked"):
                await asyncio.to_thread(store.beat, worker("w"), lease=timedelta(seconds=9))
            other.execute("ROLLBACK")
            other.close()
            assert await store.create([execution("b")]) == [Created.NEW]

    asyncio.run(main())


def test_beats_are_on_time_beside_a_busy_writer(tmp_path: Path) -> None:
    """The heart has a connection of its own and is never kept out for long."""
    waits: list[float] = []

    async def main() -> None:
        async with SqliteStore(str(tmp_path / "w.db")) as store:
            store.beat(worker("w"), lease=timedelta(seconds=9))
            is_over = threading.Event()

            def beat() -> None:
                while not is_over.is_set():
                    start = time.monotonic()
                    given = worker("w", WorkerState.RUNNING)
                    assert store.beat(given, lease=timedelta(seconds=9)).is_alive
                    waits.append(time.monotonic() - start)
                    is_over.wait(0.01)

            heart = threading.Thread(target=beat)
            heart.start()

            async def write(name: int) -> None:
                for number in range(60):
                    await store.create([execution(f"{name}-{number}-{n}") for n in range(20)])

            await asyncio.gather(*(write(name) for name in range(20)))
            is_over.set()
            heart.join()

    asyncio.run(main())
    assert len(waits) > 3
    assert max(waits) < connection.PATIENCE  # 20 ms is usual; a lease is thirty seconds


_LOAD = """
import asyncio, itertools, os, sys
from worchflow_core.testing.contracts.samples import execution, step, NOW
from worchflow_plugins.sqlite import SqliteStore

acknowledged = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

async def work(store, name):
    for number in itertools.count():
        key = f"{name}-{number}"
        await store.create([execution(key, data='"' + "x" * 3000 + '"')])
        await store.record([step(key, fence=0)])
        os.write(acknowledged, f"{key}\\n".encode())

async def main():
    async with SqliteStore(sys.argv[1]) as store:
        await asyncio.gather(*(work(store, name) for name in range(12)))

asyncio.run(main())
"""


def test_every_copy_taken_at_an_instant_is_whole(tmp_path: Path) -> None:
    """A power cut leaves the file and its log as they were at some instant."""
    path, told = tmp_path / "w.db", tmp_path / "acknowledged"
    load = subprocess.Popen([sys.executable, "-c", _LOAD, str(path), str(told)], env=ENVIRONMENT)
    copies = []
    try:
        for number in range(8):
            seen = told.stat().st_size if told.exists() else 0
            end = time.monotonic() + 30
            while not told.exists() or told.stat().st_size < seen + 2000:
                assert load.poll() is None
                assert time.monotonic() < end
                time.sleep(0.001)
            load.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, load.pid, os.WSTOPPED | os.WNOWAIT)
            folder = tmp_path / f"copy{number}"
            folder.mkdir()
            for name in ("w.db", "w.db-wal"):
                shutil.copyfile(tmp_path / name, folder / name)
            copies.append((folder / "w.db", told.read_text().splitlines()))
            load.send_signal(signal.SIGCONT)
    finally:
        load.kill()
        load.wait()
    for copy, keys in copies:
        assert keys
        asyncio.run(_holds_all(copy, keys))
        assert _sound(copy)
    asyncio.run(_holds_all(path, told.read_text().splitlines()))  # and after kill -9
    assert _sound(path)


async def _holds_all(path: Path, keys: list[str]) -> None:
    async with SqliteStore(str(path), create=False) as store:
        assert len(await store.get(keys)) == len(keys)
        steps = await store.steps(keys)
        assert all(len(steps[key]) == 1 for key in keys)
        assert [item.level for item in await store.check()].count("problem") == 0
