"""The journal: store first, queue second, hooks after the fact; what is lost costs only time."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pytest

from tests.core.support import application, faulty_memory, outcome, run, until, worker_of, working
from worchflow_core import Event, Status, Step, function, hookimpl
from worchflow_plugins.memory import MemoryQueue, MemoryStepCache, MemoryStore


@function(retries=1, retry_delay=0)
async def twice(event: Event[Any], step: Step) -> int:
    value = await step.run("Work", lambda: 7)
    if step.attempt == 1:
        raise ValueError("once more")
    return value


def test_queue_is_told_after_the_store_and_hooks_after_both() -> None:
    order: list[str] = []

    class Store(MemoryStore):
        async def create(self, executions: Any) -> Any:
            answer = await super().create(executions)
            order.append("stored")
            return answer

    class Queue(MemoryQueue):
        async def push(self, hints: Any) -> None:
            order.append("hinted")
            await super().push(hints)

    class Hearing:
        @hookimpl
        def worchflow_execution_queued(self, execution: Any) -> None:
            order.append("told")

    async def main() -> None:
        options = {"store": Store(), "queue": Queue(), "plugins": (Hearing(),)}
        async with application(twice, **options) as app:
            await app.client.send(twice, None)
            await until(lambda: len(order) == 3)

    run(main())
    assert order[0] == "stored"


def test_replay_reads_the_cache_where_it_is_complete_and_the_store_where_not() -> None:
    class Forgetful(MemoryStepCache):
        async def get_all(self, executions: Any) -> Any:
            return {}

    class Failing(MemoryStepCache):
        async def get_all(self, executions: Any) -> Any:
            raise ConnectionError("away")

        put = drop = get_all  # type: ignore[assignment]

    for cache, reads in ((MemoryStepCache(), 0), (Forgetful(), 1), (Failing(), 1), (None, 1)):
        store, options = faulty_memory()
        options["step_cache"] = cache

        async def main(store: Any = store, options: Any = options, reads: int = reads) -> None:
            async with working(twice, **options) as app:
                execution = await outcome(app, twice)
                assert execution.status is Status.COMPLETED
                assert store.calls["steps"] <= reads
                assert store.calls["record"] == 1

        run(main())


def test_cache_that_lies_short_is_not_trusted() -> None:
    runs: list[str] = []

    class Partial(MemoryStepCache):
        async def get_all(self, executions: Any) -> Any:
            found = await super().get_all(executions)
            return {key: list(steps)[:1] for key, steps in found.items()}

    @function(retries=1, retry_delay=0)
    async def three(event: Event[Any], step: Step) -> None:
        for name in "abc":
            await step.run(name, lambda name=name: runs.append(name))
        if step.attempt == 1:
            raise ValueError("once more")

    async def main() -> None:
        _, options = faulty_memory()
        options["step_cache"] = Partial()
        async with working(three, **options) as app:
            assert (await outcome(app, three)).status is Status.COMPLETED

    run(main())
    assert runs == ["a", "b", "c"]


def test_outage_of_the_queue_is_one_warning_and_its_return_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Queue(MemoryQueue):
        is_away = True

        async def push(self, hints: Sequence[Any]) -> None:
            if self.is_away:
                raise ConnectionError("no server")
            await super().push(hints)

    queue = Queue()

    async def main() -> None:
        async with application(twice, queue=queue, store=MemoryStore()) as app, worker_of(app):
            for _ in range(2):
                assert (await outcome(app, twice)).status is Status.COMPLETED
            queue.is_away = False
            assert (await outcome(app, twice)).status is Status.COMPLETED
            await until(lambda: "answers again" in caplog.text)

    with caplog.at_level(logging.INFO, "worchflow"):
        run(main())
    assert caplog.text.count("the queue does not answer") == 1
