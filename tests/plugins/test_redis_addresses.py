"""Every kind of address: TLS, a socket file, sentinels and their failover, a cluster's node."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from worchflow_core import Hint, Settings, SettingsError, Worchflow
from worchflow_core.testing.contracts.samples import execution, step
from worchflow_core.testing.fixtures import running
from worchflow_core.testing.servers import RedisServer
from worchflow_plugins.redis import RedisQueue, RedisStepCache

pytestmark = pytest.mark.servers


async def hint_once(url: str, prefix: str) -> None:
    """Carry a hint and a step by an address, waiting for one more hint that does not come."""
    async with RedisQueue(url, prefix=prefix) as queue, RedisStepCache(url, prefix=prefix) as cache:
        await queue.push([Hint(execution=execution("a"))])
        assert await queue.pop(["f"], limit=1, wait=timedelta(seconds=1)) == ["a"]
        assert await queue.pop(["f"], limit=1, wait=timedelta(seconds=0.1)) == []
        await cache.put([step("a")])
        assert await cache.get_all([execution("a")]) == {"a": [step("a")]}
        assert all(finding.level == "ok" for finding in await queue.check())


# --- TLS and a socket file ------------------------------------------------------------------------


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that nobody else has signed, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificate, is not on PATH")
    made, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(made)]
    subprocess.run([*command, *names, *files], check=True, capture_output=True, timeout=60)
    return made, key


@asynccontextmanager
async def tls_in_front_of(port: int, certificate: tuple[Path, Path]) -> AsyncIterator[int]:
    """Speak TLS on a port of its own, and plainly with the server behind: not every Redis can."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind, to_behind = await asyncio.open_connection("127.0.0.1", port)
        pumps = [_pump(reader, to_behind), _pump(behind, writer)]
        await asyncio.gather(*pumps, return_exceptions=True)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


def test_tls_is_spoken_and_the_certificate_checked(
    redis_server: RedisServer, certificate: tuple[Path, Path], unique_name: str
) -> None:
    async def main() -> None:
        async with tls_in_front_of(redis_server.port, certificate) as port:
            url = f"rediss://127.0.0.1:{port}/0"
            await hint_once(f"{url}?ssl_ca_certs={certificate[0]}", unique_name)
            async with RedisQueue(url, prefix=unique_name) as queue:
                with pytest.raises(ConnectionError, match="certificate verify failed"):
                    await queue.push([Hint(execution=execution("a"))])

    asyncio.run(main())


class TlsRedis(RedisServer):
    """A Redis that also speaks TLS, on a port of its own."""

    tls_port = 0

    def use(self, certificate: tuple[Path, Path], port: int) -> None:
        """Serve this certificate there; before `start`."""
        made, key = map(str, certificate)
        self.tls_port = port
        files = ("--tls-cert-file", made, "--tls-key-file", key, "--tls-ca-cert-file", made)
        self.extra = ("--tls-port", str(port), *files, "--tls-auth-clients", "no")


def test_a_redis_of_its_own_speaks_tls(certificate: tuple[Path, Path], unique_name: str) -> None:
    from worchflow_core.testing.servers import free_port

    server = TlsRedis()
    server.use(certificate, free_port())
    try:
        server.start()
    except RuntimeError as error:
        server.close()
        if "tls" not in str(error).lower():
            raise
        return  # it was built without TLS, which the test above has either way
    with server:
        url = f"rediss://127.0.0.1:{server.tls_port}/0?ssl_ca_certs={certificate[0]}"
        asyncio.run(hint_once(url, unique_name))


def test_a_socket_file_is_an_address(unique_name: str) -> None:
    class OnSocket(RedisServer):
        @property
        def socket_file(self) -> str:
            return f"{self.directory}/redis.sock"

        def _arguments(self, port: int) -> Sequence[str]:
            return (*super()._arguments(port), "--unixsocket", self.socket_file)

    for server in running(OnSocket):
        asyncio.run(hint_once(f"unix://{server.socket_file}?db=3", unique_name))


# --- sentinels ------------------------------------------------------------------------------------


def test_a_sentinel_url_without_a_service_is_refused() -> None:
    async def main() -> None:
        async with RedisQueue("redis+sentinel://:secret@h1:26379"):
            pass

    with pytest.raises(SettingsError, match="needs sentinels and a service") as caught:
        asyncio.run(main())
    assert "secret" not in str(caught.value)


class Sentinel(RedisServer):
    """A sentinel that watches one primary, and replaces it soon."""

    def __init__(self, primary_port: int) -> None:
        super().__init__()
        self._primary_port = primary_port

    def _arguments(self, port: int) -> Sequence[str]:
        path = self.directory / "sentinel.conf"
        if not path.exists():  # it keeps what it learns in there
            path.write_text(
                f"port {port}\nbind 127.0.0.1\n"
                f"sentinel monitor main 127.0.0.1 {self._primary_port} 1\n"
                "sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 3000\n"
            )
        return (str(path), "--sentinel")


@pytest.fixture
def primary() -> Iterator[RedisServer]:
    yield from running(RedisServer)


def test_a_failover_is_followed(primary: RedisServer, unique_name: str) -> None:
    replica = RedisServer(arguments=("--replicaof", "127.0.0.1", str(primary.port)))

    async def main(url: str, replica_port: int) -> None:
        await hint_once(url, unique_name)
        async with RedisQueue(url, prefix=unique_name) as queue:
            await queue.push([Hint(execution=execution("before"))])
            await asyncio.to_thread(_wait_for_replica, replica_port)
            primary.kill()
            end = time.monotonic() + 40
            while True:
                try:
                    await queue.push([Hint(execution=execution("after"))])
                    break
                except ConnectionError:
                    assert time.monotonic() < end, "no new primary was found"
                    await asyncio.sleep(0.1)
            taken: set[str] = set()
            while "after" not in taken:
                assert time.monotonic() < end, taken
                try:
                    taken |= set(await queue.pop(["f"], limit=9, wait=timedelta(seconds=0.2)))
                except ConnectionError:
                    await asyncio.sleep(0.1)

    with replica, Sentinel(primary.port) as sentinel:
        url = f"redis+sentinel://127.0.0.1:{sentinel.port}/main/0"
        asyncio.run(main(url, replica.port))


def _wait_for_replica(port: int) -> None:
    import redis

    end = time.monotonic() + 20
    with redis.Redis(port=port) as client:
        while client.info("replication")["master_link_status"] != "up":
            assert time.monotonic() < end
            time.sleep(0.05)


# --- a cluster's node -----------------------------------------------------------------------------


def test_braces_in_the_prefix_keep_a_cluster_node_happy() -> None:
    async def main(server: RedisServer) -> None:
        async with Redis.from_url(server.url) as client:
            await client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            end = time.monotonic() + 20
            while b"cluster_state:ok" not in await client.execute_command("CLUSTER", "INFO"):
                assert time.monotonic() < end
                await asyncio.sleep(0.05)
        async with (
            RedisQueue(server.url, prefix="{flows}") as queue,
            RedisStepCache(server.url, prefix="{flows}") as cache,
        ):
            await queue.push([Hint(execution=execution(f"e{n}")) for n in range(9)])
            lost = Hint(execution=execution("g1", function="g"), is_misrouted=True)
            await queue.push([lost])
            taken: set[str] = set()
            for _ in range(3):
                taken |= set(await queue.pop(["f", "g"], limit=99, wait=timedelta(seconds=1)))
            assert len(taken) == 10
            await cache.put([step(f"e{n}") for n in range(9)])
            assert len(await cache.get_all([execution(f"e{n}") for n in range(9)])) == 9
            await cache.drop([f"e{n}" for n in range(9)])
            assert (await queue.view()) is not None
        async with RedisStepCache(server.url, prefix="flows") as cache:
            with pytest.raises(ConnectionError, match="put braces into WORCHFLOW_PREFIX"):
                await cache.drop([f"e{n}" for n in range(9)])

    with RedisServer(arguments=("--cluster-enabled", "yes")) as server:
        asyncio.run(main(server))


# --- which server the step cache has --------------------------------------------------------------


@pytest.mark.parametrize("own", [None, "memory://steps"])
def test_the_step_cache_is_the_queues_server_unless_it_has_its_own(
    redis_url: str, unique_name: str, own: str | None
) -> None:
    overrides: dict[str, Any] = {
        "store_url": f"memory://{unique_name}",
        "queue_url": redis_url,
        "step_cache_url": own,
        "prefix": unique_name,
    }

    async def main() -> None:
        async with Worchflow(functions=(), overrides=overrides, env_file=None) as app:
            cache = app.journal.cache
            assert isinstance(cache, RedisStepCache) == (own is None)
            assert cache is not None
            if own is None:
                assert cache.describe() == app.journal.queue.describe()

    asyncio.run(main())
    assert Settings.model_fields["step_cache_url"].default is None
