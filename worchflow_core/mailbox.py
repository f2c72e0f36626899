"""The mailbox: events kept for those who wait for them, the executions they wake and create.

A waiter looks before it waits and again after; a sender stores before it wakes. Both write before
they look, so whichever comes second finds the other. Which functions an event runs is decided and
stored when it is first sent, so a sweep delivers what a crash cut short exactly as it was meant.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from worchflow_core import transitions
from worchflow_core.clock import from_millis, to_millis
from worchflow_core.codec import hash_input
from worchflow_core.errors import IdempotencyConflict
from worchflow_core.journal import Journal
from worchflow_core.lookup import read_record
from worchflow_core.matching import field_of, fits, token
from worchflow_core.models import Created, Execution, Payload, Record, Status
from worchflow_core.paging import pages
from worchflow_core.query import Condition, Operator
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
        name: what it was sent as.
        data: its data, JSON text.
        at: when it was first sent, by the store's clock.
        to: the id of the one execution it is meant for; None for all.
        order: tells apart what one sender sent within a millisecond; later is higher.
        subscribers: the functions that it runs, as they were known then.
        headers: what their executions carry along.
    """

    id: str
    name: str
    data: Payload
    at: datetime
    to: str | None = None
    order: int = field(default_factory=time.monotonic_ns)
    subscribers: tuple[Subscriber, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """Where waiters look for it."""
        return _address(self.name, self.to)

    @property
    def place(self) -> tuple[int, int, str]:
        """Where it stands among others: by time, then as its sender sent them, then by id."""
        return (to_millis(self.at), self.order, self.id)

    @property
    def key(self) -> str:
        """Where it stands among the events of its address."""
        millis, order, event_id = self.place
        return f"{self.address}\n{millis:013d}\n{order:020d}\n{event_id}"

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
        if is_strict and _content(known) != _content(event):
            raise IdempotencyConflict(
                f"event {event.id!r} was sent before, as {known.name!r}, "
                f"{_difference(known, event)}; choose another id, or send what was sent before"
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
        waiting = Condition("status", Operator.EQUAL, Status.WAITING)
        wanting = Condition("waits", Operator.HAS, tuple(keys))
        async for found in pages(self._store, wanting, waiting):
            now = self._journal.clock.now()
            await self._journal.update(
                [
                    (item, transitions.wake(item, now=now))
                    for item in found
                    if not _is_woken(item, now)
                ]
            )

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
        self, watches: Collection[Watch], execution: Execution, taken: Collection[str]
    ) -> StoredEvent | None:
        """Return the oldest event for an execution that fits a watch and is not taken yet.

        The event that it runs for is none that it may wait for.
        """
        found = [
            await self._oldest(watch, address, execution, taken)
            for watch in watches
            for address in (watch.name, _address(watch.name, execution.id))
        ]
        return min((item for item in found if item is not None), key=_place, default=None)

    async def forget(self, before: datetime) -> None:
        """Delete events older than the retention; what one execution has still to get is kept."""
        for kind in (EVENTS, IDS):
            async for page in self._pages(kind, "", None):
                events = {item.key: _from_body(item.body) for item in page}
                old = {key: item for key, item in events.items() if item.at < before}
                awaited = {item.to for item in old.values() if item.to is not None}
                found = await self._store.get(awaited) if awaited else ()
                going_on = {item.id for item in found if not item.status.is_final}
                gone = [key for key, item in old.items() if item.to not in going_on]
                if gone:
                    await self._records.delete(kind, gone)

    async def _oldest(
        self, watch: Watch, address: str, execution: Execution, taken: Collection[str]
    ) -> StoredEvent | None:
        since = to_millis(_since(execution))
        async for page in self._pages(EVENTS, f"{address}\n{since:013d}", f"{address}\n~"):
            for record in page:
                if record.key.rpartition("\n")[2] in taken:
                    continue
                event = _from_body(record.body)
                if _began(execution, event):
                    continue
                if not watch.match or fits(watch.match, json.loads(event.data)):
                    return event
        return None

    async def _keys_of(self, event: StoredEvent) -> list[str]:
        """Return every key under which somebody may wait for this event."""
        keys = [_key(event.address, {})]
        data = json.loads(event.data)
        async for page in self._pages(FIELDS, f"{event.name}\n", f"{event.name}\n~"):
            for record in page:
                match = {path: field_of(data, path) for path in json.loads(record.body)}
                keys.append(_key(event.address, match))
        return keys

    async def _pages(
        self, kind: str, after: str, until: str | None
    ) -> AsyncIterator[Sequence[Record]]:
        while page := await self._records.scan(kind, after=after, until=until, limit=_PAGE):
            yield page
            if len(page) < _PAGE:
                return
            after = page[-1].key


def child_key(execution_id: str) -> str:
    """Return the wait key of an execution's end."""
    return f"child:{execution_id}"


def wait_keys(watch: Watch, execution_id: str) -> tuple[str, str]:
    """Return under which keys an execution waits: for an event to all, and for one to itself.

    They are equal for equal watches, and can be computed from an event that fits.
    """
    addresses = (watch.name, _address(watch.name, execution_id))
    return (_key(addresses[0], watch.match), _key(addresses[1], watch.match))


def _address(name: str, execution_id: str | None) -> str:
    return name if execution_id is None else f"{name}@{execution_id}"


def _content(event: StoredEvent) -> str:
    return hash_input(event.address, event.data)


def _difference(known: StoredEvent, event: StoredEvent) -> str:
    if known.name != event.name:
        return "with another name"
    return "to others" if known.to != event.to else "with other data"


def _place(event: StoredEvent) -> tuple[int, int, str]:
    return event.place


def _since(execution: Execution) -> datetime:
    """Return since when events count.

    An execution that was claimed before it was created comes from a machine whose clock is ahead.
    """
    first = execution.attempts[0].started_at if execution.attempts else execution.claimed_at
    return execution.created_at if first is None else min(execution.created_at, first)


def _began(execution: Execution, event: StoredEvent) -> bool:
    """Return whether this is the event that an execution runs for."""
    is_named = execution.event == event.name
    return is_named and execution.id == subscriber_id(event.id, execution.function)


def _is_woken(execution: Execution, now: datetime) -> bool:
    """Return whether it is due already and the queue was told: another hint would tell nothing."""
    due = execution.due_at
    return due is not None and due <= now and execution.hint_at is None


def _key(address: str, match: Mapping[str, Any]) -> str:
    if not match:
        return address
    return f"{address}:{_digest({path: token(value) for path, value in match.items()})}"


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _to_body(event: StoredEvent) -> str:
    body: dict[str, Any] = {
        "id": event.id,
        "name": event.name,
        "data": event.data,
        "at": to_millis(event.at),
        "order": event.order,
    }
    if event.to is not None:
        body["to"] = event.to
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
        to=fields.get("to"),
        order=fields["order"],
        subscribers=subscribers_from_wire(fields.get("subscribers") or ()),
        headers=fields.get("headers") or {},
    )
