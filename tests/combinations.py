"""The three combinations of backends that users have; what runs on one of them runs on all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

SERVERS = pytest.mark.servers
COMBINATIONS = (
    "sqlite",
    pytest.param("redis and mongodb", marks=SERVERS),
    pytest.param("mongodb alone", marks=SERVERS),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Combination:
    """Where one test's work is kept, by settings alone.

    Attributes:
        name: one of the three.
        store_url, queue_url, prefix: as in the settings; without a queue the store is polled, or
            wakes workers itself.
    """

    name: str
    store_url: str
    queue_url: str | None = None
    prefix: str = "worchflow"

    @property
    def settings(self) -> dict[str, Any]:
        """The settings, by field name."""
        urls = {"store_url": self.store_url, "queue_url": self.queue_url, "prefix": self.prefix}
        return {name: value for name, value in urls.items() if value is not None}

    @property
    def environment(self) -> dict[str, str]:
        """The settings, as variables."""
        return {f"WORCHFLOW_{name.upper()}": value for name, value in self.settings.items()}


@pytest.fixture(params=COMBINATIONS)
def combination(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Combination]:
    """A combination of this test's own: a file, or a database and a prefix of shared servers."""
    name = request.param
    if name == "sqlite":
        yield Combination(name=name, store_url=f"sqlite:///{tmp_path}/worchflow.db")
        return
    store_url = request.getfixturevalue("mongodb_url")
    has_queue = name == "redis and mongodb"
    yield Combination(
        name=name,
        store_url=store_url,
        queue_url=request.getfixturevalue("redis_url") if has_queue else None,
        prefix=request.getfixturevalue("unique_name"),
    )
    with MongoClient[Any](store_url) as client:
        client.drop_database(client.get_default_database().name)
