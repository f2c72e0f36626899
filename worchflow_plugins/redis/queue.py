"""The queue in Redis: a list of execution ids, one lane per function for those gone astray."""

from __future__ import annotations

import contextlib
import logging
import re
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from worchflow_core import ConfigurationError, Execution, Finding, Hint, QueueView
from worchflow_plugins.redis.address import Client
from worchflow_plugins.redis.breaker import Breaker
from worchflow_plugins.redis.checks import examine, policy_advice, scheduler_advice
from worchflow_plugins.redis.keys import Keys
from worchflow_plugins.redis.link import LONGEST_WAIT, Link
from worchflow_plugins.redis.mirrors import ENDED_KEPT, batches, commands
from worchflow_plugins.redis.packing import Command

logger = logging.getLogger("worchflow.redis")

_HEAD = 10
_LONGEST_ID = 1024
_LANES_LOOKED_AT = 0.2
"""Seconds between looks at the lanes while the main list gives enough."""


class RedisQueue:
    """Carry hints in a list; consume with LPOP and BLPOP, which a full Redis still allows.

    Args:
        source: a URL, or a `redis.asyncio.Redis` of the caller's, who closes it.
        prefix: the first part of every key.
        ended_kept: how long the hash of an execution that ended is kept.

    Attributes:
        dropped: how many entries of the list were no ids and were thrown away.
    """

    keeps_hints = True

    def __init__(
        self,
        source: str | Client,
        *,
        prefix: str = "worchflow",
        ended_kept: timedelta = ENDED_KEPT,
    ) -> None:
        self._link = Link(source)
        self._keys = Keys(prefix)
        self._ended_kept = max(1, int(ended_kept.total_seconds()))
        self._writes = Breaker()
        self._pops = Breaker(self._tell)
        self._turn = 0
        self._busy_lanes: list[str] = []
        self._lanes_at = 0.0
        self._has_met_scheduler: bool | None = None
        self.dropped = 0

    async def __aenter__(self) -> Self:
        """Make ready; the server may be away, hints only make things fast."""
        await self._link.open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close what this object opened itself."""
        await self._link.close()

    def describe(self) -> str:
        """Return kind, place and prefix."""
        return f"redis  {self._link.place}, prefix {self._keys.prefix}"

    async def check(self) -> Sequence[Finding]:
        """Examine version, memory policy, persistence and the queue's length."""
        return await examine(self._link, self._keys)

    async def push(self, hints: Sequence[Hint]) -> None:
        """Write the hashes of executions, then their ids to the list, 500 in one trip."""
        astray = [hint.execution for hint in hints if hint.is_misrouted]
        fresh = [hint.execution for hint in hints if not hint.is_misrouted]
        for batch in batches(fresh):
            trip = self._mirror_commands(batch, with_data=True)
            # Last: a worker that pops an id finds its hash, and no late HSET undoes its end.
            trip.append(("RPUSH", self._keys.queue, *(item.id for item in batch)))
            await self._run(trip)
        if astray:
            lanes: dict[str, list[str]] = {}
            for item in astray:
                lanes.setdefault(item.function, []).append(item.id)
            await self._run([("RPUSH", self._keys.lane(name), *ids) for name, ids in lanes.items()])

    async def pop(
        self, functions: Collection[str], *, limit: int, wait: timedelta
    ) -> Sequence[str]:
        """Return up to `limit` ids, waiting at most two seconds for the first.

        Raises:
            ConfigurationError: the original's scheduler uses this prefix; asked once.
        """
        if limit < 1:
            return ()
        if self._has_met_scheduler is None:
            await self._refuse_scheduler()
        return await self._pops.call(lambda: self._pop(functions, limit, wait.total_seconds()))

    async def mirror(self, executions: Sequence[Execution]) -> None:
        """Bring the hashes of executions up to date; those of ended ones expire soon."""
        for batch in batches(executions):
            await self._run(self._mirror_commands(batch, with_data=False))

    async def view(self) -> QueueView | None:
        """Return the list's head and length, and the epoch, which a wiped server has lost."""
        keys = self._keys
        # Three commands of which each alone is harmless; in between another may set the epoch.
        _, epoch, head, length, lock = await self._run(
            [
                ("SET", keys.epoch, uuid.uuid4().hex, "NX"),
                ("GET", keys.epoch),
                ("LRANGE", keys.queue, 0, _HEAD - 1),
                ("LLEN", keys.queue),
                ("GET", keys.foreign_leader),
            ]
        )
        if lock is not None and not self._has_met_scheduler:
            self._has_met_scheduler = True
            logger.error("%s", scheduler_advice(self._link.place, keys))
        ids = tuple(text for item in head if (text := _text(item)) is not None)
        return QueueView(epoch=_text(epoch) or "", head=ids, length=int(length))

    async def mirrored(self, execution_id: str) -> Mapping[str, str]:
        """Return the hash in which outside readers find an execution; {} when it is gone."""
        (fields,) = await self._run([("HGETALL", self._keys.execution(execution_id))])
        return {_shown(name): _shown(value) for name, value in fields.items()}

    async def _refuse_scheduler(self) -> None:
        (lock,) = await self._pops.call(
            lambda: self._link.run([("GET", self._keys.foreign_leader)])
        )
        if lock is not None:
            raise ConfigurationError(scheduler_advice(self._link.place, self._keys))
        self._has_met_scheduler = False
        await self._warn_of_policy()

    async def _warn_of_policy(self) -> None:
        """Warn once of a server that throws hints away; an ACL may forbid to ask."""
        with contextlib.suppress(ConnectionError):
            (facts,) = await self._link.run([("INFO", "memory")])
            policy = re.search(r"maxmemory_policy:(\S+)", _shown(facts))
            advice = policy and policy_advice(policy[1], self._link.place)
            if advice:
                logger.warning("%s", advice)

    # --- popping --------------------------------------------------------------------------------

    async def _pop(self, functions: Collection[str], limit: int, wait: float) -> list[str]:
        self._turn += 1
        lanes = [self._keys.lane(name) for name in functions]
        with self._link.translated():
            found = await self._take(lanes, limit)
            if found or wait <= 0:
                return self._ids(found)
            # BLPOP drains its first key first: each key has its turn.
            keys = _rotated([self._keys.queue, *lanes], self._turn)
            answer: Any = await self._link.waiting.blpop(keys, timeout=min(wait, LONGEST_WAIT))
        return self._ids([answer[1]] if answer else [])

    async def _take(self, lanes: list[str], limit: int) -> list[Any]:
        """Take what is there without waiting, main list and busy lanes in rotating order."""
        now = time.monotonic()
        has_looked = now - self._lanes_at >= _LANES_LOOKED_AT
        if has_looked:
            await self._look_at(lanes, now)
        found = await self._take_from(
            _rotated([self._keys.queue, *self._busy_lanes], self._turn), limit
        )
        if not found and not has_looked:
            await self._look_at(lanes, now)
            found = await self._take_from(self._busy_lanes, limit)
        return found

    async def _look_at(self, lanes: list[str], now: float) -> None:
        self._lanes_at = now
        lengths = await self._link.run([("LLEN", lane) for lane in lanes])
        self._busy_lanes = [lane for lane, length in zip(lanes, lengths, strict=True) if length]

    async def _take_from(self, keys: Sequence[str], limit: int) -> list[Any]:
        found: list[Any] = []
        for key in list(keys):
            (answer,) = await self._link.run([("LPOP", key, limit - len(found))])
            found += answer or ()
            if len(found) >= limit:
                break
            if key in self._busy_lanes:
                self._busy_lanes.remove(key)
        return found

    def _ids(self, found: Sequence[Any]) -> list[str]:
        """Return what can be ids; the rest is counted, and logged so that it does no harm."""
        ids = []
        for item in found:
            text = _text(item)
            if text is None:
                self.dropped += 1
                shown = ascii(item[:60])
                logger.warning("%s holds %s, which is no id; dropped", self._keys.queue, shown)
            else:
                ids.append(text)
        return ids

    # --- writing --------------------------------------------------------------------------------

    def _mirror_commands(
        self, executions: Sequence[Execution], *, with_data: bool
    ) -> list[Command]:
        return [
            command
            for item in executions
            for command in commands(self._keys, item, self._ended_kept, with_data=with_data)
        ]

    async def _run(self, trip: Sequence[Command]) -> list[Any]:
        return await self._writes.call(lambda: self._link.run(trip))

    def _tell(self, reason: str | None) -> None:
        if reason is None:
            logger.info("the queue is read again from Redis at %s", self._link.place)
        else:
            logger.warning("no hints until it is mended, the store is polled: %s", reason)


def _text(item: Any) -> str | None:
    """Return an entry as text; None where no client can have meant it as an id."""
    if len(item) > _LONGEST_ID or not item:
        return None
    if isinstance(item, str):
        return item
    try:
        return bytes(item).decode()
    except UnicodeDecodeError:
        return None


def _shown(item: Any) -> str:
    return item if isinstance(item, str) else bytes(item).decode(errors="replace")


def _rotated(keys: Sequence[str], turn: int) -> list[str]:
    start = turn % len(keys)
    return [*keys[start:], *keys[:start]]
