"""Explaining executions as they are in each store."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from worchflow_core import (
    BlockingClient,
    Event,
    NonRetriable,
    NotFound,
    Status,
    Step,
    Worchflow,
    control,
    function,
    pauses,
)
from worchflow_core.models import RunningExecution, Worker, WorkerState

from .support import application, run, until, worker_of

SERVED = {"disabled_plugins": "dashboard,logs,redis,sample-audit,sample-panel"}
"""Settings with the plugins of all stores."""


async def codes(app: Worchflow, execution_id: str) -> list[str]:
    return [reason.code for reason in await app.client.explain(execution_id)]


async def facts(app: Worchflow, execution_id: str, code: str) -> dict[str, Any]:
    found = await app.client.explain(execution_id)
    return dict(next(reason.facts for reason in found if reason.code == code))


@function(id="pay", retries=2, retry_delay="1h")
async def pay(event: Event[Any], step: Step) -> Any:
    if event.data == "fail":
        raise ValueError("no money")
    if event.data == "sleep":
        await step.sleep("Nap", "1h")
    if event.data == "wait":
        await step.wait_for_event("Wait", "order/paid", match={"order": 1}, timeout="2h")
    if event.data == "child":
        await step.invoke("Call", "missing", None)
    return event.data


def test_what_waits_says_for_what(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "IN_PLACE", timedelta(0))

    async def main() -> None:
        async with application(pay, url=url, **SERVED) as app, worker_of(app):
            sent = {
                data: (await app.client.send(pay, data)).id
                for data in ("done", "fail", "sleep", "wait", "child")
            }
            delayed = await app.client.send(pay, None, delay="1h")
            orphan = await app.client.send("pey", None)
            expected = {
                "done": ["completed"],
                "fail": ["retry_later"],
                "sleep": ["sleeping"],
                "wait": ["waiting_for_event", "wait_timeout"],
                "child": ["waiting_for_child"],
            }
            for data, wanted in expected.items():

                async def is_told(data: str = data, wanted: list[str] = wanted) -> bool:
                    return await codes(app, sent[data]) == wanted

                await until(is_told)
            assert await codes(app, delayed.id) == ["delayed"]
            assert await codes(app, orphan.id) == ["no_worker"]
            assert (await facts(app, orphan.id, "no_worker"))["near"] == ["pay"]
            retry = await facts(app, sent["fail"], "retry_later")
            assert (retry["attempt"], retry["attempts"]) == (2, 3)
            assert (retry["error"], retry["message"]) == ("ValueError", "no money")
            child = await facts(app, sent["child"], "waiting_for_child")
            assert (child["function"], child["status"]) == ("missing", "queued")
            event = await facts(app, sent["wait"], "waiting_for_event")
            assert event == {"event": "order/paid", "has_match": True}
            (worker,) = await app.client.workers()
            await app.client.drain([worker.id])

            async def is_empty() -> bool:
                return not app.worker.health.is_ready

            await until(is_empty)
        async with application(pay, url=url, **SERVED) as app:
            assert (await codes(app, sent["sleep"]))[0] == "sleeping"
            with pytest.raises(NotFound):
                await app.client.explain("nobody")

    run(main())


def test_what_runs_says_where(url: str) -> None:
    gate = asyncio.Event()

    @function(id="slow")
    async def slow(event: Event[Any], step: Step) -> None:
        await step.run("Hold", gate.wait)

    async def main() -> None:
        async with application(slow, url=url, **SERVED) as app, worker_of(app):
            handle = await app.client.send(slow, None)

            async def is_in_step() -> bool:
                found = await app.client.explain(handle.id)
                return bool(found and found[0].facts.get("step") == "Hold")

            await until(is_in_step)
            (reason,) = await app.client.explain(handle.id)
            assert reason.code == "running"
            assert reason.facts["worker"] == (await app.client.workers())[0].name
            await app.client.cancel(handle.id)
            gate.set()
            await app.client.wait(handle.id, timeout=30)

    run(main())


def test_what_is_due_says_who_would_take_it(url: str) -> None:
    async def main() -> None:
        async with application(pay, url=url, **SERVED) as app:
            first = await app.client.send(pay, None)
            second = await app.client.send(pay, None)
            assert await codes(app, second.id) == ["no_live_worker"]
            now = app.journal.clock.now()
            worker = Worker(
                id="w1",
                name="ana:1",
                host="ana",
                pid=1,
                version="0",
                state=WorkerState.STARTING,
                started_at=now,
                concurrency=1,
                functions=("pay",),
                running=(RunningExecution(execution_id="x", function="pay", since=now),),
            )
            await asyncio.to_thread(app.journal.store.beat, worker, lease=timedelta(minutes=5))
            assert await codes(app, second.id) == ["workers_full"]
            ahead = (await facts(app, second.id, "workers_full"))["ahead"]
            assert ahead in (0, 1)  # both may have been sent within one millisecond
            (claimed,) = await app.journal.store.claim(
                "w0", ["pay"], limit=1, now=app.journal.clock.now(), ids=[first.id]
            )
            assert claimed.owner == "w0"
            assert await codes(app, first.id) == ["worker_lost"]

    run(main())


def test_a_paused_function_says_so(url: str) -> None:
    async def main() -> None:
        async with application(pay, url=url, **SERVED) as app:
            handle = await app.client.send(pay, None)
            now = app.journal.clock.now()
            await pauses.pause(app.journal.store.records, "pay", reason="a fix", now=now)
            reason = (await app.client.explain(handle.id))[0]
            assert (reason.code, reason.facts["reason"]) == ("function_paused", "a fix")

    run(main())


def test_what_is_ahead_of_it_may_run(url: str) -> None:
    async def main() -> None:
        async with application(pay, url=url, **SERVED) as app:
            now = app.journal.clock.now()
            await app.client.send("idle", None)
            await app.client.send(pay, None)
            handle = await app.client.send(pay, None, at=now + timedelta(milliseconds=200))
            worker = Worker(
                id="w1",
                name="ana:1",
                host="ana",
                pid=1,
                version="0",
                state=WorkerState.STARTING,
                started_at=now,
                concurrency=1,
                functions=("idle", "pay"),
                running=(RunningExecution(execution_id="x", function="pay", since=now),),
            )
            await asyncio.to_thread(app.journal.store.beat, worker, lease=timedelta(minutes=5))

            async def is_due() -> bool:
                return await codes(app, handle.id) == ["workers_full"]

            await until(is_due)
            assert (await facts(app, handle.id, "workers_full"))["ahead"] == 2
            await pauses.pause(app.journal.store.records, "idle", reason="", now=now)
            assert (await facts(app, handle.id, "workers_full"))["ahead"] == 1

    run(main())


def test_waits_retries_and_undos_are_told_as_they_are(url: str) -> None:
    def fails(*_: Any) -> None:
        raise ValueError("no")

    @function(id="waits")
    async def waits(event: Event[Any], step: Step) -> None:
        await step.wait_for_event("First", "one", timeout="3d")
        await step.wait_for_event("Second", "two")

    @function(id="again", retries=3)
    async def again(event: Event[Any], step: Step) -> None:
        await step.run("Charge", fails, retries=5, retry_delay="1h")

    @function(id="trip", retries=3, retry_delay="1h", timeout="1d")
    async def trip(event: Event[Any], step: Step) -> None:
        await step.run("Book", lambda: 1, undo=fails)
        raise NonRetriable("no seat")

    async def main() -> None:
        async with application(waits, again, trip, url=url, **SERVED) as app, worker_of(app):
            waiting = await app.client.send(waits, None)
            await app.client.signal(waiting.id, "one")
            retrying = await app.client.send(again, None)
            undone = await app.client.send(trip, None)

            async def are_told() -> bool:
                told = [await codes(app, item.id) for item in (waiting, retrying, undone)]
                return told == [["waiting_for_event"], ["step_retry_later"], ["undoing"]]

            await until(are_told)
            assert (await facts(app, waiting.id, "waiting_for_event"))["event"] == "two"
            assert (await facts(app, retrying.id, "step_retry_later"))["step"] == "Charge"
            (reason,) = await app.client.explain(undone.id)
            assert "'Undo Book' is tried again in" in reason.text

    run(main())


def test_explaining_changes_nothing(url: str) -> None:
    async def main() -> None:
        async with application(pay, url=url, **SERVED) as app:
            handle = await app.client.send(pay, None)
            before = await handle.get()
            await app.client.explain(handle.id)
            assert await handle.get() == before
            assert before.status is Status.QUEUED

    run(main())


def test_blocking_code_asks_the_same() -> None:
    with BlockingClient(application(pay)) as client:
        handle = client.send(pay, "x", delay="1h")
        assert [reason.code for reason in client.explain(handle.id)] == [
            "delayed",
            "no_live_worker",
        ]
        fork = client.fork(handle.id, data="y", id="mine")
        assert (fork.id, fork.is_new) == ("mine", True)
        assert client.get("mine").forked_from == handle.id
