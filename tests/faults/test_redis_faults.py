"""Faults of Redis under real workers: it may lose, refuse and delay all it likes.

Each test's number is its row in docs/reliability.md. Leases last a second here, so an outage of a
few seconds is one of several leases.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.faults.arena import Arena, Place
from tests.faults.checker import checked, guarded
from tests.faults.processes import WorkerProcess
from worchflow_core import Worker
from worchflow_core.testing.fixtures import running
from worchflow_core.testing.proxy import Proxy
from worchflow_core.testing.servers import RedisServer

pytestmark = pytest.mark.servers
ACT: dict[str, object] = {"do": "act"}
FAIL_ONCE: dict[str, object] = {"do": "fail", "times": 1}


@pytest.fixture
def place(
    mongodb_url: str, own_redis: RedisServer, unique_name: str, tmp_path: Path
) -> Iterator[Place]:
    """MongoDB, and a Redis of the test's own."""
    yield from guarded(
        Place(
            directory=tmp_path,
            store_url=mongodb_url,
            queue_url=own_redis.url,
            prefix=unique_name,
        )
    )


@asynccontextmanager
async def talking(server: RedisServer) -> AsyncIterator[Any]:
    """Speak with a Redis as any program does; its answers are text."""
    async with Redis.from_url(server.url, decode_responses=True) as client:
        yield client


async def length(arena: Arena, server: RedisServer) -> int:
    """Return how many hints are queued."""
    async with talking(server) as client:
        return int(await client.llen(f"{arena.place.prefix}:queue"))


async def popped(server: RedisServer) -> int:
    """Return how often hints were asked for since the server started."""
    async with talking(server) as client:
        stats = await client.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("lpop", "blpop"))


async def hold_all(arena: Arena, count: int) -> list[str]:
    """Send executions that hold at the gate, and return once each of them does."""
    ids = [await arena.send(ACT, arena.gate(), ACT) for _ in range(count)]
    for execution_id in ids:
        await arena.running(execution_id, "2-hold")
    return ids


async def alive(arena: Arena, *workers: WorkerProcess) -> dict[int, str]:
    """Return the ids of workers by process, once all of them work."""
    records: list[Worker] = [await arena.ready(worker) for worker in workers]
    return {record.pid: record.id for record in records}


async def nobody_died(arena: Arena, before: Mapping[int, str]) -> None:
    """See that workers are still known under their ids, and that none lost an execution."""
    assert {item.pid: item.id for item in await arena.store.workers()} == before
    for execution in await arena.store.get(list(arena.expected)):
        assert execution.crashes == 0
    assert "declared dead" not in arena.logs()


def ran_once(arena: Arena, *ids: str) -> None:
    """See that no step of these ran twice."""
    for execution_id in ids:
        assert set(arena.runs(execution_id).values()) <= {1}, arena.runs(execution_id)


async def resumed(arena: Arena, server: RedisServer) -> None:
    """See that workers take hints again, without having been started anew."""
    before = await popped(server)

    async def takes_hints() -> bool:
        return await popped(server) > before and await length(arena, server) == 0

    await arena.ended_one(await arena.send(ACT))
    await arena.until(takes_hints, "hints to be taken again")


@checked
async def test_killed_without_a_file(arena: Arena, own_redis: RedisServer) -> None:
    """F15: what was queued is hinted again, what runs goes on, and no step is repeated."""
    workers = [arena.start(name, concurrency=5) for name in ("one", "two")]
    before = await alive(arena, *workers)
    held = await hold_all(arena, 10)
    queued = [await arena.send(ACT, FAIL_ONCE) for _ in range(100)]
    own_redis.restart()
    assert await length(arena, own_redis) == 0

    async def is_refilled() -> bool:
        return await length(arena, own_redis) >= len(queued)

    await arena.until(is_refilled, "the backlog to be hinted again", within=10)
    arena.open_gate()
    await arena.ended(*held, *queued)
    for execution_id in queued:
        assert arena.runs(execution_id) == {"1-act": 1, "2-fail": 2}
    ran_once(arena, *held)
    await nobody_died(arena, before)


@pytest.mark.parametrize("kept", ["append-only file", "old snapshot"])
def test_restarted_from_a_file(kept: str, request: pytest.FixtureRequest) -> None:
    """F16: ids of executions that ended since are dropped by the claim."""
    files = ("--appendonly", "yes", "--appendfsync", "everysec")
    has_file = kept == "append-only file"
    for server in running(lambda: RedisServer(arguments=files if has_file else ())):
        place = Place(
            directory=request.getfixturevalue("tmp_path"),
            store_url=request.getfixturevalue("mongodb_url"),
            queue_url=server.url,
            prefix=request.getfixturevalue("unique_name"),
        )
        checked(_restart_from_a_file)(place=place, server=server, has_file=has_file)


async def _restart_from_a_file(arena: Arena, server: RedisServer, has_file: bool) -> None:
    old = [await arena.send(ACT) for _ in range(20)]
    async with talking(server) as client:
        if has_file:
            await asyncio.sleep(1.5)  # the file is synced once a second
        else:
            await client.save()
    before = await alive(arena, arena.start("one"))
    ended = await arena.ended(*old)
    new = [await arena.send(ACT, ACT) for _ in range(20)]
    await asyncio.to_thread(server.restart)
    await arena.ended(*new)
    await resumed(arena, server)
    assert {item.id: item for item in await arena.store.get(old)} == {
        item.id: item for item in ended
    }
    ran_once(arena, *old, *new)
    await nobody_died(arena, before)


@checked
async def test_emptied_every_second(arena: Arena, own_redis: RedisServer) -> None:
    """F17: under load for 20 seconds all complete, and no recorded step runs again."""
    workers = [arena.start(name, concurrency=5) for name in ("one", "two")]
    before = await alive(arena, *workers)
    sent: list[str] = []
    async with talking(own_redis) as client:
        end = time.monotonic() + 20
        while time.monotonic() < end:
            sent += [await arena.send(ACT, FAIL_ONCE, ACT) for _ in range(15)]
            await client.flushall()
            await asyncio.sleep(0.7)
    await arena.ended(*sent)
    assert len(sent) >= 150
    for execution_id in sent:
        assert arena.runs(execution_id) == {"1-act": 1, "2-fail": 2, "3-act": 1}
    await nobody_died(arena, before)


@checked
async def test_away_for_several_leases(arena: Arena, own_redis: RedisServer) -> None:
    """F18: sends succeed and run meanwhile, quietly; hints are taken again without a restart."""
    worker = arena.start("one")
    before = await alive(arena, worker)
    await arena.ended_one(await arena.send(ACT))
    own_redis.stop()
    said, used = len(worker.log().splitlines()), _cpu_seconds(worker.pid)
    began = time.monotonic()
    meanwhile = [await arena.send(ACT, FAIL_ONCE) for _ in range(30)]
    await arena.ended(*meanwhile)
    await asyncio.sleep(max(0.0, began + 5 - time.monotonic()))
    busy = (_cpu_seconds(worker.pid) - used) / (time.monotonic() - began)
    assert busy < 0.25, f"{busy:.0%} of a core, mostly for waiting"
    assert len(worker.log().splitlines()) - said < 20, worker.log()
    await asyncio.to_thread(own_redis.start)
    await resumed(arena, own_redis)
    await nobody_died(arena, before)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@checked
async def test_full(arena: Arena, own_redis: RedisServer) -> None:
    """F19: a Redis that takes no writes still gives its hints out; sends succeed; it is told."""
    before = await alive(arena, arena.start("one", concurrency=5))
    held = await hold_all(arena, 5)
    queued = [await arena.send(ACT) for _ in range(20)]
    async with talking(own_redis) as client:
        await client.config_set("maxmemory", 1)
        sent = [await arena.send(ACT) for _ in range(20)]
        assert await length(arena, own_redis) >= len(queued) // 2
        arena.open_gate()
        await arena.ended(*held, *queued, *sent)

        async def is_drained() -> bool:
            return await length(arena, own_redis) == 0

        await arena.until(is_drained, "the list to be drained")
        findings = {item.subject: item for item in await arena.client.check()}
        assert findings["memory"].level == "warning"
        await client.config_set("maxmemory", 0)
    await resumed(arena, own_redis)
    ran_once(arena, *held, *queued, *sent)
    await nobody_died(arena, before)


@checked
async def test_evicting(arena: Arena, own_redis: RedisServer) -> None:
    """F20: queue and hashes are thrown away, and nothing is lost; workers warn of the policy."""
    async with talking(own_redis) as client:
        await client.config_set("maxmemory-policy", "allkeys-lru")
        worker = arena.start("one", concurrency=5)
        before = await alive(arena, worker)
        held = await hold_all(arena, 5)
        queued = [await arena.send(ACT, FAIL_ONCE) for _ in range(40)]
        used = (await client.info("memory"))["used_memory"]
        await client.config_set("maxmemory", used + 100_000)
        for number in range(300):
            await client.set(f"junk:{number}", "x" * 20_000)
        async for key in client.scan_iter(f"{arena.place.prefix}:*"):
            assert not key.endswith(":queue"), "the queue was to be evicted"
        assert (await client.info("stats"))["evicted_keys"] > 300
    arena.open_gate()
    await arena.ended(*held, *queued)
    ran_once(arena, *held)
    assert "allkeys-lru" in worker.log()
    await nobody_died(arena, before)


@pytest.mark.parametrize("how", ["paused", "asleep", "stopped"])
def test_silent(how: str, place: Place, own_redis: RedisServer) -> None:
    """F21: a Redis that does not answer delays no heartbeat; work goes on through the store."""
    checked(_silent)(place=place, own_redis=own_redis, how=how)


async def _silent(arena: Arena, own_redis: RedisServer, how: str) -> None:
    before = await alive(arena, *(arena.start(name) for name in ("one", "two")))
    await arena.ended_one(await arena.send(ACT))
    async with talking(own_redis) as client:
        match how:
            case "paused":
                await client.execute_command("CLIENT", "PAUSE", 6000, "ALL")
            case "asleep":
                sleeping = asyncio.create_task(_sleep(own_redis, 6))
            case "stopped":
                own_redis.pause()
    meanwhile = [await arena.send(ACT, FAIL_ONCE) for _ in range(20)]
    began = time.monotonic()
    await arena.ended(*meanwhile)
    await asyncio.sleep(max(0.0, began + 4 - time.monotonic()))  # four leases of silence
    if how == "stopped":
        own_redis.resume()
    elif how == "asleep":
        await sleeping
    await resumed(arena, own_redis)
    await nobody_died(arena, before)


async def _sleep(server: RedisServer, seconds: int) -> None:
    """Let a Redis run a script that turns in circles: DEBUG SLEEP is refused by default."""
    script = (
        "local began = redis.call('TIME')[1] "
        "while redis.call('TIME')[1] - began < tonumber(ARGV[1]) do end return 1"
    )
    async with Redis.from_url(server.url, socket_timeout=60) as client:
        await client.eval(script, 0, str(seconds))


@pytest.fixture
def proxy(own_redis: RedisServer) -> Iterator[Proxy]:
    with Proxy(own_redis.port) as found:
        yield found


@checked
async def test_half_open(arena: Arena, own_redis: RedisServer, proxy: Proxy) -> None:
    """F22: a connection that leads nowhere is given up within its timeout, and made anew."""
    worker = arena.start("one", queue_url=f"redis://127.0.0.1:{proxy.port}/0")
    before = await alive(arena, worker)
    await arena.ended_one(await arena.send(ACT))
    proxy.black_hole()
    meanwhile = [await arena.send(ACT, ACT) for _ in range(10)]
    await arena.ended(*meanwhile)

    async def is_noticed() -> bool:
        return "no hints until it is mended" in worker.log()

    await arena.until(is_noticed, "the worker to notice", within=15)
    proxy.pass_all()
    await resumed(arena, own_redis)
    ran_once(arena, *meanwhile)
    await nobody_died(arena, before)


@checked
async def test_replies_lost(arena: Arena, own_redis: RedisServer, proxy: Proxy) -> None:
    """F22: a push or pop whose reply is lost doubles or loses a hint, and nothing else."""
    worker = arena.start("one", queue_url=f"redis://127.0.0.1:{proxy.port}/0")
    before = await alive(arena, worker)
    await arena.ended_one(await arena.send(ACT))
    for command in (b"LPOP", b"BLPOP", b"RPUSH"):
        dropped = proxy.dropped
        proxy.drop_reply(containing=command)
        # One that fails is pushed by its worker when its time has come.
        sent = [await arena.send(ACT, FAIL_ONCE) for _ in range(5)]
        await arena.ended(*sent)
        if command == b"BLPOP":
            await arena.ended_one(await arena.send(ACT))
        await arena.until(lambda seen=dropped: _more(proxy, seen), f"a reply to {command!r}")
        for execution_id in sent:
            assert arena.runs(execution_id) == {"1-act": 1, "2-fail": 2}
    await resumed(arena, own_redis)
    await nobody_died(arena, before)


async def _more(proxy: Proxy, than: int) -> bool:
    return proxy.dropped > than


@pytest.mark.parametrize("fault", ["wrong type", "replica", "password"])
def test_refusing(fault: str, place: Place, own_redis: RedisServer) -> None:
    """F23: the reason is said once, the store is polled without haste, and it resumes by itself."""
    checked(_refusing)(place=place, own_redis=own_redis, fault=fault)


async def _refusing(arena: Arena, own_redis: RedisServer, fault: str) -> None:
    worker = arena.start("one")
    before = await alive(arena, worker)
    await arena.ended_one(await arena.send(ACT))
    queue = f"{arena.place.prefix}:queue"
    told = {
        "wrong type": "key of another type",
        "replica": "read-only replica",
        "password": "refuses user or password",
    }
    async with talking(own_redis) as client:
        match fault:
            case "wrong type":
                await client.delete(queue)
                await client.set(queue, "x")
            case "replica":
                await client.execute_command("REPLICAOF", "127.0.0.1", "1")
            case "password":
                await client.config_set("requirepass", "another")
                await client.execute_command("CLIENT", "KILL", "SKIPME", "yes", "TYPE", "normal")
        meanwhile = [await arena.send(ACT) for _ in range(10)]
        await arena.ended(*meanwhile)
        await arena.until(lambda: _says(worker, told[fault]), "the reason to be said")
        await asyncio.sleep(2)
        assert len(worker.log().splitlines()) < 20, worker.log()
        match fault:
            case "wrong type":
                await client.delete(queue)
            case "replica":
                await client.execute_command("REPLICAOF", "NO", "ONE")
            case "password":
                await client.config_set("requirepass", "")
    await resumed(arena, own_redis)
    ran_once(arena, *meanwhile)
    await nobody_died(arena, before)


async def _says(worker: WorkerProcess, text: str) -> bool:
    return text in worker.log()


@checked
async def test_garbage(arena: Arena, own_redis: RedisServer) -> None:
    """F24: what is no id, or nobody's, is dropped; it reaches no path and no log as it is."""
    worker = arena.start("one")
    before = await alive(arena, worker)
    foreign = await arena.send(ACT)
    async with Redis.from_url(own_redis.url) as client:
        garbage = [b"x" * 1_000_000, b"\xff\xfe\x00", b"a\nb\x1b[31m", b"../../etc/passwd", b"\x00"]
        await client.rpush(f"{arena.place.prefix}:queue", *garbage, "unknown", f"other:{foreign}")
    await resumed(arena, own_redis)
    assert "\x1b" not in worker.log()
    assert all(len(line) < 400 for line in worker.log().splitlines())
    await nobody_died(arena, before)
