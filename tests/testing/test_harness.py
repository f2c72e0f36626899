from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from worchflow_core import (
    BlockingStep,
    Event,
    ExecutionFailed,
    NonRetriable,
    Resource,
    RetryAfter,
    Status,
    Step,
    WorchflowError,
    function,
    hookimpl,
)
from worchflow_core.testing import Harness


class Order(BaseModel):
    number: int


@function(id="order", retries=2, retry_delay="1h")
async def order(event: Event[Order], step: Step) -> list[str]:
    first = await step.run("First", work, "first")
    second = await step.run("Second", work, "second")
    third = await step.run("Third", work, "third")
    return [first, second, third, str(event.data.number)]


def work(name: str) -> str:
    return f"did {name}"


@function(id="plain-order")
def plain_order(event: Event[Order], step: BlockingStep) -> list[str]:
    return [step.run("Piece", work, str(number)) for number in range(event.data.number)]


@pytest.fixture
def harness() -> Iterator[Harness]:
    with Harness([order, plain_order]) as open_harness:
        yield open_harness


def test_result_is_what_the_function_returned(harness: Harness) -> None:
    run = harness.run(order, Order(number=7))
    assert run.status is Status.COMPLETED
    assert run.result == ["did first", "did second", "did third", "7"]
    assert run.ran == ("First", "Second", "Third")
    assert run.replayed == ()
    assert run.claims == 1


def refund(receipt: str) -> None:
    raise AssertionError("a test must not call the real provider")


@function(id="refunds", retries=1)
async def refunds(event: Event[Order], step: Step) -> None:
    step.progress(event.data.number, 10)
    step.log("charging", number=event.data.number)
    await step.run("Charge", work, "charge", undo=refund)
    await step.run("Reserve", work, "seat", undo=lambda seat: step.log("freed", seat=seat))
    raise NonRetriable("sold out")


def test_undos_run_or_their_stubs_do(harness: Harness) -> None:
    given: list[str] = []
    run = harness.run(refunds, {"number": 3}, stub={"Undo Charge": given.append})
    assert given == ["did charge"]
    assert run.ran == ("Charge", "Reserve", "Undo Reserve", "Undo Charge")
    assert run.undone == ("Reserve", "Charge")
    assert run.failure is not None
    assert run.failure.message == "sold out"


def test_what_a_function_says_is_there_to_test(harness: Harness) -> None:
    notes = harness.run(refunds, {"number": 3}, stub={"Undo Charge": None}).notes
    assert notes.progress is not None
    assert notes.progress.text == "3 of 10"
    assert [(line.step, line.text, line.fields) for line in notes.lines] == [
        (None, "charging", {"number": 3}),
        ("Undo Reserve", "freed", {"seat": "did seat"}),
    ]


def test_crash_during_an_undo_runs_it_twice(harness: Harness) -> None:
    stub = {"Undo Charge": None}
    run = harness.run(refunds, {"number": 3}, stub=stub, crash_during="Undo Charge")
    assert run.ran == ("Charge", "Reserve", "Undo Reserve", "Undo Charge", "Undo Charge")
    assert run.undone == ("Reserve", "Charge")
    assert run.claims == 2


def test_undo_that_cannot_be_made_is_not_among_the_undone(harness: Harness) -> None:
    run = harness.run(refunds, {"number": 3}, stub={"Undo Charge": OSError("shut")})
    assert run.undone == ("Reserve",)
    assert run.failure is not None
    assert "'Charge' could not be undone: shut" in run.failure.message


def test_plain_functions_run_too(harness: Harness) -> None:
    run = harness.run(plain_order, {"number": 2})
    assert run.result == ["did 0", "did 1"]
    assert run.ran == ("Piece", "Piece")


def test_stub_takes_the_place_of_a_step(harness: Harness) -> None:
    run = harness.run(
        order, {"number": 1}, stub={"First": "stubbed", "Second": lambda name: f"saw {name}"}
    )
    assert run.result == ["stubbed", "saw second", "did third", "1"]
    assert [step.result for step in run.steps] == ['"stubbed"', '"saw second"', '"did third"']


def test_stub_may_raise(harness: Harness) -> None:
    run = harness.run(order, {"number": 1}, stub={"Second": NonRetriable("refused")})
    assert run.status is Status.FAILED
    assert run.failure is not None
    assert run.failure.message == "refused"
    with pytest.raises(ExecutionFailed, match="refused"):
        _ = run.result


def test_stub_of_no_step_is_an_error(harness: Harness) -> None:
    with pytest.raises(WorchflowError, match="no step took the stub for 'Frist'"):
        harness.run(order, {"number": 1}, stub={"Frist": 1})


@pytest.mark.parametrize("place", ["Second", 2])
def test_crash_after_a_step_replays_it(harness: Harness, place: str | int) -> None:
    run = harness.run(order, {"number": 1}, crash_after=place)
    assert run.result == ["did first", "did second", "did third", "1"]
    assert run.ran == ("First", "Second", "Third")
    assert run.replayed == ("First", "Second")
    assert run.claims == 2
    assert run.execution.failed_attempts == 0


def test_crash_during_a_step_runs_it_twice(harness: Harness) -> None:
    run = harness.run(order, {"number": 1}, crash_during="Second")
    assert run.ran == ("First", "Second", "Second", "Third")
    assert run.replayed == ("First",)
    assert run.claims == 2


def test_plain_function_replays_after_a_crash(harness: Harness) -> None:
    run = harness.run(plain_order, {"number": 3}, crash_after=2)
    assert run.result == ["did 0", "did 1", "did 2"]
    assert run.ran == ("Piece", "Piece", "Piece")
    assert run.replayed == ("Piece", "Piece")


def test_crash_that_does_not_happen_is_an_error(harness: Harness) -> None:
    with pytest.raises(WorchflowError, match="no crash at 9"):
        harness.run(order, {"number": 1}, crash_after=9)


def test_crash_stops_parallel_branches() -> None:
    begun: list[str] = []

    @function
    async def parallel(event: Event[Any], step: Step) -> list[str]:
        async def branch(name: str) -> str:
            await step.run(f"Begin {name}", begun.append, name)
            return await step.run(f"End {name}", work, name)

        return list(await asyncio.gather(branch("a"), branch("b")))

    with Harness([parallel]) as harness:
        run = harness.run(parallel, crash_after="Begin a")
    assert run.result == ["did a", "did b"]
    assert sorted(begun) == ["a", "b"]
    assert "Begin a" in run.replayed


def test_waits_for_retries_are_skipped(harness: Harness) -> None:
    answers = iter([ConnectionError("away"), RetryAfter("3h"), "back"])

    def answer(name: str) -> str:
        value = next(answers)
        if isinstance(value, Exception):
            raise value
        return value

    before = harness.now
    run = harness.run(order, {"number": 1}, stub={"Second": answer})
    assert run.result[1] == "back"
    assert run.ran == ("First", "Second", "Second", "Second", "Third")
    assert harness.now - before > timedelta(hours=4)
    assert run.execution.failed_attempts == 2


def test_retries_run_out(harness: Harness) -> None:
    run = harness.run(order, {"number": 1}, stub={"First": ConnectionError("away")})
    assert run.status is Status.FAILED
    assert run.ran == ("First", "First", "First")


def test_decorated_steps_are_stubbed() -> None:
    @function
    async def decorated(event: Event[Any], step: Step) -> int:
        @step("Count")
        async def count() -> int:
            raise AssertionError("the stub stands in")

        return await count

    with Harness([decorated]) as harness:
        assert harness.run(decorated, stub={"Count": 3}).result == 3


def test_deadline_passes_while_time_is_skipped() -> None:
    @function(retries=9, retry_delay="1h", timeout="2h")
    async def late(event: Event[Any], step: Step) -> None:
        raise ConnectionError("away")

    with Harness([late]) as harness:
        run = harness.run(late)
    assert run.status is Status.FAILED
    assert run.failure is not None
    assert run.failure.reason == "timeout"


def test_resources_are_opened_or_given() -> None:
    opened: list[str] = []

    @contextmanager
    def open_pool() -> Iterator[str]:
        opened.append("opened")
        yield "real"
        opened.append("closed")

    @function
    async def query(event: Event[Any], step: Step, *, pool: str = Resource(open_pool)) -> str:
        return pool

    with Harness([query]) as harness:
        assert harness.run(query).result == "real"
    assert opened == ["opened", "closed"]
    with Harness([query], resources={"pool": "fake"}) as harness:
        assert harness.run(query).result == "fake"
    assert opened == ["opened", "closed"]


def test_handlers_run_with_all_the_rest() -> None:
    @function
    async def apologise(event: Event[Any], step: Step) -> str:
        return str(event.data["execution"]["status"])

    @function(retries=0, on_failure=apologise)
    async def fails(event: Event[Any], step: Step) -> None:
        raise ValueError("always")

    with Harness([apologise, fails]) as harness:
        harness.run(fails)
        (handled,) = harness.run_all()
        assert handled.result == "failed"
        harness.assert_sent(apologise, {"execution": {"status": "failed"}}, times=1)


def test_sent_events_are_found(harness: Harness) -> None:
    harness.client.send("order", {"number": 5, "note": "x"}, delay="1d")
    harness.assert_sent(order)
    harness.assert_sent("order", {"number": 5})
    with pytest.raises(AssertionError, match="sent 0 times"):
        harness.assert_sent("order", {"number": 6})
    with pytest.raises(AssertionError, match="2 times"):
        harness.assert_sent("order", times=2)
    (run,) = harness.run_all()
    assert run.result[-1] == "5"


def test_time_can_be_set_and_moved() -> None:
    @function
    async def tell(event: Event[Any], step: Step) -> datetime:
        return event.timestamp

    newyear = datetime(2027, 1, 1, tzinfo=UTC)
    with Harness([tell], now=newyear) as harness:
        assert harness.run(tell).result - newyear < timedelta(minutes=1)
        harness.advance("7d")
        assert harness.run(tell).result - newyear >= timedelta(days=7)


def test_plugins_hear_what_happens() -> None:
    heard: list[str] = []

    class Ear:
        @hookimpl
        def worchflow_step_completed(self, step: Any) -> None:
            heard.append(step.title)

        @hookimpl
        def worchflow_step_replayed(self, step: Any) -> None:
            heard.append(f"replayed {step.title}")

    with Harness([order], plugins=[Ear()]) as harness:
        harness.run(order, {"number": 1}, crash_after="First")
    assert heard == ["First", "replayed First", "Second", "Third"]


def test_unknown_function_is_named(harness: Harness) -> None:
    with pytest.raises(WorchflowError, match="no function 'ordre'; there are: order"):
        harness.run("ordre")


def test_environment_chooses_no_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORCHFLOW_STORE_URL", "mongodb://127.0.0.1:1/none")
    monkeypatch.setenv("WORCHFLOW_QUEUE_URL", "redis://127.0.0.1:1")
    with Harness([order]) as harness:
        assert harness.run(order, {"number": 1}).status is Status.COMPLETED


def test_fixture_gives_a_fresh_harness(worchflow_harness: Harness) -> None:
    assert worchflow_harness.sent() == []
    assert worchflow_harness.run(order, {"number": 1}).status is Status.COMPLETED
