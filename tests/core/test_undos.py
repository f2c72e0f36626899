"""Undoing in a later attempt: the code is run once more, only to meet its steps."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from worchflow_core import (
    BlockingStep,
    Event,
    Execution,
    NonRetriable,
    RetryAfter,
    Status,
    Step,
    StepRecord,
    deadline,
    function,
    hookimpl,
    undos,
)
from worchflow_core.failures import error_of
from worchflow_core.identities import UNDOABLE, UNDOING
from worchflow_core.models import Failure
from worchflow_core.testing import Harness
from worchflow_core.transitions import release_crashed
from worchflow_core.undos import expired

from .support import run, until, worker_of
from .test_undoing import Ledger, opened

NOW = datetime(2030, 1, 1, tzinfo=UTC)


class CardDeclined(Exception):
    """What a provider says no with."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def undone(ledger: Ledger) -> list[str]:
    return [line for line in ledger.lines if line[0] == "-"]


def test_the_branches_of_a_gather_are_all_met_again(url: str) -> None:
    """The first undo fails once, so that another attempt has to meet the others."""
    ledger = Ledger()
    ledger.failing["<late>"] = 1

    @function(id="trip", retries=1, retry_delay=0)
    async def book_trip(event: Event[Any], step: Step) -> None:
        async def branch() -> None:
            await step.run("Early", ledger.book, "early", undo=ledger.take_back)
            await asyncio.sleep(0.05)  # longer than branches are thought to need
            await step.run("Late", ledger.book, "late", undo=ledger.take_back)

        def fail() -> None:
            if "+late" not in ledger.lines:
                time.sleep(0.2)
            raise NonRetriable("no car is left")

        await asyncio.gather(step.run("Car", fail), branch())

    async def main() -> None:
        async with opened(url, book_trip) as app, worker_of(app):
            handle = await app.client.send("trip", None)
            execution = await app.client.wait(handle.id, timeout=30)
            assert undone(ledger) == ["-<late>", "-<late>", "-<early>"]
            assert execution.error is not None
            assert execution.error.message == "no car is left"
            assert execution.error.undone == 2

    run(main())


@pytest.mark.parametrize("is_plain", [False, True])
def test_code_that_catches_what_a_step_raises_goes_the_same_way_again(
    url: str, is_plain: bool
) -> None:
    ledger = Ledger()
    ledger.failing["<card b>"] = 1
    tried: list[str] = []

    def charge() -> str:
        tried.append("card a")
        raise CardDeclined(402, "no money on it")

    @function(id="trip", retries=1, retry_delay=0)
    async def pays(event: Event[Any], step: Step) -> None:
        try:
            await step.run("Card a", charge)
        except CardDeclined:
            await step.run("Card b", ledger.book, "card b", undo=ledger.take_back)
        raise NonRetriable("sold out")

    @function(id="trip", retries=1, retry_delay=0)
    def pays_plainly(event: Event[Any], step: BlockingStep) -> None:
        try:
            step.run("Card a", charge)
        except CardDeclined:
            step.run("Card b", ledger.book, "card b", undo=ledger.take_back)
        raise NonRetriable("sold out")

    async def main() -> None:
        async with opened(url, pays_plainly if is_plain else pays) as app, worker_of(app):
            handle = await app.client.send("trip", None)
            execution = await app.client.wait(handle.id, timeout=30)
            assert ledger.lines == ["+card b", "-<card b>", "-<card b>"]
            assert execution.error is not None
            assert execution.error.message == "sold out"
            assert tried == ["card a"]

    run(main())


def test_a_step_that_the_code_no_longer_comes_to_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(undos, "TO_MEET_OTHERS", 0.1)
    ledger = Ledger()
    ledger.failing["<flight>"] = 1
    attempts: list[int] = []

    @function(retries=2)
    async def book_trip(event: Event[Any], step: Step) -> None:
        attempts.append(1)
        await step.run("Flight", ledger.book, "flight", undo=ledger.take_back)
        if len(attempts) == 1:
            await step.run("Hotel", ledger.book, "hotel", undo=ledger.take_back)
            ledger.failing["<hotel>"] = 1
            raise NonRetriable("no visa")
        await step.run("Car", ledger.book, "car")

    with Harness([book_trip]) as harness:
        ran = harness.run(book_trip, None)
    assert ledger.lines[:3] == ["+flight", "+hotel", "-<hotel>"]
    assert undone(ledger)[1:] == ["-<flight>", "-<flight>"]
    assert ran.failure is not None
    assert ran.failure.message.startswith("no visa; 'Hotel' could not be undone")
    assert ran.failure.undone == 1
    assert len(attempts) > 3, "it had tries to come to it"


def test_steps_that_the_last_attempt_did_not_come_to_are_undone_too(url: str) -> None:
    ledger = Ledger()
    attempts: list[int] = []

    @function(id="trip", retries=1, retry_delay=0)
    async def book_trip(event: Event[Any], step: Step) -> None:
        attempts.append(1)
        if len(attempts) == 2:
            raise OSError("the price list is away")
        await step.run("Flight", ledger.book, "flight", undo=ledger.take_back)
        raise ValueError("no visa")

    async def main() -> None:
        async with opened(url, book_trip) as app, worker_of(app):
            handle = await app.client.send("trip", None)
            execution = await app.client.wait(handle.id, timeout=30)
            assert ledger.lines == ["+flight", "-<flight>"]
            assert execution.error is not None
            assert execution.error.message == "the price list is away"

    run(main())


@pytest.mark.parametrize("kind", [SystemExit, asyncio.CancelledError, KeyboardInterrupt])
@pytest.mark.parametrize("is_plain", [False, True])
def test_an_undo_may_raise_anything(kind: type[BaseException], is_plain: bool, url: str) -> None:
    ledger = Ledger()

    async def stop(receipt: str) -> None:
        raise kind("out")

    def stop_plainly(receipt: str) -> None:
        raise kind("out")

    @function(id="trip", retries=0)
    async def book_trip(event: Event[Any], step: Step) -> None:
        await step.run("Flight", ledger.book, "flight", undo=ledger.take_back)
        await step.run("Hotel", ledger.book, "hotel", undo=stop_plainly if is_plain else stop)
        raise ValueError("no visa")

    async def main() -> None:
        async with opened(url, book_trip) as app, worker_of(app):
            handle = await app.client.send("trip", None)
            execution = await app.client.wait(handle.id, timeout=30)
            assert undone(ledger) == ["-<flight>"]
            assert execution.error is not None
            assert kind.__name__ in execution.error.message
            assert "'Hotel' could not be undone" in execution.error.message

    run(main())


def test_code_is_not_run_again_where_all_is_undone(url: str) -> None:
    """The worker is lost between the last undo's record and the end."""
    ledger = Ledger()
    attempts: list[int] = []

    @function(id="trip", retries=0)
    async def book_trip(event: Event[Any], step: Step) -> None:
        attempts.append(1)
        await step.run("Flight", ledger.book, "flight", undo=ledger.take_back)
        raise ValueError("no visa")

    async def main() -> None:
        async with opened(url, book_trip) as app:
            store, update = app.journal.store, app.journal.store.update
            is_away = asyncio.Event()

            async def refuse(changes: Any) -> Any:
                ends = {change.values.get("status") for change in changes}
                if Status.FAILED in ends and not is_away.is_set():
                    is_away.set()
                    return {change.id for change in changes}
                return await update(changes)

            store.update = refuse  # type: ignore[method-assign]
            async with worker_of(app):
                handle = await app.client.send("trip", None)
                await is_away.wait()
                owned = await handle.get()
                change = release_crashed(
                    owned, now=owned.updated_at, max_crashes=5, has_grown=True, has_hint=False
                )
                assert not await update([change])
                execution = await app.client.wait(handle.id, timeout=30)
            assert execution.error is not None
            assert (execution.error.message, execution.error.undone) == ("no visa", 1)
            assert ledger.lines == ["+flight", "-<flight>"]
            assert attempts == [1]

    run(main())


def test_an_undo_may_say_when_to_try_it_again() -> None:
    moments: list[datetime] = []

    @function(retries=1)
    async def charges(event: Event[Any], step: Step) -> None:
        async def refund(receipt: str) -> None:
            moments.append(harness.now)
            if len(moments) == 1:
                raise RetryAfter("2h")

        await step.run("Charge", lambda: "receipt", undo=refund)
        raise NonRetriable("no")

    with Harness([charges]) as harness:
        harness.run(charges, None)
    first, second = moments
    assert second - first >= timedelta(hours=2)


def test_an_undo_that_takes_no_result_is_refused_before_anything_runs() -> None:
    ran: list[str] = []
    wrong: Any = lambda: None  # noqa: E731 - what a hurried author writes

    @function(retries=0)
    async def charges(event: Event[Any], step: Step) -> None:
        await step.run("Charge", lambda: ran.append("charge"), undo=wrong)

    with Harness([charges]) as harness:
        failure = harness.run(charges, None).failure
    assert ran == []
    assert failure is not None
    assert "undo takes ()" in failure.message
    assert "the step's result" in failure.message


def test_code_that_hangs_outside_its_steps_does_not_hold_up_undoing(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadline, "TO_MEET_STEP", 0.3)
    ledger = Ledger()

    @function(id="trip", timeout="0.5s")
    async def book_trip(event: Event[Any], step: Step) -> None:
        await step.run("Flight", ledger.book, "flight", undo=ledger.take_back)
        await asyncio.sleep(3600)

    async def main() -> None:
        async with opened(url, book_trip) as app, worker_of(app):
            handle = await app.client.send("trip", None)
            execution = await app.client.wait(handle.id, timeout=30)
            assert ledger.lines == ["+flight", "-<flight>"]
            assert execution.error is not None
            assert execution.error.reason == "timeout"

    run(main())


def test_a_step_stored_unseen_at_the_deadline_is_undone(url: str) -> None:
    """The step is cut off while the store takes its record."""
    ledger = Ledger()

    @function(id="trip", timeout="0.5s")
    async def book_trip(event: Event[Any], step: Step) -> None:
        await step.run("Flight", ledger.book, "flight", undo=ledger.take_back)

    async def main() -> None:
        async with opened(url, book_trip) as app:
            store, record = app.journal.store, app.journal.store.record

            async def slow(steps: Any) -> Any:
                answers = await record(steps)
                if any(step.kind == UNDOABLE for step in steps):
                    await asyncio.sleep(1.5)
                return answers

            store.record = slow  # type: ignore[method-assign]
            async with worker_of(app):
                handle = await app.client.send("trip", None)
                execution = await app.client.wait(handle.id, timeout=30)
                assert execution.status is Status.FAILED
                assert ledger.lines == ["+flight", "-<flight>"]

    run(main())


def test_a_run_under_test_that_sleeps_past_its_deadline_is_undone() -> None:
    ledger = Ledger()
    ledger.failing["<flight>"] = 1

    @function(timeout="1h")
    async def book_trip(event: Event[Any], step: Step) -> None:
        await step.run("Flight", ledger.book, "flight", undo=ledger.take_back)
        await step.sleep("Nap", "2h")

    with Harness([book_trip]) as harness:
        ran = harness.run(book_trip, None)
    assert ledger.lines == ["+flight", "-<flight>", "-<flight>"]
    assert ran.failure is not None
    assert ran.failure.reason == "timeout"


def step_of(kind: str, title: str = "Charge") -> StepRecord:
    return StepRecord(
        execution_id="e",
        step_id=title,
        title=title,
        kind=kind,
        result="1",
        started_at=NOW,
        ended_at=NOW,
        execution_created_at=NOW,
    )


def test_a_deadline_that_passes_while_nobody_owns_it() -> None:
    late = Execution(
        id="e",
        function="f",
        status=Status.SLEEPING,
        created_at=NOW,
        updated_at=NOW,
        due_at=NOW + timedelta(hours=1),
        deadline_at=NOW - timedelta(hours=1),
    )

    def change(item: Execution, *steps: StepRecord) -> Any:
        found = expired(item, steps, now=NOW, has_handler=False)
        return None if found is None else found.values

    assert change(late)["status"] is Status.FAILED
    assert change(late, step_of("run"))["status"] is Status.FAILED, "nothing is to be undone"
    assert change(late, step_of(UNDOABLE))["due_at"] == NOW, "a worker undoes it, and ends it"
    assert change(replace(late, due_at=NOW), step_of(UNDOABLE)) is None, "it is due already"
    # The wait before an undo is tried again is not cut short.
    assert change(late, step_of(UNDOABLE), step_of(UNDOING, "Undoing")) is None


def test_an_error_is_made_again_of_what_is_stored() -> None:
    name = f"{CardDeclined.__module__}.{CardDeclined.__qualname__}"
    error = error_of(Failure(type=name, message="no money"))
    assert type(error) is CardDeclined
    assert str(error) == "no money"
    assert type(error_of(Failure(type="ValueError", message="x"))) is ValueError
    for strange in ("KeyboardInterrupt", "gone.Error", "f.<locals>.E", "", "os.system", "int"):
        assert error_of(Failure(type=strange, message="x")) is None
    assert error_of(Failure(type="ExceptionGroup", message="x")) is None


def test_plugins_hear_of_undos_as_of_steps() -> None:
    heard: list[tuple[str, str]] = []

    class Listener:
        @hookimpl
        def worchflow_step_completed(self, step: Any) -> None:
            heard.append(("completed", step.title))

        @hookimpl
        def worchflow_step_failed(self, step: Any) -> None:
            heard.append(("failed", step.title))

    ledger = Ledger()
    ledger.failing["<hotel>"] = 9

    @function(retries=0)
    async def book_trip(event: Event[Any], step: Step) -> None:
        await step.run("Flight", ledger.book, "flight", undo=ledger.take_back)
        await step.run("Hotel", ledger.book, "hotel", undo=ledger.take_back)
        raise ValueError("no visa")

    with Harness([book_trip], plugins=[Listener()]) as harness:
        harness.run(book_trip, None)
    assert sorted(heard) == [
        ("completed", "Flight"),
        ("completed", "Hotel"),
        ("completed", "Undo Flight"),
        ("failed", "Undo Hotel"),
    ]


# --- being stopped meanwhile --------------------------------------------------------------------


def stuck(ledger: Ledger, begun: asyncio.Event) -> Any:
    """Return a function whose first undo hangs the first time it is tried."""

    @function(id="trip", retries=0)
    async def book_trip(event: Event[Any], step: Step) -> None:
        async def hang(receipt: str) -> None:
            await ledger.take_back(receipt)
            if not begun.is_set():
                begun.set()
                await asyncio.sleep(3600)

        await step.run("Flight", ledger.book, "flight", undo=ledger.take_back)
        await step.run("Hotel", ledger.book, "hotel", undo=hang)
        raise ValueError("no visa")

    return book_trip


def test_a_worker_that_leaves_gives_back_what_it_undoes(url: str) -> None:
    ledger, begun = Ledger(), asyncio.Event()

    async def main() -> None:
        async with opened(url, stuck(ledger, begun)) as app:
            async with worker_of(app):
                handle = await app.client.send("trip", None)
                await begun.wait()
            execution = await handle.get()
            assert (execution.status, execution.owner) == (Status.QUEUED, None)
        async with opened(url, stuck(ledger, begun)) as app, worker_of(app):
            execution = await app.client.wait(handle.id, timeout=30)
            assert execution.status is Status.FAILED
            assert undone(ledger) == ["-<hotel>", "-<hotel>", "-<flight>"]
            assert execution.error is not None
            assert execution.error.message == "no visa"

    run(main())


def test_a_cancel_stops_undoing(url: str) -> None:
    ledger, begun = Ledger(), asyncio.Event()

    async def main() -> None:
        async with opened(url, stuck(ledger, begun)) as app, worker_of(app):
            handle = await app.client.send("trip", None)
            await begun.wait()
            await handle.cancel()
            execution = await app.client.wait(handle.id, timeout=30)
            assert execution.status is Status.CANCELLED
            assert undone(ledger) == ["-<hotel>"]
            # Reopened, it goes on with what it had begun, and not forward.
            await handle.retry()
            execution = await app.client.wait(handle.id, timeout=30)
            assert execution.status is Status.FAILED
            assert ledger.lines == ["+flight", "+hotel", "-<hotel>", "-<hotel>", "-<flight>"]

    run(main())


def test_a_worker_that_was_taken_for_dead_undoes_no_more(url: str) -> None:
    ledger, begun = Ledger(), asyncio.Event()
    gate = asyncio.Event()

    @function(id="trip", retries=0)
    async def book_trip(event: Event[Any], step: Step) -> None:
        async def hold(receipt: str) -> None:
            await ledger.take_back(receipt)
            begun.set()
            await gate.wait()

        await step.run("Flight", ledger.book, "flight", undo=ledger.take_back)
        await step.run("Hotel", ledger.book, "hotel", undo=hold)
        raise ValueError("no visa")

    async def main() -> None:
        async with opened(url, book_trip) as app, worker_of(app):
            handle = await app.client.send("trip", None)
            await begun.wait()
            owned = await handle.get()
            change = release_crashed(
                owned, now=owned.updated_at, max_crashes=5, has_grown=True, has_hint=False
            )
            assert not await app.journal.store.update([change])
            (taken,) = await app.journal.store.claim(
                "another", ["trip"], limit=1, now=datetime.now(UTC), ids=[handle.id]
            )
            gate.set()
            await until(lambda: not app.worker.health.running)
            execution = await handle.get()
            assert (execution.owner, execution.fence) == ("another", taken.fence)
            assert execution.status is Status.PROCESSING

    run(main())
