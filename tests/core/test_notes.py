"""What executions say of themselves: progress and log lines."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest

from worchflow_core import (
    BlockingStep,
    Event,
    Filter,
    NonRetriable,
    Status,
    Step,
    Worchflow,
    function,
)
from worchflow_core import notes as said
from worchflow_core.notes import BYTES_KEPT, KIND, LINES_KEPT, LogLine, Notes
from worchflow_core.testing import Harness

from .support import Faulty, faulty_memory, run, until, worker_of

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def opened(url: str, *functions: Any) -> Worchflow:
    given = {"store_url": url, "sweep_interval": "0.1s", "heartbeat": "0.1s", "lease": "3s"}
    return Worchflow(functions=functions, overrides={**given, "log": "off"}, env_file=None)


def test_what_an_execution_says_is_kept_while_it_runs_and_after(url: str) -> None:
    gate = asyncio.Event()

    @function
    async def imports(event: Event[Any], step: Step) -> str:
        step.log("begins", rows=3)

        async def load() -> None:
            step.progress(1, 3, "first rows")
            step.log("a row", number=1)
            await gate.wait()
            step.progress(3, 3)

        await step.run("Load", load)
        return "done"

    async def main() -> None:
        async with opened(url, imports) as app, worker_of(app):
            handle = await app.client.send(imports, None)

            async def has_said() -> bool:
                return (await app.client.notes(handle.id)).progress is not None

            await until(has_said)
            notes = await app.client.notes(handle.id)
            assert notes.progress is not None
            assert (notes.progress.done, notes.progress.total) == (1, 3)
            assert notes.progress.note == "first rows"
            assert [(item.step, item.text, item.fields) for item in notes.lines] == [
                (None, "begins", {"rows": 3}),
                ("Load", "a row", {"number": 1}),
            ]
            gate.set()
            await handle.result(30)

            async def has_ended() -> bool:
                progress = (await app.client.notes(handle.id)).progress
                return progress is not None and progress.done == 3

            await until(has_ended)
            assert len((await app.client.notes(handle.id)).lines) == 2
            await app.client.delete(handle.id)
            assert await app.client.notes(handle.id) == Notes()

    run(main())


def test_a_replay_does_not_say_again_what_was_said(url: str) -> None:
    @function(retries=1, retry_delay=0)
    async def retried(event: Event[Any], step: Step) -> None:
        step.log("body")
        await step.run("One", step.log, "one")
        step.log("between")
        await step.run("Two", step.log, "two")
        if step.attempt == 1:
            raise ValueError("once")
        await step.run("Three", step.log, "three")

    async def main() -> None:
        async with opened(url, retried) as app, worker_of(app):
            handle = await app.client.send(retried, None)
            await handle.result(30)

            async def texts() -> list[str]:
                return [item.text for item in (await app.client.notes(handle.id)).lines]

            async def has_all() -> bool:
                return "three" in await texts()

            await until(has_all)
            assert await texts() == ["body", "one", "between", "two", "three"]
            lines = (await app.client.notes(handle.id)).lines
            assert [item.attempt for item in lines] == [1, 1, 1, 1, 2]

    run(main())


def test_plain_functions_say_things_from_their_thread(url: str) -> None:
    @function
    def plain(event: Event[Any], step: BlockingStep) -> None:
        step.run("Work", lambda: step.log("from a thread"))
        step.progress(0.5)

    async def main() -> None:
        async with opened(url, plain) as app, worker_of(app):
            handle = await app.client.send(plain, None)
            await handle.result(30)

            async def has_all() -> bool:
                return (await app.client.notes(handle.id)).progress is not None

            await until(has_all)
            (line,) = (await app.client.notes(handle.id)).lines
            assert (line.step, line.text) == ("Work", "from a thread")

    run(main())


def counted(store: Faulty) -> Counter[str]:
    """Count the calls of a store's records from now on."""
    calls: Counter[str] = Counter()
    records = store.inner.records

    def watch(name: str) -> None:
        inner = getattr(records, name)

        async def call(given: Any, *args: Any, **options: Any) -> Any:
            if name == "scan" or any(item.kind == KIND for item in given):
                calls[name] += given == KIND if name == "scan" else 1
            return await inner(given, *args, **options)

        setattr(records, name, call)

    for name in ("insert", "replace", "scan"):
        watch(name)
    return calls


def test_a_thousand_words_of_many_cost_few_writes() -> None:
    @function
    async def talks(event: Event[Any], step: Step) -> None:
        for number in range(100):
            step.progress(number, 100)
            step.log("word", number=number)
            if number % 10 == 0:
                await asyncio.sleep(0.01)

    @function
    async def silent(event: Event[Any], step: Step) -> None:
        await step.run("Work", lambda: None)

    async def main() -> None:
        store, backends = faulty_memory()
        async with Worchflow(
            functions=[talks, silent], overrides={"log": "off"}, env_file=None, **backends
        ) as app:
            calls = counted(store)
            async with worker_of(app):
                handles = [await app.client.send(silent, None) for _ in range(20)]
                for handle in handles:
                    await handle.result(30)
                assert not calls.total()
                handles = [await app.client.send(talks, None) for _ in range(20)]
                for handle in handles:
                    await handle.result(30)
            assert calls["insert"] + calls["replace"] <= 25
            for handle in handles:
                notes = await app.client.notes(handle.id)
                assert len(notes.lines) == 100
                assert notes.progress is not None
                assert notes.progress.done == 99

    run(main())


def test_what_is_said_while_the_store_is_away_is_written_when_it_is_back() -> None:
    gate = asyncio.Event()

    @function
    async def talks(event: Event[Any], step: Step) -> None:
        step.log("before")
        await gate.wait()
        step.log("after")

    async def main() -> None:
        store, backends = faulty_memory()
        async with Worchflow(
            functions=[talks], overrides={"log": "off"}, env_file=None, **backends
        ) as app:
            async with worker_of(app):
                handle = await app.client.send(talks, None)
                await until(lambda: app.worker.health.running == 1)
                store.away.add("*")
                await asyncio.sleep(0.1)
                store.away.clear()
                gate.set()
                await handle.result(30)
            texts = [item.text for item in (await app.client.notes(handle.id)).lines]
            assert texts == ["before", "after"]

    run(main())


@pytest.mark.parametrize(
    ("done", "total"),
    [(-1, None), (float("nan"), None), (True, 2), ("1", None), (1, 0), (1, -2), (1, True)],
)
def test_what_is_no_progress_is_refused(done: Any, total: Any) -> None:
    @function(retries=5)
    async def talks(event: Event[Any], step: Step) -> None:
        step.progress(done, total)

    with Harness([talks]) as harness:
        ended = harness.run(talks, None)
    assert ended.status is Status.FAILED
    assert ended.failure is not None
    assert "step.progress: " in ended.failure.message
    assert "give a number" in ended.failure.message


class Unprintable:
    def __str__(self) -> str:
        raise ValueError("no")


@pytest.mark.parametrize(
    "value",
    [
        "x" * 100_000, "\x1b[31m\n\x00", "\ud800", None, float("nan"), b"bytes", {1: {2}},
        Unprintable(), [[]] * 10_000,
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_a_line_never_fails_whatever_it_holds(value: Any) -> None:
    line = said.line(value, {"value": value, "more": 1}, at=NOW, attempt=1, step=None)
    assert len(line.text) <= said.TEXT_KEPT
    assert len(json.dumps(line.fields)) <= said.TEXT_KEPT + 200
    notes = Notes(lines=(line,))
    assert said.notes_of(said.body_of(notes)) == notes


def test_the_newest_lines_are_kept() -> None:
    def lines(count: int, text: str) -> tuple[LogLine, ...]:
        return tuple(LogLine(at=NOW, attempt=1, text=f"{text}{n}") for n in range(count))

    many = Notes().with_more(Notes(lines=lines(LINES_KEPT + 50, "n")))
    assert len(many.lines) == LINES_KEPT
    assert many.dropped == 50
    assert many.lines[-1].text == f"n{LINES_KEPT + 49}"
    large = many.with_more(Notes(lines=lines(60, "x" * 1500)))
    assert sum(len(item.text) for item in large.lines) <= BYTES_KEPT
    assert large.dropped + len(large.lines) == LINES_KEPT + 50 + 60


def test_deleting_many_takes_what_they_said_along(url: str) -> None:
    @function(retries=0)
    async def talks(event: Event[Any], step: Step) -> None:
        step.log("something")
        raise NonRetriable("no")

    async def main() -> None:
        async with opened(url, talks) as app:
            for _ in range(3):
                await app.client.send(talks, None)
            await app.worker.run(burst=True)
            assert len(await app.journal.store.records.scan(KIND)) == 3
            page = await app.client.find(Filter())
            await app.client.delete_many([item.id for item in page.items])
            assert await app.journal.store.records.scan(KIND) == []

    run(main())
