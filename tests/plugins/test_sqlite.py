from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import apsw
import pytest

from worchflow_core import (
    ConfigurationError,
    Created,
    InvalidInput,
    Queue,
    Settings,
    Store,
    StoreUnavailable,
    StoreUnusable,
)
from worchflow_core.testing.contracts import QueueContract, StoreContract
from worchflow_core.testing.contracts.samples import NOW, execution, step
from worchflow_plugins import sqlite
from worchflow_plugins.sqlite import SqliteQueue, SqliteStore, writer
from worchflow_plugins.sqlite.connection import fetch

SETTINGS = Settings(_env_file=None)


class TestSqliteStore(StoreContract):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.place = tmp_path / "worchflow.db"

    def open(self) -> AbstractAsyncContextManager[Store]:
        return SqliteStore(str(self.place))


class TestSqliteQueue(QueueContract):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.place = tmp_path / "worchflow.db"

    def open(self) -> AbstractAsyncContextManager[Queue]:
        return SqliteQueue(str(self.place))


class TestSqliteQueueFarDown(QueueContract):
    """A path too long for the name of a socket: the sockets lie elsewhere."""

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.place = tmp_path / ("d" * 120) / "worchflow.db"

    def open(self) -> AbstractAsyncContextManager[Queue]:
        return SqliteQueue(str(self.place))


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///./worchflow.db", "worchflow.db"),
        ("sqlite:///a/b.db", "a/b.db"),
        ("sqlite:////var/lib/w.db", "/var/lib/w.db"),
        ("sqlite:w.db", "w.db"),
        ("sqlite:/var/w.db", "/var/w.db"),
        ("sqlite:///with%20space.db?mode=ro", "with space.db"),
        ("plain.db", "plain.db"),
        ("/plain?.db", "/plain?.db"),
    ],
)
def test_urls_name_paths(url: str, path: str) -> None:
    assert SqliteStore(url).path == os.path.abspath(path)
    assert SqliteQueue(url).path == os.path.abspath(path)


@pytest.mark.parametrize("url", ["sqlite:", "sqlite:///", "sqlite://host/w.db", "sqlite:dir/"])
def test_urls_that_name_no_file_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="names no file"):
        SqliteStore(url)


def test_hooks_answer_for_their_scheme_only(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/w.db"
    assert isinstance(sqlite.worchflow_open_store(url, SETTINGS), SqliteStore)
    assert isinstance(sqlite.worchflow_open_queue(url, SETTINGS), SqliteQueue)
    for other in ("redis://x", "sqlite3:w.db", "memory:"):
        assert sqlite.worchflow_open_store(other, SETTINGS) is None
        assert sqlite.worchflow_open_queue(other, SETTINGS) is None
    assert list(tmp_path.iterdir()) == []


def test_the_driver_is_imported_only_when_a_store_is_opened() -> None:
    code = (
        "import sys, worchflow_plugins.sqlite as plugin\n"
        "assert plugin.worchflow_open_store('redis://x', None) is None\n"
        "assert 'apsw' not in sys.modules\n"
        "plugin.worchflow_open_store('sqlite:w.db', None)\n"
        "assert 'apsw' in sys.modules\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=60)


def test_what_was_written_is_there_when_opened_again(tmp_path: Path) -> None:
    async def main() -> None:
        path = str(tmp_path / "w.db")
        async with SqliteStore(path) as store:
            await store.create([execution("a")])
            await store.claim("w", ["f"], limit=1, now=NOW)
            await store.record([step("a")])
            before = await store.get(["a"])
        async with SqliteStore(path, create=False) as store:
            assert await store.get(["a"]) == before
            assert (await store.steps(["a"]))["a"] == [step("a")]

    asyncio.run(main())


def _modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    async def main() -> None:
        async with SqliteStore(str(tmp_path / "w.db")) as store:
            await store.create([execution("a")])
            assert _modes(tmp_path) == {"w.db": 0o600, "w.db-wal": 0o600, "w.db-shm": 0o600}
            (tmp_path / "w.db").chmod(0o644)
            warnings = [item for item in await store.check() if item.level == "warning"]
            assert [item.subject for item in warnings] == ["sqlite access"]

    asyncio.run(main())
    assert [path.name for path in tmp_path.iterdir()] == ["w.db"]


def test_reading_commands_create_no_file(tmp_path: Path) -> None:
    async def main() -> None:
        store = SqliteStore(str(tmp_path / "w.db"), create=False)
        with pytest.raises(StoreUnavailable, match=str(tmp_path / "w.db")):
            await store.__aenter__()

    asyncio.run(main())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", ["ro", "rw"])
def test_a_url_can_ask_for_a_file_that_exists(tmp_path: Path, mode: str) -> None:
    async def main() -> None:
        url = f"sqlite:///{tmp_path}/w.db"
        with pytest.raises(StoreUnavailable, match="there is no database"):
            await SqliteStore(f"{url}?mode={mode}").__aenter__()
        assert _modes(tmp_path) == {}
        async with SqliteStore(url) as store:
            await store.create([execution("a")])
        async with SqliteStore(f"{url}?mode={mode}") as store:
            assert [item.id for item in await store.get(["a"])] == ["a"]
            if mode == "rw":
                assert await store.create([execution("b")]) == [Created.NEW]
            else:
                with pytest.raises(StoreUnusable, match="for reading only"):
                    await store.create([execution("b")])

    asyncio.run(main())


@pytest.mark.parametrize("query", ["mode=memory", "cache=shared", "mode=ro&x=1"])
def test_what_a_url_asks_for_must_be_known(query: str) -> None:
    with pytest.raises(ConfigurationError, match="only mode=ro"):
        SqliteStore(f"sqlite:///w.db?{query}")


def test_a_store_that_is_not_open_says_so(tmp_path: Path) -> None:
    async def main() -> None:
        store = SqliteStore(str(tmp_path / "w.db"))
        with pytest.raises(StoreUnavailable, match="not open"):
            await store.get(["a"])
        async with store:
            await store.create([execution("a")])
        with pytest.raises(StoreUnavailable, match="not open"):
            await store.create([execution("a")])

    asyncio.run(main())


def test_two_stores_of_one_process_share_the_file(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "w.db"
        (tmp_path / "link.db").symlink_to(path)
        async with SqliteStore(str(path)) as first:
            async with SqliteStore(str(tmp_path / "link.db")) as second:
                await first.create([execution("a")])
                assert await second.create([execution("a")]) == [Created.SAME]
            assert len(await first.claim("w", ["f"], limit=1, now=NOW)) == 1

    asyncio.run(main())


def test_two_loops_of_one_process_share_the_file(tmp_path: Path) -> None:
    async def other(path: str) -> list[Created]:
        async with SqliteStore(path) as store:
            return list(await store.create([execution("a")]))

    async def main() -> None:
        path = str(tmp_path / "w.db")
        async with SqliteStore(path) as store:
            answer = await asyncio.to_thread(asyncio.run, other(path))
            assert answer == [Created.NEW]
            assert [item.id for item in await store.get(["a"])] == ["a"]

    asyncio.run(main())


def test_concurrent_writes_share_commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []
    begin = writer.begin
    monkeypatch.setattr(writer, "begin", lambda *given: (begun.append(1), begin(*given)))

    async def main() -> None:
        async with SqliteStore(str(tmp_path / "w.db")) as store:
            await asyncio.gather(
                *(store.create([execution(f"e{number}")]) for number in range(500))
            )
            claimed = await store.claim("w", ["f"], limit=500, now=NOW)
            assert len(claimed) == 500
            await asyncio.gather(*(store.record([step(item.id)]) for item in claimed))

    asyncio.run(main())
    assert len(begun) < 50


def test_a_bad_member_does_not_harm_the_others(tmp_path: Path) -> None:
    async def main() -> None:
        async with SqliteStore(str(tmp_path / "w.db")) as store:
            answers = await asyncio.gather(
                store.create([execution("a")]),
                store.create([execution("b", data='"\ud800"')]),
                store.create([execution("c", priority=2**70)]),
                store.create([execution("d")]),
                return_exceptions=True,
            )
            assert answers[0] == answers[3] == [Created.NEW]
            assert isinstance(answers[1], InvalidInput)
            assert isinstance(answers[2], InvalidInput)
            assert {item.id for item in await store.get("abcd")} == {"a", "d"}

    asyncio.run(main())


def test_a_cancelled_caller_leaves_its_write_to_happen(tmp_path: Path) -> None:
    async def main() -> None:
        async with SqliteStore(str(tmp_path / "w.db")) as store:
            tasks = [
                asyncio.create_task(store.create([execution(f"e{number}")])) for number in range(20)
            ]
            await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await store.create([execution("last")])
            assert len(await store.get([f"e{number}" for number in range(20)])) == 20

    asyncio.run(main())


def test_a_forked_child_is_told_to_open_its_own(tmp_path: Path) -> None:
    code = f"""
import asyncio, os, sys
from worchflow_core import StoreUnavailable, Worker
from worchflow_core.testing.contracts.samples import execution, worker
from worchflow_plugins.sqlite import SqliteStore
from datetime import timedelta

async def use(store):
    for attempt in (
        lambda: store.create([execution("b")]),
        lambda: store.get(["a"]),
        lambda: asyncio.to_thread(store.beat, worker("w"), lease=timedelta(seconds=9)),
    ):
        try:
            await attempt()
        except StoreUnavailable as error:
            assert "fork" in str(error), error
        else:
            raise AssertionError("it worked in the child")
    async with SqliteStore({str(tmp_path / "w.db")!r}) as own:
        await own.create([execution("c")])

async def main():
    async with SqliteStore({str(tmp_path / "w.db")!r}) as store:
        await store.create([execution("a")])
        await asyncio.to_thread(fork, store)
        assert {{item.id for item in await store.get(["a", "b", "c"])}} == {{"a", "c"}}
        await store.create([execution("d")])

def fork(store):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            # The loop of the parent is not the child's: it has nothing to do with this thread.
            asyncio._set_running_loop(None)
            asyncio.run(use(store))
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0

asyncio.run(main())
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], check=True, env=environment, timeout=60
    )


def test_a_store_whose_file_was_removed_takes_no_more_writes(tmp_path: Path) -> None:
    async def main(name: str) -> None:
        folder = tmp_path / name.removeprefix("w.")
        folder.mkdir()
        async with SqliteStore(str(folder / "w.db")) as store:
            await store.create([execution("a")])
            (folder / name).unlink()
            with pytest.raises(StoreUnusable, match="removed or replaced"):
                await store.create([execution("b")])

    asyncio.run(main("w.db"))
    asyncio.run(main("w.db-wal"))


def test_a_send_of_many_megabytes_is_cut_into_commits(tmp_path: Path) -> None:
    async def main() -> None:
        async with SqliteStore(str(tmp_path / "w.db")) as store:
            payload = '"' + "x" * 2**20 + '"'
            given = [execution(f"e{number}", data=payload) for number in range(60)]
            assert await store.create(given) == [Created.NEW] * 60
            assert len(await store.claim("w", ["f"], limit=60, now=NOW)) == 60
            assert await store.record([step(item.id, result=payload) for item in given])
            assert len(await store.get([item.id for item in given])) == 60

    asyncio.run(main())


def test_answers_too_large_for_one_text_are_read_row_by_row(tmp_path: Path) -> None:
    async def main() -> None:
        async with SqliteStore(str(tmp_path / "w.db")) as store:
            given = [execution(f"e{number}", data='"' + "x" * 5000 + '"') for number in range(9)]
            await store.create(given)

            def limited(reading: apsw.Connection) -> list[list[object]]:
                before = reading.limit(apsw.SQLITE_LIMIT_LENGTH, 20_000)
                try:
                    return fetch(reading, "id, data", "FROM executions ORDER BY id")
                finally:
                    reading.limit(apsw.SQLITE_LIMIT_LENGTH, before)

            found = await store._file.read(limited)
            assert found == [[item.id, item.data] for item in given]

    asyncio.run(main())
