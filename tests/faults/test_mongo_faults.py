"""Faults of MongoDB under real workers: nothing acknowledged is lost, nothing recorded runs again.

Each test's number is its row in docs/reliability.md. The queue is left out: with MongoDB alone
every step of the way depends on the server that fails.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from tests.faults.arena import Arena, Place
from tests.faults.checker import checked
from tests.faults.processes import WorkerProcess
from worchflow_core import Status, StoreUnavailable
from worchflow_core.testing.fixtures import running, with_database
from worchflow_core.testing.proxy import Proxy
from worchflow_core.testing.servers import MongoServer

pytestmark = [
    pytest.mark.servers,
    # PyMongo's monitor leaves its socket to the garbage collector when closed while it connects.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]
ACT: dict[str, object] = {"do": "act"}
FAIL_ONCE: dict[str, object] = {"do": "fail", "times": 1}
PATIENT = {"lease": "3s", "heartbeat": "0.5s"}
LEASE = 3.0


@pytest.fixture(params=["replica set"])
def server(request: pytest.FixtureRequest) -> Iterator[MongoServer]:
    """A MongoDB of the test's own; some tests also ask for one that stands alone."""
    yield from running(lambda: MongoServer(standalone=request.param == "standalone"))


@pytest.fixture
def place(server: MongoServer, unique_name: str, tmp_path: Path) -> Place:
    """MongoDB alone, on that server; an outage is noticed within half a second."""
    url = with_database(server.url, unique_name) + "&serverSelectionTimeoutMS=1000"
    return Place(directory=tmp_path, store_url=url, prefix=unique_name)


@pytest.fixture
def proxy(server: MongoServer) -> Iterator[Proxy]:
    with Proxy(server.port) as found:
        yield found


def through(proxy: Proxy, place: Place, **options: object) -> str:
    """Return the store's URL by way of the proxy: drivers would find the way around it."""
    more = "".join(f"&{name}={value}" for name, value in options.items())
    return f"mongodb://127.0.0.1:{proxy.port}/{place.prefix}?directConnection=true{more}"


async def ids_of(arena: Arena, *workers: WorkerProcess) -> dict[int, str]:
    """Return the ids of workers by process, once all of them work."""
    return {item.pid: item.id for item in [await arena.ready(worker) for worker in workers]}


async def nobody_died(arena: Arena, before: dict[int, str]) -> None:
    """See that no worker had to begin anew, and that no execution was taken from one."""

    async def ids() -> Any:
        try:
            return {item.pid: item.id for item in await arena.store.workers()}
        except StoreUnavailable:
            return None

    assert await arena.until(ids, "the workers to be read") == before
    for execution in await arena.store.get(list(arena.expected)):
        assert execution.crashes == 0
    assert "declared dead" not in arena.logs()


async def send_surely(arena: Arena, number: int, *steps: dict[str, object]) -> str:
    """Send under one id until it is acknowledged, as a caller does in an outage."""
    execution_id = f"order-{number}"
    deadline = time.monotonic() + 30
    while True:
        try:
            return await arena.send(*steps, execution_id=execution_id)
        except StoreUnavailable as error:
            if error.execution_id != execution_id or time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)


def ran(arena: Arena, execution_id: str) -> dict[str, int]:
    return dict(arena.runs(execution_id))


@pytest.mark.parametrize("leases", [0.2, 3.5], ids=["short", "several leases"])
def test_killed(leases: float, place: Place, server: MongoServer) -> None:
    """F25: what was acknowledged is there; results wait in memory; nobody is declared dead."""
    checked(_killed)(place=place, server=server, leases=leases)


async def _killed(arena: Arena, server: MongoServer, leases: float) -> None:
    workers = [arena.start(name, **PATIENT, concurrency=5) for name in ("one", "two")]
    before = await ids_of(arena, *workers)
    held = [await arena.send(ACT, arena.gate(), ACT) for _ in range(4)]
    for execution_id in held:
        await arena.running(execution_id, "2-hold")
    sending = asyncio.create_task(_load(arena, 60))
    await arena.until(lambda: _began(arena, "order-10"), "some of the load to run")
    began = time.monotonic()
    await asyncio.to_thread(server.kill)
    arena.open_gate()  # these steps end while there is no server to record them
    await asyncio.sleep(max(0.0, began + leases * LEASE - time.monotonic()))
    await asyncio.to_thread(server.start)
    sent = await sending
    await _reachable(arena)
    await arena.ended(*held, *sent)
    for execution_id in held:
        assert ran(arena, execution_id) == {"1-act": 1, "2-hold": 1, "3-act": 1}
    for execution_id in sent:
        assert ran(arena, execution_id) == {"1-act": 1, "2-fail": 2}
    await nobody_died(arena, before)


async def _load(arena: Arena, count: int) -> list[str]:
    sent = []
    for number in range(count):
        sent.append(await send_surely(arena, number, ACT, FAIL_ONCE))
        await asyncio.sleep(0.02)
    return sent


async def _began(arena: Arena, execution_id: str) -> bool:
    return bool(arena.runs(execution_id))


async def _reachable(arena: Arena) -> None:
    async def answers() -> bool:
        try:
            await arena.store.workers()
        except StoreUnavailable:
            return False
        return True

    await arena.until(answers, "the server to answer")


@checked
async def test_stepdown(arena: Arena, server: MongoServer) -> None:
    """F26: a primary that steps down twice costs a pause: no attempt fails, none is doubled."""
    before = await ids_of(arena, *(arena.start(name, **PATIENT) for name in ("one", "two")))
    sending = asyncio.create_task(_load(arena, 80))
    for _ in range(2):
        await asyncio.sleep(0.3)
        await asyncio.to_thread(_step_down, server)
        await asyncio.sleep(2)
    sent = await sending
    await _reachable(arena)
    for execution in await arena.ended(*sent):
        # The one attempt that it was told to fail; no claim was lost or made twice.
        assert (execution.failed_attempts, execution.fence) == (1, 2)
        assert ran(arena, execution.id) == {"1-act": 1, "2-fail": 2}
    await nobody_died(arena, before)


def _step_down(server: MongoServer) -> None:
    with MongoClient[Any](server.url, directConnection=True) as client:
        client.admin.command("replSetStepDown", 1, force=True)


LOST = {
    "send": b"eventData",
    "claim": b"claimToken",
    "step": b"stepId",
    "complete": b"writeToken",
}
"""What a request holds whose reply gets lost."""


@pytest.mark.parametrize("server", ["replica set", "standalone"], indirect=True)
@checked
async def test_replies_lost(arena: Arena, proxy: Proxy) -> None:
    """F27: a write whose reply is lost counts once: sent, claimed, recorded and settled."""
    url = through(proxy, arena.place)
    worker = arena.start("one", **PATIENT, store_url=url)
    before = await ids_of(arena, worker)
    for what, needle in LOST.items():
        for _ in range(3):
            dropped = proxy.dropped
            proxy.drop_reply(containing=needle)
            sent = await _send_by(arena, url) if what == "send" else [await arena.send(ACT, ACT)]
            await arena.until(lambda seen=dropped: _more(proxy, seen), f"a lost reply to {what}")
            for execution in await arena.ended(*sent):
                assert ran(arena, execution.id) == {"1-act": 1, "2-act": 1}, what
                assert execution.fence == 1, what
    await nobody_died(arena, before)


async def _send_by(arena: Arena, url: str) -> list[str]:
    """Send from a process of its own, whose way to the server is the given one."""
    execution_id = f"by-proxy-{len(arena.workers)}"
    sender = arena.start_client(
        "send",
        settings={"store_url": url},
        function="play",
        data={"steps": [ACT, ACT]},
        id=execution_id,
    )
    assert await sender.exit_code() == 0
    arena.expected[execution_id] = Status.COMPLETED
    return [execution_id]


async def _more(proxy: Proxy, than: int) -> bool:
    return proxy.dropped > than


@checked
async def test_write_concern_errors(arena: Arena, server: MongoServer) -> None:
    """F28: a write that is not yet safe is no success; it is read back, and counts once."""
    before = await ids_of(arena, *(arena.start(name, **PATIENT) for name in ("one", "two")))
    with MongoClient[Any](server.url) as client:
        for command in ("insert", "update", "findAndModify"):
            client.admin.command(
                "configureFailPoint",
                "failCommand",
                mode={"times": 8},
                data={
                    "failCommands": [command],
                    "appName": "worchflow",
                    "writeConcernError": {"code": 64, "errmsg": "waiting timed out"},
                },
            )
            base = len(arena.expected)
            sent = [await send_surely(arena, base + n, ACT, FAIL_ONCE) for n in range(10)]
            for execution in await arena.ended(*sent):
                assert execution.failed_attempts == 1
                assert ran(arena, execution.id) == {"1-act": 1, "2-fail": 2}
        client.admin.command("configureFailPoint", "failCommand", mode="off")
    await nobody_died(arena, before)


@checked
async def test_frozen(arena: Arena, server: MongoServer) -> None:
    """F29: a server that stands still for longer than a lease kills nobody."""
    before = await ids_of(arena, *(arena.start(name, **PATIENT) for name in ("one", "two")))
    sending = asyncio.create_task(_load(arena, 60))
    await arena.until(lambda: _began(arena, "order-5"), "some of the load to run")
    server.pause()
    await asyncio.sleep(LEASE * 1.5)
    server.resume()
    sent = await sending
    await _reachable(arena)
    for execution in await arena.ended(*sent):
        assert ran(arena, execution.id) == {"1-act": 1, "2-fail": 2}
    await nobody_died(arena, before)


@checked
async def test_slow(arena: Arena, server: MongoServer, proxy: Proxy) -> None:
    """F29: half a second more on each way is slower and correct, over few connections."""
    url = through(proxy, arena.place, maxPoolSize=20)
    spans = {"lease": "12s", "heartbeat": "2s", "grace": "15s"}
    worker = arena.start("one", **spans, store_url=url, concurrency=50)
    before = await ids_of(arena, worker)
    proxy.delay(0.5)
    sent = [await arena.send(ACT, ACT) for _ in range(50)]
    for execution in await arena.ended(*sent, within=60):
        assert ran(arena, execution.id) == {"1-act": 1, "2-act": 1}
    # Its pool, the heart's two, and what watches the server for each of both.
    assert proxy.accepted <= 20 + 2 + 6, proxy.accepted
    assert "heartbeat failed" not in worker.log()
    proxy.pass_all()
    await nobody_died(arena, before)


@checked
async def test_partition(arena: Arena, proxy: Proxy) -> None:
    """F31: a worker that is cut off writes nothing once its lease is over, and begins anew."""
    url = through(proxy, arena.place, serverSelectionTimeoutMS=300, socketTimeoutMS=500)
    cut_off = arena.start("cut-off", **PATIENT, store_url=url)
    before = await ids_of(arena, cut_off)
    execution_id = await arena.send(ACT, arena.gate("mine"), ACT)
    await arena.running(execution_id, "2-hold")
    heir = arena.start("heir", **PATIENT)
    await arena.ready(heir)
    proxy.black_hole()
    await arena.running(execution_id, "2-hold", times=2)
    arena.open_gate("mine")  # both have a result now, and one of them may not write it
    ended = await arena.ended_one(execution_id)
    assert ended.fence == 2
    values = {item.value for item in arena.traces() if (item.step, item.fence) == ("2-hold", 2)}
    assert values <= set(_result(ended.result))
    proxy.pass_all()

    async def is_reborn() -> bool:
        return any(
            item.pid == cut_off.pid and item.id != before[cut_off.pid]
            for item in await arena.store.workers()
        )

    await arena.until(is_reborn, "the worker to begin anew")
    heir.terminate()
    assert await heir.exit_code() == 0
    await arena.ended_one(await arena.send(ACT))  # the one that was cut off works again
    assert await arena.store.get([execution_id]) == [ended]


def _result(text: str | None) -> list[str]:
    return [str(item) for item in json.loads(text or "[]")]


@checked
async def test_small_pool(arena: Arena) -> None:
    """F32: 200 steps at once over 10 connections wait for each other; the heart has its own."""
    url = f"{arena.place.store_url}&maxPoolSize=10"
    worker = arena.start("one", **PATIENT, store_url=url, concurrency=200)
    before = await ids_of(arena, worker)
    sent = [await arena.send({"do": "sleep", "seconds": 0.2}, ACT) for _ in range(200)]
    for execution in await arena.ended(*sent, within=60):
        assert ran(arena, execution.id) == {"1-sleep": 1, "2-act": 1}
    assert "heartbeat failed" not in worker.log()
    assert "the store is away" not in worker.log()
    await nobody_died(arena, before)
