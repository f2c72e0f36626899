"""Waiting for results: one poll for all who wait."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.core.support import Faulty, application, faulty_memory, run, until
from worchflow_core import (
    Event,
    Execution,
    NotFound,
    ResultTimeout,
    Status,
    Step,
    StoreUnavailable,
    WorchflowError,
    function,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@function
async def quick(event: Event[Any], step: Step) -> int:
    return 7


def end(store: Faulty, execution_id: str) -> None:
    """Let an execution end as another process would: behind this one's back."""
    space = store.inner._space
    standing = space.executions[execution_id]
    space.keep(replace(standing, status=Status.COMPLETED, result="7", finished_at=NOW))


def test_two_hundred_waiters_share_one_poll() -> None:
    store, options = faulty_memory()

    async def main() -> None:
        async with application(quick, **options) as app:
            handles = [await app.client.send(quick, None) for _ in range(200)]
            waiting = [asyncio.ensure_future(item.result(timeout=30)) for item in handles]
            await until(lambda: store.calls["get"] >= 4)
            for handle in handles:
                end(store, handle.id)
            assert await asyncio.gather(*waiting) == [7] * 200
            assert store.calls["get"] < 15

    run(main())


def test_waiters_that_come_one_by_one_are_asked_for_by_themselves() -> None:
    store, options = faulty_memory()
    asked: list[int] = []

    async def main() -> None:
        async with application(quick, **options) as app:
            store.refuse = lambda name, args: asked.append(len(args[0])) if name == "get" else None
            handles = [await app.client.send(quick, None) for _ in range(50)]
            waiting = []
            for handle in handles:
                waiting.append(asyncio.ensure_future(handle.result(timeout=30)))
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            assert sum(asked) < 50 * 10
            for handle in handles:
                end(store, handle.id)
            assert await asyncio.gather(*waiting) == [7] * 50

    run(main())


def test_poll_ends_with_the_last_waiter_and_begins_anew_with_the_next() -> None:
    store, options = faulty_memory()

    async def main() -> None:
        async with application(quick, **options) as app:
            for _ in range(2):
                handle = await app.client.send(quick, None)
                with pytest.raises(ResultTimeout, match="it goes on"):
                    await handle.result(timeout=0.05)
                await until(lambda: len(asyncio.all_tasks()) == 1)
                end(store, handle.id)
                assert await handle.result(timeout=5) == 7

    run(main())


def test_unknown_execution_is_not_found() -> None:
    async def main() -> None:
        async with application(quick) as app:
            with pytest.raises(NotFound, match="'nobody'"):
                await app.client.result("nobody", timeout=5)

    run(main())


def test_execution_that_is_deleted_while_awaited_is_not_found() -> None:
    store, options = faulty_memory()

    async def main() -> None:
        async with application(quick, **options) as app:
            handle = await app.client.send(quick, None)
            waiting = asyncio.ensure_future(handle.result(timeout=10))
            await until(lambda: store.calls["get"])
            store.inner._space.executions.clear()
            with pytest.raises(NotFound):
                await waiting

    run(main())


def test_outage_is_waited_out() -> None:
    store, options = faulty_memory()

    async def main() -> None:
        async with application(quick, **options) as app:
            handle = await app.client.send(quick, None)
            store.away.add("get")
            waiting = asyncio.ensure_future(handle.result(timeout=10))
            await until(lambda: store.calls["get"] > 2)
            end(store, handle.id)
            store.away.clear()
            assert await waiting == 7

    run(main())


def test_strange_error_of_the_store_reaches_those_who_wait() -> None:
    store, options = faulty_memory()

    async def main() -> None:
        async with application(quick, **options) as app:
            handle = await app.client.send(quick, None)
            store.refuse = lambda name, args: ZeroDivisionError("a bug")
            with pytest.raises(ZeroDivisionError):
                await handle.result(timeout=10)
            store.refuse = lambda name, args: None
            end(store, handle.id)
            assert await handle.result(timeout=5) == 7

    run(main())


def test_closing_the_application_tells_those_who_wait() -> None:
    async def main() -> None:
        async with application(quick) as app:
            handle = await app.client.send(quick, None)
            waiting = asyncio.ensure_future(handle.result())
            await asyncio.sleep(0)
        with pytest.raises(WorchflowError, match="closed"):
            await waiting

    run(main())


def test_cancelled_waiter_leaves_the_others_waiting() -> None:
    store, options = faulty_memory()

    async def main() -> None:
        async with application(quick, **options) as app:
            handle = await app.client.send(quick, None)
            waiting = [asyncio.ensure_future(handle.result(timeout=10)) for _ in range(3)]
            await until(lambda: store.calls["get"])
            waiting[0].cancel()
            end(store, handle.id)
            assert await asyncio.gather(*waiting[1:]) == [7, 7]

    run(main())


def test_send_gives_up_on_an_absent_store_with_its_id() -> None:
    store, options = faulty_memory()

    async def main() -> None:
        async with application(quick, **options) as app:
            store.away.add("create")
            with pytest.raises(StoreUnavailable) as caught:
                await app.client.send(quick, None, id="order-1")
            assert caught.value.execution_id == "order-1"
            store.away.clear()
            store.deaf.add("create")
            with pytest.raises(StoreUnavailable):
                await app.client.send(quick, None, id="order-1")
            store.deaf.clear()
            handle = await app.client.send(quick, None, id="order-1")
            assert not handle.is_new
            execution: Execution = await handle.get()
            assert execution.status is Status.QUEUED

    run(main())
