"""The address of a Redis: what a URL says, and clients for it."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from worchflow_core import SettingsError, mask_url

Client = Redis
_SENTINEL = "redis+sentinel"
_SENTINEL_PORT = 26379


def connect(url: str, *, answer_within: float | None) -> tuple[Client, Sentinel | None]:
    """Return a client that tries each command once and waits so long for its answer.

    Args:
        url: where the server is.
        answer_within: seconds; None where the caller limits the time himself.

    Raises:
        SettingsError: the URL cannot be used.
    """
    # A driver that retries by itself repeats what may have been done and hides an outage for a
    # minute; our breaker knows better.
    options: dict[str, Any] = {
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": answer_within,
        "socket_connect_timeout": 2.0,
    }
    scheme = urlsplit(url).scheme
    if scheme != "unix":  # a socket file has nothing to keep alive, and the driver refuses it there
        options["socket_keepalive"] = True
    try:
        if scheme == _SENTINEL:
            return _by_sentinel(url, options)
        return Redis.from_url(url, **options), None
    except (ValueError, TypeError, RedisError) as error:
        raise SettingsError(f"{mask_url(url)} cannot be used: {error}") from error


def like(client: Client, *, answer_within: float) -> Client | None:
    """Return a client for the same server as the caller's; None where that cannot be told."""
    pool = client.connection_pool
    try:
        options = {**pool.connection_kwargs}
        options |= {"retry": Retry(NoBackoff(), 0), "socket_timeout": answer_within}
        copied = type(pool)(connection_class=pool.connection_class, **options)
    except (AttributeError, TypeError):
        return None
    return Redis(connection_pool=copied)


def place_of(source: str | Client) -> str:
    """Return host, port and database for people, without user and password."""
    if isinstance(source, str):
        parts = urlsplit(source)
        if parts.scheme == "unix":
            return parts.path
        database = parts.path.lstrip("/") or "0"
        if parts.scheme == "redis" or parts.scheme == "rediss":
            database = parse_qs(parts.query).get("db", [database])[0]
        return f"{parts.netloc.rpartition('@')[2] or '127.0.0.1:6379'}/{database}"
    options = getattr(source.connection_pool, "connection_kwargs", {})
    host = options.get("path") or f"{options.get('host', '?')}:{options.get('port', 6379)}"
    return f"{host}/{options.get('db') or 0}"


def _by_sentinel(url: str, options: dict[str, Any]) -> tuple[Client, Sentinel]:
    """Read `redis+sentinel://user:password@host:26379,host2/service/0`."""
    parts = urlsplit(url)
    credentials, _, hosts = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    service, _, database = parts.path.strip("/").partition("/")
    if not service or not hosts:
        raise ValueError(
            "it needs sentinels and a service: redis+sentinel://host1:26379,host2:26379/mymaster/0"
        )
    sentinels = []
    for host in hosts.split(","):
        name, _, port = host.rpartition(":") if ":" in host else (host, "", "")
        sentinels.append((name, int(port or _SENTINEL_PORT)))
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        sentinels, sentinel_kwargs=dict(options), **options
    )
    client = sentinel.master_for(
        service,
        db=int(database or 0),
        username=unquote(user) or None,
        password=unquote(password) or None,
    )
    return client, sentinel
