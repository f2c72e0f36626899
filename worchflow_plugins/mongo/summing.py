"""Counting executions: by status, cheap with a million, and by bucket of time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from pymongo.asynchronous.collection import AsyncCollection

from worchflow_core import COUNT_CAP, FINAL, Condition, Status, Tally, from_millis
from worchflow_plugins.mongo.connection import Connection
from worchflow_plugins.mongo.indexes import BY_STATUS, ENDED
from worchflow_plugins.mongo.queries import TIME_LIMIT, conditions

_EXACT_UP_TO = 2_000
_KEPT_FOR = 1.0
_SHARE_OF_TIME = 20
_RARE_FIRST = sorted(Status, key=lambda status: status is Status.COMPLETED)


class Sums:
    """Counts over `executions`, the newest kept for at most a second."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._snapshot: Mapping[Status, int] = {}
        self._snapshot_until = 0.0
        self._large: dict[Status, tuple[int, float]] = {}
        self._rest: Status | None = None

    @property
    def _executions(self) -> AsyncCollection[Any]:
        return self._connection.collection("executions")

    async def stats(self) -> Mapping[Status, int]:
        """Count executions by status."""
        if time.monotonic() < self._snapshot_until:
            return self._snapshot
        total = await self._executions.estimated_document_count()
        if total <= _EXACT_UP_TO:
            return await self._all_counted()
        started = time.monotonic()
        counts = await self._estimated(total)
        now = time.monotonic()
        self._snapshot = counts
        self._snapshot_until = now + min(_KEPT_FOR, _SHARE_OF_TIME * (now - started))
        return counts

    async def tally(self, where: Sequence[Condition], *, bucket: timedelta) -> Sequence[Tally]:
        """Count ended executions by function, status and `finished_at` rounded down."""
        size = bucket // timedelta(milliseconds=1)
        ended = {"status": {"$in": [status.value for status in FINAL]}}
        start = {"$subtract": ["$finishedAt", {"$mod": ["$finishedAt", size]}]}
        pipeline: list[Mapping[str, Any]] = [
            {"$match": {"$and": [ended, *conditions(where)]}},
            {
                "$group": {
                    "_id": {"function": "$eventName", "status": "$status", "start": start},
                    "count": {"$sum": 1},
                    "millis": {"$sum": {"$subtract": ["$finishedAt", "$createdAt"]}},
                }
            },
        ]
        # What ended in the span, never all that a function ever did.
        cursor = await self._executions.aggregate(
            pipeline, hint=dict(ENDED.key), maxTimeMS=TIME_LIMIT
        )
        return [
            Tally(
                function=item["_id"]["function"],
                status=Status(item["_id"]["status"]),
                start=from_millis(int(item["_id"]["start"])),
                count=item["count"],
                total_seconds=item["millis"] / 1000,
            )
            async for item in cursor
        ]

    async def _all_counted(self) -> Mapping[Status, int]:
        pipeline: list[Mapping[str, Any]] = [
            {"$group": {"_id": "$status", "count": {"$sum": 1}}},
        ]
        cursor = await self._executions.aggregate(pipeline, maxTimeMS=TIME_LIMIT)
        found = {item["_id"]: item["count"] async for item in cursor}
        return {status: found[status.value] for status in Status if status.value in found}

    async def _estimated(self, total: int) -> Mapping[Status, int]:
        """Count all statuses but one that is large: it is what the others leave of the total."""
        rest = self._rest
        if rest is None:
            capped = await asyncio.gather(*map(self._capped, _RARE_FIRST))
            counts = dict(zip(_RARE_FIRST, capped, strict=True))
            large = [status for status in _RARE_FIRST if counts[status] >= COUNT_CAP]
            if not large:
                return counts
            *others, rest = large
            self._large.update(dict.fromkeys(others, (0, 0.0)))
        others = [status for status in _RARE_FIRST if status is not rest]
        exact = await asyncio.gather(*map(self._exact, others))
        left = total - sum(exact)
        self._rest = rest if left >= COUNT_CAP else None
        if self._rest is None:
            left = await self._exact(rest)
        return {**dict(zip(others, exact, strict=True)), rest: left}

    async def _exact(self, status: Status) -> int:
        if status not in self._large:
            count = await self._capped(status)
            if count < COUNT_CAP:
                return count
        return await self._counted(status)

    async def _capped(self, status: Status) -> int:
        return await self._executions.count_documents(
            {"status": status.value}, limit=COUNT_CAP, hint=list(BY_STATUS.key),
            maxTimeMS=TIME_LIMIT,
        )  # fmt: skip

    async def _counted(self, status: Status) -> int:
        """Count a large status, at most a twentieth of the time: a big backlog stays cheap."""
        count, until = self._large.get(status, (0, 0.0))
        now = time.monotonic()
        if now >= until:
            count = await self._executions.count_documents(
                {"status": status.value}, hint=list(BY_STATUS.key), maxTimeMS=TIME_LIMIT
            )
            took = time.monotonic() - now
            if count < COUNT_CAP:
                self._large.pop(status, None)
            else:
                self._large[status] = (count, now + max(_KEPT_FOR, _SHARE_OF_TIME * took))
        return count
