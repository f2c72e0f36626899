"""Snapshots: one query serves all tabs, each answer at most a second old."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")

_KEPT = 256


@dataclass(frozen=True, slots=True)
class Snapshot(Generic[T]):
    """What was read, when, and a version that changes exactly when the value does."""

    value: T
    taken: float
    version: str


class Snapshots:
    """Read each thing once for all who ask within its lifetime.

    Those who ask while a read is under way wait for it; a failed read is told to all of them and
    forgotten.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, Snapshot[Any]] = OrderedDict()
        self._reading: dict[Hashable, asyncio.Task[Any]] = {}
        self._since = 0.0

    async def get(
        self, key: Hashable, read: Callable[[], Awaitable[T]], *, seconds: float = 1.0
    ) -> Snapshot[T]:
        """Return the snapshot of `key`, reading it if there is none younger than `seconds`."""
        kept = self._kept.get(key)
        oldest = max(self._since, time.monotonic() - seconds)
        if kept is not None and kept.taken >= oldest:
            return cast(Snapshot[T], kept)
        task = self._reading.get(key)
        if task is None or task.get_loop() is not asyncio.get_running_loop():
            task = asyncio.create_task(self._read(key, read))
            task.add_done_callback(lambda done: self._ended(key, done))
            self._reading[key] = task
        # Shielded: a tab that goes away must not take the answer from the others.
        return cast(Snapshot[T], await asyncio.shield(task))

    async def soon(
        self,
        key: Hashable,
        read: Callable[[], Awaitable[T]],
        *,
        seconds: float,
        patience: float,
    ) -> Snapshot[T] | None:
        """Return the snapshot of `key`, or None where reading it takes longer than `patience`.

        The read goes on, and whoever asks later finds it.
        """
        try:
            async with asyncio.timeout(patience):
                return await self.get(key, read, seconds=seconds)
        except TimeoutError:
            return None

    def forget(self) -> None:
        """Drop all snapshots: somebody changed something and wants to see it."""
        self._since = time.monotonic()
        self._reading.clear()

    async def _read(self, key: Hashable, read: Callable[[], Awaitable[T]]) -> Snapshot[T]:
        began = time.monotonic()
        value = await read()
        snapshot = Snapshot(value, began, version_of(value))
        self._kept[key] = snapshot
        self._kept.move_to_end(key)
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return snapshot

    def _ended(self, key: Hashable, task: asyncio.Task[Any]) -> None:
        if self._reading.get(key) is task:
            del self._reading[key]
        if not task.cancelled():
            task.exception()  # looked at here, for those who asked may all have gone
        if not task.cancelled():
            task.exception()  # marks it as seen, should all who asked have gone


def version_of(value: object) -> str:
    """Return a short text that is equal for values that print equally."""
    return hashlib.blake2b(repr(value).encode(errors="replace"), digest_size=8).hexdigest()
