"""The original's worker on the same database: it runs what it likes, so it is found and refused."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from pymongo.synchronous.database import Database

from worchflow_core import Status, StoreUnusable
from worchflow_plugins.mongo.indexes import BY_STATUS

logger = logging.getLogger("worchflow.mongo")

_LOOK_EVERY = 60.0

WANTED = {"status": Status.PROCESSING.value, "owner": None}
"""Ours get status and owner in one write, and lose them in one: only a stranger leaves this."""
FIELDS = {"_id": 0, "id": 1}
HINT = list(BY_STATUS.key)


class Strangers:
    """Look for executions that are being processed and that no worker of ours has."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._looked_at = time.monotonic()
        self._has_warned = False
        self._lock = threading.Lock()  # many workers of one process may share a store

    def refuse(self, database: Database[Any]) -> None:
        """Raise `StoreUnusable` for such an execution: no worker may join it."""
        found = self._find(database)
        if found is not None:
            raise StoreUnusable(advice(self._place, found))

    def watch(self, database: Database[Any]) -> None:
        """Look once a minute, and complain once; whoever works already goes on."""
        now = time.monotonic()
        with self._lock:
            if self._has_warned or now - self._looked_at < _LOOK_EVERY:
                return
            self._looked_at = now
        found = self._find(database)
        if found is not None:
            self._has_warned = True
            logger.error("%s", advice(self._place, found))

    def _find(self, database: Database[Any]) -> str | None:
        found = database["executions"].find_one(WANTED, FIELDS, hint=HINT)
        return None if found is None else str(found["id"])


def advice(place: str, execution_id: str) -> str:
    """Return what is wrong and how it is mended."""
    return (
        f"execution {execution_id!a} in {place} is processing and no worker of Worchflow has it: "
        "a worker of the original TypeScript system runs it, or was killed while it did; both on "
        "one database run executions twice. Stop its workers, then queue what they left, in "
        'mongosh: db.executions.updateMany({status: "processing", owner: null}, '
        '{$set: {status: "queued"}})'
    )
