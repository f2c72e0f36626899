"""200,000 executions in one file: how much SQLite does for a question, never how long it takes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import apsw
import pytest

from worchflow_core import (
    CLAIMABLE,
    COUNT_CAP,
    FINAL,
    Condition,
    Filter,
    Operator,
    Query,
    Status,
    Store,
    to_millis,
)
from worchflow_core.testing.contracts.samples import NOW, at, execution, step
from worchflow_core.transitions import Outcome, settle
from worchflow_plugins.sqlite import SqliteStore, database
from worchflow_plugins.sqlite.rows import EXECUTION_COLUMNS

TOTAL = 200_000
SHARES = {
    Status.COMPLETED: 120,
    Status.QUEUED: 40,
    Status.FAILED: 20,
    Status.RETRYING: 8,
    Status.SLEEPING: 6,
    Status.WAITING: 3,
    Status.CANCELLED: 2,
    Status.PROCESSING: 1,
}
"""How many of 200 have each status."""
FUNCTIONS = [f"f{number}" for number in range(8)]
PAGE_OF_STEPS = 30_000
"""Instructions of SQLite's machine for a page of 50: some hundred per row, and room."""


def _prototype(status: Status) -> Any:
    fields: dict[str, Any] = {"status": status, "function": "p", "due_at": None}
    if status.is_final:
        fields["finished_at"] = NOW
    elif status is Status.PROCESSING:
        fields["owner"] = "w"
    else:
        fields |= {"due_at": NOW, "hint_at": None if status is Status.QUEUED else NOW}
    return execution(f"p-{status.value}", **fields)


_FILL = """
    WITH RECURSIVE numbers (n) AS (
        SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < :total
    )
    INSERT INTO executions ({columns})
    SELECT {values} FROM numbers CROSS JOIN executions AS p ON p.id = 'p-' || (
        SELECT status FROM shares WHERE place = n * 7 % 200
    )
"""
_VALUES = {
    "id": "printf('e%06d', n)",
    "function": "'f' || (n / 200 % 8)",
    "created_at": ":now - (:total - n) * 100",
    "updated_at": ":now - (:total - n) * 100",
    "finished_at": "iif(finished_at IS NULL, NULL, :now - (:total - n) * 100 + 500)",
    "due_at": "iif(due_at IS NULL, NULL, iif(hint_at IS NULL, :now - (:total - n), :now + n))",
    "hint_at": "iif(hint_at IS NULL, NULL, :now + n)",
    "owner": "iif(owner IS NULL, NULL, 'w' || (n / 200 % 50))",
    "parent": "iif(n % 50 = 1, printf('e%06d', n / 1000), NULL)",
    "tags": "iif(n % 20 = 1, json_array('tag-' || (n / 20 % 100)), NULL)",
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with 200,000 executions."""
    place = tmp_path_factory.mktemp("scale") / "w.db"

    async def begin() -> None:
        async with SqliteStore(str(place)) as store:
            await store.create([_prototype(status) for status in Status])

    asyncio.run(begin())
    statuses = [status.value for status, share in SHARES.items() for _ in range(share)]
    connection = apsw.Connection(str(place))
    connection.execute("CREATE TEMP TABLE shares (place INTEGER PRIMARY KEY, status TEXT)")
    connection.executemany("INSERT INTO shares VALUES (?, ?)", enumerate(statuses))
    names = EXECUTION_COLUMNS.split(", ")
    fill = _FILL.format(
        columns=", ".join(names), values=", ".join(_VALUES.get(name, f"p.{name}") for name in names)
    )
    with connection:
        connection.execute(fill, {"total": TOTAL, "now": to_millis(NOW)})
    connection.close()
    return place


Ask = Callable[[Store], Awaitable[Any]]


@pytest.fixture
def steps_of(path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Ask], int]:
    """Return what counts the machine's instructions for a call, full scans being errors."""
    seen: list[tuple[str, int, int]] = []
    connect = database.connect

    def traced(*given: Any, **named: Any) -> apsw.Connection:
        connection = connect(*given, **named)

        def note(event: dict[str, Any]) -> None:
            status = event["stmt_status"]
            scanned = status["SQLITE_STMTSTATUS_FULLSCAN_STEP"]
            seen.append((event["sql"], status["SQLITE_STMTSTATUS_VM_STEP"], scanned))

        connection.trace_v2(apsw.SQLITE_TRACE_PROFILE, note)
        return connection

    monkeypatch.setattr(database, "connect", traced)

    async def ask(question: Ask) -> None:
        async with SqliteStore(str(path)) as store:
            seen.clear()
            await question(store)

    def count(question: Ask) -> int:
        asyncio.run(ask(question))
        assert seen
        for text, _, scanned in seen:
            # Counting walks an index as far as the cap; else JSON lists and small tables are read.
            assert scanned <= COUNT_CAP, text
        return sum(steps for _, steps, _ in seen)

    return count


def asked(**filters: Any) -> Query:
    """Return the query of a filter, as lists and commands make it."""
    return Filter(**filters).query()


LISTS: dict[str, Query] = {
    "all": asked(),
    "of a status": asked(status="failed"),
    "of the fewest": asked(status="processing"),
    "of statuses": asked(status=["failed", "cancelled"]),
    "of a function": asked(function="f3"),
    "of functions": asked(function=["f3", "f4"]),
    "of a status and a function": asked(status="failed", function="f3"),
    "in a span": asked(since=at(-9000), until=at(-8000)),
    "of a status in a span": asked(status="failed", since=at(-9000)),
    "by end": asked(order="finished_at"),
    "by change": asked(order="updated_at"),
    "a page further": asked(after=(at(-9000), "e1")),
    "of a status, further": asked(status="queued", after=(at(-9000), "e1")),
    "with a tag": asked(tag="tag-3"),
    "with a tag nobody has": asked(tag="none"),
    "children": asked(parent="e000010"),
    "by the beginning of an id": asked(id_prefix="e00012"),
    "found by id": asked(search="e00012"),
    "found by nothing": asked(search="zzz"),
    "hints due": Query(
        where=(Condition("hint_at", Operator.BEFORE, at(1)),), order="hint_at", descending=False
    ),
    "hints lost": Query(
        where=(
            Condition("due_at", Operator.BEFORE, at(-190)),
            Condition("status", Operator.IN, tuple(CLAIMABLE)),
        ),
        order="due_at",
        descending=False,
    ),
    "owned by one": Query(where=(Condition("owner", Operator.EQUAL, "w1"),)),
    "past the retention": Query(
        where=(
            Condition("finished_at", Operator.BEFORE, at(-TOTAL / 20)),
            Condition("status", Operator.IN, tuple(FINAL)),
        ),
        order="finished_at",
        descending=False,
    ),
}


SIEVED: dict[str, tuple[Query, Status]] = {
    "of a function nobody has": (asked(status="retrying", function="nobody"), Status.RETRYING),
    "of a status by end": (asked(order="finished_at", status="failed"), Status.FAILED),
    "of a status by change": (asked(order="updated_at", status="failed"), Status.FAILED),
}
"""Questions that look at all of one status, and that status."""


@pytest.mark.parametrize("name", LISTS)
def test_a_page_costs_what_it_holds(steps_of: Callable[[Ask], int], name: str) -> None:
    assert steps_of(lambda store: store.find(LISTS[name])) <= PAGE_OF_STEPS


@pytest.mark.parametrize("name", SIEVED)
def test_what_is_sieved_is_of_one_status(steps_of: Callable[[Ask], int], name: str) -> None:
    query, status = SIEVED[name]
    most = TOTAL * SHARES[status] // 200 * 20
    assert steps_of(lambda store: store.find(query)) <= most + PAGE_OF_STEPS


def test_counting_stops_at_the_cap(steps_of: Callable[[Ask], int]) -> None:
    for filters in ({}, {"status": "completed"}, {"function": "f3"}):
        query = asked(counted=True, **filters)
        assert steps_of(lambda store, q=query: store.find(q)) <= COUNT_CAP * 10 + PAGE_OF_STEPS


def test_stats_cost_nothing(steps_of: Callable[[Ask], int]) -> None:
    assert steps_of(lambda store: store.stats()) < 500


def test_a_tally_costs_what_ended_in_its_span(steps_of: Callable[[Ask], int]) -> None:
    since = Condition("finished_at", Operator.SINCE, at(-600))
    steps = steps_of(lambda store: store.tally([since], bucket=timedelta(minutes=1)))
    assert steps <= 600 * 10 * 60


def test_a_life_costs_the_same_among_many(steps_of: Callable[[Ask], int]) -> None:
    async def life(store: Store) -> None:
        taken = await store.claim("w", FUNCTIONS, limit=10, now=NOW)
        assert len(taken) == 10
        await store.record([step(item.id, fence=item.fence) for item in taken])
        done = Outcome(status=Status.COMPLETED, result="1")
        assert not await store.update([settle(item, done, now=NOW) for item in taken])

    assert steps_of(life) <= 30_000
    assert steps_of(lambda store: store.claim("w", ["nobody"], limit=10, now=NOW)) <= 2_000
