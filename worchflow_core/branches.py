"""The branches of an attempt: which are at work, and when none is, so that all of them wait."""

from __future__ import annotations

import asyncio

_TURNS = 16
"""After so many turns of the loop without a step, nobody is about to begin one: what a step
returned has been handed on through whatever tasks and groups user code has put around it."""


class Branches:
    """Count the steps at work, for those that have to wait and must not stop the others.

    A branch that met a sleep or a wait is held. Would it raise at once, the steps of all other
    branches had to unwind too, although their event is there, or their result.
    """

    def __init__(self) -> None:
        self._at_work = 0
        self._begun = 0
        self._is_over = False
        self._idle = asyncio.Event()

    def begin(self) -> None:
        """Note that a step is at work."""
        self._at_work += 1
        self._begun += 1
        self._idle.clear()

    def done(self) -> None:
        """Note that it no longer is: it answers, or has to wait."""
        self._at_work -= 1
        if not self._at_work:
            self._idle.set()

    def end(self) -> None:
        """Hold nobody any more."""
        self._is_over = True
        self._idle.set()

    async def until_idle(self) -> None:
        """Return once no step is at work and none begins, or once all have to unwind."""
        calm = 0
        while calm < _TURNS and not self._is_over:
            if self._at_work:
                await self._idle.wait()
                calm = 0
                continue
            begun = self._begun
            await asyncio.sleep(0)
            calm = calm + 1 if begun == self._begun else 0
