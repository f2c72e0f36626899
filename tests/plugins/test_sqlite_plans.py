"""No query in use walks a table that grows with the work."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import apsw
import pytest

from worchflow_core import CLAIMABLE, FINAL, Condition, Operator, Query, Status, WorkerState
from worchflow_core.testing.contracts.lives import LIFE
from worchflow_core.testing.contracts.samples import (
    NOW,
    at,
    execution,
    full_execution,
    step,
    worker,
)
from worchflow_plugins.sqlite import SqliteStore, database
from worchflow_plugins.sqlite.schema import BIG_TABLES

EQUAL, IN, NOT_IN = Operator.EQUAL, Operator.IN, Operator.NOT_IN
BEFORE, SINCE, PREFIX, HAS = Operator.BEFORE, Operator.SINCE, Operator.PREFIX, Operator.HAS


def _filters() -> Iterator[tuple[Condition, ...]]:
    """Yield what lists and commands filter by."""
    status = Condition("status", EQUAL, Status.FAILED)
    statuses = Condition("status", IN, (Status.FAILED, Status.CANCELLED, Status.RETRYING))
    function = Condition("function", EQUAL, "f")
    functions = Condition("function", IN, ("f", "g"))
    span = (Condition("created_at", SINCE, at(-9)), Condition("created_at", BEFORE, at(9)))
    tag, parent = Condition("tags", HAS, ("a",)), Condition("parent", EQUAL, "x")
    prefix = Condition("id", PREFIX, "a")
    for some in ((status,), (statuses,), (function,), (functions,), span, (tag,), (parent,)):
        yield some
        yield (*some, prefix)
    yield (prefix,)
    yield (status, function)
    yield (statuses, functions)
    yield (status, *span)
    yield (function, *span)
    yield (status, function, tag, *span)
    yield (Condition("forked_from", EQUAL, "x"),)
    yield (Condition("id", IN, ("a", "b")),)
    yield (Condition("function", PREFIX, "f"),)
    yield (Condition("finished_at", SINCE, at(-9)), status)


def _queries() -> Iterator[Query]:
    """Yield what lists, commands and the sweeper ask."""
    for where in _filters():
        for descending in (True, False):
            query = Query(where=where, descending=descending, counted=True)
            yield query
            yield Query(where=where, descending=descending, after=(NOW, "a"), limit=7)
            yield Query(where=where, search="pay", counted=True)
            yield Query(where=where, skip=50)
    claimable, final = Condition("status", IN, tuple(CLAIMABLE)), tuple(FINAL)
    free = Condition("owner", EQUAL, None)
    yield Query(
        where=(
            Condition("parent", IN, ("x", "y")),
            claimable,
            Condition("cancel_requested_at", EQUAL, None),
        ),
        descending=False,
        limit=1000,
    )
    yield Query(search="pay", counted=True)
    yield Query(where=(Condition("owner", NOT_IN, ("w", "v")),), limit=1000)
    yield Query(where=(Condition("owner", NOT_IN, ()),), limit=1000)
    yield Query(where=(Condition("owner", EQUAL, "w"),), limit=1000)
    yield Query(where=(Condition("owner", IN, ("w", "v")), claimable), limit=1000)
    yield Query(where=(Condition("deadline_at", BEFORE, NOW), claimable, free))
    yield Query(where=(Condition("cancel_requested_at", BEFORE, NOW), claimable, free))
    yield Query(where=(Condition("handlers_due", EQUAL, True),))
    yield Query(where=(Condition("waits", HAS, ("k1", "k2")), free), limit=1000)
    yield Query(where=(claimable, Condition("function", NOT_IN, ("f",))), descending=False)
    for functions in ((), (Condition("function", IN, ("f", "g")),)):
        yield Query(
            where=(Condition("hint_at", BEFORE, NOW), *functions), order="hint_at", descending=False
        )
        yield Query(
            where=(
                Condition("due_at", BEFORE, NOW),
                Condition("hinted_at", BEFORE, NOW),
                claimable,
                *functions,
            ),
            order="due_at",
            descending=False,
        )
        yield Query(
            where=(
                Condition("finished_at", BEFORE, NOW),
                Condition("status", IN, final),
                *functions,
            ),
            order="finished_at",
            descending=False,
            limit=1000,
        )
        yield Query(where=(Condition("updated_at", SINCE, NOW), *functions), order="updated_at")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return every statement that runs on any connection, with its bindings."""
    statements: dict[str, Any] = {}
    connect = database.connect

    def traced(*given: Any, **named: Any) -> apsw.Connection:
        connection = connect(*given, **named)

        def note(cursor: apsw.Cursor, text: str, bindings: Any) -> bool:
            statements[text.strip()] = bindings
            return True

        connection.exec_trace = note
        return connection

    monkeypatch.setattr(database, "connect", traced)
    return statements


def _walks(path: Path, statements: dict[str, Any]) -> list[str]:
    """Return the statements that read a big table from end to end, and how."""
    found = []
    names = "|".join((*BIG_TABLES, "e"))
    connection = apsw.Connection(str(path))
    try:
        for text, bindings in statements.items():
            if not re.match(r"SELECT|INSERT|UPDATE|DELETE|WITH", text):
                continue
            plan = [row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + text, bindings)]
            if any(re.match(rf"SCAN ({names})\b", line) for line in plan):
                found.append(text + "\n  " + "\n  ".join(plan))
    finally:
        connection.close()
    return found


def test_writing_walks_no_table(tmp_path: Path, asked: dict[str, Any]) -> None:
    async def main() -> None:
        async with SqliteStore(str(tmp_path / "w.db")) as store:
            given = [full_execution("a"), execution("b"), execution("c", due_at=at(9))]
            await store.create(given)
            await store.create([*given, execution("d", tags=("t",), waits=("k",))])
            (item,) = await store.claim("w", ["f", "g"], limit=1, now=NOW)
            await store.claim("w", ["text"], limit=9, now=NOW, ids=["a", "b"])
            await store.record([step(item.id), step("nobody")])
            for build in LIFE:
                (item,) = await store.get([item.id])
                await store.update([build(item)])
            await asyncio.to_thread(store.beat, worker("w"), lease=timedelta(0))
            await asyncio.to_thread(
                store.beat, worker("w", WorkerState.RUNNING), lease=timedelta(0)
            )
            await store.drain(["w"], now=NOW)
            await store.bury(["w"], overdue=timedelta(0))
            await store.delete(["a", "b", "c", "d"])

    asyncio.run(main())
    assert len(asked) > 20
    assert _walks(tmp_path / "w.db", asked) == []


def test_reading_walks_no_table(tmp_path: Path, asked: dict[str, Any]) -> None:
    async def main() -> None:
        async with SqliteStore(str(tmp_path / "w.db")) as store:
            await store.create([execution("a")])
            await store.get(["a"])
            await store.steps(["a"])
            await store.workers()
            await store.stats()
            since = Condition("finished_at", SINCE, at(-9))
            until = Condition("finished_at", BEFORE, at(9))
            await store.tally([since], bucket=timedelta(minutes=1))
            only = Condition("function", EQUAL, "f")
            await store.tally([since, until, only], bucket=timedelta(minutes=1))
            for query in _queries():
                await store.find(query)

    asyncio.run(main())
    assert len(asked) > 100
    assert _walks(tmp_path / "w.db", asked) == []


def test_the_whole_list_is_read_in_order_of_an_index(tmp_path: Path, asked: dict[str, Any]) -> None:
    async def main() -> None:
        async with SqliteStore(str(tmp_path / "w.db")) as store:
            for order in ("created_at", "updated_at", "finished_at", "due_at", "hint_at"):
                await store.find(Query(order=order))

    asyncio.run(main())
    for plan in _walks(tmp_path / "w.db", asked):
        assert re.search(r"SCAN executions USING COVERING INDEX by_(created|updated)", plan)


def test_of_many_that_wait_for_one_thing_the_oldest_is_found_without_sorting(
    tmp_path: Path, asked: dict[str, Any]
) -> None:
    query = Query(
        where=(
            Condition("waits", HAS, ("slot|f",)),
            Condition("status", EQUAL, Status.QUEUED),
            Condition("due_at", SINCE, at(9)),
        ),
        descending=False,
        limit=1,
    )

    async def main() -> None:
        async with SqliteStore(str(tmp_path / "w.db")) as store:
            given = [
                execution(f"e{n}", waits=("slot|f",), created_at=at(-n), due_at=at(99))
                for n in range(9)
            ]
            await store.create([*given, execution("other", waits=("slot|f", "x"))])
            assert [item.id for item in (await store.find(query)).items] == ["e8"]
            await store.delete(["e8"])

    asyncio.run(main())
    text, bindings = next((t, b) for t, b in asked.items() if "FROM waits CROSS" in t)
    connection = apsw.Connection(str(tmp_path / "w.db"))
    plan = [row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + text, bindings)]
    connection.close()
    assert any("SEARCH waits USING PRIMARY KEY (key=?)" in line for line in plan), plan
    # One step is sorted: those of the very same millisecond, by id.
    assert [line for line in plan if "TEMP B-TREE FOR" in line and "LAST TERM" not in line] == [
        "USE TEMP B-TREE FOR ORDER BY"
    ], plan


def test_no_statement_is_left_out_of_the_net(tmp_path: Path, asked: dict[str, Any]) -> None:
    """The check itself: a query without an index is caught."""

    async def main() -> None:
        async with SqliteStore(str(tmp_path / "w.db")) as store:
            await store.find(Query(where=(Condition("hinted_at", SINCE, NOW),)))

    asyncio.run(main())
    assert _walks(tmp_path / "w.db", asked) != []
