"""The mailbox: events kept for those who wait for them, the executions they wake and create.

A waiter looks before it waits and again after; a sender stores before it wakes. Both write before
they look, so whichever comes second finds the other. Which functions an event runs is decided and
stored when it is first sent, so a sweep delivers what a crash cut short exactly as it was meant.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from worchflow_core import transitions
from worchflow_core.clock import from_millis, to_millis
from worchflow_core.codec import hash_input
from worchflow_core.errors import IdempotencyConflict
from worchflow_core.journal import Journal
from worchflow_core.matching import field_of, fits
from worchflow_core.models import Created, Execution, Payload, Record, Status
from worchflow_core.query import Condition, Operator, Query
from worchflow_core.records import read_record
from worchflow_core.step import Watch
from worchflow_core.subscriptions import (
    Subscriber,
    subscriber_id,
    subscribers_from_wire,
    subscribers_to_wire,
)

logger = logging.getLogger("worchflow")

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
        subscribers: the functions that it runs, as they were known then.
        headers: what their executions carry along.
    """

    id: str
    name: str
    data: Payload
    at: datetime
    subscribers: tuple[Subscriber, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Where it stands among the events of its name: by time, then by id."""
        return f"{self.name}\n{to_millis(self.at):013d}\n{self.id}"

    def executions(self, *, has_hint: bool) -> list[Execution]:
        """Return the executions it creates: the same ones, whenever and by whomever asked."""
        return [
            Execution(
                id=item.execution_id(self.id),
                function=item.function,
                event=self.name,
                data=self.data,
                created_at=self.at,
                updated_at=self.at,
                due_at=self.at,
                hinted_at=self.at if has_hint else None,
                retries=item.retries,
                input_hash=hash_input(item.function, self.data),
                priority=item.priority,
                tags=item.tags,
                headers=self.headers,
            )
            for item in self.subscribers
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What became of an event.

    Attributes:
        event: as it was first sent.
        executions: those of its subscribers, each with whether it is new.
    """

    event: StoredEvent
    executions: tuple[tuple[Execution, Created], ...] = ()


class Mailbox:
    """Keep events, find them for waiters, and wake waiters for them."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._store = journal.store
        self._records = journal.store.records

    async def put(self, event: StoredEvent, *, is_strict: bool = False) -> Delivery:
        """Keep an event, run who subscribes, wake who waits; doing it again changes nothing.

        Args:
            event: what is sent. Of two with one id the first stands.
            is_strict: refuse an id that stands for another name or other data.

        Raises:
            IdempotencyConflict: it does; nothing was written.
        """
        body = _to_body(event)
        new = await self._records.insert([Record(kind=IDS, key=event.id, body=body)])
        if event.id not in new:
            event = await self._first_sent(event, is_strict=is_strict)
            body = _to_body(event)
        await self._records.insert([Record(kind=PENDING, key=event.id, body=body)])
        return Delivery(event=event, executions=await self.deliver(event))

    async def _first_sent(self, event: StoredEvent, *, is_strict: bool) -> StoredEvent:
        record = await read_record(self._records, IDS, event.id)
        if record is None:  # it was forgotten between the two
            return event
        known = _from_body(record.body)
        if is_strict and hash_input(known.name, known.data) != hash_input(event.name, event.data):
            raise IdempotencyConflict(
                f"event {event.id!r} was sent before, as {known.name!r}, with "
                f"{'other data' if known.name == event.name else 'another name'}; choose another "
                "id, or send what was sent before"
            )
        return known

    async def deliver(self, event: StoredEvent) -> tuple[tuple[Execution, Created], ...]:
        """Store the event where waiters look, create what it runs, wake who waits, note it done."""
        plain = replace(event, subscribers=(), headers={})
        await self._records.insert([Record(kind=EVENTS, key=event.key, body=_to_body(plain))])
        self._journal.reach("after_event_insert")
        created = await self._create(event)
        await self.wake(await self._keys_of(event))
        await self._records.delete(PENDING, [event.id])
        return created

    async def _create(self, event: StoredEvent) -> tuple[tuple[Execution, Created], ...]:
        executions = event.executions(has_hint=self._journal.queue.keeps_hints)
        created: list[Created] = []
        for start in range(0, len(executions), _PAGE):
            created += await self._journal.create(executions[start : start + _PAGE])
        answers = tuple(zip(executions, created, strict=True))
        for execution, answer in answers:
            if answer is Created.CONFLICT:
                logger.warning(
                    "event %s does not run %s: an execution %s exists with other data",
                    event.id,
                    execution.function,
                    execution.id,
                )
        return answers

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
        self, watches: Collection[Watch], *, waiter: Execution, taken: Collection[str]
    ) -> tuple[Watch, StoredEvent] | None:
        """Return the oldest event since the waiter was created that fits and is not taken yet.

        The event that the waiter runs for is none that it may wait for.
        """
        best: tuple[Watch, StoredEvent] | None = None
        for watch in watches:
            event = await self._oldest(watch, waiter, taken)
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
        self, watch: Watch, waiter: Execution, taken: Collection[str]
    ) -> StoredEvent | None:
        after = f"{watch.name}\n{to_millis(waiter.created_at):013d}"
        until = f"{watch.name}\n~"
        while page := await self._records.scan(EVENTS, after=after, until=until, limit=_PAGE):
            for record in page:
                event = _from_body(record.body)
                if event.id in taken or _began(waiter, event):
                    continue
                if fits(watch.match, json.loads(event.data)):
                    return event
            after = page[-1].key
        return None

    async def _keys_of(self, event: StoredEvent) -> list[str]:
        """Return every key under which somebody may wait for this event."""
        keys = [_key(event.name, {})]
        data = json.loads(event.data)
        after, until = f"{event.name}\n", f"{event.name}\n~"
        for record in await self._records.scan(FIELDS, after=after, until=until, limit=1000):
            match = {name: field_of(data, name) for name in json.loads(record.body)}
            keys.append(_key(event.name, match))
        return keys


def child_key(execution_id: str) -> str:
    """Return the wait key of an execution's end."""
    return f"child:{execution_id}"


def watch_key(watch: Watch) -> str:
    """Return a watch's wait key: equal for equal ones, computable from a matching event."""
    return _key(watch.name, watch.match)


def _began(execution: Execution, event: StoredEvent) -> bool:
    """Return whether this is the event that an execution runs for."""
    is_named = execution.event == event.name
    return is_named and execution.id == subscriber_id(event.id, execution.function)


def _behind(query: Query, after: tuple[datetime, str] | None) -> Query:
    return Query(where=query.where, descending=False, limit=query.limit, after=after)


def _key(name: str, match: Mapping[str, Any]) -> str:
    return f"{name}:{_digest(match)}" if match else name


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _to_body(event: StoredEvent) -> str:
    body: dict[str, Any] = {
        "id": event.id,
        "name": event.name,
        "data": event.data,
        "at": to_millis(event.at),
    }
    if event.subscribers:
        body["subscribers"] = subscribers_to_wire(event.subscribers)
        body["headers"] = dict(event.headers)
    return json.dumps(body)


def _from_body(body: str) -> StoredEvent:
    fields = json.loads(body)
    return StoredEvent(
        id=fields["id"],
        name=fields["name"],
        data=fields["data"],
        at=from_millis(fields["at"]),
        subscribers=subscribers_from_wire(fields.get("subscribers") or ()),
        headers=fields.get("headers") or {},
    )
