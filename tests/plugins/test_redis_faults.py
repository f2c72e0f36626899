from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError

from worchflow_core import Hint
from worchflow_core.testing.contracts.samples import execution, step
from worchflow_core.testing.proxy import Proxy
from worchflow_core.testing.servers import RedisServer
from worchflow_plugins.redis import RedisQueue, RedisStepCache
from worchflow_plugins.redis.breaker import Breaker
from worchflow_plugins.redis.faults import diagnosis

pytestmark = pytest.mark.servers

AT_ONCE = timedelta(0)


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    """A server that the test may kill."""
    with RedisServer(arguments=("--enable-debug-command", "yes")) as server:
        yield server


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[Proxy]:
    with Proxy(redis_server.port) as proxy:
        yield proxy


def hints(*ids: str) -> list[Hint]:
    return [Hint(execution=execution(item)) for item in ids]


async def eventually(call: Callable[[], Awaitable[Any]], *, seconds: float = 20.0) -> Any:
    """Repeat a call until it answers something."""
    end = time.monotonic() + seconds
    while True:
        try:
            answer = await call()
        except ConnectionError:
            answer = None
        if answer:
            return answer
        assert time.monotonic() < end, "it did not happen in time"
        await asyncio.sleep(0.05)


async def quickly(call: Awaitable[Any]) -> str:
    """Return what a call is refused with, which must be at once."""
    before = time.monotonic()
    with pytest.raises(ConnectionError) as caught:
        await call
    assert time.monotonic() - before < 0.2
    return str(caught.value)


# --- the breaker ----------------------------------------------------------------------------------


class Scripted:
    """A call that fails as long as it is told to, and counts."""

    def __init__(self) -> None:
        self.is_broken = True
        self.calls = 0
        self.now = 100.0
        self.told: list[str | None] = []

    async def __call__(self) -> str:
        self.calls += 1
        if self.is_broken:
            raise ConnectionError("gone")
        return "fine"


def test_an_open_breaker_refuses_at_once_and_probes_ever_more_rarely() -> None:
    async def main() -> None:
        script = Scripted()
        breaker = Breaker(script.told.append, clock=lambda: script.now)
        probes = []
        for _ in range(2000):
            before = script.calls
            with pytest.raises(ConnectionError, match="gone"):
                await breaker.call(script)
            if script.calls > before:
                probes.append(script.now)
            script.now += 0.01
        gaps = [later - earlier for earlier, later in pairwise(probes)]
        assert 0.37 <= gaps[0] <= 0.52
        assert all(1.49 <= gap <= 2.02 for gap in gaps[3:])
        assert script.told == ["gone"]
        script.is_broken = False
        script.now += 2
        assert await breaker.call(script) == "fine"
        assert await breaker.call(script) == "fine"
        assert script.told == ["gone", None]

    asyncio.run(main())


def test_a_server_that_was_silent_and_then_refuses_is_told_of_twice() -> None:
    async def main() -> None:
        told: list[str | None] = []
        now = 0.0
        breaker = Breaker(told.append, clock=lambda: now)
        silent = diagnosis(ConnectionError("Connection lost."), "here")
        refused = diagnosis(AuthenticationError("Authentication required."), "here")

        async def fail(text: str) -> None:
            raise ConnectionError(text)

        for text in (silent, silent, refused, refused, silent, refused):
            now += 5
            with pytest.raises(ConnectionError):
                await breaker.call(lambda text=text: fail(text))
        assert told == [silent, refused]

    asyncio.run(main())


def test_a_half_open_breaker_lets_one_call_through() -> None:
    async def main() -> None:
        script = Scripted()
        breaker = Breaker(clock=lambda: script.now)
        with pytest.raises(ConnectionError):
            await breaker.call(script)
        script.now += 2
        calls = script.calls
        gate = asyncio.Event()

        async def slow() -> str:
            await gate.wait()
            return await script()

        probe = asyncio.ensure_future(breaker.call(slow))
        await asyncio.sleep(0)
        for _ in range(5):
            with pytest.raises(ConnectionError):
                await breaker.call(script)
        assert script.calls == calls
        script.is_broken = False
        gate.set()
        assert await probe == "fine"
        assert not breaker.is_open

    asyncio.run(main())


def test_a_cancelled_probe_leaves_the_breaker_usable() -> None:
    async def main() -> None:
        script = Scripted()
        breaker = Breaker(clock=lambda: script.now)
        with pytest.raises(ConnectionError):
            await breaker.call(script)
        script.now += 2
        probe = asyncio.ensure_future(breaker.call(asyncio.Event().wait))
        await asyncio.sleep(0)
        probe.cancel()
        await asyncio.wait({probe})
        script.is_broken = False
        assert await breaker.call(script) == "fine"

    asyncio.run(main())


# --- servers that are away ------------------------------------------------------------------------


def test_a_server_that_is_away_refuses_at_once_and_is_found_again(
    own_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with RedisQueue(own_server.url) as queue, RedisStepCache(own_server.url) as cache:
            await queue.push(hints("before"))
            own_server.kill()
            for call in (queue.push(hints("a")), cache.put([step("a")])):
                with pytest.raises(ConnectionError):
                    await call
            assert "does not answer" in await quickly(queue.push(hints("a")))
            assert "does not answer" in await quickly(cache.get_all([execution("a")]))
            for _ in range(50):
                with pytest.raises(ConnectionError):
                    await queue.pop(["f"], limit=5, wait=timedelta(seconds=2))
            await asyncio.to_thread(own_server.start)

            async def pushed() -> bool:
                await queue.push(hints("after"))
                return True

            await eventually(pushed)
            pop = queue.pop
            assert await eventually(lambda: pop(["f"], limit=5, wait=AT_ONCE)) == ["after"]

    with caplog.at_level(logging.INFO, logger="worchflow.redis"):
        asyncio.run(main())
    assert len(caplog.records) <= 4


def test_a_queue_opens_while_its_server_is_away(own_server: RedisServer) -> None:
    async def main() -> None:
        own_server.kill()
        async with RedisQueue(own_server.url) as queue:
            (finding,) = await queue.check()
            assert finding.level == "problem"
            with pytest.raises(ConnectionError):
                await queue.push(hints("a"))
            await asyncio.to_thread(own_server.start)

            async def pushed() -> bool:
                await queue.push(hints("a"))
                return True

            await eventually(pushed)

    asyncio.run(main())


def test_a_frozen_server_is_given_up_and_found_again(own_server: RedisServer) -> None:
    async def main() -> None:
        async with RedisQueue(own_server.url) as queue:
            await queue.push(hints("a"))
            own_server.pause()
            before = time.monotonic()
            with pytest.raises(ConnectionError):
                await queue.push(hints("b"))
            with pytest.raises(ConnectionError):
                await queue.pop(["f"], limit=1, wait=timedelta(seconds=2))
            assert time.monotonic() - before < 15
            own_server.resume()
            found = await eventually(lambda: queue.pop(["f"], limit=1, wait=AT_ONCE))
            assert found == ["a"]

    asyncio.run(main())


def test_a_blocking_pop_outlives_a_black_hole(proxy: Proxy, unique_name: str) -> None:
    async def main() -> None:
        url = f"redis://127.0.0.1:{proxy.port}/0"
        async with RedisQueue(url, prefix=unique_name) as queue:
            pop = asyncio.ensure_future(queue.pop(["f"], limit=1, wait=timedelta(seconds=60)))

            async def waits() -> bool:
                return proxy.accepted >= 2

            await eventually(waits)
            proxy.black_hole()
            with pytest.raises(ConnectionError):
                await asyncio.wait_for(pop, 20)
            proxy.pass_all()

            async def pushed() -> bool:
                await queue.push(hints("a"))
                return True

            await eventually(pushed)
            assert await eventually(lambda: queue.pop(["f"], limit=1, wait=AT_ONCE)) == ["a"]

    asyncio.run(main())


def test_lost_replies_cost_a_hint_or_double_it_and_nothing_else(
    proxy: Proxy, unique_name: str
) -> None:
    async def main() -> None:
        url = f"redis://127.0.0.1:{proxy.port}/0"
        async with RedisQueue(url, prefix=unique_name) as queue:
            await queue.view()
            proxy.drop_reply(containing=b"RPUSH")
            with pytest.raises(ConnectionError):
                await queue.push(hints("a"))

            async def pushed() -> bool:
                await queue.push(hints("a"))
                return True

            await eventually(pushed)
            view = await queue.view()
            assert view is not None
            assert view.head == ("a", "a")
            proxy.drop_reply(containing=b"LPOP")
            with pytest.raises(ConnectionError):
                await queue.pop(["f"], limit=1, wait=AT_ONCE)
            assert await eventually(lambda: queue.pop(["f"], limit=9, wait=AT_ONCE)) == ["a"]
            assert proxy.dropped == 2

    asyncio.run(main())


def test_a_wiped_server_is_told_by_its_epoch(redis_url: str, own_server: RedisServer) -> None:
    async def main() -> None:
        async with RedisQueue(own_server.url) as queue, Redis.from_url(own_server.url) as client:
            await queue.push(hints("a"))
            before = await queue.view()
            await client.flushall()
            after = await queue.view()
            assert before is not None
            assert after is not None
            assert (before.length, after.length) == (1, 0)
            assert before.epoch != after.epoch
            own_server.restart()
            again = await eventually(queue.view)
            assert again.epoch not in (before.epoch, after.epoch)

    asyncio.run(main())


def test_hints_survive_a_restart_with_an_append_only_file() -> None:
    async def main(server: RedisServer) -> None:
        async with RedisQueue(server.url) as queue:
            await queue.push(hints("a"))
            before = await queue.view()
            server.restart()
            after = await eventually(queue.view)
            assert after == before

    with RedisServer(arguments=("--appendonly", "yes", "--appendfsync", "always")) as server:
        asyncio.run(main(server))


# --- servers that refuse --------------------------------------------------------------------------


def test_a_queue_key_of_another_type_is_diagnosed_without_a_hot_loop(
    redis_url: str, unique_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with RedisQueue(redis_url, prefix=unique_name) as queue:
            async with Redis.from_url(redis_url) as client:
                await client.set(f"{unique_name}:queue", "x")
                with pytest.raises(ConnectionError, match="key of another type"):
                    await queue.pop(["f"], limit=1, wait=AT_ONCE)
                before = (await client.info("commandstats"))["cmdstat_lpop"]["calls"]
                end = time.monotonic() + 1.0
                while time.monotonic() < end:
                    with pytest.raises(ConnectionError, match="WORCHFLOW_PREFIX"):
                        await queue.pop(["f"], limit=1, wait=timedelta(seconds=1))
                    await asyncio.sleep(0)
                after = (await client.info("commandstats"))["cmdstat_lpop"]["calls"]
                assert after - before <= 3
                await queue.mirror([execution("a")])
                await client.delete(f"{unique_name}:queue")
            await queue.push(hints("a"))
            assert await eventually(lambda: queue.pop(["f"], limit=1, wait=AT_ONCE)) == ["a"]

    with caplog.at_level(logging.INFO, logger="worchflow.redis"):
        asyncio.run(main())
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_a_missing_or_wrong_password_is_diagnosed() -> None:
    async def main(server: RedisServer) -> None:
        place = f"127.0.0.1:{server.port}/0"
        for url in (f"redis://{place}", f"redis://:wrong@{place}"):
            async with RedisQueue(url) as queue:
                with pytest.raises(ConnectionError, match="refuses user or password") as caught:
                    await queue.push(hints("a"))
                assert "wrong@" not in str(caught.value)
                (finding,) = await queue.check()
                assert finding.level == "problem"
                assert "refuses user or password" in finding.text
        async with RedisQueue(server.url) as queue:
            await queue.push(hints("a"))
            assert "secret" not in queue.describe()

    with RedisServer(password="secret") as server:
        asyncio.run(main(server))


def test_a_replica_is_diagnosed(own_server: RedisServer) -> None:
    async def main() -> None:
        async with RedisQueue(own_server.url) as queue, Redis.from_url(own_server.url) as client:
            await client.execute_command("REPLICAOF", "127.0.0.1", "1")
            for call in (queue.push(hints("a")), queue.pop(["f"], limit=1, wait=AT_ONCE)):
                with pytest.raises(ConnectionError, match="read-only replica"):
                    await call
            levels = {finding.subject: finding.level for finding in await queue.check()}
            assert levels["role"] == "problem"
            await client.execute_command("REPLICAOF", "NO", "ONE")
            assert (await eventually(queue.view)).length == 0

    asyncio.run(main())


def test_a_full_server_still_gives_out_its_hints(own_server: RedisServer) -> None:
    async def main() -> None:
        async with RedisQueue(own_server.url) as queue, Redis.from_url(own_server.url) as client:
            await queue.push(hints("a", "b"))
            await client.config_set("maxmemory", 1)
            with pytest.raises(ConnectionError, match="is full"):
                await queue.push(hints("c"))
            assert await queue.pop(["f"], limit=1, wait=AT_ONCE) == ["a"]
            assert await queue.pop(["f"], limit=1, wait=timedelta(seconds=1)) == ["b"]
            levels = {finding.subject: finding.level for finding in await queue.check()}
            assert levels["memory"] == "warning"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("answer", "diagnosis"),
    [
        ("LOADING Redis is loading the dataset in memory", "is still loading its data"),
        ("NOPERM User u has no permissions to run the 'hset' command", "its ACL must allow"),
        ("MISCONF Redis is configured to save RDB snapshots, but it can't", "look at its disk"),
        ("MOVED 866 127.0.0.1:6381", "put braces into WORCHFLOW_PREFIX"),
        ("ERR something new", "refused: something new"),
    ],
)
def test_what_a_server_refuses_is_diagnosed(answer: str, diagnosis: str) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            for _ in range(data.count(b"*")):
                writer.write(f"-{answer}\r\n".encode())
        writer.close()

    async def main() -> None:
        async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with RedisQueue(f"redis://127.0.0.1:{port}/0?protocol=2") as queue:
                with pytest.raises(ConnectionError, match=diagnosis):
                    await queue.push(hints("a"))

    asyncio.run(main())


def test_a_policy_that_evicts_hints_is_warned_of(own_server: RedisServer) -> None:
    async def main() -> None:
        async with RedisQueue(own_server.url) as queue, Redis.from_url(own_server.url) as client:
            await client.config_set("maxmemory-policy", "allkeys-lru")
            found = {finding.subject: finding for finding in await queue.check()}
            assert found["memory"].level == "warning"
            assert "allkeys-lru" in found["memory"].text

    asyncio.run(main())


def test_a_forked_child_is_told(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with RedisQueue(redis_url) as queue:
            own = os.getpid()
            monkeypatch.setattr(os, "getpid", lambda: own + 1)
            with pytest.raises(ConnectionError, match="forked child"):
                await queue.push(hints("a"))

    asyncio.run(main())
