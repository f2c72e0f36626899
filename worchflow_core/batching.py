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
        is_outage: tells errors of the backend, which concern all members of a flush alike, from
            those that one bad member may have caused; after the latter each member is flushed
            by itself, so that it alone is told.
    """

    def __init__(
        self,
        flush: Callable[[Sequence[ItemT]], Awaitable[Sequence[AnswerT]]],
        *,
        limit: int = 500,
        is_outage: Callable[[BaseException], bool],
    ) -> None:
        self._flush = flush
        self._limit = limit
        self._is_outage = is_outage
        self._waiting: list[tuple[ItemT, asyncio.Future[AnswerT]]] = []
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """How many items wait for the next flush."""
        return len(self._waiting)

    def submit(self, item: ItemT) -> asyncio.Future[AnswerT]:
        """Take an item along with the next flush; the future holds its answer.

        Cancelling the future does not stop a write that has left.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[AnswerT] = loop.create_future()
        self._waiting.append((item, future))
        if self._task is None:
            self._task = loop.create_task(self._run())
        return future

    async def drain(self) -> None:
        """Return once everything submitted so far was flushed."""
        while self._task is not None:
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch = self._waiting[: self._limit]
                del self._waiting[: self._limit]
                await self._send(batch)
        finally:
            self._task = None
            if self._waiting:  # only when this task was cancelled from outside
                self._task = asyncio.get_running_loop().create_task(self._run())

    async def _send(self, batch: Sequence[tuple[ItemT, asyncio.Future[AnswerT]]]) -> None:
        try:
            answers = await self._flush([item for item, _ in batch])
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
