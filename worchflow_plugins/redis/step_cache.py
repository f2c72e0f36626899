"""The step cache in Redis: one hash per execution, step id to entry."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from worchflow_core import Execution, Finding, StepRecord, StepStatus
from worchflow_plugins.redis.address import Client
from worchflow_plugins.redis.breaker import Breaker
from worchflow_plugins.redis.checks import examine
from worchflow_plugins.redis.entries import entry_of, step_of
from worchflow_plugins.redis.keys import Keys
from worchflow_plugins.redis.link import Link
from worchflow_plugins.redis.packing import Command

_KEPT = timedelta(days=1)
_BYTES_AT_ONCE = 8 * 1024 * 1024
_EXECUTIONS_AT_ONCE = 500


class RedisStepCache:
    """Keep copies of recorded steps; every key expires.

    Args:
        source: a URL, or a `redis.asyncio.Redis` of the caller's, who closes it.
        prefix: the first part of every key.
        kept: how long after the last step the copies are kept.
    """

    def __init__(
        self, source: str | Client, *, prefix: str = "worchflow", kept: timedelta = _KEPT
    ) -> None:
        self._link = Link(source)
        self._keys = Keys(prefix)
        self._kept = max(1, int(kept.total_seconds()))
        self._breaker = Breaker()

    async def __aenter__(self) -> Self:
        """Make ready; the server may be away, copies only save time."""
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
        """Examine version, memory policy and persistence."""
        return await examine(self._link, self._keys)

    async def get_all(self, executions: Sequence[Execution]) -> Mapping[str, Sequence[StepRecord]]:
        """Return the cached steps of these very executions, not of deleted namesakes."""
        found: dict[str, Sequence[StepRecord]] = {}
        for start in range(0, len(executions), _EXECUTIONS_AT_ONCE):
            part = executions[start : start + _EXECUTIONS_AT_ONCE]
            trip: list[Command] = [("HGETALL", self._keys.steps(item.id)) for item in part]
            for execution, answer in zip(part, await self._run(trip), strict=True):
                steps = _steps_of(execution, answer)
                if steps:
                    found[execution.id] = steps
        return found

    async def put(self, steps: Sequence[StepRecord]) -> None:
        """Keep copies of completed steps."""
        hashes: dict[str, list[str | bytes | int]] = {}
        size = 0
        for step in steps:
            if step.status is not StepStatus.COMPLETED or step.result is None:
                continue
            entry = entry_of(step)
            size += len(entry)
            hashes.setdefault(step.execution_id, []).extend((step.step_id, entry))
            if size > _BYTES_AT_ONCE:
                await self._put(hashes)
                hashes, size = {}, 0
        if hashes:
            await self._put(hashes)

    async def drop(self, execution_ids: Collection[str]) -> None:
        """Forget the steps of executions that ended."""
        keys = [self._keys.steps(item) for item in execution_ids]
        for start in range(0, len(keys), _EXECUTIONS_AT_ONCE):
            part = keys[start : start + _EXECUTIONS_AT_ONCE]
            await self._run([("UNLINK", *part)])

    async def _put(self, hashes: Mapping[str, list[str | bytes | int]]) -> None:
        trip: list[Command] = []
        for execution_id, fields in hashes.items():
            key = self._keys.steps(execution_id)
            # Always both: a late HSET alone would bring back a key that never expires.
            trip.append(("HSET", key, *fields))
            trip.append(("EXPIRE", key, self._kept))
        await self._run(trip)

    async def _run(self, trip: Sequence[Command]) -> list[Any]:
        return await self._breaker.call(lambda: self._link.run(trip))


def _steps_of(execution: Execution, answer: Any) -> list[StepRecord]:
    pairs = answer.items() if isinstance(answer, Mapping) else zip(*[iter(answer)] * 2, strict=True)
    found = []
    for name, entry in pairs:
        step_id, text = _text(name), _text(entry)
        if step_id is None or text is None:
            continue
        step = step_of(execution.id, step_id, text)
        if step is not None and step.execution_created_at == execution.created_at:
            found.append(step)
    return found


def _text(value: str | bytes) -> str | None:
    if isinstance(value, str):
        return value
    try:
        return value.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return None
