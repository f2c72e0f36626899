"""Asides: what the queue and the step cache are told after the store, whose loss costs only time.

They leave in batches of their own, beside the writes that matter, so that a slow or absent server
holds up neither a step nor a settle.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, TypeVar

from worchflow_core.batching import Batcher
from worchflow_core.models import Execution, Hint, StepRecord
from worchflow_core.protocols import Queue, StepCache

logger = logging.getLogger("worchflow")
T = TypeVar("T")

CAPACITY = 20_000
"""How much may wait for a server that is slow; what comes later is dropped, and found again."""

PATIENCE = 5.0
"""Seconds after which a call that has not returned is given up, however its backend waits."""


class Asides:
    """Tell the queue and the step cache, in the background and in order of each kind."""

    def __init__(self, queue: Queue, cache: StepCache | None) -> None:
        self.queue = queue
        self.cache = cache
        self._outages: dict[str, int] = {}
        self._hints = self._batcher("queue", queue.push)
        self._mirrors = self._batcher("queue", queue.mirror)
        self._puts = self._drops = None
        if cache is not None:
            self._puts = self._batcher("step cache", cache.put)
            self._drops = self._batcher("step cache", cache.drop)

    def hint(self, executions: Sequence[Execution], *, is_misrouted: bool = False) -> None:
        """Let workers know of executions."""
        hints = [Hint(execution=item, is_misrouted=is_misrouted) for item in executions]
        self._submit(self._hints, hints)

    def mirror(self, executions: Sequence[Execution]) -> None:
        """Let outside readers see executions as they now are."""
        self._submit(self._mirrors, executions)

    def put(self, steps: Sequence[StepRecord]) -> None:
        """Keep copies of steps that the store has accepted."""
        if self._puts is not None:
            self._submit(self._puts, steps)

    def drop(self, execution_ids: Collection[str]) -> None:
        """Forget the copies of executions that ended."""
        if self._drops is not None:
            self._submit(self._drops, list(execution_ids))

    async def ask(self, what: str, call: Awaitable[T], kind: str = "") -> T | None:
        """Await a call whose failure costs only time; warn once per outage.

        Calls of one `kind` fail and recover together; one kind may fail while another works.
        """
        kind = kind or what
        try:
            async with asyncio.timeout(PATIENCE):
                answer = await call
        except Exception as error:
            count = self._outages[kind] = self._outages.get(kind, 0) + 1
            if count == 1:
                logger.warning("the %s does not answer, work goes on without it: %r", what, error)
            return None
        if kind in self._outages:
            count = self._outages.pop(kind)
            logger.info("the %s answers again, after %d failed calls", what, count)
        return answer

    async def drain(self, timeout: float = 5.0) -> None:
        """Return once everything was told, or after `timeout` seconds."""
        batchers = [self._hints, self._mirrors, self._puts, self._drops]
        drains = [asyncio.ensure_future(item.drain()) for item in batchers if item is not None]
        _, late = await asyncio.wait(drains, timeout=timeout)
        for task in late:
            task.cancel()

    def _batcher(
        self, what: str, tell: Callable[[Sequence[Any]], Awaitable[None]]
    ) -> Batcher[Any, None]:
        kind = f"{what} {getattr(tell, '__name__', '')}"

        async def flush(items: Sequence[Any]) -> Sequence[None]:
            await self.ask(what, tell(items), kind)
            return [None] * len(items)

        return Batcher(flush, is_outage=lambda error: True)

    def _submit(self, batcher: Batcher[Any, None], items: Sequence[Any]) -> None:
        if batcher.waiting < CAPACITY:
            for item in items:
                batcher.submit(item)
