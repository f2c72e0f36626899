from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from bson import ObjectId
from pymongo import AsyncMongoClient, MongoClient
from pymongo.asynchronous.database import AsyncDatabase

from worchflow_core import (
    Failure,
    InvalidInput,
    Settings,
    SettingsError,
    Status,
    Store,
    StoreUnavailable,
    StoreUnusable,
    to_millis,
)
from worchflow_core.testing.contracts import StoreContract
from worchflow_core.testing.contracts.samples import NOW, at, execution, release, step, worker
from worchflow_core.testing.fixtures import with_database
from worchflow_core.testing.servers import MongoServer
from worchflow_core.transitions import Outcome, settle
from worchflow_plugins import mongo
from worchflow_plugins.mongo import MongoStore

pytestmark = pytest.mark.servers


@asynccontextmanager
async def fresh_store(url: str) -> AsyncIterator[Store]:
    """Open a store on a database of its own, and drop that afterwards."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    try:
        async with MongoStore(with_database(url, name)) as store:
            yield store
    finally:
        async with AsyncMongoClient(url) as client:
            await client.drop_database(name)


class TestMongoStore(StoreContract):
    has_exact_fences = False
    url: str

    @pytest.fixture(autouse=True)
    def _server(self, mongo_server: MongoServer) -> None:
        self.url = mongo_server.url

    def open(self) -> AbstractAsyncContextManager[Store]:
        return fresh_store(self.url)


class TestMongoStoreStandalone(StoreContract):
    has_exact_fences = False
    url: str

    @pytest.fixture(autouse=True)
    def _server(self, standalone_mongo_server: MongoServer) -> None:
        self.url = standalone_mongo_server.url

    def open(self) -> AbstractAsyncContextManager[Store]:
        return fresh_store(self.url)


# --- documents of other programs ------------------------------------------------------------------


def foreign(execution_id: str, **fields: Any) -> dict[str, Any]:
    """Return a document as the original's client inserts it."""
    millis = to_millis(NOW)
    return {
        "id": execution_id,
        "eventName": "f",
        "eventData": '{"a": 1}',
        "status": "queued",
        "attemptCount": 0,
        "createdAt": float(millis),
        "updatedAt": float(millis),
        **fields,
    }


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[tuple[MongoStore, AsyncDatabase[Any]]]:
    """Open a store and, beside it, the database as any program sees it; drop it afterwards."""
    async with AsyncMongoClient(url) as client:
        database = client.get_default_database()
        try:
            async with MongoStore(url) as store:
                yield store, database
        finally:
            await client.drop_database(database.name)


def test_foreign_documents_are_claimed_with_and_without_hints(mongodb_url: str) -> None:
    async def main() -> None:
        async with opened(mongodb_url) as (store, database):
            bare = foreign("c")
            del bare["eventData"], bare["attemptCount"]
            await database.executions.insert_many(
                [foreign("a"), foreign("b", status="retrying", attemptCount=2.0), bare]
            )
            (hinted,) = await store.claim("w", ["f"], limit=9, now=NOW, ids=["a"])
            found = {item.id: item for item in await store.claim("w", ["f"], limit=9, now=NOW)}
            assert (hinted.data, hinted.fence, hinted.owner) == ('{"a": 1}', 1, "w")
            assert hinted.created_at == NOW
            assert set(found) == {"b", "c"}
            assert found["b"].failed_attempts == 2
            assert found["c"].data is None
            for item in (hinted, *found.values()):
                done = settle(item, Outcome(status=Status.COMPLETED, result='{"x": 1}'), now=at(1))
                assert not await store.update([done])
            stored = await database.executions.find_one({"id": "a"})
            assert stored is not None
            assert isinstance(stored["_id"], ObjectId)
            assert stored["result"] == {"x": 1}
            assert stored["resultJson"] == '{"x": 1}'

    asyncio.run(main())


def test_foreign_documents_are_not_starved_by_a_backlog_of_ours(mongodb_url: str) -> None:
    async def main() -> None:
        async with opened(mongodb_url) as (store, database):
            await store.create([execution(f"e{n}", due_at=at(-9)) for n in range(300)])
            await database.executions.insert_one(foreign("stranger", createdAt=0))
            taken: set[str] = set()
            end = time.monotonic() + 20
            while "stranger" not in taken:
                assert time.monotonic() < end
                found = await store.claim("w", ["f"], limit=5, now=NOW)
                taken |= {item.id for item in found}
                await store.update(
                    [release(item, now=at(-9)) for item in found if item.id != "stranger"]
                )

    asyncio.run(main())


@pytest.mark.parametrize("by_hint", [True, False])
def test_what_the_original_client_reopens_is_claimed(mongodb_url: str, by_hint: bool) -> None:
    async def main() -> None:
        async with opened(mongodb_url) as (store, database):
            await store.create([execution("ours"), execution("other")])
            for item in await store.claim("w", ["f"], limit=9, now=NOW):
                failed = settle(item, Outcome(status=Status.FAILED), now=at(1))
                assert not await store.update([failed])
            await database.executions.update_one({"id": "ours"}, {"$set": {"status": "queued"}})
            ids = ["ours", "other"] if by_hint else None
            (again,) = await store.claim("w", ["f"], limit=9, now=at(2), ids=ids)
            assert (again.id, again.fence, again.finished_at) == ("ours", 2, at(1))

    asyncio.run(main())


def test_steps_of_the_original_are_read(mongodb_url: str) -> None:
    async def main() -> None:
        async with opened(mongodb_url) as (store, database):
            await database.steps.insert_many(
                [
                    {"executionId": "a", "stepId": "s1", "result": {"n": 1}, "timestamp": 5.0},
                    {"executionId": "a", "stepId": "s2", "name": "t", "status": "completed",
                     "result": None, "timestamp": 6},
                ]
            )  # fmt: skip
            first, second = (await store.steps(["a"]))["a"]
            assert (first.step_id, first.result, first.title) == ("s1", '{"n": 1}', "s1")
            assert (second.step_id, second.result, second.title) == ("s2", "null", "t")

    asyncio.run(main())


# --- what other readers see -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "mirror"),
    [
        ('{"ok": true, "n": [1, 2.5, null]}', {"ok": True, "n": [1, 2.5, None]}),
        ('"$owner"', "$owner"),
        ("9223372036854775807", 9223372036854775807),
        ("null", None),
    ],
)
def test_results_are_mirrored_natively(mongodb_url: str, text: str, mirror: Any) -> None:
    assert _mirrors(mongodb_url, text) == [mirror, mirror]


@pytest.mark.parametrize(
    "text",
    [
        "9223372036854775808", "1e999", '{"$set": 1}', '{"a.b": 1}', '{"": 1}', '{"a\\u0000": 1}',
        '"\\ud800"', "NaN", "[" * 100 + "]" * 100, '"' + "x" * 1_100_000 + '"', "no json",
    ],
)  # fmt: skip
def test_what_bson_cannot_keep_stays_text(mongodb_url: str, text: str) -> None:
    assert _mirrors(mongodb_url, text) == ["missing", "missing"]


def _mirrors(url: str, text: str) -> list[Any]:
    """Store a text as a step's and an execution's result; return both mirrors."""

    async def main() -> list[Any]:
        async with opened(url) as (store, database):
            await store.create([execution("a", result="1", status=Status.PROCESSING)])
            (given,) = await store.record([step("a", result=text, fence=0)])
            assert given is not None
            (item,) = await store.get(["a"])
            await store.update(
                [settle(item, Outcome(status=Status.COMPLETED, result=text), now=at(1))]
            )
            (after,) = await store.get(["a"])
            assert after.result == text
            assert (await store.steps(["a"]))["a"][0].result == text
            documents = [await database.steps.find_one(), await database.executions.find_one()]
            return [item.get("result", "missing") for item in documents if item is not None]

    return asyncio.run(main())


def test_documents_past_sixteen_megabytes_are_refused_before_a_write(mongodb_url: str) -> None:
    async def main() -> None:
        async with opened(mongodb_url) as (store, database):
            big = '"' + "x" * 17_000_000 + '"'
            with pytest.raises(InvalidInput, match=r"execution big is 17,000,\d+ bytes"):
                await store.create([execution("a"), execution("big", data=big)])
            assert await database.executions.count_documents({}) == 0
            await store.create([execution("a")])
            with pytest.raises(InvalidInput, match="result of step 'Make film'"):
                await store.record([step("a", title="Make film", result=big, fence=0)])
            (item,) = await store.claim("w", ["f"], limit=1, now=NOW)
            with pytest.raises(InvalidInput, match="execution a is"):
                await store.update(
                    [settle(item, Outcome(status=Status.COMPLETED, result=big), now=at(1))]
                )
            assert await store.get(["a"]) == [item]

    asyncio.run(main())


def test_an_execution_that_would_grow_too_large_is_refused_readably(mongodb_url: str) -> None:
    async def main() -> None:
        async with opened(mongodb_url) as (store, _):
            half = '"' + "x" * 9_000_000 + '"'
            await store.create([execution("a", data=half)])
            (item,) = await store.claim("w", ["f"], limit=1, now=NOW)
            change = settle(item, Outcome(status=Status.COMPLETED, result=half), now=at(1))
            with pytest.raises(InvalidInput, match="16 MiB"):
                await store.update([change])
            assert (await store.get(["a"]))[0].status is Status.PROCESSING

    asyncio.run(main())


def test_one_that_cannot_be_changed_holds_up_no_other(mongodb_url: str) -> None:
    async def main() -> None:
        async with opened(mongodb_url) as (store, _):
            half = '"' + "x" * 9_000_000 + '"'
            ids = [f"e{number}" for number in range(9)]
            await store.create(
                [execution(name, data=half if name == "e4" else "1") for name in ids]
            )
            taken = {item.id: item for item in await store.claim("w", ["f"], limit=9, now=NOW)}
            changes = [
                settle(
                    taken[name],
                    Outcome(status=Status.COMPLETED, result=half if name == "e4" else "1"),
                    now=at(1),
                )
                for name in ids
            ]
            with pytest.raises(InvalidInput, match="16 MiB"):
                await store.update(changes)
            stand = {item.id: item.status for item in await store.get(ids)}
            assert stand.pop("e4") is Status.PROCESSING
            assert set(stand.values()) == {Status.COMPLETED}

    asyncio.run(main())


def test_many_different_changes_reach_each_its_own(mongodb_url: str) -> None:
    async def main() -> None:
        async with opened(mongodb_url) as (store, _):
            ids = [f"e{number:03}" for number in range(700)]
            await store.create([execution(name) for name in ids])
            taken = [
                item for _ in range(2) for item in await store.claim("w", ["f"], limit=350, now=NOW)
            ]
            changes = []
            for number, item in enumerate(taken):
                failure = Failure(type="E", message=item.id) if number % 3 else None
                status = Status.RETRYING if failure else Status.COMPLETED
                result = None if failure else f'{{"own": "{item.id}"}}'
                fence = 9 if number % 7 == 0 else item.fence  # of a claim that is not the newest
                changes.append(
                    settle(
                        replace(item, fence=fence),
                        Outcome(status=status, result=result, failure=failure, due_at=at(5)),
                        now=at(1),
                    )
                )
            refused = await store.update(changes)
            assert sorted(refused) == sorted(item.id for item in taken[::7])
            stand = {item.id: item for item in await store.get(ids)}
            for number, item in enumerate(taken):
                found = stand[item.id]
                if number % 7 == 0:
                    assert found == item
                elif number % 3:
                    assert found.error is not None
                    assert (found.status, found.error.message) == (Status.RETRYING, item.id)
                else:
                    assert (found.status, found.owner) == (Status.COMPLETED, None)
                    assert found.result == f'{{"own": "{item.id}"}}'

    asyncio.run(main())


def test_lone_surrogates_in_error_texts_do_not_keep_an_execution_from_ending(
    mongodb_url: str,
) -> None:
    async def main() -> None:
        async with opened(mongodb_url) as (store, _):
            await store.create([execution("a"), execution("b")])
            first, second = await store.claim("w", ["f"], limit=2, now=NOW)
            failure = Failure(type="E", message="bad \ud800 text")
            changes = [
                settle(first, Outcome(status=Status.FAILED, failure=failure), now=at(1)),
                settle(second, Outcome(status=Status.COMPLETED, result="1"), now=at(1)),
            ]
            assert not await store.update(changes)
            (failed,) = await store.get([first.id])
            assert failed.error is not None
            assert failed.error.message == "bad ? text"

    asyncio.run(main())


# --- schema and namespace -------------------------------------------------------------------------


def test_indexes_of_the_original_are_used_as_they_are(mongodb_url: str) -> None:
    async def main() -> None:
        async with AsyncMongoClient(mongodb_url) as client:
            executions = client.get_default_database().executions
            await executions.create_index("id", unique=True, name="idx_executions_id")
            await executions.create_index([("status", 1), ("createdAt", 1)], name="idx_status")
        async with opened(mongodb_url) as (store, database):
            keys = [
                item["key"] for item in (await database.executions.index_information()).values()
            ]
            assert keys.count([("id", 1)]) == 1
            assert all(finding.level == "ok" for finding in await store.check())
        async with opened(mongodb_url) as (store, _):
            await store.create([execution("a")])

    asyncio.run(main())


@pytest.mark.parametrize(
    ("collection", "key"),
    [("executions", [("id", 1)]), ("steps", [("executionId", 1), ("stepId", 1)])],
)
def test_an_index_that_is_not_unique_is_refused_with_the_repair(
    mongodb_url: str, collection: str, key: list[tuple[str, int]]
) -> None:
    async def main() -> None:
        async with AsyncMongoClient(mongodb_url) as client:
            database = client.get_default_database()
            await database[collection].create_index(key, name="plain")
            before = await database[collection].index_information()
            with pytest.raises(StoreUnusable) as caught:
                async with MongoStore(mongodb_url):
                    pass
            assert f'db.{collection}.dropIndex("plain")' in str(caught.value)
            assert "{unique: true}" in str(caught.value)
            assert await database[collection].index_information() == before
            await database[collection].drop_index("plain")
            async with MongoStore(mongodb_url):
                pass
            await client.drop_database(database.name)

    asyncio.run(main())


def test_stored_twice_refuses_to_start(mongodb_url: str) -> None:
    async def main() -> None:
        async with AsyncMongoClient(mongodb_url) as client:
            database = client.get_default_database()
            await database.executions.insert_many([foreign("a"), foreign("a")])
            with pytest.raises(StoreUnusable, match="duplicate key"):
                async with MongoStore(mongodb_url):
                    pass
            await client.drop_database(database.name)

    asyncio.run(main())


def test_a_database_of_another_prefix_is_refused(mongodb_url: str) -> None:
    async def main() -> None:
        async with opened(mongodb_url):
            with pytest.raises(StoreUnusable, match="belongs to the prefix 'worchflow'"):
                async with MongoStore(mongodb_url, prefix="other"):
                    pass

    asyncio.run(main())


def test_a_database_of_a_newer_version_is_refused(mongodb_url: str) -> None:
    async def main() -> None:
        async with opened(mongodb_url) as (_, database):
            await database.meta.update_one({"_id": "namespace"}, {"$set": {"schema": 99}})
            with pytest.raises(StoreUnusable, match="newer Worchflow"):
                async with MongoStore(mongodb_url):
                    pass

    asyncio.run(main())


# --- connections ----------------------------------------------------------------------------------


def test_a_store_is_opened_for_its_urls_alone() -> None:
    settings = Settings(_env_file=None)
    assert isinstance(mongo.worchflow_open_store("mongodb://h/db", settings), MongoStore)
    assert mongo.worchflow_open_store("redis://h/0", settings) is None


def test_describe_names_hosts_and_database_and_no_password() -> None:
    assert "h1:1,h2:2/worchflow" in MongoStore("mongodb://u:secret@h1:1,h2:2/").describe()
    assert "secret" not in MongoStore("mongodb://u:secret@h1:1,h2:2/").describe()


def test_a_name_of_an_srv_record_that_is_not_resolved_is_an_outage() -> None:
    url = "mongodb+srv://u:secret@cluster.invalid/flows?tls=true"

    async def main() -> None:
        store = mongo.worchflow_open_store(url, Settings(_env_file=None))
        assert isinstance(store, MongoStore)
        assert "cluster.invalid/flows" in store.describe()
        with pytest.raises(StoreUnavailable) as caught:
            async with store:
                pass
        assert "secret" not in str(caught.value)

    asyncio.run(main())


@pytest.mark.parametrize(
    "url",
    [
        "mongodb:///db",
        "mongodb://h/a b",
        "mongodb://h/" + "x" * 64,
        "mongodb://u:secret@h/?retryWrites=perhaps",
    ],
)
def test_urls_that_cannot_be_used_are_refused(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        MongoStore(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("kind", ["client", "database"])
def test_the_callers_client_is_used_and_stays_open(mongodb_url: str, kind: str) -> None:
    async def main() -> None:
        async with AsyncMongoClient(mongodb_url) as client:
            database = client.get_default_database()
            source = client if kind == "client" else database
            async with MongoStore(source) as store:
                await store.create([execution("a")])
                beat = await asyncio.to_thread(store.beat, worker("w"), lease=timedelta(seconds=9))
                assert beat.is_alive
                assert database.name in store.describe()
            assert await database.executions.count_documents({}) == 1
            await client.drop_database(database.name)

    asyncio.run(main())


def test_a_blocking_client_of_the_callers_beats(mongodb_url: str) -> None:
    async def main(beat_client: MongoClient[Any]) -> None:
        async with AsyncMongoClient(mongodb_url) as client:
            async with MongoStore(client, beat_client=beat_client) as store:
                beat = await asyncio.to_thread(store.beat, worker("w"), lease=timedelta(seconds=9))
                assert beat.is_alive
            await client.drop_database(client.get_default_database().name)

    with MongoClient[Any](mongodb_url) as beat_client:
        asyncio.run(main(beat_client))
        assert beat_client.admin.command("ping")["ok"] == 1


def test_a_forked_child_is_told(mongodb_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with opened(mongodb_url) as (store, _):
            own = os.getpid()
            with monkeypatch.context() as patch:
                patch.setattr(os, "getpid", lambda: own + 1)
                with pytest.raises(StoreUnusable, match="forked child"):
                    await store.get(["a"])
                with pytest.raises(StoreUnusable, match="forked child"):
                    store.beat(worker("w"), lease=timedelta(seconds=9))
            assert await store.get(["a"]) == []

    asyncio.run(main())


def test_what_workers_say_of_themselves_is_kept_literally(mongodb_url: str) -> None:
    async def main() -> None:
        async with opened(mongodb_url) as (store, _):
            for text in ("$owner", "$$NOW", '{"$set": 1}', "$"):
                given = replace(worker(text), name=text, functions=(text,))
                await asyncio.to_thread(store.beat, given, lease=timedelta(seconds=9))
                found = {item.id: item for item in await store.workers()}[text]
                assert (found.name, found.functions) == (text, (text,))

    asyncio.run(main())


def test_check_tells_topology(mongodb_url: str, standalone_mongo_server: MongoServer) -> None:
    async def main() -> None:
        async with opened(mongodb_url) as (store, _):
            texts = {finding.subject: finding.text for finding in await store.check()}
            assert texts["topology"] == "replica set rs0, 1 member"
            assert "rs0, majority" in store.describe()
        alone = with_database(standalone_mongo_server.url, "test-check")
        async with opened(alone) as (store, _):
            found = {finding.subject: finding for finding in await store.check()}
            assert found["topology"].level == "warning"
            assert "standalone" in store.describe()

    asyncio.run(main())


def test_check_reports_a_missing_index(mongodb_url: str) -> None:
    async def main() -> None:
        async with opened(mongodb_url) as (store, database):
            await database.executions.drop_index("worchflow_owner")
            found = {finding.subject: finding for finding in await store.check()}
            assert found["indexes"].level == "problem"
            assert "worchflow_owner" in found["indexes"].text

    asyncio.run(main())
