"""Which of several schedulers does the work: a lease in a record, by the store's clock.

It only saves work. Two that both believe they lead do no harm, because a tick has one id.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import uuid4

from worchflow_core.clock import Clock, from_millis, to_millis
from worchflow_core.lookup import read_record
from worchflow_core.models import Record
from worchflow_core.protocols import Records

KIND = "meta"
KEY = "scheduler"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leader:
    """The scheduler that does the work.

    Attributes:
        id: random per scheduler.
        name: what people call it: host and process id.
        until: how long its word holds, by the store's clock.
    """

    id: str
    name: str
    until: datetime


class Leadership:
    """One scheduler's claim to lead.

    Args:
        records: where the lease is kept.
        clock: the store's time.
        span: how long the lease holds unless it is renewed.
        name: what people call this scheduler; may be set until the lease is taken.
    """

    def __init__(self, records: Records, clock: Clock, span: timedelta, name: str) -> None:
        self.id = uuid4().hex
        self._records = records
        self._clock = clock
        self._span = span
        self.name = name
        self._confirmed_at: float | None = None

    @property
    def is_fresh(self) -> bool:
        """Whether the lease was confirmed within its first third, so that it needs no renewal."""
        if self._confirmed_at is None:
            return False
        return self._clock.lease_time() - self._confirmed_at < self._span.total_seconds() / 3

    async def hold(self) -> bool:
        """Take or renew the lease; return whether it is this scheduler's."""
        asked_at = self._clock.lease_time()
        is_held = await self._write(self._clock.now() + self._span)
        self._confirmed_at = asked_at if is_held else None
        return is_held

    async def release(self) -> None:
        """Let the next one lead at once; does nothing where another leads already."""
        if self._confirmed_at is not None:
            self._confirmed_at = None
            await self._write(self._clock.now())

    async def _write(self, until: datetime) -> bool:
        """Write the lease over what was read, unless another's holds."""
        body = json.dumps({"id": self.id, "name": self.name, "until": to_millis(until)})
        record = await read_record(self._records, KIND, KEY)
        if record is None:
            return bool(await self._records.insert([Record(kind=KIND, key=KEY, body=body)]))
        leader = _leader(record)
        if leader.id != self.id and leader.until > self._clock.now():
            return False
        changed = Record(kind=KIND, key=KEY, body=body, version=record.version + 1)
        return not await self._records.replace([changed])


async def read_leader(records: Records) -> Leader | None:
    """Return the scheduler that held the lease last; None where none ever did."""
    record = await read_record(records, KIND, KEY)
    return None if record is None else _leader(record)


def _leader(record: Record) -> Leader:
    body = json.loads(record.body)
    return Leader(id=body["id"], name=body["name"], until=from_millis(body["until"]))
