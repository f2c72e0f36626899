"""Informing: a client's event on its way to those who subscribe to it or wait for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any
from uuid import uuid4

from worchflow_core.codec import UNTYPED, Codec
from worchflow_core.errors import InvalidInput
from worchflow_core.functions import Registry
from worchflow_core.journal import Journal
from worchflow_core.mailbox import Delivery, Mailbox, StoredEvent
from worchflow_core.offset import measure
from worchflow_core.sending import check_headers
from worchflow_core.settings import Settings
from worchflow_core.subscriptions import Subscriptions
from worchflow_core.validation import check_event_name, check_execution_id, check_tags


class Informer:
    """Check a client's events, find out whom they concern, and deliver them.

    Args:
        journal: where everything is written.
        registry: the functions that this process has.
        settings: how much an event's data may take, and for how long a worker is believed.
    """

    def __init__(self, journal: Journal, registry: Registry, settings: Settings) -> None:
        self._journal = journal
        self._registry = registry
        self._settings = settings
        self._subscriptions = Subscriptions(registry, journal.store.records)

    def event(
        self, name: str, data: Any, id: str | None = None, headers: Mapping[str, str] | None = None
    ) -> StoredEvent:
        """Return an event for all; raise `InvalidInput` where something cannot be taken."""
        if isinstance(name, str) and self._registry.get(name) is not None:
            raise InvalidInput(f"{name!r} is a function: send to it, or choose another event name")
        event = self._event(check_event_name(name), data, id)
        return replace(event, headers=check_headers(headers or {}))

    def signal(self, name: str, execution_id: str, data: Any, id: str | None = None) -> StoredEvent:
        """Return an event for one execution; raise `InvalidInput` as `event` does."""
        return replace(self._event(check_event_name(name), data, id), to=execution_id)

    async def deliver(self, event: StoredEvent, tags: Iterable[str] = ()) -> Delivery:
        """Keep an event, run who subscribes to it, wake who waits for it.

        Args:
            event: what `event` returned.
            tags: labels for the executions, beside those of their functions.

        Raises:
            InvalidInput, IdempotencyConflict: it cannot be taken so; nothing was written.
            StoreUnavailable: the store did not answer; doing it again is safe.
        """
        subscribers = await self._subscriptions.of(event.name, event.data, check_tags(tags))
        event = replace(await self._timed(event), subscribers=subscribers)
        return await Mailbox(self._journal).put(event, is_strict=True)

    async def deliver_signal(self, event: StoredEvent) -> Delivery:
        """Keep what `signal` returned and wake the execution; raise as `deliver` does."""
        return await Mailbox(self._journal).put(await self._timed(event), is_strict=True)

    async def subscribers(self, name: str, data: Any) -> tuple[str, ...]:
        """Return the ids of the functions that an event would run now."""
        event = self.event(name, data)
        return tuple(item.function for item in await self._subscriptions.of(name, event.data))

    async def _timed(self, event: StoredEvent) -> StoredEvent:
        """Return an event as sent by the store's clock: who waits compares it with its own."""
        clock = self._journal.clock
        if clock.is_measured:
            return event
        await measure(self._journal.store, clock, self._settings.lease)
        return replace(event, at=clock.now())

    def _event(self, name: str, data: Any, id: str | None) -> StoredEvent:
        codec = Codec(UNTYPED, f"event data of {name}")
        payload, _ = codec.encode(data, limit=self._settings.max_payload)
        return StoredEvent(
            id=str(uuid4()) if id is None else check_execution_id(id),
            name=name,
            data=payload,
            at=self._journal.clock.now(),
        )
