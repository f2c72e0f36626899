"""The client: what it sends, refuses, finds and changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from tests.core.support import application, faulty_memory, outcome, run, worker_of, working
from worchflow_core import (
    Event,
    ExecutionCancelled,
    ExecutionFailed,
    Filter,
    IdempotencyConflict,
    InvalidInput,
    NotAllowed,
    NotFound,
    Send,
    Status,
    Step,
    StoreUnavailable,
    function,
)


class Order(BaseModel):
    number: int
    note: str = ""


@dataclass
class Total:
    amount: int


@function(tags=["billing"], priority=5)
async def count(event: Event[Order], step: Step) -> Total:
    return Total(event.data.number)


@function
async def anything(event: Event[Any], step: Step) -> Any:
    return event.data


@function(retries=0)
async def failing(event: Event[Any], step: Step) -> None:
    await step.run("First", lambda: 1)
    if not event.data:
        raise ValueError("no")


# --- sending --------------------------------------------------------------------------------------


def test_send_by_function_or_id_with_instance_or_plain_data() -> None:
    async def main() -> None:
        async with working(count) as app:
            for sent in (
                await app.client.send(count, Order(number=3)),
                await app.client.send("count", {"number": 3}),
                await app.client.send("count", Order(number=3)),
            ):
                assert await sent.result(timeout=10) == Total(3)
                assert await app.client.result(sent.id, timeout=10) == Total(3)
                execution = await sent.get()
                assert execution.tags == ("billing",)
                assert execution.priority == 5
                assert sent.is_new

    run(main())


BAD: dict[str, tuple[Callable[[Any], Any], str]] = {
    "typed data": (lambda c: c.send(count, {"number": "many"}), "number"),
    "missing data": (lambda c: c.send("count"), "event data of count"),
    "bytes": (lambda c: c.send(anything, {"a": b"x"}), "base64"),
    "set": (lambda c: c.send(anything, {1, 2}), "list"),
    "datetime": (lambda c: c.send(anything, [datetime.now(UTC)]), r"\[0\]"),
    "nan": (lambda c: c.send(anything, float("nan")), "NaN"),
    "object": (lambda c: c.send(anything, object()), "object"),
    "surrogate": (lambda c: c.send(anything, "\ud800"), "surrogate"),
    "digits": (lambda c: c.send(anything, 10**5000), "digits"),
    "too large": (lambda c: c.send(anything, "x" * (1_048_576 - 1)), "1,048,577 bytes"),
    "far too large": (lambda c: c.send(anything, "x" * 10_000_000), "10,000,002 bytes"),
    "deep": (lambda c: c.send(anything, _deep(65)), "64 levels"),
    "id": (lambda c: c.send(anything, 1, id="no spaces"), "execution id 'no spaces'"),
    "long id": (lambda c: c.send(anything, 1, id="x" * 129), "128"),
    "empty id": (lambda c: c.send(anything, 1, id=""), "execution id ''"),
    "id type": (lambda c: c.send(anything, 1, id=7), "execution id 7"),
    "path id": (lambda c: c.send(anything, 1, id="../x"), "execution id"),
    "function": (lambda c: c.send("no function", 1), "function id"),
    "function type": (lambda c: c.send(7, 1), "function id 7"),
    "delay": (lambda c: c.send(anything, 1, delay="soon"), "delay is 'soon'"),
    "negative delay": (lambda c: c.send(anything, 1, delay=-1), "delay is -1"),
    "huge delay": (lambda c: c.send(anything, 1, delay=10**400), "delay is"),
    "naive at": (lambda c: c.send(anything, 1, at=datetime(2030, 1, 1)), "time zone"),
    "text at": (lambda c: c.send(anything, 1, at="tomorrow"), "time zone"),
    "both": (lambda c: c.send(anything, 1, delay=1, at=datetime.now(UTC)), "one of them"),
    "tags text": (lambda c: c.send(anything, 1, tags="abc"), "list of texts"),
    "tag type": (lambda c: c.send(anything, 1, tags=[7]), "tag 7"),
    "mixed tags": (lambda c: c.send(anything, 1, tags=["a", 7]), "tag 7"),
    "tag control": (lambda c: c.send(anything, 1, tags=["a\nb"]), "tag"),
    "many tags": (lambda c: c.send(anything, 1, tags=map(str, range(33))), "33 tags"),
    "priority": (lambda c: c.send(anything, 1, priority=101), "priority is 101"),
    "priority type": (lambda c: c.send(anything, 1, priority="high"), "priority is 'high'"),
    "priority bool": (lambda c: c.send(anything, 1, priority=True), "priority is True"),
    "headers": (lambda c: c.send(anything, 1, headers={"a": 7}), "header 'a'"),
    "headers type": (lambda c: c.send(anything, 1, headers=["a"]), "headers"),
    "long headers": (lambda c: c.send(anything, 1, headers={"a": "x" * 9000}), "8,192"),
}


def _deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_sent_is_refused_before_anything_is_written(kind: str) -> None:
    send, words = BAD[kind]
    store, options = faulty_memory()

    async def main() -> None:
        async with application(count, anything, **options) as app:
            with pytest.raises(InvalidInput, match=words):
                await send(app.client)
            assert store.calls["create"] == 0

    run(main())


def test_payload_of_exactly_the_limit_and_depth_is_taken() -> None:
    async def main() -> None:
        async with working(anything) as app:
            for data in ("x" * (1_048_576 - 2), _deep(64)):
                handle = await app.client.send(anything, data)
                assert await handle.result(timeout=20) == data

    run(main())


def test_one_bad_event_of_many_keeps_all_from_being_sent() -> None:
    store, options = faulty_memory()

    async def main() -> None:
        async with application(anything, **options) as app:
            with pytest.raises(InvalidInput):
                await app.client.send_many(
                    [Send(function=anything, data=1), Send(function=anything, data=b"")]
                )
            assert store.calls["create"] == 0

    run(main())


def test_send_many_answers_in_order() -> None:
    async def main() -> None:
        async with working(anything) as app:
            handles = await app.client.send_many(
                Send(function=anything, data=number, id=f"n-{number % 1500}")
                for number in range(1500)
            )
            assert [item.id for item in handles] == [f"n-{number}" for number in range(1500)]
            assert await handles[1200].result(timeout=30) == 1200
            assert await app.client.send_many([]) == []

    run(main())


@pytest.mark.parametrize("equal", [True, False])
def test_fifty_racing_sends_with_one_id_create_one_execution(equal: bool) -> None:
    async def main() -> None:
        async with working(anything) as app:
            answers = await asyncio.gather(
                *(
                    app.client.send(anything, {"n": 0 if equal else n}, id="order-1")
                    for n in range(50)
                ),
                return_exceptions=True,
            )
            handles = [item for item in answers if not isinstance(item, BaseException)]
            conflicts = [item for item in answers if isinstance(item, IdempotencyConflict)]
            assert len(handles) + len(conflicts) == 50
            assert sum(item.is_new for item in handles) == 1
            assert len(conflicts) == (0 if equal else 49)
            await handles[0].result(timeout=10)
            before = await handles[0].get()
            with pytest.raises(IdempotencyConflict, match="'order-1'"):
                await app.client.send(failing, {"n": 0}, id="order-1")
            assert await handles[0].get() == before
            assert (await app.client.find()).items == (before,)

    run(main())


def test_key_order_and_spelling_of_equal_data_do_not_matter() -> None:
    async def main() -> None:
        async with application(anything) as app:
            await app.client.send(anything, {"a": 1, "b": "é"}, id="one")
            again = await app.client.send("anything", {"b": "\u00e9", "a": 1}, id="one")
            assert not again.is_new

    run(main())


def test_delayed_and_dated_executions_wait_for_their_moment() -> None:
    async def main() -> None:
        async with working(anything) as app:
            later = await app.client.send(anything, 1, delay="1h")
            at = datetime.now(UTC) + timedelta(hours=2)
            dated = await app.client.send(anything, 2, at=at)
            past = await app.client.send(anything, 3, at=datetime(2020, 1, 1, tzinfo=UTC))
            soon = await app.client.send(anything, 4, delay=0.2)
            assert await past.result(timeout=10) == 3
            assert await soon.result(timeout=10) == 4
            execution = await soon.get()
            assert execution.claimed_at is not None
            assert execution.claimed_at - execution.created_at >= timedelta(seconds=0.2)
            assert (await later.get()).status is Status.QUEUED
            due = (await dated.get()).due_at
            assert due is not None
            assert abs(due - at) < timedelta(milliseconds=1)

    run(main())


def test_send_survives_a_queue_that_fails_or_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worchflow_core.asides.PATIENCE", 0.2)

    class Broken:
        keeps_hints = True

        def __init__(self) -> None:
            self.hangs = False

        async def __aenter__(self) -> Broken:
            return self

        async def __aexit__(self, *details: Any) -> None:
            return None

        def describe(self) -> str:
            return "broken"

        async def check(self) -> Any:
            return ()

        async def push(self, hints: Any) -> None:
            if self.hangs:
                await asyncio.Event().wait()
            raise ZeroDivisionError("a bug")

        mirror = push

        async def pop(self, functions: Any, *, limit: int, wait: timedelta) -> Any:
            raise ZeroDivisionError("a bug")

        async def view(self) -> Any:
            raise ZeroDivisionError("a bug")

    store, _ = faulty_memory()
    queue = Broken()

    async def main() -> None:
        async with application(anything, store=store, queue=queue) as app:
            one = await app.client.send(anything, 1)
            queue.hangs = True
            two = await app.client.send(anything, 2)
            async with worker_of(app):
                assert await one.result(timeout=20) == 1
                assert await two.result(timeout=20) == 2

    run(main())


def test_store_that_hangs_makes_send_give_up() -> None:
    store, options = faulty_memory()

    async def main() -> None:
        async with application(anything, send_timeout="100ms", **options) as app:
            never = asyncio.Event()

            async def hang(*args: Any) -> Any:
                await never.wait()

            store.inner.create = hang
            with pytest.raises(StoreUnavailable, match=r"within 0\.1 s"):
                await app.client.send(anything, 1)

    run(main())


# --- results --------------------------------------------------------------------------------------


def test_result_of_failed_and_cancelled_executions_is_an_error_with_the_failure() -> None:
    async def main() -> None:
        async with working(failing) as app:
            handle = await app.client.send(failing, None)
            with pytest.raises(ExecutionFailed) as caught:
                await handle.result(timeout=10)
            assert caught.value.failure is not None
            assert caught.value.failure.type == "ValueError"
            assert caught.value.execution_id == handle.id
            assert "ValueError: no" in str(caught.value)
            waiting = await app.client.send(failing, None, delay="1h")
            await waiting.cancel()
            with pytest.raises(ExecutionCancelled):
                await waiting.result(timeout=10)

    run(main())


# --- finding --------------------------------------------------------------------------------------


def test_find_filters_and_pages_by_cursor() -> None:
    async def main() -> None:
        async with application(anything, count) as app:
            for number in range(25):
                await app.client.send(
                    anything, number, id=f"a-{number:02}", tags=["even"][number % 2 :]
                )
            await app.client.send(count, {"number": 1}, id="other")
            await app.client.cancel("a-03")
            find = app.client.find
            assert [item.id for item in (await find(Filter(function="count"))).items] == ["other"]
            assert (await find(Filter(status="cancelled"))).items[0].id == "a-03"
            assert len((await find(Filter(tag="even"))).items) == 13
            assert len((await find(Filter(id_prefix="a-1"))).items) == 10
            assert (await find(Filter(counted=True, limit=1))).total == 26
            seen: list[str] = []
            after = None
            while True:
                page = (await find(Filter(limit=7, after=after))).items
                if not page:
                    break
                seen += [item.id for item in page]
                after = (page[-1].created_at, page[-1].id)
            assert len(seen) == len(set(seen)) == 26
            with pytest.raises(InvalidInput):
                await find(Filter(limit=0))

    run(main())


def test_stats_tell_every_status() -> None:
    async def main() -> None:
        async with working(anything, failing) as app:
            await outcome(app, anything, 1)
            await outcome(app, failing)
            await app.client.send(anything, 1, delay="1h")
            stats = await app.client.stats()
            assert set(stats) == set(Status)
            assert stats[Status.COMPLETED] == stats[Status.FAILED] == stats[Status.QUEUED] == 1
            assert stats[Status.CANCELLED] == 0
            tally = await app.client.tally(since=datetime(2020, 1, 1, tzinfo=UTC))
            assert sum(item.count for item in tally) == 2

    run(main())


def test_functions_of_this_process_and_of_workers_are_listed() -> None:
    async def main() -> None:
        url = "memory://described"
        async with working(count, url=url), application(url=url) as app:
            (info,) = await app.client.functions()
            assert info.id == "count"
            assert info.schema is not None
            assert "number" in info.schema["properties"]

    run(main())


# --- changing -------------------------------------------------------------------------------------


def test_retry_keeps_recorded_steps_and_resets_the_counts() -> None:
    async def main() -> None:
        runs: list[int] = []
        broken = True

        @function(retries=1, retry_delay=0)
        async def repairable(event: Event[Any], step: Step) -> int:
            value = await step.run("First", lambda: runs.append(1) or 7)
            if broken:
                raise ValueError("no")
            return value

        async with working(repairable) as app:
            handle = await app.client.send(repairable, None)
            failed = await app.client.wait(handle.id, timeout=10)
            assert failed.failed_attempts == 2
            with pytest.raises(NotAllowed, match="only a failed"):
                await app.client.retry((await app.client.send(repairable, 1, delay="1h")).id)
            broken = False
            opened = await handle.retry()
            assert (opened.status, opened.failed_attempts) == (Status.QUEUED, 0)
            assert await handle.result(timeout=10) == 7
            assert runs == [1]
            done = await handle.get()
            assert done.error is None
            with pytest.raises(NotAllowed, match="completed"):
                await handle.retry()

    run(main())


def test_delete_takes_only_what_has_ended_with_its_steps() -> None:
    async def main() -> None:
        async with working(failing) as app:
            execution = await outcome(app, failing)
            waiting = await app.client.send(failing, 1, delay="1h")
            assert await app.client.steps(execution.id)
            await app.client.delete(execution.id)
            with pytest.raises(NotFound):
                await app.client.get(execution.id)
            assert await app.client.steps(execution.id) == ()
            with pytest.raises(NotFound):
                await app.client.delete("nobody")
            with pytest.raises(NotAllowed, match="cancel it first"):
                await app.client.delete(waiting.id)
            errors = await app.client.delete_many([waiting.id, "nobody"])
            assert {key: type(error) for key, error in errors.items()} == {
                waiting.id: NotAllowed,
                "nobody": NotFound,
            }

    run(main())


def test_change_of_what_nobody_knows_is_not_found() -> None:
    async def main() -> None:
        async with application(anything) as app:
            for change in (app.client.cancel, app.client.retry, app.client.get):
                with pytest.raises(NotFound, match="'nobody'"):
                    await change("nobody")
            assert await app.client.cancel_many([]) == {}
            answers = await app.client.retry_many(["a", "b", "a"])
            assert {key: type(value) for key, value in answers.items()} == {
                "a": NotFound,
                "b": NotFound,
            }

    run(main())


def test_execution_deleted_and_sent_again_does_not_see_its_namesakes_steps() -> None:
    async def main() -> None:
        runs: list[int] = []

        @function(retries=1, retry_delay=0)
        async def again(event: Event[int], step: Step) -> int:
            value = await step.run("Work", lambda: runs.append(1) or event.data)
            if step.attempt == 1:
                raise ValueError("once more")
            return value

        async with working(again) as app:
            for data in (1, 2):
                handle = await app.client.send(again, data, id="same")
                assert await handle.result(timeout=10) == data
                await app.client.delete("same")
            assert len(runs) == 2

    run(main())
