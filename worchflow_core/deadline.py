"""The deadline of an attempt: when its code is interrupted, also where it only stands still."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

from worchflow_core.signals import ControlSignal, TimedOut
from worchflow_core.stepbook import StepBook

TO_MEET_STEP = 10.0
"""Seconds that code in which nothing new may begin has to come to its next step."""


class Deadline:
    """Interrupt an attempt when its execution's deadline comes.

    One that comes too late, or is being undone, is to meet its steps once more, and is interrupted
    when it comes to none for a while.

    Args:
        book: the attempt's steps.
        started_at: when the attempt began.
        interrupt: called with why.
    """

    def __init__(
        self, book: StepBook, started_at: datetime, interrupt: Callable[[ControlSignal], None]
    ) -> None:
        self._book = book
        self._started_at = started_at
        self._interrupt = interrupt
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> None:
        undos = self._book.undos
        deadline = self._book.execution.deadline_at
        if deadline is not None and not undos.are_begun:
            left = (deadline - self._started_at) / timedelta(seconds=1)
            if left <= 0 and undos.are_due:
                undos.frozen = TimedOut("deadline")
            else:
                self._later(max(0.0, left), lambda: self._interrupt(TimedOut("deadline")))
        if undos.frozen is not None:
            self._until_calm(undos.frozen, -1)

    async def __aexit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _until_calm(self, signal: ControlSignal, called: int) -> None:
        now_called = self._book.identities.count
        if now_called == called:
            self._interrupt(signal)
        else:
            self._later(TO_MEET_STEP, lambda: self._until_calm(signal, now_called))

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, call)
