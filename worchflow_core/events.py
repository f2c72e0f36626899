"""The event a function receives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, TypeVar

DataT_co = TypeVar("DataT_co", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event(Generic[DataT_co]):
    """What a client sent, the same on every attempt.

    Attributes:
        name: what it was sent as; the function's id unless a trigger matched.
        data: its data, rebuilt as the type the function declares: `Event[Payment]`.
        id: the execution's id, which is also the event's for a plain send.
        timestamp: when it was sent; use it instead of the clock where replays must agree.
        scheduled_for: the tick it was sent for, for functions with a schedule.
        tags: the labels it was sent with.
        headers: small text facts that travelled along.
        batch: all events of the batch, this one first, for functions with `batch`; else empty.
    """

    name: str
    data: DataT_co
    id: str
    timestamp: datetime
    scheduled_for: datetime | None = None
    tags: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    batch: tuple[Event[DataT_co], ...] = ()
