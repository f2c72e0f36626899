"""Files that are not ours, or cannot be used, are refused with a reason and left untouched."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from worchflow_core import Condition, Operator, Query, StoreUnusable
from worchflow_core.testing.contracts.samples import execution, step
from worchflow_plugins.sqlite import SqliteStore, place
from worchflow_plugins.sqlite.schema import VERSION


async def _fill(path: Path, count: int = 400) -> None:
    async with SqliteStore(str(path)) as store:
        ids = [f"e{number}" for number in range(count)]
        await store.create([execution(item, data='"' + "x" * 300 + '"') for item in ids])
        await store.record([step(item, fence=0) for item in ids])


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    path = tmp_path / "w.db"
    asyncio.run(_fill(path))
    return path


def _state(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.is_file()
        and path.stat().st_size  # an empty log beside the file holds nothing
        and not path.name.endswith("-shm")  # nor does the index of a log
    }


def _refused(path: Path, *, because: str) -> None:
    before = _state(path.parent)

    async def main() -> None:
        for create in (True, False):
            store = SqliteStore(str(path), create=create)
            with pytest.raises(StoreUnusable, match=because) as caught:
                await store.__aenter__()
            assert str(path) in str(caught.value)

    asyncio.run(main())
    assert _state(path.parent) == before


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    for content in (b"hello", b"x" * 5000, b"SQLite format 3\0", b"\0" * 4096):
        path = tmp_path / "w.db"
        path.write_bytes(content)
        _refused(path, because="not a SQLite database")


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
def test_the_database_of_another_program_is_refused(tmp_path: Path, journal: str) -> None:
    path = tmp_path / "w.db"
    other = sqlite3.connect(path)
    other.execute(f"PRAGMA journal_mode = {journal}")
    other.execute("CREATE TABLE executions (id TEXT)")
    other.commit()
    other.close()
    _refused(path, because="another program")
    other = sqlite3.connect(path)
    other.execute("PRAGMA application_id = 7")
    other.commit()
    other.close()
    _refused(path, because="another program")


def test_a_newer_schema_is_refused(filled: Path) -> None:
    connection = apsw.Connection(str(filled))
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    _refused(filled, because="newer Worchflow.*Upgrade")


def test_a_newer_schema_that_is_still_in_the_log_is_refused(filled: Path) -> None:
    """A worker of a newer version was killed: what it wrote is in the log alone."""
    code = (
        "import apsw, os, sys\n"
        "connection = apsw.Connection(sys.argv[1])\n"
        "connection.execute('PRAGMA user_version = 99')\n"
        "os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(filled)], check=True, timeout=60)
    assert struct.unpack(">I", filled.read_bytes()[60:64]) == (VERSION,)
    _refused(filled, because="newer Worchflow")


def _as_version_1(path: Path) -> None:
    """Take from a file what came with version 2."""
    connection = apsw.Connection(str(path))
    for table in ("waits", "tags"):
        for word in ("inserted", "changed", "deleted"):
            connection.execute(f"DROP TRIGGER {table}_{word}")
        fill = (
            f"INSERT OR IGNORE INTO {table} (key, execution)"
            f" SELECT value, new.number FROM json_each(new.{table})"
        )
        connection.execute(
            f"DROP TABLE {table}; CREATE TABLE {table} (key TEXT NOT NULL, execution INTEGER"
            " NOT NULL, PRIMARY KEY (key, execution)) WITHOUT ROWID, STRICT;"
            f"CREATE TRIGGER {table}_inserted AFTER INSERT ON executions BEGIN {fill}; END;"
            f"CREATE TRIGGER {table}_changed AFTER UPDATE OF {table} ON executions"
            f" BEGIN {fill}; END;"
            f"CREATE TRIGGER {table}_deleted AFTER DELETE ON executions BEGIN"
            f" DELETE FROM {table} WHERE execution = old.number; END;"
            f"INSERT INTO {table} SELECT value, number FROM executions,"
            f" json_each(executions.{table})"
        )
    connection.execute("ALTER TABLE executions DROP COLUMN gates_passed")
    connection.execute("PRAGMA user_version = 1")
    connection.close()


def test_a_file_of_an_earlier_version_is_brought_up_to_date(tmp_path: Path) -> None:
    given = [execution("a", tags=("t", "u")), execution("b", waits=("k",))]

    async def main() -> None:
        path = str(tmp_path / "w.db")
        async with SqliteStore(path) as store:
            await store.create(given)
        _as_version_1(tmp_path / "w.db")
        for _ in range(2):
            async with SqliteStore(path) as store:
                assert sorted(await store.get(["a", "b"]), key=lambda item: item.id) == given
                for field, value, found in (("tags", "u", "a"), ("waits", "k", "b")):
                    where = (Condition(field, Operator.HAS, (value,)),)
                    page = await store.find(Query(where=where))
                    assert [item.id for item in page.items] == [found]
        async with SqliteStore(path) as store:
            await store.create([execution("c", tags=("u",), gates_passed=2)])
            page = await store.find(Query(where=(Condition("tags", Operator.HAS, ("u",)),)))
            assert {item.id for item in page.items} == {"a", "c"}
            assert {item.gates_passed for item in page.items} == {0, 2}

    asyncio.run(main())


def test_a_truncated_file_is_refused(filled: Path) -> None:
    content = filled.read_bytes()
    for size in (50, 4096, len(content) // 2, len(content) - 4096):
        filled.write_bytes(content[:size])
        _refused(filled, because="truncated|not a SQLite database")


def test_a_damaged_schema_is_refused(filled: Path) -> None:
    with filled.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 3000)
    _refused(filled, because="is damaged|is not a SQLite database")


def test_damage_further_in_is_found_by_check_and_named_when_met(filled: Path) -> None:
    with filled.open("r+b") as file:
        file.seek(60 * 4096)  # behind the first page of every table
        file.write(os.urandom(filled.stat().st_size - 60 * 4096))

    async def main() -> None:
        async with SqliteStore(str(filled)) as store:
            problems = [item for item in await store.check() if item.level == "problem"]
            assert [item.subject for item in problems] == ["sqlite file"]
            assert str(filled) in problems[0].text
            with pytest.raises(StoreUnusable, match="damaged") as caught:
                await store.get([f"e{number}" for number in range(400)])
            assert str(filled) in str(caught.value)
            with pytest.raises(StoreUnusable, match="damaged"):
                await store.create([execution(f"e{number}") for number in range(400)])

    asyncio.run(main())


def test_an_interrupted_creation_is_finished(tmp_path: Path) -> None:
    """A process died between creating the file and its tables."""
    path = tmp_path / "w.db"
    path.touch()
    asyncio.run(_fill(path, 3))
    other = tmp_path / "x.db"
    connection = apsw.Connection(str(other))
    assert connection.execute("PRAGMA journal_mode = WAL").get == "wal"
    connection.close()
    asyncio.run(_fill(other, 3))


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.db"
    path.mkdir()
    _refused(path, because="not a file")


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "missing" / "w.db"
        with pytest.raises(StoreUnusable, match=f"no directory {path.parent}"):
            await SqliteStore(str(path)).__aenter__()

    asyncio.run(main())
    assert list(tmp_path.iterdir()) == []


def test_network_file_systems_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("nfs4", "cifs", "smb3", "fuse.sshfs"):
        monkeypatch.setattr(place, "file_system", lambda path, kind=kind: kind)
        path = tmp_path / "w.db"

        async def main(path: Path = path, kind: str = kind) -> None:
            with pytest.raises(StoreUnusable, match=f"network file system .{kind}"):
                await SqliteStore(str(path)).__aenter__()

        asyncio.run(main())
    assert list(tmp_path.iterdir()) == []


def test_the_file_system_is_that_of_the_nearest_mount() -> None:
    if not Path("/proc/self/mounts").exists():
        pytest.skip("this system lists no mounts")
    assert place.file_system("/proc/w.db") == "proc"
    assert place.file_system("/w.db") not in ("", "proc", "unknown")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Yield a directory that everybody may reach, whoever runs the tests."""
    folder = Path(tempfile.mkdtemp(prefix="worchflow-test-"))
    folder.chmod(0o777)
    yield folder
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            path.chmod(0o777)
    shutil.rmtree(folder)


_AS_NOBODY = """
import asyncio, os, sys
from worchflow_core import StoreUnusable, WorchflowError
from worchflow_core.testing.contracts.samples import execution
from worchflow_plugins.sqlite import SqliteStore

async def use(path):
    async with SqliteStore(path) as store:
        await store.create([execution("mine")])
        await store.get(["mine"])

asyncio.run(use(sys.argv[1]))  # as whoever we are: everything is imported afterwards
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
try:
    asyncio.run(use(sys.argv[2]))
except StoreUnusable as error:
    print(error)
else:
    print("it worked")
"""


def _as_nobody(folder: Path, path: Path) -> str:
    """Open a store as a user without privileges; return what came of it."""
    warm = folder / "warm"
    warm.mkdir(exist_ok=True)
    run = subprocess.run(
        [sys.executable, "-c", _AS_NOBODY, str(warm / "w.db"), str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_a_read_only_file_is_refused(open_folder: Path) -> None:
    path = open_folder / "w.db"
    asyncio.run(_fill(path, 3))
    path.chmod(0o444)
    told = _as_nobody(open_folder, path)
    assert f"{path} cannot be opened for writing" in told
    assert "Restore the permission" in told


def test_an_unreadable_file_is_refused(open_folder: Path) -> None:
    path = open_folder / "w.db"
    asyncio.run(_fill(path, 3))
    path.chmod(0o000)
    assert "cannot be opened" in _as_nobody(open_folder, path)


def test_a_read_only_directory_is_refused(open_folder: Path) -> None:
    folder = open_folder / "kept"
    folder.mkdir()
    path = folder / "w.db"
    asyncio.run(_fill(path, 3))
    path.chmod(0o666)
    folder.chmod(0o555)
    told = _as_nobody(open_folder, path)
    assert f"may not write to {folder}" in told
    assert str(path) in told
    assert "cannot be created" in _as_nobody(open_folder, folder / "new.db")
    assert {item.name for item in folder.iterdir()} == {"w.db"}


def test_permission_is_enough(open_folder: Path) -> None:
    assert _as_nobody(open_folder, open_folder / "new.db") == "it worked\n"
