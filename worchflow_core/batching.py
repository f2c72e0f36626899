"""Batching without a timer: what arrives while one flush is in flight leaves with the next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")
AnswerT = TypeVar("AnswerT")


class Batcher(Generic[ItemT, AnswerT]):
    """Gather single submissions into plural writes; on a quiet system nothing waits.

    Args:
        flush: writes many items and answers each, in order.
        limit: the most items of one flush.
        flights: how many flushes may be under way at once.
        is_outage: tells errors of the backend, which concern all members of a flush alike, from
            those that one bad member may have caused; after the latter each member is flushed
            by itself, so that it alone is told.
    """

    def __init__(
        self,
        flush: Callable[[Sequence[ItemT]], Awaitable[Sequence[AnswerT]]],
        *,
        limit: int = 500,
        flights: int = 1,
        is_outage: Callable[[BaseException], bool],
    ) -> None:
        self._flush = flush
        self._limit = limit
        self._flights = flights
        self._is_outage = is_outage
        self._waiting: list[tuple[ItemT, asyncio.Future[AnswerT]]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> int:
        """How many items wait for the next flush."""
        return len(self._waiting)

    def submit(self, item: ItemT) -> asyncio.Future[AnswerT]:
        """Take an item along with the next flush; the future holds its answer.

        Cancelling the future does not stop a write that has left.
        """
        future: asyncio.Future[AnswerT] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if len(self._tasks) < self._flights:
            self._start()
        return future

    async def drain(self) -> None:
        """Return once everything submitted so far was flushed."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _start(self) -> None:
        task = asyncio.get_running_loop().create_task(self._run())
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():  # the event loop is closing: nothing more will be written
            for _, future in self._waiting:
                future.cancel()
            self._waiting.clear()
        elif self._waiting and not self._tasks:  # what arrived last
            self._start()

    async def _run(self) -> None:
        while self._waiting:
            batch = self._waiting[: self._limit]
            del self._waiting[: self._limit]
            await self._send(batch)

    async def _send(self, batch: Sequence[tuple[ItemT, asyncio.Future[AnswerT]]]) -> None:
        try:
            answers = await self._flush([item for item, _ in batch])
            if len(answers) != len(batch):
                raise RuntimeError(f"{len(batch)} items were flushed, {len(answers)} answered")
        except Exception as error:
            if len(batch) > 1 and not self._is_outage(error):
                for member in batch:
                    await self._send([member])
                return
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        except BaseException:
            for _, future in batch:
                future.cancel()
            raise
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)
