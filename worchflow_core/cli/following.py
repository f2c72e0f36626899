"""Following an execution while a command waits for it: what it says, as lines on standard error."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from worchflow_core.cli import output, said
from worchflow_core.errors import WorchflowError
from worchflow_core.notes import Notes, Progress

if TYPE_CHECKING:
    from worchflow_core.cli.flags import Flags
    from worchflow_core.client import Client

_INTERVAL = 1.0
_SHARE = 0.1
"""Progress is told when it has grown by this share of its total, ..."""

_SELDOM = 10.0
"""... or after so many seconds in which it was not."""


class Follower:
    """Tell each log line once, and progress now and then.

    Args:
        client: reads what an execution says.
        execution_id: which.
    """

    def __init__(self, client: Client, execution_id: str) -> None:
        self._client = client
        self._execution_id = execution_id
        self._before = Notes()
        self._told: Progress | None = None
        self._told_at = 0.0

    async def tell(self) -> None:
        """Tell what came since it was asked before."""
        now = await self._client.notes(self._execution_id)
        for line in said.new_lines(self._before, now):
            output.say(said.log_line(line))
        if now.progress is not None and self._is_worth_telling(now.progress, time.monotonic()):
            self._told, self._told_at = now.progress, time.monotonic()
            output.say(said.progress_line(now.progress, output.width()))
        self._before = now

    def _is_worth_telling(self, progress: Progress, now: float) -> bool:
        told = self._told
        if told is None or told.total != progress.total:
            return True
        if (told.done, told.note) == (progress.done, progress.note):
            return False
        is_over = progress.done == progress.total
        has_grown = bool(progress.total) and progress.done - told.done >= _SHARE * (
            progress.total or 0
        )
        return is_over or has_grown or now - self._told_at >= _SELDOM


@contextlib.asynccontextmanager
async def following(client: Client, execution_id: str, flags: Flags) -> AsyncIterator[None]:
    """Tell meanwhile what an execution says, and at the end what it said last."""
    if flags.quiet or flags.json:
        yield
        return
    follower = Follower(client, execution_id)
    task = asyncio.create_task(_follow(follower))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
        with contextlib.suppress(WorchflowError, ConnectionError):
            await follower.tell()


async def _follow(follower: Follower) -> None:
    while not asyncio.current_task().cancelling():  # type: ignore[union-attr]
        with contextlib.suppress(WorchflowError, ConnectionError):
            await follower.tell()
        await asyncio.sleep(_INTERVAL)
