"""Batching: what arrives during a flush leaves with the next, and each member hears its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from tests.core.support import run, until
from worchflow_core.batching import Batcher


class Sink:
    """A flush that keeps what it got and can be held up, fail, or answer wrongly."""

    def __init__(self) -> None:
        self.flushes: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.bad: set[int] = set()
        self.is_away = False
        self.forgets = False

    async def flush(self, items: Sequence[int]) -> Sequence[int]:
        self.flushes.append(list(items))
        await self.gate.wait()
        if self.is_away:
            raise ConnectionError("away")
        if self.bad & set(items):
            raise ValueError("a bad member")
        return [] if self.forgets else [item * 10 for item in items]

    def batcher(self, **options: int) -> Batcher[int, int]:
        return Batcher(
            self.flush, is_outage=lambda error: isinstance(error, ConnectionError), **options
        )


def test_single_item_leaves_at_once_and_the_rest_together() -> None:
    async def main() -> None:
        sink = Sink()
        batcher = sink.batcher()
        sink.gate.clear()
        first = batcher.submit(1)
        await until(lambda: sink.flushes == [[1]])
        others = [batcher.submit(number) for number in range(2, 6)]
        assert batcher.waiting == 4
        sink.gate.set()
        assert await asyncio.gather(first, *others) == [10, 20, 30, 40, 50]
        assert sink.flushes == [[1], [2, 3, 4, 5]]

    run(main())


def test_flushes_are_cut_at_the_limit() -> None:
    async def main() -> None:
        sink = Sink()
        batcher = sink.batcher(limit=3)
        await asyncio.gather(*(batcher.submit(number) for number in range(10)))
        assert max(map(len, sink.flushes)) <= 3
        assert sorted(item for flush in sink.flushes for item in flush) == list(range(10))

    run(main())


def test_bad_member_harms_nobody_else() -> None:
    async def main() -> None:
        sink = Sink()
        batcher = sink.batcher()
        sink.bad = {3}
        answers = await asyncio.gather(
            *(batcher.submit(number) for number in range(5)), return_exceptions=True
        )
        assert [item for item in answers if not isinstance(item, Exception)] == [0, 10, 20, 40]
        assert isinstance(answers[3], ValueError)

    run(main())


def test_outage_is_told_to_all_and_not_tried_one_by_one() -> None:
    async def main() -> None:
        sink = Sink()
        batcher = sink.batcher()
        sink.is_away = True
        answers = await asyncio.gather(
            *(batcher.submit(number) for number in range(5)), return_exceptions=True
        )
        assert all(isinstance(item, ConnectionError) for item in answers)
        assert len(sink.flushes) <= 2
        sink.is_away = False
        assert await batcher.submit(1) == 10

    run(main())


def test_backend_that_answers_for_too_few_is_an_error_and_nobody_waits_for_ever() -> None:
    async def main() -> None:
        sink = Sink()
        sink.forgets = True
        batcher = sink.batcher()
        answers = await asyncio.gather(batcher.submit(1), batcher.submit(2), return_exceptions=True)
        assert [type(item) for item in answers] == [RuntimeError, RuntimeError]

    run(main())


def test_cancelled_waiter_does_not_stop_the_flush() -> None:
    async def main() -> None:
        sink = Sink()
        batcher = sink.batcher()
        sink.gate.clear()
        futures = [batcher.submit(number) for number in range(3)]
        await until(lambda: sink.flushes)
        futures[0].cancel()
        sink.gate.set()
        assert await futures[2] == 20
        await batcher.drain()
        assert batcher.waiting == 0

    run(main())


def test_nothing_is_left_pending_when_the_loop_closes() -> None:
    futures = []

    async def main() -> None:
        sink = Sink()
        batcher = sink.batcher()
        sink.gate.clear()
        futures.extend(batcher.submit(number) for number in range(3))
        await until(lambda: sink.flushes)
        futures.append(batcher.submit(4))

    run(main())
    assert all(future.cancelled() for future in futures)


@pytest.mark.parametrize("flights", [1, 3])
def test_no_more_flushes_are_under_way_than_allowed(flights: int) -> None:
    async def main() -> None:
        now = most = 0

        async def flush(items: Sequence[int]) -> Sequence[int]:
            nonlocal now, most
            now += 1
            most = max(most, now)
            await asyncio.sleep(0)
            now -= 1
            return items

        batcher = Batcher(flush, limit=2, flights=flights, is_outage=lambda error: False)
        futures = []
        for number in range(30):
            futures.append(batcher.submit(number))
            await asyncio.sleep(0)
        assert await asyncio.gather(*futures) == list(range(30))
        assert most <= flights

    run(main())
