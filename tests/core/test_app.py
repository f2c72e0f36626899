"""The application in code: opening, closing, own backends, and its blocking face."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from tests.core.support import application, run, until, worker_of, working
from worchflow_core import (
    BlockingClient,
    Event,
    ExecutionFailed,
    FunctionError,
    InvalidInput,
    NotFound,
    ResultTimeout,
    Send,
    Status,
    Step,
    Worchflow,
    WorchflowError,
    function,
    hookimpl,
)
from worchflow_plugins.memory import MemoryQueue, MemoryStore


@function
async def quick(event: Event[Any], step: Step) -> Any:
    return await step.run("Work", lambda: event.data)


@function(retries=0)
async def failing(event: Event[Any], step: Step) -> None:
    raise ValueError("no")


# --- opening and closing --------------------------------------------------------------------------


def test_backends_of_the_caller_are_used_and_a_store_alone_is_polled() -> None:
    async def main() -> None:
        store = MemoryStore()
        for queue in (None, MemoryQueue()):
            async with application(quick, store=store, queue=queue) as app, worker_of(app):
                assert app.journal.store is store
                assert queue is None or app.journal.queue is queue
                handle = await app.client.send(quick, 5)
                assert await handle.result(timeout=10) == 5

    run(main())


def test_application_that_is_not_open_says_so() -> None:
    app = application(quick)
    for part in ("client", "worker", "journal"):
        with pytest.raises(WorchflowError, match="async with"):
            getattr(app, part)


def test_application_may_be_opened_again_with_its_plugins() -> None:
    heard: list[str] = []

    class Hearing:
        @hookimpl
        def worchflow_execution_completed(self, execution: Any) -> None:
            heard.append(execution.id)

    async def main() -> None:
        app = application(quick, plugins=(Hearing(),))
        for number in range(1, 3):
            async with app, worker_of(app):
                await (await app.client.send(quick, 1)).result(timeout=10)
                await until(lambda count=number: len(heard) == count)

    run(main())


def test_backend_that_cannot_be_entered_leaves_nothing_open() -> None:
    left: list[str] = []

    class Store(MemoryStore):
        async def __aexit__(self, *details: Any) -> None:
            left.append("store")

    class Queue(MemoryQueue):
        async def __aenter__(self) -> Any:
            raise ConnectionError("no server")

    async def main() -> None:
        with pytest.raises(ConnectionError, match="no server"):
            async with application(quick, store=Store(), queue=Queue()):
                raise AssertionError("not reached")

    run(main())
    assert left == ["store"]


def test_two_functions_of_one_id_are_refused() -> None:
    @function(id="quick")
    async def other(event: Event[Any], step: Step) -> None:
        return None

    with pytest.raises(FunctionError, match="two functions have the id 'quick'"):
        application(quick, other)
    application(quick, quick)


def test_worker_runs_in_a_loop_of_somebody_else_beside_other_work() -> None:
    async def main() -> None:
        ticks = 0

        async def other_work() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        async with application(quick) as app, asyncio.TaskGroup() as group:
            worker = group.create_task(app.worker.run())
            other = group.create_task(other_work())
            handle = await app.client.send(quick, 5)
            assert await handle.result(timeout=10) == 5
            app.worker.stop()
            await worker
            other.cancel()
        assert ticks > 10

    run(main())


def test_cancelling_the_run_gives_everything_back() -> None:
    async def main() -> None:
        begun = asyncio.Event()

        @function
        async def hanging(event: Event[Any], step: Step) -> None:
            begun.set()
            await asyncio.Event().wait()

        async with application(hanging) as app:
            task = asyncio.create_task(app.worker.run())
            handle = await app.client.send(hanging, None)
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            execution = await handle.get()
            assert execution.status is Status.QUEUED
            assert execution.failed_attempts == 0
            assert await app.client.workers() == []

    run(main())


def test_threads_end_with_the_application() -> None:
    async def main() -> None:
        @function
        def plain(event: Event[Any], step: Any) -> int:
            return int(step.run("Work", lambda: 1))

        async with working(plain, quick) as app:
            for _ in range(5):
                await (await app.client.send(plain, None)).result(timeout=10)
                await (await app.client.send(quick, 1)).result(timeout=10)

    before = threading.active_count()
    run(main())
    deadline = threading.Event()
    for _ in range(1000):
        if threading.active_count() <= before:
            return
        deadline.wait(0.01)
    raise AssertionError([thread.name for thread in threading.enumerate()])


# --- the blocking face ----------------------------------------------------------------------------


class Served:
    """A worker in a thread with a loop of its own, over a named memory."""

    def __init__(self, url: str) -> None:
        self.app = application(quick, failing, url=url)
        self.ready = threading.Event()
        self.loop: Any = None
        self.thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Served:
        self.thread.start()
        assert self.ready.wait(10)
        return self

    def __exit__(self, *details: Any) -> None:
        self.loop.call_soon_threadsafe(self.app.worker.stop)
        self.thread.join(20)

    def _serve(self) -> None:
        async def main() -> None:
            async with self.app as app:
                self.loop = asyncio.get_running_loop()
                self.ready.set()
                await app.worker.run()

        asyncio.run(main())


def blocking(url: str) -> BlockingClient:
    return BlockingClient(application(quick, failing, url=url))


def test_blocking_client_sends_and_reads_without_a_loop() -> None:
    url = "memory://blocking-one"
    with Served(url), blocking(url) as client:
        handle = client.send(quick, {"a": 1}, id="one", tags=["t"])
        assert handle.result(timeout=20) == {"a": 1}
        assert handle.is_new
        assert not client.send(quick, {"a": 1}, id="one").is_new
        assert client.result("one", timeout=10) == {"a": 1}
        assert client.get("one").status is Status.COMPLETED
        assert handle.get().id == "one"
        assert [step.title for step in handle.steps()] == ["Work"]
        assert [item.id for item in client.find().items] == ["one"]
        assert client.stats()[Status.COMPLETED] == 1
        client.delete("one")
        with pytest.raises(NotFound):
            client.get("one")


def test_blocking_client_sends_many_and_gets_blocking_handles() -> None:
    url = "memory://blocking-many"
    with Served(url), blocking(url) as client:
        handles = client.send_many([Send(function=quick, data=n) for n in range(3)])
        assert [item.result(timeout=20) for item in handles] == [0, 1, 2]


def test_blocking_client_changes_executions_and_raises_plainly() -> None:
    url = "memory://blocking-changes"
    with Served(url), blocking(url) as client:
        failed = client.send(failing, None)
        with pytest.raises(ExecutionFailed):
            failed.result(timeout=20)
        assert failed.retry().status is Status.QUEUED
        waiting = client.send(quick, 1, delay="1h")
        with pytest.raises(ResultTimeout):
            waiting.result(timeout=0.05)
        assert waiting.cancel().status is Status.CANCELLED
        with pytest.raises(InvalidInput):
            client.send(quick, b"")


def test_blocking_client_is_shared_by_many_threads() -> None:
    url = "memory://blocking-threads"
    answers: list[int] = []

    def ask(client: BlockingClient, number: int) -> None:
        answers.append(client.send(quick, number).result(timeout=30))

    with Served(url), blocking(url) as client:
        threads = [threading.Thread(target=ask, args=(client, n)) for n in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert sorted(answers) == list(range(20))


def test_blocking_client_that_is_not_open_or_cannot_open_says_so() -> None:
    client = blocking("memory://closed")
    with pytest.raises(WorchflowError):
        client.send(quick, 1)
    broken = BlockingClient(application(quick, url="nosuch://x"))
    threads = threading.active_count()
    with pytest.raises(WorchflowError, match="no plugin opens"), broken:
        raise AssertionError("not reached")
    assert threading.active_count() == threads


def test_blocking_client_mirrors_the_client() -> None:
    from worchflow_core import Client, ExecutionHandle
    from worchflow_core.blocking import BlockingHandle

    def names(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    assert names(Client) - names(BlockingClient) <= {"close", "describe"}
    assert names(ExecutionHandle) <= names(BlockingHandle)


def test_worchflow_without_arguments_reads_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORCHFLOW_STORE_URL", "memory://from-environment")
    monkeypatch.setenv("WORCHFLOW_CONCURRENCY", "3")
    app = Worchflow(functions=[quick], env_file=None)
    assert app.settings.concurrency == 3
    assert app.choice.store_source == "environment"
