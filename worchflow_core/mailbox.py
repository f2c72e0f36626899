"""The mailbox: events kept for those who wait for them, and the executions they wake.

A waiter looks before it waits and again after; a sender stores before it wakes. Both write before
they look, so whichever comes second finds the other. A sweep delivers what a crash cut short.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from worchflow_core import transitions
from worchflow_core.clock import from_millis, to_millis
from worchflow_core.fields import field_of
from worchflow_core.journal import Journal
from worchflow_core.models import Payload, Record, Status
from worchflow_core.query import Condition, Operator, Query
from worchflow_core.step import Watch

EVENTS = "event"
PENDING = "event-pending"
FIELDS = "event-fields"
IDS = "event-id"
_PAGE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvent:
    """An event as the mailbox keeps it.

    Attributes:
        id: the same event sent twice is kept once.
        name: what it was sent as; `name@executionId` for one that is meant for one execution.
        data: its data, JSON text.
        at: when it was first sent.
    """

    id: str
    name: str
    data: Payload
    at: datetime

    @property
    def key(self) -> str:
        """Where it stands among the events of its name: by time, then by id."""
        return f"{self.name}\n{to_millis(self.at):013d}\n{self.id}"


class Mailbox:
    """Keep events, find them for waiters, and wake waiters for them."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._store = journal.store
        self._records = journal.store.records

    async def put(self, event: StoredEvent) -> None:
        """Keep an event and wake who waits for it; putting it again changes nothing."""
        body = _to_body(event)
        pending = Record(kind=PENDING, key=event.id, body=body)
        new = await self._records.insert([Record(kind=IDS, key=event.id, body=body)])
        if event.id not in new:
            known = await self._exact(IDS, event.id)
            event = _from_body(known.body) if known is not None else event
        await self._records.insert([pending])
        await self.deliver(event)

    async def deliver(self, event: StoredEvent) -> None:
        """Store the event where waiters look, wake those who wait, then note that it is done."""
        await self._records.insert([Record(kind=EVENTS, key=event.key, body=_to_body(event))])
        self._journal.reach("after_event_insert")
        await self.wake(await self._keys_of(event))
        await self._records.delete(PENDING, [event.id])

    async def deliver_pending(self) -> None:
        """Deliver what a crash cut short."""
        edge = self._journal.clock.now() - timedelta(seconds=2)
        for record in await self._records.scan(PENDING, limit=_PAGE):
            event = _from_body(record.body)
            if event.at < edge:
                await self.deliver(event)

    async def wake(self, keys: Collection[str]) -> None:
        """Make due every execution that waits for one of these keys."""
        query = Query(
            where=(
                Condition("waits", Operator.HAS, tuple(keys)),
                Condition("status", Operator.EQUAL, Status.WAITING),
            ),
            descending=False,
            limit=_PAGE,
        )
        after = None
        while True:
            found = (await self._store.find(_behind(query, after))).items
            now = self._journal.clock.now()
            await self._journal.update([(item, transitions.wake(item, now=now)) for item in found])
            if len(found) < _PAGE:
                return
            after = query.order_key(found[-1])

    async def announce(self, watches: Collection[Watch]) -> None:
        """Let senders know by which fields this waiter tells events apart."""
        records = [
            Record(
                kind=FIELDS,
                key=f"{watch.name}\n{_digest(sorted(watch.match))}",
                body=json.dumps(sorted(watch.match)),
            )
            for watch in watches
            if watch.match
        ]
        if records:
            await self._records.insert(records)

    async def look(
        self, watches: Collection[Watch], *, since: datetime, taken: Collection[str]
    ) -> tuple[Watch, StoredEvent] | None:
        """Return the oldest event since a moment that fits a watch and is not taken yet."""
        best: tuple[Watch, StoredEvent] | None = None
        for watch in watches:
            event = await self._oldest(watch, since, taken)
            if event is not None and (best is None or event.at < best[1].at):
                best = (watch, event)
        return best

    async def forget(self, before: datetime) -> None:
        """Delete events older than the retention."""
        for kind in (EVENTS, IDS):
            after = ""
            while page := await self._records.scan(kind, after=after, limit=_PAGE):
                after = page[-1].key
                old = [item.key for item in page if _from_body(item.body).at < before]
                if old:
                    await self._records.delete(kind, old)

    async def _oldest(
        self, watch: Watch, since: datetime, taken: Collection[str]
    ) -> StoredEvent | None:
        after = f"{watch.name}\n{to_millis(since):013d}"
        until = f"{watch.name}\n~"
        while page := await self._records.scan(EVENTS, after=after, until=until, limit=_PAGE):
            for record in page:
                event = _from_body(record.body)
                if event.id not in taken and fits(watch, json.loads(event.data)):
                    return event
            after = page[-1].key
        return None

    async def _keys_of(self, event: StoredEvent) -> list[str]:
        """Return every key under which somebody may wait for this event."""
        keys = [_key(event.name, {})]
        data = json.loads(event.data)
        after, until = f"{event.name}\n", f"{event.name}\n~"
        for record in await self._records.scan(FIELDS, after=after, until=until, limit=1000):
            match = {field: field_of(data, field) for field in json.loads(record.body)}
            keys.append(_key(event.name, match))
        return keys

    async def _exact(self, kind: str, key: str) -> Record | None:
        found = await self._records.scan(kind, after=key[:-1], until=key + "\0", limit=1000)
        return next((item for item in found if item.key == key), None)


def child_key(execution_id: str) -> str:
    """Return the wait key of an execution's end."""
    return f"child:{execution_id}"


def watch_key(watch: Watch) -> str:
    """Return a watch's wait key: equal for equal ones, computable from a matching event."""
    return _key(watch.name, watch.match)


def fits(watch: Watch, data: Any) -> bool:
    """Return whether an event's data has all the fields with equal values."""
    return all(field_of(data, field) == value for field, value in watch.match.items())


def _behind(query: Query, after: tuple[datetime, str] | None) -> Query:
    return Query(where=query.where, descending=False, limit=query.limit, after=after)


def _key(name: str, match: Mapping[str, Any]) -> str:
    return f"{name}:{_digest(match)}" if match else name


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _to_body(event: StoredEvent) -> str:
    return json.dumps(
        {"id": event.id, "name": event.name, "data": event.data, "at": to_millis(event.at)}
    )


def _from_body(body: str) -> StoredEvent:
    fields = json.loads(body)
    return StoredEvent(
        id=fields["id"], name=fields["name"], data=fields["data"], at=from_millis(fields["at"])
    )
