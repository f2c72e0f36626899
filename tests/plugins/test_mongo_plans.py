"""The server's plans over a backlog: a question examines what it answers, not what is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase

from worchflow_core import CLAIMABLE, FINAL, Condition, Operator, Query, Status, Store
from worchflow_core.testing.contracts.samples import NOW, at, execution, step, worker
from worchflow_core.transitions import Outcome, request_cancel, settle
from worchflow_plugins.mongo import MongoStore

pytestmark = pytest.mark.servers

BACKLOG = 6_000
COPIES = 34
"""So many times the backlog are 204,000 documents."""
Ask = Callable[[Store], Awaitable[Any]]


async def multiply(database: AsyncDatabase[Any]) -> int:
    """Let the server copy the backlog under other ids; return how many documents there are."""
    copied = [
        {"$match": {"_id": {"$regex": "^e[0-9]{5}$"}}},
        {"$set": {"copy": {"$range": [1, COPIES]}}},
        {"$unwind": "$copy"},
        {"$set": {"id": {"$concat": ["$id", "-", {"$toString": "$copy"}]}}},
        {"$set": {"_id": "$id"}},
        {"$unset": "copy"},
    ]
    await (await database.executions.aggregate([*copied, {"$out": "copies"}])).to_list()
    merged = {"$merge": {"into": "executions", "whenMatched": "keepExisting"}}
    await (await database.copies.aggregate([merged])).to_list()
    await database.copies.drop()
    return int(await database.executions.estimated_document_count())


@asynccontextmanager
async def backlog(url: str) -> AsyncIterator[tuple[MongoStore, AsyncDatabase[Any]]]:
    """Open a store over a backlog, beside the original's indexes; drop it afterwards."""
    async with AsyncMongoClient(url) as client:
        database = client.get_default_database()
        executions = database.executions
        await executions.create_index("id", unique=True, name="idx_executions_id")
        for names in (("status", "createdAt"), ("createdAt",), ("eventName", "createdAt")):
            *first, last = names
            await executions.create_index([*((name, 1) for name in first), (last, -1)])
        try:
            async with MongoStore(url) as store:
                for start in range(0, BACKLOG, 1000):
                    await store.create(
                        [
                            execution(
                                f"e{number:05}",
                                function=f"f{number % 3}",
                                due_at=at(-number),
                                created_at=at(number % 500),
                                hinted_at=at(-number),
                                priority=number % 2,
                            )
                            for number in range(start, start + 1000)
                        ]
                    )
                await database.command("profile", 2)
                yield store, database
        finally:
            await client.drop_database(database.name)


async def examined(database: AsyncDatabase[Any], ask: Awaitable[Any]) -> list[dict[str, Any]]:
    """Return the profiler's lines of what a call asked of `executions`."""
    await database.command("profile", 0)
    await database.system.profile.drop()
    await database.command("profile", 2)
    await ask
    lines = database.system.profile.find({"ns": f"{database.name}.executions"})
    return [line async for line in lines]


def test_a_claim_by_hints_examines_only_the_hinted(mongodb_url: str) -> None:
    async def main() -> None:
        async with backlog(mongodb_url) as (store, database):
            ids = [f"e{number:05}" for number in range(0, BACKLOG, 12)]
            claim = store.claim("w", ["f0", "f1", "f2"], limit=500, now=NOW, ids=ids)
            lines = await examined(database, claim)
            assert len(await store.get(ids)) == 500
            assert sorted(line["op"] for line in lines) == ["query", "update"]
            for line in lines:
                assert line["planSummary"] == "IXSCAN { id: 1 }"
                assert line["docsExamined"] <= 500
            assert next(line for line in lines if line["op"] == "update")["nModified"] == 500

    asyncio.run(main())


def test_a_claim_by_one_hint_is_one_trip(mongodb_url: str) -> None:
    async def main() -> None:
        async with backlog(mongodb_url) as (store, database):
            claim = store.claim("w", ["f0", "f1"], limit=1, now=NOW, ids=["e00001"])
            (line,) = await examined(database, claim)
            assert line["docsExamined"] == 1

    asyncio.run(main())


def test_a_claim_without_hints_examines_what_it_takes(mongodb_url: str) -> None:
    async def main() -> None:
        async with backlog(mongodb_url) as (store, database):
            await store.claim("w", ["f0"], limit=1, now=NOW)
            lines = await examined(
                database, store.claim("w", ["f0", "f1", "f2"], limit=100, now=NOW)
            )
            assert sum(line.get("docsExamined", 0) for line in lines) <= 350
            assert not any("COLLSCAN" in line.get("planSummary", "") for line in lines)
            assert not any(line.get("hasSortStage") for line in lines)

    asyncio.run(main())


def test_a_claim_that_finds_nothing_examines_nothing(mongodb_url: str) -> None:
    async def main() -> None:
        async with backlog(mongodb_url) as (store, database):
            lines = await examined(database, store.claim("w", ["f0", "f1"], limit=9, now=at(-1e6)))
            assert [line["docsExamined"] for line in lines] == [0, 0, 0]
            assert sum(line["keysExamined"] for line in lines) < 50

    asyncio.run(main())


def test_settling_and_recording_examine_only_their_own(mongodb_url: str) -> None:
    async def main() -> None:
        async with backlog(mongodb_url) as (store, database):
            taken = await store.claim("w", ["f0", "f1"], limit=200, now=NOW)
            lines = await examined(database, store.record([step(item.id) for item in taken]))
            assert [line["docsExamined"] for line in lines] == [0]  # the index alone answers
            changes = [
                settle(item, Outcome(status=Status.COMPLETED, result="1"), now=at(1))
                for item in taken
            ]
            lines = await examined(database, store.update(changes))
            # What ends alike leaves in one statement, whatever its results.
            assert [line["docsExamined"] for line in lines] == [200]
            assert [line["nMatched"] for line in lines] == [200]
            assert lines[0]["planSummary"] == "IXSCAN { id: 1 }"

    asyncio.run(main())


QUESTIONS: dict[str, Query] = {
    "hints due": Query(
        where=(Condition("hint_at", Operator.BEFORE, at(1)),), order="hint_at", descending=False
    ),
    "hints lost": Query(
        where=(
            Condition("due_at", Operator.BEFORE, at(-BACKLOG + 50)),
            Condition("hinted_at", Operator.BEFORE, at(-BACKLOG + 50)),
            Condition("status", Operator.IN, tuple(CLAIMABLE)),
        ),
        order="due_at",
        descending=False,
    ),
    "owned by the dead": Query(
        where=(Condition("owner", Operator.NOT_IN, ("w", "v")),), descending=False, limit=1000
    ),
    "owned by one": Query(where=(Condition("owner", Operator.EQUAL, "v"),), limit=1000),
    "past the deadline": Query(
        where=(
            Condition("deadline_at", Operator.BEFORE, at(1)),
            Condition("status", Operator.IN, tuple(CLAIMABLE)),
        ),
        descending=False,
    ),
    "cancelled": Query(
        where=(
            Condition("cancel_requested_at", Operator.BEFORE, at(9)),
            Condition("owner", Operator.EQUAL, None),
            Condition("status", Operator.IN, tuple(CLAIMABLE)),
        ),
        descending=False,
    ),
    "handlers due": Query(where=(Condition("handlers_due", Operator.EQUAL, True),)),
    "to be deleted": Query(
        where=(
            Condition("finished_at", Operator.BEFORE, at(9)),
            Condition("status", Operator.IN, tuple(FINAL)),
        ),
        order="finished_at",
        descending=False,
    ),
    "waiting for an event": Query(
        where=(
            Condition("waits", Operator.HAS, ("k1", "k2")),
            Condition("status", Operator.EQUAL, Status.WAITING),
        )
    ),
    "tagged": Query(where=(Condition("tags", Operator.HAS, ("t",)),)),
    "children": Query(where=(Condition("parent", Operator.EQUAL, "p"),)),
    "children of many": Query(
        where=(
            Condition("parent", Operator.IN, ("p", "q")),
            Condition("status", Operator.IN, tuple(CLAIMABLE)),
            Condition("cancel_requested_at", Operator.EQUAL, None),
        ),
        descending=False,
        limit=1000,
    ),
    "forks": Query(where=(Condition("forked_from", Operator.EQUAL, "p"),)),
    "newest": Query(),
    "newest of a status": Query(where=(Condition("status", Operator.EQUAL, Status.QUEUED),)),
    "newest of a function": Query(where=(Condition("function", Operator.EQUAL, "f1"),)),
    "newest that ended": Query(order="finished_at"),
    "a page further": Query(after=(at(250), "e00750")),
    "by id": Query(search="e00001"),
    "by the beginning of all ids": Query(search="e"),
    "by error": Query(search="Timeout"),
    "active": Query(where=(Condition("status", Operator.NOT_IN, tuple(FINAL)),)),
}


@pytest.mark.parametrize("is_large", [False, True], ids=["", "200,000"])
def test_every_question_of_the_core_is_answered_by_an_index(
    mongodb_url: str, is_large: bool
) -> None:
    async def main() -> None:
        async with backlog(mongodb_url) as (store, database):
            if is_large:
                await database.command("profile", 0)
                assert await multiply(database) > 200_000
                await _claims_stay_cheap(store, database)
            await store.create(
                [
                    execution("h", hint_at=NOW, due_at=at(99)),
                    execution("d", deadline_at=NOW, waits=("k1",), tags=("t",), parent="p"),
                    execution("x", forked_from="p", handlers_due=True, status=Status.FAILED),
                ]
            )
            (taken,) = await store.claim("v", ["f0"], limit=1, now=NOW, ids=["e00000"])
            await store.update([request_cancel(taken, now=NOW)])
            for name, query in QUESTIONS.items():
                lines = await examined(database, store.find(query))
                cost = sum(line["docsExamined"] for line in lines)
                assert not any("COLLSCAN" in line["planSummary"] for line in lines), name
                assert cost <= 4 * query.limit, (name, cost, [x["planSummary"] for x in lines])

    asyncio.run(main())


async def _claims_stay_cheap(store: Store, database: AsyncDatabase[Any]) -> None:
    """See that claims, by 500 hints and without any, examine what they take."""
    functions = ["f0", "f1", "f2"]
    ids = [f"e{number:05}-7" for number in range(0, BACKLOG, 12)]
    lines = await examined(database, store.claim("u", functions, limit=500, now=NOW, ids=ids))
    assert {line["planSummary"] for line in lines} == {"IXSCAN { id: 1 }"}
    assert max(line["docsExamined"] for line in lines) <= 500
    await store.claim("u", functions, limit=1, now=NOW)
    lines = await examined(database, store.claim("u", functions, limit=100, now=NOW))
    assert sum(line.get("docsExamined", 0) for line in lines) <= 350
    assert not any("COLLSCAN" in line.get("planSummary", "") for line in lines)
    lines = await examined(database, store.stats())
    assert sum(line.get("docsExamined", 0) for line in lines) == 0


def test_beats_and_sums_stay_cheap(mongodb_url: str) -> None:
    async def main() -> None:
        async with backlog(mongodb_url) as (store, database):
            since = Condition("finished_at", Operator.SINCE, at(-60))
            asked: dict[str, Ask] = {
                "beat": lambda store: asyncio.to_thread(
                    store.beat, worker("w"), lease=timedelta(seconds=30)
                ),
                "stats": lambda store: store.stats(),
                "tally": lambda store: store.tally([since], bucket=timedelta(minutes=1)),
            }
            for name, ask in asked.items():
                lines = await examined(database, ask(store))
                assert not any("COLLSCAN" in line.get("planSummary", "") for line in lines), name
                assert sum(line.get("docsExamined", 0) for line in lines) == 0, name

    asyncio.run(main())


def test_stats_of_many_are_exact_at_rest_and_kept_for_a_second_at_most(mongodb_url: str) -> None:
    async def main() -> None:
        async with backlog(mongodb_url) as (store, _):
            taken = await store.claim("w", ["f0", "f1", "f2"], limit=30, now=NOW)
            ended = [
                settle(item, Outcome(status=Status.COMPLETED), now=at(1)) for item in taken[:20]
            ]
            await store.update(ended)
            expected = {Status.QUEUED: BACKLOG - 30, Status.PROCESSING: 10, Status.COMPLETED: 20}

            async def counts() -> dict[Status, int]:
                return {key: count for key, count in (await store.stats()).items() if count}

            end = asyncio.get_running_loop().time() + 5
            while await counts() != expected:
                assert asyncio.get_running_loop().time() < end
                await asyncio.sleep(0.05)

    asyncio.run(main())
