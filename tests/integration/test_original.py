"""The original's client enqueues and retries, its dashboard reads, Python workers do the work."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.core.support import run, until
from tests.integration.originals import NOTHING, Original, original_on
from worchflow_core import ConfigurationError, Event, Step, StoreUnusable, Worchflow, function

pytestmark = pytest.mark.servers

QUICK = {
    "lease": "3s",
    "heartbeat": "0.2s",
    "sweep_interval": "0.2s",
    "disabled_plugins": "logs,sample-audit",
}


@dataclass
class Place:
    """One database with one prefix, seen from both sides."""

    original: Original
    overrides: dict[str, Any]
    ran: Counter[str] = field(default_factory=Counter)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    failures_left: int = 0

    def application(self, **settings: Any) -> Worchflow:
        """Return an application of ours, not yet open."""
        functions = [_work(self), _slow(self), _steps(self)]
        overrides = {**self.overrides, **settings}
        return Worchflow(functions=functions, overrides=overrides, env_file=None)

    @asynccontextmanager
    async def working(self, **settings: Any) -> AsyncIterator[Worchflow]:
        """Let a worker of ours run meanwhile."""
        async with self.application(**settings) as app:
            task = asyncio.create_task(app.worker.run())
            try:
                await until(lambda: task.done() or app.worker.health.is_ready)
                yield app
            finally:
                app.worker.stop(now=True)
                with suppress(asyncio.CancelledError):
                    await task

    async def ends(self, execution_id: str, status: str = "completed") -> dict[str, Any]:
        """Return the document once it has this status."""
        find = self.original.database.executions.find_one

        async def found() -> Any:
            return await find({"id": execution_id, "status": status})

        document: dict[str, Any] = await until(found, limit=30)
        return document


def _work(place: Place) -> Any:
    @function(id="work", retries=1, retry_delay=0)
    async def work(event: Event[Any], step: Step) -> Any:
        place.ran[event.id] += 1
        if place.failures_left > 0:
            place.failures_left -= 1
            raise ValueError("the provider is closed")
        return {"of": event.data}

    return work


def _slow(place: Place) -> Any:
    @function(id="slow", retries=0)
    async def slow(event: Event[Any], step: Step) -> str:
        place.ran[event.id] += 1
        await place.gate.wait()
        return "done"

    return slow


def _steps(place: Place) -> Any:
    @function(id="three-steps")
    async def three_steps(event: Event[Any], step: Step) -> Any:
        async def note(title: str) -> Any:
            place.ran[f"{event.id} {title}"] += 1
            return {"title": title, "amount": event.data["amount"]}

        for title in ("Validate payment", "Charge payment provider", "Send receipt"):
            last = await step.run(title, note, title)
        return last

    return three_steps


EITHER_WAY = pytest.mark.parametrize(
    "play", [True, False], indirect=True, ids=["by hints", "polled"]
)
"""For what also holds where our workers have MongoDB alone, and nobody reads the original's ids."""


def scene(
    test: Callable[[Place], Awaitable[None]],
    mongodb_url: str,
    redis_url: str,
    prefix: str,
    *,
    has_queue: bool,
) -> None:
    """Run a test's coroutine where the original has run before."""

    async def main() -> None:
        async with original_on(mongodb_url, redis_url, prefix) as original:
            queue_url = redis_url if has_queue else None
            urls = {"store_url": mongodb_url, "queue_url": queue_url, "prefix": prefix}
            await test(Place(original, {**urls, **QUICK}))

    run(main(), limit=100)


@pytest.fixture
def play(
    request: pytest.FixtureRequest, mongodb_url: str, redis_url: str, unique_name: str
) -> Callable[[Any], None]:
    """Return what runs a coroutine function on a place of its own."""
    has_queue = getattr(request, "param", True)
    return lambda test: scene(test, mongodb_url, redis_url, unique_name, has_queue=has_queue)


@pytest.fixture
def complaints(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Iterator[pytest.LogCaptureFixture]:
    """Return what is logged as an error, whoever has set up logging in this process before."""
    logger = logging.getLogger("worchflow")
    monkeypatch.setattr(logger, "propagate", False)
    logger.addHandler(caplog.handler)
    with caplog.at_level(logging.ERROR, "worchflow"):
        yield caplog
    logger.removeHandler(caplog.handler)


# --- sending --------------------------------------------------------------------------------------


@EITHER_WAY
def test_what_the_original_sends_in_any_order_runs_once(play: Any) -> None:
    async def test(place: Place) -> None:
        async with place.working():
            ids = [
                await place.original.send("work", {"n": number}, order=order)
                for number, order in enumerate(itertools.permutations(("hash", "document", "push")))
            ]
            for execution_id in ids:
                await place.ends(execution_id)
        assert place.ran == Counter(ids)

    play(test)


@EITHER_WAY
def test_what_was_sent_before_the_first_worker_came_runs_once(play: Any) -> None:
    async def test(place: Place) -> None:
        ids = [await place.original.send("work", number) for number in range(50)]
        async with place.working(), place.working():
            for execution_id in ids:
                await place.ends(execution_id)
        assert place.ran == Counter(ids)

    play(test)


@pytest.mark.parametrize("execution_id", ["order/1", "Grüße an €", "a b:c", "$where", "x" * 900])
def test_ids_of_the_original_are_taken_as_they_are(play: Any, execution_id: str) -> None:
    async def test(place: Place) -> None:
        async with place.working() as app:
            await place.original.send("work", 1, id=execution_id)
            await place.ends(execution_id)
            assert (await app.client.get(execution_id)).result == '{"of":1}'
            key = place.original.key("execution", execution_id)
            await until(lambda: _has_status(place.original, key, "completed"))

    play(test)


@EITHER_WAY
@pytest.mark.parametrize("data", [NOTHING, None, {}, [], "text", 1.5, {"deep": [{"a": "ü€"}]}])
def test_data_of_any_form_or_none_arrives(play: Any, data: Any) -> None:
    async def test(place: Place) -> None:
        async with place.working():
            execution_id = await place.original.send("work", data)
            document = await place.ends(execution_id)
        assert document["result"] == {"of": None if data is NOTHING else data}

    play(test)


@EITHER_WAY
def test_a_function_that_nobody_has_waits_and_is_not_failed(play: Any) -> None:
    async def test(place: Place) -> None:
        async with place.working():
            stranger = await place.original.send("nobody-has-this", 1)
            await place.ends(await place.original.send("work", 1))
            document, _, _ = await place.original.details(stranger)
            assert (document["status"], document["attemptCount"]) == ("queued", 0)

    play(test)


def test_lost_hints_are_made_good_under_a_steady_stream_of_hints(play: Any) -> None:
    async def test(place: Place) -> None:
        async with place.working(concurrency=2, lease="2s") as app:
            over = asyncio.Event()

            async def stream() -> None:
                """Keep so many hints in the queue that it never runs empty."""
                queue = f"{place.original.prefix}:queue"
                while not over.is_set():
                    if await place.original.redis.llen(queue) < 100:
                        await app.client.send_many([_event(number) for number in range(50)])
                    await asyncio.sleep(0.01)

            flood = asyncio.create_task(stream())
            try:
                await until(lambda: sum(place.ran.values()) > 50)
                ids = [
                    await place.original.send("work", 1, order=("hash", "document"))
                    for _ in range(20)
                ]
                for execution_id in ids:
                    await place.ends(execution_id)
                assert await place.original.redis.llen(f"{place.original.prefix}:queue") > 0
            finally:
                over.set()
                await flood
        assert set(place.ran.values()) == {1}

    play(test)


def _event(number: int) -> Any:
    from worchflow_core import Send

    return Send(function="work", data=number)


# --- reading --------------------------------------------------------------------------------------


def test_the_originals_dashboard_reads_what_was_done(play: Any) -> None:
    async def test(place: Place) -> None:
        async with place.working():
            sent = await place.original.send("three-steps", {"amount": 100})
            await place.ends(sent)
            key = place.original.key("execution", sent)
            await until(lambda: _has_status(place.original, key, "completed"))
        document, steps, texts = await place.original.details(sent)
        result = {"title": "Send receipt", "amount": 100}
        assert (document["status"], document["attemptCount"]) == ("completed", 0)
        assert document["eventData"] == '{"amount": 100}'
        assert document["result"] == result
        assert "error" not in document
        assert isinstance(document["createdAt"], float)
        assert document["updatedAt"] >= document["createdAt"]
        titles = ["Validate payment", "Charge payment provider", "Send receipt"]
        assert [
            {name: item[name] for name in ("executionId", "stepId", "name", "status", "result")}
            for item in steps
        ] == [
            {
                "executionId": sent,
                "stepId": hashlib.md5(title.encode()).hexdigest(),
                "name": title,
                "status": "completed",
                "result": {"title": title, "amount": 100},
            }
            for title in titles
        ]
        stamps = [item["timestamp"] for item in steps]
        assert stamps == sorted(stamps)
        assert all(document["createdAt"] <= stamp <= document["updatedAt"] for stamp in stamps)
        assert texts["id"] == sent
        assert texts["eventName"] == "three-steps"
        assert texts["status"] == "completed"
        assert texts["attemptCount"] == "0"
        assert int(texts["createdAt"]) == document["createdAt"]
        assert int(texts["updatedAt"]) == document["updatedAt"]
        assert texts["result"] == '{"title":"Send receipt","amount":100}'
        assert "error" not in texts
        assert [item["id"] for item in await place.original.listed("completed")] == [sent]
        assert await place.original.stats() == {"completed": 1}

    play(test)


async def _has_status(original: Original, key: str, status: str) -> bool:
    return bool(await original.redis.hget(key, "status") == status)


def test_the_originals_dashboard_reads_a_failure(play: Any) -> None:
    async def test(place: Place) -> None:
        place.failures_left = 2
        async with place.working():
            sent = await place.original.send("work", 1)
            await place.ends(sent, "failed")
            key = place.original.key("execution", sent)
            await until(lambda: _has_status(place.original, key, "failed"))
        document, _, texts = await place.original.details(sent)
        assert document["attemptCount"] == 2
        assert document["error"] == "the provider is closed"
        assert "ValueError" in document["errorStack"]
        assert "result" not in document
        assert texts["error"] == "the provider is closed"
        assert texts["attemptCount"] == "2"
        assert place.ran == {sent: 2}

    play(test)


# --- retrying -------------------------------------------------------------------------------------


@pytest.mark.parametrize("clears_hash", [True, False])
def test_the_originals_retry_of_a_failed_execution_runs_it_anew(
    play: Any, clears_hash: bool
) -> None:
    async def test(place: Place) -> None:
        place.failures_left = 3  # both attempts, and the first after the retry
        async with place.working():
            sent = await place.original.send("work", 1)
            await place.ends(sent, "failed")
            await place.original.retry(sent, clears_hash=clears_hash)
            await place.ends(sent)
            key = place.original.key("execution", sent)
            await until(lambda: _has_status(place.original, key, "completed"))
        document, _, texts = await place.original.details(sent)
        assert place.ran == {sent: 4}
        assert document["attemptCount"] == 1
        assert not {"error", "errorStack", "errorInfo"} & set(document)
        assert (texts["attemptCount"], texts["result"]) == ("1", '{"of":1}')
        assert "error" not in texts

    play(test)


@EITHER_WAY
def test_the_originals_retry_reopens_even_a_completed_execution(play: Any) -> None:
    async def test(place: Place) -> None:
        async with place.working():
            sent = await place.original.send("three-steps", {"amount": 1})
            first = await place.ends(sent)
            await place.original.retry(sent)
            find = place.original.database.executions.find_one
            await until(lambda: find({"id": sent, "status": "completed", "fence": 2}), limit=30)
        document, steps, _ = await place.original.details(sent)
        assert document["result"] == first["result"]
        assert len(steps) == 3
        assert set(place.ran.values()) == {1}  # its steps stand, only the body ran again

    play(test)


@EITHER_WAY
def test_an_execution_that_was_reopened_is_no_longer_marked_as_ended(play: Any) -> None:
    async def test(place: Place) -> None:
        place.failures_left = 3
        async with place.working():
            sent = await place.original.send("work", 1)
            await place.ends(sent, "failed")
        await place.original.retry(sent)
        async with place.application() as app:
            await app.worker.run(max_executions=1)
            between = await app.client.get(sent)
        assert (between.status, between.failed_attempts) == ("retrying", 1)
        assert between.finished_at is None
        assert between.crashes == 0

    play(test)


def test_the_originals_retry_of_a_running_execution_runs_nothing_twice(play: Any) -> None:
    async def test(place: Place) -> None:
        async with place.working() as app, place.working():
            sent = await place.original.send("slow", 1)
            await until(lambda: place.ran[sent])
            for _ in range(3):
                await place.original.retry(sent)
            queue = f"{place.original.prefix}:queue"
            await until(lambda: _is_empty(place.original, queue))
            # Others ran meanwhile, so the hints were looked at and found nothing to claim.
            await place.ends(await place.original.send("work", 1))
            place.gate.set()
            document = await place.ends(sent)
            assert (await app.client.get(sent)).fence == 1
        assert document["result"] == "done"
        assert document["attemptCount"] == 0
        assert place.ran[sent] == 1

    play(test)


async def _is_empty(original: Original, key: str) -> bool:
    return not await original.redis.llen(key)


def test_ids_pushed_by_the_originals_dashboard_reopen_nothing(play: Any) -> None:
    async def test(place: Place) -> None:
        place.failures_left = 2
        async with place.working():
            failed = await place.original.send("work", 1)
            await place.ends(failed, "failed")
            completed = await place.original.send("work", 2)
            await place.ends(completed)
            queue = f"{place.original.prefix}:queue"
            await place.original.redis.rpush(queue, failed, completed, "never-sent")
            await until(lambda: _is_empty(place.original, queue))
            await place.ends(await place.original.send("work", 3))
        assert (place.ran[failed], place.ran[completed]) == (2, 1)
        assert await place.original.stats() == {"failed": 1, "completed": 2}

    play(test)


# --- taking over ----------------------------------------------------------------------------------


@EITHER_WAY
def test_steps_the_originals_worker_recorded_are_not_run_again(play: Any) -> None:
    async def test(place: Place) -> None:
        title = "Charge payment provider"
        step_id = hashlib.md5(title.encode()).hexdigest()
        sent = await place.original.send("three-steps", {"amount": 5})
        await place.original.record_step(sent, step_id, title, {"charged": "before"})
        await place.original.database.executions.update_one(
            {"id": sent}, {"$set": {"status": "retrying", "attemptCount": 1.0}}
        )
        async with place.working():
            document = await place.ends(sent)
        _, steps, _ = await place.original.details(sent)
        assert place.ran == {f"{sent} Validate payment": 1, f"{sent} Send receipt": 1}
        assert document["attemptCount"] == 1
        assert {item["name"]: item["result"] for item in steps}[title] == {"charged": "before"}

    play(test)


@EITHER_WAY
def test_a_worker_refuses_a_database_on_which_the_originals_worker_runs(play: Any) -> None:
    async def test(place: Place) -> None:
        sent = await place.original.send("work", 1)
        await place.original.start_working_on(sent)
        async with place.application() as app:
            with pytest.raises(StoreUnusable, match=r"(?s)is processing and no worker.*mongosh"):
                await app.worker.run()
            (problem,) = [item for item in await app.client.check() if item.level == "problem"]
            assert sent in problem.text
            # The remedy that the message names.
            await place.original.database.executions.update_many(
                {"status": "processing", "owner": None}, {"$set": {"status": "queued"}}
            )
            await app.worker.run(burst=True)
        await place.ends(sent)
        assert place.ran == {sent: 1}

    play(test)


def test_a_worker_complains_of_the_originals_worker_that_comes_later(
    play: Any, complaints: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worchflow_plugins.mongo.strangers._LOOK_EVERY", 0.0)

    async def test(place: Place) -> None:
        async with place.working():
            sent = await place.original.send("nobody-has-this", 1)
            await place.original.start_working_on(sent)
            await until(lambda: "the original TypeScript system" in complaints.text)
            await place.ends(await place.original.send("work", 1))
        assert complaints.text.count("the original TypeScript system") == 1

    play(test)


def test_a_worker_refuses_the_prefix_of_the_originals_scheduler(play: Any) -> None:
    async def test(place: Place) -> None:
        await place.original.lead()
        sent = await place.original.send("work", 1)
        async with place.application() as app:
            with pytest.raises(ConfigurationError, match=r"(?s):scheduler:leader.*fire twice"):
                await app.worker.run()
            problems = [item for item in await app.client.check() if item.level == "problem"]
            assert {item.subject for item in problems} == {"other systems"}
        assert not place.ran
        await place.original.redis.delete(f"{place.original.prefix}:scheduler:leader")
        async with place.working():
            await place.ends(sent)

    play(test)


def test_a_worker_complains_of_the_originals_scheduler_that_comes_later(
    play: Any, complaints: pytest.LogCaptureFixture
) -> None:
    async def test(place: Place) -> None:
        async with place.working():
            await place.ends(await place.original.send("work", 1))
            await place.original.lead()
            await until(lambda: "scheduler of the original" in complaints.text)
            await place.ends(await place.original.send("work", 2))
        assert complaints.text.count("scheduler of the original") == 1

    play(test)
