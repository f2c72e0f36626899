"""Subscriptions: which functions an event runs, as this process and the store know it.

A sender need not have the code: workers publish their triggers with their functions, and senders
read them anew every second. Functions that this process has itself count as they are here.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from worchflow_core import catalog
from worchflow_core.functions import Registry
from worchflow_core.ids import derived_id
from worchflow_core.models import Payload
from worchflow_core.protocols import Records
from worchflow_core.triggers import Trigger
from worchflow_core.validation import check_tags

FRESH = 1.0
"""For how many seconds what the store says of functions is believed without asking again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscriber:
    """A function that an event runs, and what its execution is created with.

    Attributes:
        function: its id.
        retries: failed attempts it survives, as known here; for display.
        priority, tags: what the execution is created with.
    """

    function: str
    retries: int | None = None
    priority: int = 0
    tags: tuple[str, ...] = ()

    def execution_id(self, event_id: str) -> str:
        """Return the id of the execution that an event creates: one, however often it is sent."""
        return subscriber_id(event_id, self.function)


def subscriber_id(event_id: str, function: str) -> str:
    """Return the id of the execution in which a function runs for an event."""
    if ":" in function:  # else `a:b` and `c` would be told from `a` and `b:c` by nothing
        return hashlib.sha256(f"{event_id}\0{function}".encode()).hexdigest()
    return derived_id(f"{event_id}:{function}")


def subscribers_to_wire(subscribers: Iterable[Subscriber]) -> list[dict[str, Any]]:
    """Return subscribers as a stored event keeps them."""
    return [
        {
            "function": item.function,
            "retries": item.retries,
            "priority": item.priority,
            "tags": list(item.tags),
        }
        for item in subscribers
    ]


def subscribers_from_wire(documents: Iterable[Mapping[str, Any]]) -> tuple[Subscriber, ...]:
    """Return the subscribers that a stored event keeps."""
    return tuple(
        Subscriber(
            function=item["function"],
            retries=item.get("retries"),
            priority=item.get("priority") or 0,
            tags=tuple(item.get("tags") or ()),
        )
        for item in documents
    )


class Subscriptions:
    """Find the functions that an event runs. One object serves a whole process.

    Args:
        registry: the functions that this process has, which it may still add to.
        records: where workers publish theirs.
    """

    def __init__(self, registry: Registry, records: Records) -> None:
        self._registry = registry
        self._records = records
        self._published: Sequence[tuple[Subscriber, tuple[Trigger, ...]]] = ()
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()

    async def of(
        self, name: str, payload: Payload, tags: Collection[str] = ()
    ) -> tuple[Subscriber, ...]:
        """Return the functions an event runs, by id, each once.

        Args:
            name: the event's name.
            payload: its data.
            tags: labels for the executions, beside the functions' own.

        Raises:
            InvalidInput: with the functions' own these are too many tags.
            StoreUnavailable: the store does not say who subscribes.
        """
        named = [
            (subscriber, triggers)
            for subscriber, triggers in [*self._own(), *await self._others()]
            if any(trigger.covers(name) for trigger in triggers)
        ]
        if not named:
            return ()
        data = json.loads(payload)
        return tuple(
            replace(item, tags=check_tags([*item.tags, *tags]))
            for item, triggers in sorted(named, key=lambda pair: pair[0].function)
            if any(trigger.takes(name, data) for trigger in triggers)
        )

    def _own(self) -> list[tuple[Subscriber, tuple[Trigger, ...]]]:
        return [
            (
                Subscriber(
                    function=item.id,
                    retries=item.retry.retries,
                    priority=item.priority,
                    tags=item.tags,
                ),
                item.triggers,
            )
            for item in self._registry
            if item.triggers
        ]

    async def _others(self) -> list[tuple[Subscriber, tuple[Trigger, ...]]]:
        async with self._reading:  # of many senders at once, one asks
            if time.monotonic() - self._read_at >= FRESH:
                infos = await catalog.read(self._records)
                self._published = [
                    (
                        Subscriber(
                            function=info.id,
                            retries=info.retries,
                            priority=info.priority,
                            tags=info.tags,
                        ),
                        info.triggers,
                    )
                    for info in infos
                    if info.triggers
                ]
                self._read_at = time.monotonic()
        return [item for item in self._published if self._registry.get(item[0].function) is None]
