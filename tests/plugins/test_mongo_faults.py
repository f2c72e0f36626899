from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from pymongo import AsyncMongoClient, MongoClient
from pymongo.errors import PyMongoError

from worchflow_core import Change, Created, Record, Status, StoreUnavailable, StoreUnusable
from worchflow_core.testing.contracts.samples import NOW, at, execution, release, step, worker
from worchflow_core.testing.fixtures import with_database
from worchflow_core.testing.proxy import Proxy
from worchflow_core.testing.servers import MongoServer
from worchflow_core.transitions import Outcome, settle
from worchflow_plugins.mongo import MongoStore
from worchflow_plugins.mongo.connection import lasting

pytestmark = [
    pytest.mark.servers,
    # PyMongo's monitor leaves its socket to the garbage collector when closed while it connects.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]


@pytest.fixture(autouse=True)
def _no_socket_outlives_its_test() -> Iterator[None]:
    yield
    gc.collect()


LEASE = timedelta(seconds=30)


@pytest.fixture(params=["replica set", "standalone"])
def server(request: pytest.FixtureRequest) -> MongoServer:
    name = "mongo_server" if request.param == "replica set" else "standalone_mongo_server"
    found = request.getfixturevalue(name)
    assert isinstance(found, MongoServer)
    return found


@pytest.fixture
def proxy(server: MongoServer) -> Iterator[Proxy]:
    with Proxy(server.port) as proxy:
        yield proxy


@pytest.fixture
def url(proxy: Proxy, unique_name: str, server: MongoServer) -> Iterator[str]:
    """A database of its own, reached through the proxy."""
    yield f"mongodb://127.0.0.1:{proxy.port}/{unique_name}?directConnection=true"
    with MongoClient[Any](server.url) as client:
        client.drop_database(unique_name)


async def eventually(call: Callable[[], Awaitable[Any]], *, seconds: float = 20.0) -> Any:
    """Repeat a call until it answers something."""
    end = time.monotonic() + seconds
    while True:
        try:
            answer = await call()
        except StoreUnavailable:
            answer = None
        if answer:
            return answer
        assert time.monotonic() < end, "it did not happen in time"
        await asyncio.sleep(0.05)


# --- replies that are lost ------------------------------------------------------------------------


def test_a_create_whose_reply_is_lost_is_new_once(url: str, proxy: Proxy) -> None:
    async def main() -> None:
        async with MongoStore(url) as store:
            given = [execution(f"e{n}", input_hash="h") for n in range(5)]
            proxy.drop_reply(containing=b"insert")
            assert await store.create(given) == [Created.NEW] * 5
            assert proxy.dropped == 1
            assert await store.create(given) == [Created.SAME] * 5

    asyncio.run(main())


def test_a_batch_claim_whose_reply_is_lost_is_found_by_its_token(url: str, proxy: Proxy) -> None:
    async def main() -> None:
        async with MongoStore(url) as store:
            ids = [f"e{n}" for n in range(20)]
            await store.create([execution(item) for item in ids])
            proxy.drop_reply(containing=b"claimToken")
            found = await store.claim("w", ["f"], limit=20, now=NOW, ids=ids)
            assert proxy.dropped == 1
            assert sorted(item.id for item in found) == sorted(ids)
            assert {(item.owner, item.fence) for item in found} == {("w", 1)}

    asyncio.run(main())


def test_a_single_claim_whose_reply_is_lost_is_made_once(url: str, proxy: Proxy) -> None:
    async def main() -> None:
        async with MongoStore(url) as store:
            await store.create([execution("a")])
            proxy.drop_reply(containing=b"findAndModify")
            (found,) = await store.claim("w", ["f"], limit=1, now=NOW, ids=["a"])
            assert proxy.dropped == 1
            assert found.fence == 1

    asyncio.run(main())


def test_a_claim_that_could_not_be_read_back_comes_with_a_later_one(url: str, proxy: Proxy) -> None:
    async def main() -> None:
        async with MongoStore(url) as store:
            ids = [f"e{n}" for n in range(5)]
            await store.create([execution(item) for item in ids])
            proxy.drop_reply(containing=b"claimToken", times=4)
            with pytest.raises(StoreUnavailable):
                await store.claim("w", ["f"], limit=9, now=NOW, ids=ids)
            proxy.pass_all()
            taken: list[str] = []

            async def all_back() -> bool:
                taken.extend(
                    item.id for item in await store.claim("w", ["f"], limit=3, now=NOW, ids=["x"])
                )
                return len(taken) == 5

            await eventually(all_back)
            assert sorted(taken) == ids
            await asyncio.sleep(1.1)
            assert not await store.claim("w", ["f"], limit=9, now=NOW, ids=ids)

    asyncio.run(main())


def test_a_cancelled_claim_is_not_forgotten(url: str, proxy: Proxy) -> None:
    async def main() -> None:
        async with MongoStore(url) as store:
            ids = [f"e{n}" for n in range(5)]
            await store.create([execution(item) for item in ids])
            proxy.delay(0.2)
            claim = asyncio.ensure_future(store.claim("w", ["f"], limit=9, now=NOW, ids=ids))
            await asyncio.sleep(0.25)
            claim.cancel()
            await asyncio.wait({claim})
            proxy.pass_all()

            async def taken() -> list[str]:
                found = await store.claim("w", ["f"], limit=9, now=NOW, ids=ids)
                return [item.id for item in found]

            assert sorted(await eventually(taken)) == ids
            assert {item.fence for item in await store.get(ids)} == {1}

    asyncio.run(main())


def test_a_step_whose_reply_is_lost_is_adopted(url: str, proxy: Proxy) -> None:
    async def main() -> None:
        async with MongoStore(url) as store:
            await store.create([execution("a")])
            given = [step("a", f"s{n}", fence=0, seq=n) for n in range(3)]
            proxy.drop_reply(containing=b"insert")
            assert await store.record(given) == given
            assert proxy.dropped == 1
            other = [step("a", "s1", fence=0, seq=1, result='"other"')]
            assert await store.record(other) == [given[1]]

    asyncio.run(main())


@pytest.mark.parametrize("count", [1, 5])
def test_a_settle_whose_reply_is_lost_is_recognised(url: str, proxy: Proxy, count: int) -> None:
    async def main() -> None:
        async with MongoStore(url) as store:
            await store.create([execution(f"e{n}") for n in range(count)])
            taken = await store.claim("w", ["f"], limit=9, now=NOW)
            changes = [
                settle(item, Outcome(status=Status.COMPLETED, result="1"), now=at(1))
                for item in taken
            ]
            proxy.drop_reply(containing=b"writeToken")

            async def settled() -> bool:
                assert not await store.update(changes)
                return True

            await eventually(settled)
            assert proxy.dropped == 1

    asyncio.run(main())


def test_records_whose_replies_are_lost_keep_their_answers(url: str, proxy: Proxy) -> None:
    async def main() -> None:
        async with MongoStore(url) as store:
            slot = Record(kind="slot", key="f:1", body="{}")
            proxy.drop_reply(containing=b"insert")
            assert list(await store.records.insert([slot])) == ["f:1"]
            assert proxy.dropped == 1
            assert list(await store.records.insert([slot])) == []

    asyncio.run(main())


def test_a_beat_whose_reply_is_lost_is_repeated(url: str, proxy: Proxy) -> None:
    async def main() -> None:
        async with MongoStore(url) as store:
            await asyncio.to_thread(store.beat, worker("w"), lease=LEASE)
            proxy.drop_reply(containing=b"findAndModify")

            async def beaten() -> bool:
                beat = await asyncio.to_thread(store.beat, worker("w"), lease=LEASE)
                return beat.is_alive

            assert await eventually(beaten)
            assert proxy.dropped == 1

    asyncio.run(main())


# --- servers that are away ------------------------------------------------------------------------


def test_an_unreachable_server_is_reported_soon_and_readably(unique_name: str) -> None:
    async def main() -> None:
        with Proxy(1) as proxy:
            proxy.refuse()
            before = time.monotonic()
            with pytest.raises(StoreUnavailable) as caught:
                async with MongoStore(f"mongodb://u:secret@127.0.0.1:{proxy.port}/{unique_name}"):
                    pass
            assert time.monotonic() - before < 10
            assert isinstance(caught.value.__cause__, PyMongoError)
            text = str(caught.value)
            assert f"127.0.0.1:{proxy.port}" in text
            assert "secret" not in text
            assert "\n" not in text
            assert len(text) < 500

    asyncio.run(main())


def test_a_silent_server_is_given_up_and_found_again(url: str, proxy: Proxy) -> None:
    async def main() -> None:
        async with MongoStore(url) as store:  # makes the indexes, which may take its time
            await store.create([execution("a")])
        async with MongoStore(f"{url}&socketTimeoutMS=500&serverSelectionTimeoutMS=500") as store:
            await store.get(["a"])
            proxy.black_hole()
            with pytest.raises(StoreUnavailable):
                await store.get(["a"])
            with pytest.raises(StoreUnavailable):
                await asyncio.to_thread(store.beat, worker("w"), lease=timedelta(seconds=1))
            proxy.pass_all()
            (found,) = await eventually(lambda: store.get(["a"]))
            assert found.id == "a"

    asyncio.run(main())


def test_refused_connections_are_found_again(url: str, proxy: Proxy) -> None:
    async def main() -> None:
        async with MongoStore(f"{url}&serverSelectionTimeoutMS=200") as store:
            await store.create([execution("a")])
            for fail in (proxy.refuse, proxy.reset):
                fail()
                with pytest.raises(StoreUnavailable):
                    await store.get(["a"])
                proxy.pass_all()
                await eventually(lambda: store.get(["a"]))

    asyncio.run(main())


def test_what_was_acknowledged_survives_a_kill(unique_name: str) -> None:
    async def main(server: MongoServer) -> None:
        url = with_database(server.url, unique_name) + "&serverSelectionTimeoutMS=500"
        async with MongoStore(url) as store:
            acknowledged: list[str] = []
            killed = asyncio.Event()

            async def send_until_killed() -> None:
                number = 0
                while not killed.is_set():
                    number += 1
                    item = execution(f"e{number}")
                    try:
                        await store.create([item])
                        await store.record([step(item.id, fence=0)])
                    except StoreUnavailable:
                        continue
                    acknowledged.append(item.id)

            sending = asyncio.ensure_future(send_until_killed())

            async def enough() -> bool:
                return len(acknowledged) >= 50

            await eventually(enough)
            await asyncio.to_thread(server.kill)
            killed.set()
            await sending
            await asyncio.to_thread(server.start)
            await eventually(lambda: store.get(acknowledged[:1]))
            assert {item.id for item in await store.get(acknowledged)} == set(acknowledged)
            assert set(await store.steps(acknowledged)) == set(acknowledged)

    with MongoServer() as server:
        asyncio.run(main(server))


# --- replies that say "not for certain" -----------------------------------------------------------


@pytest.fixture
def admin(mongo_server: MongoServer) -> Iterator[Any]:
    with MongoClient[Any](mongo_server.url) as client:
        yield client.admin
        client.admin.command("configureFailPoint", "failCommand", mode="off")


def fail_once(admin: Any, command: str, **data: Any) -> None:
    admin.command(
        "configureFailPoint",
        "failCommand",
        mode={"times": 1},
        data={"failCommands": [command], "appName": "worchflow", **data},
    )


UNSATISFIED = {"code": 64, "codeName": "WriteConcernFailed", "errmsg": "waiting timed out"}


def test_a_write_that_is_not_yet_safe_is_no_success(mongodb_url: str, admin: Any) -> None:
    async def main() -> None:
        async with MongoStore(mongodb_url) as store:
            fail_once(admin, "insert", writeConcernError=UNSATISFIED)
            with pytest.raises(StoreUnavailable, match="waiting timed out"):
                await store.create([execution("a", input_hash="h")])
            assert await store.create([execution("a", input_hash="h")]) == [Created.SAME]
            fail_once(admin, "insert", writeConcernError=UNSATISFIED)
            given = step("a", fence=0)
            with pytest.raises(StoreUnavailable):
                await store.record([given])
            assert await store.record([given]) == [given]
            (item,) = await store.claim("w", ["f"], limit=1, now=NOW)
            change = settle(item, Outcome(status=Status.COMPLETED, result="1"), now=at(1))
            fail_once(admin, "update", writeConcernError=UNSATISFIED)
            with pytest.raises(StoreUnavailable):
                await store.update([change])
            assert not await store.update([change])

    asyncio.run(main())


@pytest.mark.parametrize("code", [189, 91, 11600, 10107, 262, 6])
def test_a_server_that_steps_down_or_shuts_down_is_away(
    mongodb_url: str, admin: Any, code: int
) -> None:
    async def main() -> None:
        async with MongoStore(f"{mongodb_url}&heartbeatFrequencyMS=500") as store:
            await store.create([execution("a")])
            fail_once(admin, "update", errorCode=code)
            change = Change(id="a", expect={"owner": None}, values={"code_version": "x"})

            async def applied() -> bool:
                assert not await store.update([change])
                return True

            await eventually(applied)

    asyncio.run(main())


def test_a_stepdown_loses_and_repeats_nothing(unique_name: str) -> None:
    async def main(server: MongoServer) -> None:
        url = with_database(server.url, unique_name)
        async with MongoStore(url) as store, AsyncMongoClient(server.url) as client:
            ids = [f"e{n}" for n in range(300)]
            await store.create([execution(item) for item in ids])
            fences: dict[str, int] = {}

            async def work(name: str) -> None:
                while len(fences) < len(ids):
                    try:
                        found = await store.claim(name, ["f"], limit=7, now=NOW)
                    except StoreUnavailable:
                        continue
                    for item in found:
                        assert item.id not in fences
                        fences[item.id] = item.fence
                    await asyncio.sleep(0.005)

            async def step_down() -> None:
                await asyncio.sleep(0.05)
                await client.admin.command("replSetStepDown", 1, force=True)

            await asyncio.gather(step_down(), *(work(f"w{n}") for n in range(3)))
            assert set(fences) == set(ids)
            assert set(fences.values()) == {1}

    with MongoServer() as server:
        asyncio.run(main(server))


def test_a_wrong_password_is_no_outage(mongo_server: MongoServer, unique_name: str) -> None:
    async def main() -> None:
        url = with_database(mongo_server.url, unique_name).replace("://", "://u:secret@")
        with pytest.raises(StoreUnusable, match="refuses the user"):
            async with MongoStore(url):
                pass

    asyncio.run(main())


def test_released_executions_are_free_for_others(url: str, proxy: Proxy) -> None:
    """A claim whose answer was lost and that was given back is not handed out twice."""

    async def main() -> None:
        async with MongoStore(url) as store:
            await store.create([execution("a"), execution("b")])
            proxy.drop_reply(containing=b"claimToken", times=4)
            with pytest.raises(StoreUnavailable):
                await store.claim("w", ["f"], limit=9, now=NOW, ids=["a", "b"])
            proxy.pass_all()
            for item in await eventually(lambda: store.get(["a", "b"])):
                assert not await store.update([release(item, now=NOW)])
            assert len(await store.claim("v", ["f"], limit=9, now=NOW)) == 2
            assert not await store.claim("w", ["f"], limit=9, now=NOW, ids=["a", "b"])

    asyncio.run(main())


def test_a_call_that_fails_after_its_caller_left_is_complained_of_to_nobody() -> None:
    async def fail() -> None:
        await asyncio.sleep(0.05)
        raise PyMongoError("operation exceeded time limit")

    async def main() -> None:
        complaints: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, told: complaints.append(told))
        caller = asyncio.create_task(lasting(fail()))
        await asyncio.sleep(0)
        caller.cancel()
        await asyncio.wait({caller})
        assert caller.cancelled()
        del caller  # it holds on to the call
        await asyncio.sleep(0.1)
        gc.collect()
        assert complaints == []

    asyncio.run(main())
