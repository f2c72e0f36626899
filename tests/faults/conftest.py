"""Places for fault tests: a file, or servers; and what must be as before when a test is over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.combinations import Combination
from tests.faults.arena import Place
from tests.faults.checker import guarded
from worchflow_core.testing.fixtures import running
from worchflow_core.testing.servers import MongoServer, RedisServer


@pytest.fixture
def place(combination: Combination, tmp_path: Path) -> Iterator[Place]:
    """A place of this test's own, on each combination of backends."""
    yield from guarded(Place(directory=tmp_path, **combination.settings))


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A Redis without persistence that the test may harm."""
    yield from running(RedisServer)


@pytest.fixture
def own_mongo() -> Iterator[MongoServer]:
    """A MongoDB, a replica set of one, that the test may harm."""
    yield from running(MongoServer)
