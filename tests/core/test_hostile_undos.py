"""Undoing under hostile code: what it does with its results, its errors and its interruptions."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from worchflow_core import Event, Execution, Status, Step, deadline, function, undos
from worchflow_core.failures import failure_of
from worchflow_core.models import StepTry

from .support import outcome_of, run, until, working
from .test_undoing import Ledger

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def test_an_undo_gets_the_stored_result_whatever_user_code_made_of_it() -> None:
    taken_back = []

    @function(retries=0)
    async def charges(event: Event[Any], step: Step) -> None:
        charge = await step.run("Charge", lambda: {"id": 7}, undo=taken_back.append)
        charge.pop("id")
        raise ValueError("no visa")

    assert outcome_of(charges).status is Status.FAILED
    assert taken_back == [{"id": 7}]


def test_after_its_deadline_an_error_of_its_own_does_not_try_it_again() -> None:
    ledger = Ledger()

    @function(timeout="0.3s", retries=50, retry_delay="1h")
    async def trip(event: Event[Any], step: Step) -> None:
        await step.run("Flight", ledger.book, "flight", undo=ledger.take_back)
        ledger.lines.append("ran")
        raise ValueError("no visa")

    execution = outcome_of(trip)
    assert execution.error is not None
    assert execution.error.reason == "timeout"
    assert ledger.lines == ["+flight", "ran", "ran", "-<flight>"]


def test_what_steps_raised_is_recorded_in_bounds_however_many_they_are() -> None:
    failure = failure_of(ValueError("x" * 5000))
    tries = [
        StepTry(
            step_id=f"{number:032}", title="Deliver", started_at=NOW, ended_at=NOW, error=failure
        )
        for number in range(10_000)
    ]
    body = undos.begun_body(failure, tries)
    assert len(body) < 3_000_000
    assert len(json.loads(undos.begun_body(failure, tries[:3]))["failed"]) == 3


def test_an_execution_ends_although_the_store_refuses_to_begin_its_undoing() -> None:
    ledger = Ledger()

    @function(retries=0)
    async def trip(event: Event[Any], step: Step) -> None:
        await step.run("Flight", ledger.book, "flight", undo=ledger.take_back)
        raise ValueError("no visa")

    async def main() -> None:
        async with working(trip) as app:
            record = app.journal.store.record

            async def refusing(steps: Any) -> Any:
                if any(item.kind == "undoing" for item in steps):
                    raise ValueError("too large")
                return await record(steps)

            app.journal.store.record = refusing  # type: ignore[method-assign]
            handle = await app.client.send(trip, None)
            execution = await app.client.wait(handle.id, timeout=10)
            assert execution.error is not None
            assert execution.error.message == "no visa; undoing it failed: ValueError: too large"
            assert not execution.error.undone
            # Whoever has mended that can let it be undone.
            app.journal.store.record = record  # type: ignore[method-assign]
            await app.client.retry(handle.id)
            await app.client.wait(handle.id, timeout=10)
            assert ledger.lines == ["+flight", "-<flight>"]

    run(main())


def test_an_interruption_that_code_swallowed_does_not_reach_its_undos(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deadline, "TO_MEET_STEP", 0.2)
    tried = 0

    async def take_back(_: Any) -> None:
        nonlocal tried
        tried += 1
        if tried == 1:
            raise OSError("the line is busy")
        if tried == 2:
            raise asyncio.CancelledError("what it awaited was cancelled")

    @function(retries=3, retry_delay=0)
    async def trip(event: Event[Any], step: Step) -> None:
        await step.run("Flight", str, undo=take_back)
        if tried:
            try:
                await asyncio.sleep(3600)
            except BaseException:
                raise ValueError("no visa") from None
        raise ValueError("no visa")

    execution = outcome_of(trip)
    assert execution.status is Status.FAILED
    assert execution.error is not None
    assert execution.error.undone == 1


def test_what_was_cancelled_from_outside_its_attempt_is_run_again() -> None:
    """Nothing of ours cancels an attempt's task, and what does must not leave it to nobody."""
    begun = 0

    @function
    async def patient(event: Event[Any], step: Step) -> str:
        nonlocal begun
        begun += 1
        return "done"

    async def main() -> None:
        async with working(patient) as app:
            settle = app.journal.settle

            async def cut_off(*args: Any, **kwargs: Any) -> Execution | None:
                app.journal.settle = settle  # type: ignore[method-assign]
                raise asyncio.CancelledError

            app.journal.settle = cut_off  # type: ignore[method-assign]
            handle = await app.client.send(patient, None)
            assert await until(lambda: begun == 2)
            assert await handle.result(10) == "done"

    run(main())


def test_a_fork_takes_another_result_for_a_step_that_can_be_undone() -> None:
    taken_back: list[Any] = []

    @function(retries=0)
    async def charges(event: Event[Any], step: Step) -> int:
        charge = await step.run("Charge", lambda: 1, undo=taken_back.append)
        if charge == 2:
            raise ValueError("no visa")
        return charge

    async def main() -> None:
        async with working(charges) as app:
            handle = await app.client.send(charges, None)
            assert await handle.result(10) == 1
            fork = await app.client.fork(handle.id, results={"Charge": 2})
            failed = await app.client.wait(fork.id, timeout=10)
            assert failed.error is not None
            assert failed.error.message == "no visa"
            assert taken_back == []  # it is the original's, whatever it is said to have returned

    run(main())
