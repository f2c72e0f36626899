"""The contract of `Queue`: hints may be lost, repeated and reordered, but never block."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, suppress
from datetime import timedelta

from worchflow_core.models import Hint
from worchflow_core.protocols import Queue
from worchflow_core.testing.contracts.opening import opened, until
from worchflow_core.testing.contracts.samples import HOSTILE, execution

_NOT_AT_ALL = timedelta(0)
_LONG = timedelta(seconds=60)


def _hints(*ids: str, function: str = "f", is_misrouted: bool = False) -> list[Hint]:
    return [
        Hint(execution=execution(item, function=function), is_misrouted=is_misrouted)
        for item in ids
    ]


class QueueContract:
    """Subclass it, define `open`, and every promise of `Queue` is tested."""

    def open(self) -> AbstractAsyncContextManager[Queue]:
        """Return a queue to enter, empty and independent of any opened before."""
        raise NotImplementedError(f"{type(self).__name__} must say how to open a fresh queue")

    @opened
    async def test_describe_and_check(self, queue: Queue) -> None:
        """A queue says where it is, and a fresh one has no problem."""
        assert queue.describe().strip()
        assert "\n" not in queue.describe()
        for finding in await queue.check():
            assert finding.level in {"ok", "warning"}, finding

    @opened
    async def test_an_empty_queue_does_not_hold_on(self, queue: Queue) -> None:
        """Without waiting, an empty queue answers at once with nothing."""
        answer = await asyncio.wait_for(queue.pop(["f"], limit=5, wait=_NOT_AT_ALL), 30)
        assert list(answer) == []
        await queue.push([])
        await queue.mirror([])

    @opened
    async def test_what_is_pushed_is_popped(self, queue: Queue) -> None:
        """Where hints are kept, each comes out, in batches no larger than asked for."""
        ids = [f"e{number}" for number in range(25)]
        await queue.push(_hints(*ids))
        if not queue.keeps_hints:
            assert list(await queue.pop(["f"], limit=5, wait=_NOT_AT_ALL)) == []
            return
        popped: list[str] = []

        async def drained() -> bool:
            batch = await queue.pop(["f"], limit=10, wait=_NOT_AT_ALL)
            assert len(batch) <= 10
            popped.extend(batch)
            return len(popped) >= len(ids)

        await until(drained)
        assert sorted(popped) == sorted(ids)

    @opened
    async def test_push_wakes_a_waiting_pop(self, queue: Queue) -> None:
        """A worker that waits is woken by a push long before its wait ends."""
        waiting = asyncio.create_task(queue.pop(["f"], limit=5, wait=_LONG))

        async def woken() -> bool:
            # Pushed again and again: the pop may not have begun to wait at the first.
            await queue.push(_hints("a"))
            return waiting.done()

        await until(woken)
        assert set(await waiting) <= {"a"}
        assert queue.keeps_hints is False or await waiting

    @opened
    async def test_a_push_between_two_pops_is_noticed(self, queue: Queue) -> None:
        """A hint that arrives while nobody waits does not leave the next pop waiting."""
        await queue.pop(["f"], limit=5, wait=_NOT_AT_ALL)
        await queue.push(_hints("a"))
        answer = await asyncio.wait_for(queue.pop(["f"], limit=5, wait=_LONG), 30)
        assert set(answer) <= {"a"}

    @opened
    async def test_other_functions_do_not_block(self, queue: Queue) -> None:
        """A misrouted hint pushed back reaches a worker that has its function."""
        await queue.push(_hints("other", function="g"))
        await queue.push(_hints("other", function="g", is_misrouted=True))
        await queue.push(_hints("mine"))
        if not queue.keeps_hints:
            return
        seen: dict[str, set[str]] = {"f": set(), "g": set()}

        async def all_seen() -> bool:
            for function, ids in seen.items():
                for found in await queue.pop([function], limit=10, wait=_NOT_AT_ALL):
                    if found == "other" and function == "f":
                        await queue.push(_hints("other", function="g", is_misrouted=True))
                    else:
                        ids.add(found)
            return "mine" in seen["f"] | seen["g"] and "other" in seen["g"]

        await until(all_seen)

    @opened
    async def test_a_cancelled_pop_leaves_a_working_queue(self, queue: Queue) -> None:
        """A worker that stops waiting takes nothing away from the queue's health."""
        for _ in range(3):
            waiting = asyncio.create_task(queue.pop(["f"], limit=1, wait=_LONG))
            await asyncio.sleep(0)
            waiting.cancel()
            with suppress(asyncio.CancelledError):
                await waiting
        await queue.push(_hints("a"))
        answer = await asyncio.wait_for(queue.pop(["f"], limit=1, wait=_LONG), 30)
        assert set(answer) <= {"a"}

    @opened
    async def test_view_tells_what_is_held(self, queue: Queue) -> None:
        """A queue that keeps hints shows its head; another says nothing."""
        await queue.push(_hints("a", "b", "c"))
        view = await queue.view()
        if not queue.keeps_hints:
            assert view is None
            return
        assert view is not None
        assert view.length == 3
        assert set(view.head) <= {"a", "b", "c"}
        assert view.head
        again = await queue.view()
        assert again is not None
        assert again.epoch == view.epoch

    @opened
    async def test_hostile_ids(self, queue: Queue) -> None:
        """Ids and functions that foreign clients chose are carried literally."""
        texts = [text[:200] for text in HOSTILE]
        hints = [Hint(execution=execution(text, function=text)) for text in texts]
        await queue.push(hints)
        await queue.mirror([hint.execution for hint in hints])
        if not queue.keeps_hints:
            return
        popped: set[str] = set()

        async def drained() -> bool:
            popped.update(await queue.pop(texts, limit=100, wait=_NOT_AT_ALL))
            return popped == set(texts)

        await until(drained)
