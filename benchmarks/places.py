"""Where a benchmark runs: memory, one SQLite file, or Redis and MongoDB started for it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from worchflow_core.testing.servers import MongoServer, RedisServer

PLACES = ("sqlite", "servers", "memory")


@contextmanager
def place(name: str) -> Iterator[dict[str, str]]:
    """Yield the settings of a fresh, empty place; what was started for it is stopped."""
    with ExitStack() as stack:
        if name == "servers":
            mongo = stack.enter_context(MongoServer())
            redis = stack.enter_context(RedisServer())
            yield {"store_url": mongo.url, "queue_url": redis.url}
        elif name == "sqlite":
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="worchflow-bench-"))
            yield {"store_url": f"sqlite:///{Path(folder) / 'bench.db'}"}
        else:
            yield {"store_url": "memory:"}
