"""The queue for stores that come without one: it keeps nothing, the store is polled."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Self

from worchflow_core.models import Execution, Finding, Hint, QueueView

_INTERVAL = 0.5


class PollingQueue:
    """Wake workers of this process at once, and all others by the clock."""

    keeps_hints = False

    def __init__(self) -> None:
        self._poke = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None

    def describe(self) -> str:
        """Say that the store is polled."""
        return "none: the store is polled twice a second"

    async def check(self) -> Sequence[Finding]:
        """Find nothing: there is nothing to examine."""
        return ()

    async def push(self, hints: Sequence[Hint]) -> None:
        """Wake the workers of this process."""
        self._poke.set()

    async def pop(
        self, functions: Collection[str], *, limit: int, wait: timedelta
    ) -> Sequence[str]:
        """Return nothing, after a push in this process or the interval with jitter."""
        longest = min(wait.total_seconds(), _INTERVAL * random.uniform(0.75, 1.25))
        try:
            async with asyncio.timeout(longest):
                await self._poke.wait()
        except TimeoutError:
            return ()
        self._poke.clear()
        return ()

    async def mirror(self, executions: Sequence[Execution]) -> None:
        """Do nothing: there are no outside readers."""

    async def view(self) -> QueueView | None:
        """Return None: it keeps no hints."""
        return None
