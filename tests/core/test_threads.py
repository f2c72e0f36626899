"""Threads for plain code: as many as allowed, contexts handed over, none that holds up an exit."""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar

import pytest

from tests.core.support import run, until
from worchflow_core.threads import ThreadPool

where: ContextVar[str] = ContextVar("where", default="nowhere")


def test_calls_run_beside_the_loop_with_the_callers_context() -> None:
    async def main() -> None:
        pool = ThreadPool(2, "test")
        where.set("here")
        assert await pool.run(where.get) == "here"
        assert await pool.run(threading.get_ident) != threading.get_ident()
        pool.close()

    run(main())


def test_no_more_calls_run_at_once_than_the_size() -> None:
    lock = threading.Lock()
    now = most = 0

    def work() -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        threading.Event().wait(0.005)
        with lock:
            now -= 1

    async def main() -> None:
        pool = ThreadPool(3, "test")
        await asyncio.gather(*(pool.run(work) for _ in range(20)))
        pool.close()

    run(main())
    assert most == 3


@pytest.mark.parametrize("error", [ValueError("a"), SystemExit(3), KeyboardInterrupt()])
def test_error_reaches_the_caller_and_the_thread_goes_on(error: BaseException) -> None:
    def throw() -> None:
        raise error

    async def main() -> None:
        pool = ThreadPool(1, "test")
        try:
            await pool.run(throw)
        except BaseException as caught:
            assert caught is error  # noqa: PT017
        assert await pool.run(lambda: 7) == 7
        pool.close()

    run(main())


@pytest.mark.parametrize("error", [StopIteration(1), GeneratorExit()])
def test_error_that_a_coroutine_would_take_for_its_own_is_wrapped(error: BaseException) -> None:
    def throw() -> None:
        raise error

    async def main() -> None:
        pool = ThreadPool(1, "test")
        with pytest.raises(RuntimeError, match=type(error).__name__):
            await pool.run(throw)
        pool.close()

    run(main())


def test_call_whose_caller_gave_up_before_it_began_never_runs() -> None:
    gate = threading.Event()
    begun: list[str] = []

    async def main() -> None:
        pool = ThreadPool(1, "test")
        first = pool.run(lambda: begun.append("first") or gate.wait(30))
        await until(lambda: begun)
        second = pool.run(lambda: begun.append("second"))
        second.cancel()
        gate.set()
        await first
        assert await pool.run(lambda: 7) == 7
        pool.close()

    run(main())
    assert begun == ["first"]


def test_leaked_thread_makes_room_for_another_until_it_comes_back() -> None:
    gate = threading.Event()
    begun: list[str] = []

    async def main() -> None:
        pool = ThreadPool(1, "test")
        lost = pool.run(lambda: begun.append("lost") or gate.wait(30))
        await until(lambda: begun)
        waiting = pool.run(lambda: 7)  # it waits for the thread that will not come back
        lost.cancel()
        assert await waiting == 7
        assert pool.leaked == 1
        gate.set()
        await until(lambda: pool.leaked == 0)
        await until(lambda: _count("worchflow-test-") == 1)
        assert await pool.run(lambda: 8) == 8
        pool.close()

    run(main())


def _count(name: str) -> int:
    return sum(item.name.startswith(name) for item in threading.enumerate())


def test_call_that_was_given_up_before_it_began_leaks_no_thread() -> None:
    gate = threading.Event()

    async def main() -> None:
        pool = ThreadPool(1, "test")
        first = pool.run(gate.wait, 30)
        second = pool.run(gate.wait, 30)
        second.cancel()
        await until(lambda: second.done())
        assert pool.leaked == 0
        gate.set()
        assert await first
        pool.close()

    run(main())


def test_answer_that_comes_after_the_loop_has_closed_is_dropped() -> None:
    gate, ended = threading.Event(), threading.Event()

    def work() -> None:
        gate.wait(30)
        ended.set()

    async def main() -> None:
        begun = ThreadPool(1, "test")
        begun.run(work)
        begun.close()

    run(main())
    gate.set()
    assert ended.wait(10)
