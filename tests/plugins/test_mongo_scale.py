"""200,000 documents beside the original's indexes: what each question examines, never how long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from pymongo import DESCENDING, AsyncMongoClient, MongoClient

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
    WorkerState,
    to_millis,
)
from worchflow_core.testing.contracts.samples import NOW, at, step, worker
from worchflow_core.testing.fixtures import with_database
from worchflow_core.testing.servers import MongoServer
from worchflow_core.transitions import Outcome, settle
from worchflow_plugins.mongo import MongoStore

pytestmark = pytest.mark.servers

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
MILLIS = to_millis(NOW)


def document(number: int, status: Status) -> dict[str, Any]:
    """Return the document of an execution; every tenth is a foreign client's own."""
    created = MILLIS - (TOTAL - number) * 100
    found: dict[str, Any] = {
        "id": f"e{number:06}",
        "eventName": FUNCTIONS[number // 200 % 8],
        "eventData": '{"amount": 100}',
        "status": status.value,
        "attemptCount": 0,
        "createdAt": created,
        "updatedAt": created,
    }
    if number % 10 == 0 and status is not Status.PROCESSING:
        return found  # its numbers are all it has
    found |= {"_id": found["id"], "priority": 0, "inputHash": "h", "fence": 1}
    if status.is_final:
        found["finishedAt"] = created + 500
        if status is Status.FAILED:
            found |= {"error": "boom", "errorNames": ["app.Boom", "Boom"]}
    elif status is Status.PROCESSING:
        found["owner"] = f"w{number // 200 % 50}"
    elif status is Status.QUEUED:
        found |= {"dueAt": created, "hintedAt": created}
    else:
        found |= {"dueAt": MILLIS + number, "hintAt": MILLIS + number}
    if status is Status.WAITING:
        found["waits"] = [f"key-{number}"]
    if number % 20 == 1:
        found["tags"] = [f"tag-{number // 20 % 100}"]
    if number % 50 == 1:
        found["parent"] = f"e{number // 1000:06}"
    return found


@dataclass
class Scale:
    """The database, and a way to ask and see what was examined."""

    url: str

    async def _lines(self, ask: Callable[[Store], Awaitable[Any]]) -> list[dict[str, Any]]:
        async with AsyncMongoClient[Any](self.url) as client, MongoStore(self.url) as store:
            database = client.get_default_database()
            await database.command("profile", 0)
            await database.system.profile.drop()
            await database.command("profile", 2)
            try:
                await ask(store)
            finally:
                await database.command("profile", 0)
            name = f"{database.name}.executions"
            return await database.system.profile.find(
                {"ns": name, "op": {"$ne": "getmore"}}
            ).to_list()

    def examined(self, ask: Callable[[Store], Awaitable[Any]]) -> list[dict[str, Any]]:
        """Return the profiler's lines of what a call asked of `executions`."""
        lines = asyncio.run(self._lines(ask))
        for line in lines:
            assert "COLLSCAN" not in line.get("planSummary", ""), line
        return lines


@pytest.fixture(scope="module")
def scale(mongo_server: MongoServer) -> Iterator[Scale]:
    """Return a database of 200,000 executions that the original has used before."""
    url = with_database(mongo_server.url, "test-scale")
    statuses = [status for status, share in SHARES.items() for _ in range(share)]
    with MongoClient[Any](url) as client:
        database = client.get_default_database()
        executions = database.executions
        for start in range(0, TOTAL, 20_000):
            numbers = range(start, start + 20_000)
            executions.insert_many(  # before there is an index: that takes a fifth of the time
                [document(number, statuses[number * 7 % 200]) for number in numbers], ordered=False
            )
        executions.create_index("id", unique=True, name="idx_executions_id")
        executions.create_index(
            [("status", 1), ("createdAt", DESCENDING)], name="idx_executions_status_createdAt"
        )
        executions.create_index([("createdAt", DESCENDING)], name="idx_executions_createdAt")
        executions.create_index(
            [("eventName", 1), ("createdAt", DESCENDING)],
            name="idx_executions_eventName_createdAt",
        )
        try:
            yield Scale(url)
        finally:
            client.drop_database(database.name)


def docs(lines: list[dict[str, Any]]) -> int:
    """Return how many documents were examined."""
    return sum(line.get("docsExamined", 0) for line in lines)


def keys(lines: list[dict[str, Any]]) -> int:
    """Return how many keys of indexes were examined."""
    return sum(line.get("keysExamined", 0) for line in lines)


def asked(**filters: Any) -> Query:
    """Return the query of a filter, as lists and commands make it."""
    return Filter(**filters).query()


def swept(field: str, operator: Operator, value: Any, **more: Any) -> Query:
    """Return a query of the sweeper for what can be claimed."""
    claimable = Condition("status", Operator.IN, tuple(CLAIMABLE))
    return Query(where=(Condition(field, operator, value), claimable), descending=False, **more)


FIRST_PAGE = 60  # 50 and a few at the edges
LISTS: dict[str, tuple[Query, int]] = {
    "all": (asked(), FIRST_PAGE),
    "oldest": (asked(descending=False), FIRST_PAGE),
    "of a status": (asked(status="failed"), FIRST_PAGE),
    "of the fewest": (asked(status="processing"), FIRST_PAGE),
    "of statuses": (asked(status=["failed", "cancelled"]), FIRST_PAGE),
    "of a function": (asked(function="f3"), FIRST_PAGE),
    "of functions": (asked(function=["f3", "f4"]), FIRST_PAGE),
    "of a function nobody has": (asked(status="retrying", function="nobody"), 0),
    "in a span": (asked(since=at(-9000), until=at(-8000)), FIRST_PAGE),
    "of a status in a span": (asked(status="failed", since=at(-9000)), FIRST_PAGE),
    "of a function in a span": (asked(function="f3", since=at(-9000)), FIRST_PAGE),
    "by end": (asked(order="finished_at"), FIRST_PAGE),
    "of a status by end": (asked(order="finished_at", status="failed"), FIRST_PAGE),
    "by change": (asked(order="updated_at"), FIRST_PAGE),
    "a page further": (asked(after=(at(-9000), "e1")), FIRST_PAGE),
    "of a status, further": (asked(status="queued", after=(at(-9000), "e1")), FIRST_PAGE),
    "far back by number": (asked(skip=5000), FIRST_PAGE),
    "with a tag": (asked(tag="tag-3"), 101),
    "with a tag nobody has": (asked(tag="none"), 0),
    "with a tag and a status": (asked(tag="tag-3", status="failed"), 101),
    "children": (asked(parent="e000010"), 21),
    "forks": (Query(where=(Condition("forked_from", Operator.EQUAL, "x"),)), 0),
    "by the beginning of an id": (asked(id_prefix="e00012"), 10),
    "by what every id begins with": (asked(id_prefix="e"), FIRST_PAGE),
    "found by id": (asked(search="e00012"), 10),
    "found by what every id begins with": (asked(search="e"), FIRST_PAGE),
    "found by nothing": (asked(search="zzz"), 0),
    "hints due": (swept("hint_at", Operator.BEFORE, at(1), order="hint_at"), FIRST_PAGE),
    "past the deadline": (swept("deadline_at", Operator.BEFORE, at(1)), 0),
    "cancelled while nobody had them": (swept("cancel_requested_at", Operator.BEFORE, at(1)), 0),
    "with a handler to come": (
        Query(where=(Condition("handlers_due", Operator.EQUAL, True),)),
        0,
    ),
    "waiting for an event": (
        Query(where=(Condition("waits", Operator.HAS, ("key-7", "key-8")),)),
        2,
    ),
    "owned by one": (Query(where=(Condition("owner", Operator.EQUAL, "w1"),)), 25),
    "of the dead": (Query(where=(Condition("owner", Operator.NOT_IN, ("w1",)),)), TOTAL // 200),
    "past the retention": (
        Query(
            where=(
                Condition("finished_at", Operator.BEFORE, at(-TOTAL / 20)),
                Condition("status", Operator.IN, tuple(FINAL)),
            ),
            order="finished_at",
            descending=False,
            limit=500,
        ),
        510,
    ),
}
"""Questions, and the most documents each may have to look at."""

SIEVED: dict[str, Query] = {
    "of a status and a function": asked(status="failed", function="f3"),
    "of statuses and functions": asked(status=["failed", "cancelled"], function=["f3", "f4"]),
    "of a function by end": asked(order="finished_at", function="f3"),
    "of a status by change": asked(order="updated_at", status="failed"),
    "by function": asked(search="f3"),
    "by error": asked(search="Boom"),
    "by error, of a status": asked(search="Boom", status="failed"),
    "by function, of a status": asked(search="f3", status="cancelled"),
}
"""Questions with one condition more than the index has: what does not fit is looked at as well."""


@pytest.mark.parametrize("name", LISTS)
def test_a_question_looks_at_what_it_answers(scale: Scale, name: str) -> None:
    query, most = LISTS[name]
    lines = scale.examined(lambda store: store.find(query))
    assert docs(lines) <= most, [line["planSummary"] for line in lines]
    assert keys(lines) <= max(10 * most, 20) + query.skip + 5_000


@pytest.mark.parametrize("name", SIEVED)
def test_what_is_sieved_is_a_small_part_of_all(scale: Scale, name: str) -> None:
    lines = scale.examined(lambda store: store.find(SIEVED[name]))
    assert docs(lines) <= TOTAL // 100, [line["planSummary"] for line in lines]


def test_what_ended_in_a_span_is_found_in_that_span(scale: Scale) -> None:
    query = asked(finished_since=at(-9000), finished_until=at(-8950))
    lines = scale.examined(lambda store: store.find(query))
    assert docs(lines) <= 500
    assert "finishedAt" in lines[-1]["planSummary"]


@pytest.mark.parametrize(
    "filters", [{}, {"status": "completed"}, {"search": "e"}, {"tag": "tag-1"}]
)
def test_counting_looks_at_keys_and_stops_at_the_cap(scale: Scale, filters: Any) -> None:
    lines = scale.examined(lambda store: store.find(asked(counted=True, **filters)))
    (count,) = [line for line in lines if line["op"] == "command"]
    assert count["docsExamined"] == 0
    assert count["keysExamined"] <= COUNT_CAP


def test_stats_look_at_keys_alone_and_skip_the_largest_status(scale: Scale) -> None:
    lines = scale.examined(lambda store: store.stats())
    assert docs(lines) == 0
    capped = len(Status) * COUNT_CAP
    counted = sum(TOTAL * SHARES[item] // 200 for item in (Status.QUEUED, Status.FAILED))
    assert keys(lines) <= capped + counted

    async def again(store: Store) -> None:
        for _ in range(50):
            await store.stats()

    assert len(scale.examined(again)) < 2 * len(lines) + 10  # all within a second, or a few


def test_stats_of_the_next_second_count_no_largest_status_at_all(scale: Scale) -> None:
    async def twice(store: Store) -> None:
        first = await store.stats()
        await asyncio.sleep(1.1)  # a snapshot is kept for a second at most
        assert await store.stats() == first

    counted = [
        line["command"]["pipeline"][0]["$match"]["status"]
        for line in scale.examined(twice)
        if "pipeline" in line["command"]
    ]
    assert counted.count(Status.COMPLETED) == 1  # the first time, as nobody knew which is large
    assert counted.count(Status.WAITING) == 3


def test_a_tally_looks_at_what_ended_in_its_span(scale: Scale) -> None:
    since = Condition("finished_at", Operator.SINCE, at(-600))
    for where in ([since], [since, Condition("function", Operator.EQUAL, "f3")]):
        lines = scale.examined(lambda store, w=where: store.tally(w, bucket=timedelta(minutes=1)))
        assert docs(lines) <= 600 * 10  # ten a second were created
        assert "finishedAt" in lines[0]["planSummary"]


def test_a_claim_by_hints_looks_at_the_hinted(scale: Scale) -> None:
    ids = [f"e{number:06}" for number in range(0, TOTAL, TOTAL // 500)]

    async def claim(store: Store) -> None:
        taken = await store.claim("w", FUNCTIONS, limit=500, now=NOW, ids=ids)
        await store.record([step(item.id, fence=item.fence) for item in taken])
        done = Outcome(status=Status.COMPLETED, result="1")
        await store.update([settle(item, done, now=NOW) for item in taken])

    lines = scale.examined(claim)
    assert {line["planSummary"] for line in lines} == {"IXSCAN { id: 1 }"}
    assert docs(lines) <= 3 * 500


def test_a_claim_without_hints_looks_at_what_it_takes_and_adopts(scale: Scale) -> None:
    lines = scale.examined(lambda store: store.claim("w", FUNCTIONS, limit=100, now=NOW))
    assert docs(lines) <= 3 * 100 + 2 * 1000
    assert not any(line.get("hasSortStage") for line in lines)
    nobody = scale.examined(lambda store: store.claim("w", ["nobody"], limit=100, now=NOW))
    assert docs(nobody) == 0


def test_a_beat_looks_at_what_is_processed_once(scale: Scale) -> None:
    async def beat(store: Store) -> None:
        for state in (WorkerState.STARTING, *[WorkerState.RUNNING] * 5):
            await asyncio.to_thread(store.beat, worker("w", state), lease=timedelta(seconds=9))

    assert docs(scale.examined(beat)) <= TOTAL // 200 + 200
