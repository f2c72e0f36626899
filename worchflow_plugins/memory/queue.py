"""The queue in memory: hints in the order they came, and who waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import timedelta
from itertools import islice

from worchflow_core import Execution, Hint, QueueView
from worchflow_plugins.memory.space import InMemory

_HEAD = 10


class MemoryQueue(InMemory):
    """The hints of one space; a worker is given those of its own functions only."""

    keeps_hints = True

    async def push(self, hints: Sequence[Hint]) -> None:
        """Keep the hints and wake all who wait."""
        with self._space.lock:
            for hint in hints:
                self._space.hints[hint.execution.id] = hint.execution.function
                if hint.is_misrouted:  # it has a lane of its own elsewhere, past what waits
                    self._space.hints.move_to_end(hint.execution.id, last=False)
            sleepers = list(self._space.sleepers) if hints else []
        for loop, event in sleepers:
            with suppress(RuntimeError):  # that loop was closed: nobody waits there any more
                loop.call_soon_threadsafe(event.set)

    async def pop(
        self, functions: Collection[str], *, limit: int, wait: timedelta
    ) -> Sequence[str]:
        """Take up to `limit` hints of these functions, waiting at most `wait` for the first."""
        loop = asyncio.get_running_loop()
        end = loop.time() + wait.total_seconds()
        sleeper = (loop, asyncio.Event())
        with self._space.lock:
            self._space.sleepers.add(sleeper)
        try:
            while True:
                sleeper[1].clear()
                found = self._take(functions, limit)
                left = end - loop.time()
                if found or left <= 0:
                    return found
                with suppress(TimeoutError):
                    await asyncio.wait_for(sleeper[1].wait(), left)
        finally:
            with self._space.lock:
                self._space.sleepers.discard(sleeper)

    def _take(self, functions: Collection[str], limit: int) -> list[str]:
        with self._space.lock:
            mine = (key for key, function in self._space.hints.items() if function in functions)
            found = list(islice(mine, limit))
            for key in found:
                del self._space.hints[key]
        return found

    async def mirror(self, executions: Sequence[Execution]) -> None:
        """Do nothing: nobody reads beside this queue."""

    async def view(self) -> QueueView | None:
        """Describe the queue to the sweeper."""
        with self._space.lock:
            head = tuple(islice(self._space.hints, _HEAD))
            return QueueView(epoch=self._space.epoch, head=head, length=len(self._space.hints))
