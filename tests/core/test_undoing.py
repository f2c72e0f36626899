"""Sagas: what an execution does when it fails for good after steps that can be undone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from worchflow_core import (
    BlockingStep,
    Event,
    ExecutionFailed,
    InvalidInput,
    NonRetriable,
    NotAllowed,
    Status,
    Step,
    Worchflow,
    control,
    function,
)
from worchflow_core.identities import UNDOING
from worchflow_core.testing import Harness

from .support import run, until, worker_of


def opened(url: str, *functions: Any, **settings: Any) -> Worchflow:
    given = {"store_url": url, "sweep_interval": "0.1s", "heartbeat": "0.1s", "lease": "3s"}
    return Worchflow(
        functions=functions, overrides={**given, "log": "off", **settings}, env_file=None
    )


class Ledger:
    """What steps did and undos took back, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.failing: dict[str, int] = {}
        self.keys: list[str] = []

    def book(self, what: str) -> str:
        self.lines.append(f"+{what}")
        return f"<{what}>"

    async def take_back(self, receipt: str) -> None:
        self.lines.append(f"-{receipt}")
        if self.failing.get(receipt, 0):
            self.failing[receipt] -= 1
            raise OSError(f"{receipt} is stuck")

    def take_back_plainly(self, receipt: str) -> None:
        assert threading.current_thread() is not threading.main_thread()
        self.lines.append(f"-{receipt}")


def trip(ledger: Ledger, **options: Any) -> Any:
    @function(id="trip", **{"retries": 0, "retry_delay": 0, **options})
    async def book_trip(event: Event[Any], step: Step) -> None:
        await step.run("Flight", ledger.book, "flight", undo=ledger.take_back)
        await step.run("Hotel", ledger.book, "hotel", undo=ledger.take_back_plainly)
        await step.run("Mail", ledger.book, "mail")
        await step.run("Car", ledger.book, "car", undo=ledger.take_back)
        raise ValueError("no visa")

    return book_trip


def test_undos_run_last_first_before_the_failure_is_settled(url: str) -> None:
    ledger = Ledger()

    async def main() -> None:
        async with opened(url, trip(ledger)) as app, worker_of(app):
            handle = await app.client.send("trip", None)
            with pytest.raises(ExecutionFailed, match="no visa"):
                await handle.result(30)
            assert ledger.lines[4:] == ["-<car>", "-<hotel>", "-<flight>"]
            execution = await handle.get()
            assert execution.status is Status.FAILED
            assert execution.failed_attempts == 1
            assert execution.error is not None
            assert execution.error.undone == 3
            steps = await handle.steps()
            assert [step.title for step in steps if step.kind == "undo"] == [
                "Undo Car",
                "Undo Hotel",
                "Undo Flight",
            ]
            assert UNDOING not in {step.kind for step in steps}

    run(main())


def test_a_function_that_completes_undoes_nothing() -> None:
    ledger = Ledger()

    @function
    async def fine(event: Event[Any], step: Step) -> str:
        await step.run("Flight", ledger.book, "flight", undo=ledger.take_back)
        return "done"

    with Harness([fine]) as harness:
        assert harness.run(fine, None).result == "done"
    assert ledger.lines == ["+flight"]


def test_attempts_that_are_retried_undo_nothing_until_the_last_has_failed(url: str) -> None:
    ledger = Ledger()

    async def main() -> None:
        async with opened(url, trip(ledger, retries=2)) as app, worker_of(app):
            handle = await app.client.send("trip", None)
            execution = await app.client.wait(handle.id, timeout=30)
            assert execution.failed_attempts == 3
            assert [line for line in ledger.lines if line[0] == "+"] == [
                "+flight", "+hotel", "+mail", "+car"
            ]  # fmt: skip
            assert ledger.lines[-3:] == ["-<car>", "-<hotel>", "-<flight>"]

    run(main())


def test_an_undo_that_fails_is_tried_again_and_the_others_wait(url: str) -> None:
    ledger = Ledger()
    ledger.failing["<car>"] = 2

    async def main() -> None:
        async with opened(url, trip(ledger, retries=3)) as app, worker_of(app):
            handle = await app.client.send("trip", None)
            execution = await app.client.wait(handle.id, timeout=30)
            undone = [line for line in ledger.lines if line[0] == "-"]
            assert undone == ["-<car>"] * 3 + ["-<hotel>", "-<flight>"]
            assert execution.error is not None
            assert execution.error.message == "no visa"
            assert execution.failed_attempts == 4

    run(main())


def test_an_undo_that_cannot_be_made_is_named_and_the_others_run(url: str) -> None:
    ledger = Ledger()
    ledger.failing["<car>"] = 99

    async def main() -> None:
        async with opened(url, trip(ledger, retries=1)) as app, worker_of(app):
            handle = await app.client.send("trip", None)
            execution = await app.client.wait(handle.id, timeout=30)
            undone = [line for line in ledger.lines if line[0] == "-"]
            assert undone == ["-<car>"] * 2 + ["-<hotel>", "-<flight>"]
            assert execution.error is not None
            assert execution.error.type == "ValueError"
            assert "'Car' could not be undone: <car> is stuck" in execution.error.message
            assert execution.error.undone == 2

    run(main())


@pytest.mark.parametrize("how", ["fatal", "timeout", "asleep"])
def test_every_final_failure_undoes(url: str, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "IN_PLACE", timedelta(0))
    ledger = Ledger()

    @function(id="trip", retries=5, timeout=None if how == "fatal" else "0.7s")
    async def book_trip(event: Event[Any], step: Step) -> None:
        await step.run("Flight", ledger.book, "flight", undo=ledger.take_back)
        if how == "fatal":
            raise NonRetriable("closed")
        if how == "asleep":
            await step.sleep("Nap", "1h")
        await step.run("Hang", asyncio.sleep, 60)

    async def main() -> None:
        async with opened(url, book_trip) as app, worker_of(app):
            handle = await app.client.send("trip", None)
            execution = await app.client.wait(handle.id, timeout=30)
            assert execution.status is Status.FAILED
            assert ledger.lines == ["+flight", "-<flight>"]
            assert execution.error is not None
            assert execution.error.reason == ("not_retriable" if how == "fatal" else "timeout")

    run(main())


def test_once_undoing_has_begun_no_attempt_goes_forward(url: str) -> None:
    """The flaw of the first attempt is gone; its undos were begun all the same."""
    ledger = Ledger()
    ledger.failing["<flight>"] = 1
    ran: list[str] = []

    @function(id="trip", retries=1, retry_delay=0)
    async def book_trip(event: Event[Any], step: Step) -> str:
        await step.run("Flight", ledger.book, "flight", undo=ledger.take_back)
        if not any(line[0] == "-" for line in ledger.lines):
            raise NonRetriable("only the first time")
        await step.run("Charge", lambda: ran.append("charge"))
        await step.sleep("Nap", "1h")
        return "done"

    async def main() -> None:
        async with opened(url, book_trip) as app, worker_of(app):
            handle = await app.client.send("trip", None)
            execution = await app.client.wait(handle.id, timeout=30)
            assert execution.status is Status.FAILED
            assert execution.error is not None
            assert execution.error.message == "only the first time"
            assert ledger.lines == ["+flight", "-<flight>", "-<flight>"]
            assert ran == []

    run(main())


def test_an_undone_execution_is_not_retried(url: str) -> None:
    ledger = Ledger()

    async def main() -> None:
        async with opened(url, trip(ledger)) as app, worker_of(app):
            handle = await app.client.send("trip", None)
            await app.client.wait(handle.id, timeout=30)
            with pytest.raises(NotAllowed, match=r"undone; send the event anew"):
                await handle.retry()
            fork = await app.client.fork(handle.id, from_step="Car")
            await app.client.wait(fork.id, timeout=30)
            # What was undone is done again, what was not is kept.
            assert ledger.lines[7:10] == ["+flight", "+hotel", "+car"]

    run(main())


def test_plain_functions_undo_too(url: str) -> None:
    ledger = Ledger()

    @function(id="trip", retries=0)
    def book_trip(event: Event[Any], step: BlockingStep) -> None:
        step.run("Flight", ledger.book, "flight", undo=ledger.take_back)
        step.map("Ticket", ledger.book, ["a", "b"], undo=ledger.take_back_plainly)
        raise ValueError("no visa")

    async def main() -> None:
        async with opened(url, book_trip) as app, worker_of(app):
            handle = await app.client.send("trip", None)
            await app.client.wait(handle.id, timeout=30)
            assert ledger.lines[3:] == ["-<b>", "-<a>", "-<flight>"]

    run(main())


def test_an_undo_has_a_key_of_its_own_and_the_same_on_every_try() -> None:
    keys: list[str] = []

    @function(id="trip", retries=1, retry_delay=0)
    async def book_trip(event: Event[Any], step: Step) -> None:
        def take_back(receipt: str) -> None:
            keys.append(step.idempotency_key)
            if len(keys) == 2:
                raise OSError("once")

        def charge() -> str:
            keys.append(step.idempotency_key)
            return "receipt"

        await step.run("Charge", charge, undo=take_back)
        raise NonRetriable("no")

    with Harness([book_trip]) as harness:
        assert harness.run(book_trip, None).failure is not None
    charge, first, second = keys
    assert first == second != charge


def test_a_cancelled_execution_is_not_undone(url: str) -> None:
    ledger = Ledger()

    @function(id="trip")
    async def book_trip(event: Event[Any], step: Step) -> None:
        await step.run("Flight", ledger.book, "flight", undo=ledger.take_back)
        await step.sleep("Nap", "1h")

    async def main() -> None:
        async with opened(url, book_trip) as app, worker_of(app):
            handle = await app.client.send("trip", None)

            async def sleeps() -> bool:
                return (await handle.get()).status is Status.SLEEPING

            await until(sleeps)
            await handle.cancel()
            assert (await app.client.wait(handle.id, timeout=30)).status is Status.CANCELLED
            assert ledger.lines == ["+flight"]

    run(main())


def test_an_undo_that_is_no_function_is_refused_before_anything_runs() -> None:
    ran: list[str] = []
    wrong: Callable[..., Any] = "refund"  # type: ignore[assignment]

    @function(retries=0)
    async def charges(event: Event[Any], step: Step) -> None:
        await step.run("Charge", lambda: ran.append("charge"), undo=wrong)

    with Harness([charges]) as harness:
        failure = harness.run(charges, None).failure
    assert ran == []
    assert failure is not None
    assert "undo is str; give a function" in failure.message
    assert InvalidInput.__name__ in failure.type
