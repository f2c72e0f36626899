"""Writing workflows: what the documentation says a function may do, end to end."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, TypedDict
from uuid import UUID

import pytest
from pydantic import BaseModel

from tests.core.support import outcome, outcome_of, run, until, working
from worchflow_core import (
    BlockingStep,
    Event,
    Execution,
    NonRetriable,
    RetryAfter,
    Status,
    Step,
    function,
)


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Payment(BaseModel):
    amount: Decimal
    customer: str
    due: datetime
    reference: UUID
    colour: Colour = Colour.RED


@dataclass
class Receipt:
    number: int
    paid_at: datetime
    lines: list[tuple[str, Decimal]]


class Note(TypedDict):
    text: str
    day: date


PAYMENT = Payment(
    amount=Decimal("10.50"),
    customer="Ana",
    due=datetime(2026, 3, 1, 12, 30, tzinfo=UTC),
    reference=UUID(int=7),
    colour=Colour.BLUE,
)
RECEIPT = Receipt(
    number=4, paid_at=datetime(2026, 3, 2, tzinfo=UTC), lines=[("tea", Decimal("3.20"))]
)


def result(execution: Execution) -> Any:
    assert execution.status is Status.COMPLETED, execution.error
    assert execution.result is not None
    return json.loads(execution.result)


# --- the two kinds of functions, and typed values -------------------------------------------------


def test_async_function_with_typed_event_steps_and_result() -> None:
    seen: list[Any] = []

    async def charge(payment: Payment) -> Receipt:
        seen.append(payment)
        return RECEIPT

    @function
    async def pay(event: Event[Payment], step: Step) -> Receipt:
        seen.append(event.data)
        receipt = await step.run("Charge", charge, event.data)
        seen.append(receipt)
        return receipt

    async def main() -> None:
        async with working(pay) as app:
            handle = await app.client.send(pay, PAYMENT)
            assert await handle.result(timeout=10) == RECEIPT
            assert seen == [PAYMENT, PAYMENT, RECEIPT]

    run(main())


def test_plain_function_with_typed_event_steps_and_result() -> None:
    threads: set[int] = set()

    def charge(payment: Payment) -> Receipt:
        threads.add(threading.get_ident())
        assert payment == PAYMENT
        return RECEIPT

    @function
    def pay(event: Event[Payment], step: BlockingStep) -> Receipt:
        threads.add(threading.get_ident())
        assert event.data == PAYMENT
        receipt = step.run("Charge", charge, event.data)
        assert receipt == RECEIPT
        return receipt

    async def main() -> None:
        async with working(pay) as app:
            handle = await app.client.send(pay, PAYMENT)
            assert await handle.result(timeout=10) == RECEIPT

    run(main())
    assert len(threads) == 1
    assert threading.get_ident() not in threads


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        (Payment, PAYMENT),
        (Receipt, RECEIPT),
        (Note, {"text": "hello", "day": date(2026, 1, 2)}),
        (datetime, datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)),
        (timedelta, timedelta(days=1, microseconds=3)),
        (UUID, UUID(int=99)),
        (Decimal, Decimal("0.10")),
        (Colour, Colour.BLUE),
        (set[int], {1, 2, 3}),
        (dict[int, UUID], {5: UUID(int=5)}),
        (tuple[int, str], (1, "a")),
        (list[Payment | None], [PAYMENT, None]),
    ],
    ids=str,
)
def test_first_run_and_replay_see_equal_typed_values(declared: Any, value: Any) -> None:
    seen: list[Any] = []

    @function(retries=1, retry_delay=0)
    async def typed(event: Event[Any], step: Step) -> None:
        seen.append(await step.run("Make", lambda: value, returns=declared))
        if step.attempt == 1:
            raise ValueError("once more")

    assert outcome_of(typed).status is Status.COMPLETED
    assert seen == [value, value]
    assert type(seen[0]) is type(seen[1]) is type(value)


def test_what_a_type_changes_is_changed_in_the_first_run_already() -> None:
    seen: list[Any] = []

    @function(retries=1, retry_delay=0)
    async def typed(event: Event[Any], step: Step) -> None:
        seen.append(await step.run("Pair", lambda: (1, 2)))
        if step.attempt == 1:
            raise ValueError("once more")

    outcome_of(typed)
    assert seen == [[1, 2], [1, 2]]


# --- steps ----------------------------------------------------------------------------------------


def test_decorator_form_rebinds_the_name_to_the_result() -> None:
    @function
    async def decorated(event: Event[Any], step: Step) -> int:
        @step("Add")
        async def total() -> int:
            return 1 + 2

        return await total

    @function
    def plain(event: Event[Any], step: BlockingStep) -> int:
        @step("Add")
        def total() -> int:
            return 1 + 2

        return total

    assert result(outcome_of(decorated)) == 3
    assert result(outcome_of(plain)) == 3


def test_gathered_steps_run_together_and_each_keeps_its_value() -> None:
    runs: list[int] = []

    @function(retries=1, retry_delay=0)
    async def wide(event: Event[Any], step: Step) -> list[int]:
        everyone = asyncio.Barrier(5)

        async def work(number: int) -> int:
            runs.append(number)
            await everyone.wait()
            return number * 10

        values = await asyncio.gather(*(step.run(f"Work {n}", work, n) for n in range(5)))
        if step.attempt == 1:
            raise ValueError("once more")
        return values

    assert result(outcome_of(wide)) == [0, 10, 20, 30, 40]
    assert sorted(runs) == [0, 1, 2, 3, 4]


def test_same_title_in_a_loop_is_a_step_of_its_own_each_time() -> None:
    runs: list[int] = []

    def work(number: int) -> int:
        runs.append(number)
        return number * 10

    @function(retries=1, retry_delay=0)
    async def loop(event: Event[Any], step: Step) -> list[int]:
        values = [await step.run("Work", work, n) for n in range(3)]
        values += await asyncio.gather(*(step.run("Work", work, n) for n in range(3, 5)))
        if step.attempt == 1:
            raise ValueError("once more")
        return values

    assert result(outcome_of(loop)) == [0, 10, 20, 30, 40]
    assert sorted(runs) == [0, 1, 2, 3, 4]


def test_same_title_from_two_tasks_fails_for_good_and_asks_for_a_key() -> None:
    @function
    async def racing(event: Event[Any], step: Step) -> list[int]:
        async def branch(number: int) -> int:
            return await step.run("Work", lambda: number)

        return await asyncio.gather(branch(1), branch(2))

    execution = outcome_of(racing)
    assert execution.status is Status.FAILED
    assert execution.error is not None
    assert "'Work'" in execution.error.message
    assert "key=" in execution.error.message
    assert execution.failed_attempts == 1


def test_key_tells_equal_titles_of_two_tasks_apart() -> None:
    @function(retries=1, retry_delay=0)
    async def keyed(event: Event[Any], step: Step) -> list[int]:
        async def branch(number: int) -> int:
            return await step.run("Work", lambda: number, key=f"work-{number}")

        values = await asyncio.gather(branch(1), branch(2))
        if step.attempt == 1:
            raise ValueError("once more")
        return values

    assert result(outcome_of(keyed)) == [1, 2]


@pytest.mark.parametrize("other", ["key", "title"])
def test_two_steps_of_one_identity_are_refused(other: str) -> None:
    @function
    async def clash(event: Event[Any], step: Step) -> None:
        await step.run("Work", lambda: 1)
        if other == "key":
            await step.run("Else", lambda: 2, key="Work")
        else:
            await step.run("Work#2", lambda: 2)
            await step.run("Work", lambda: 3)

    execution = outcome_of(clash)
    assert execution.status is Status.FAILED
    assert execution.error is not None
    assert "identity" in execution.error.message
    assert execution.failed_attempts == 1


def test_idempotency_key_is_the_same_on_every_attempt_and_attempt_counts() -> None:
    keys: list[str] = []
    attempts: list[int] = []

    @function(retries=2, retry_delay=0)
    async def keyed(event: Event[Any], step: Step) -> str:
        attempts.append(step.attempt)

        async def charge() -> str:
            keys.append(step.idempotency_key)
            if len(keys) < 3:
                raise ConnectionError("no answer")
            return step.execution_id

        return await step.run("Charge", charge)

    execution = outcome_of(keyed)
    assert result(execution) == execution.id
    assert len(set(keys)) == 1
    assert keys[0].startswith(f"{execution.id}:")
    assert attempts == [1, 2, 3]


def test_idempotency_key_works_in_plain_steps_and_not_outside_a_step() -> None:
    @function
    def plain(event: Event[Any], step: BlockingStep) -> list[str]:
        try:
            _ = step.idempotency_key
        except RuntimeError as error:
            return [str(error), step.run("Charge", lambda: step.idempotency_key)]
        return []

    execution = outcome_of(plain)
    message, key = result(execution)
    assert "inside a step" in message
    assert key.startswith(f"{execution.id}:")


def test_event_timestamp_is_the_same_on_every_attempt() -> None:
    seen: list[datetime] = []

    @function(retries=1, retry_delay=0)
    async def timed(event: Event[Any], step: Step) -> None:
        seen.append(event.timestamp)
        if step.attempt == 1:
            raise ValueError("once more")

    execution = outcome_of(timed)
    assert seen == [execution.created_at, execution.created_at]
    assert seen[0].tzinfo is not None


def test_nested_step_is_refused_for_good() -> None:
    @function
    async def nested(event: Event[Any], step: Step) -> int:
        async def outer() -> int:
            return await step.run("Inner", lambda: 1)

        return await step.run("Outer", outer)

    @function
    def nested_plain(event: Event[Any], step: BlockingStep) -> int:
        return step.run("Outer", lambda: step.run("Inner", lambda: 1))

    for code in (nested, nested_plain):
        execution = outcome_of(code)
        assert execution.status is Status.FAILED
        assert execution.error is not None
        assert "'Inner' was called inside another step" in execution.error.message
        assert execution.failed_attempts == 1


@pytest.mark.parametrize("title", ["", "x" * 257, "a\nb", "nul\0", "\ud800", 7])
def test_title_that_cannot_be_taken_fails_for_good(title: Any) -> None:
    @function
    async def titled(event: Event[Any], step: Step) -> None:
        await step.run(title, lambda: 1)

    execution = outcome_of(titled)
    assert execution.status is Status.FAILED
    assert execution.error is not None
    assert "step title" in execution.error.message
    assert execution.failed_attempts == 1


@pytest.mark.parametrize("title", ["שלום עולם", "emoji 🎉", "$set", "a.b", "{}", "x" * 256])
def test_any_printable_title_is_kept_literally(title: str) -> None:
    @function
    async def titled(event: Event[Any], step: Step) -> str:
        return await step.run(title, lambda: title)

    async def main() -> None:
        async with working(titled) as app:
            handle = await app.client.send(titled, None)
            assert await handle.result(timeout=10) == title
            assert [item.title for item in await handle.steps()] == [title]

    run(main())


def test_step_given_a_called_function_says_so() -> None:
    @function
    async def called(event: Event[Any], step: Step) -> None:
        async def work() -> int:
            return 1

        await step.run("Work", work())  # type: ignore[call-overload]

    execution = outcome_of(called)
    assert execution.status is Status.FAILED
    assert execution.error is not None
    assert "without calling fn" in execution.error.message


# --- what does not survive ------------------------------------------------------------------------


def _circular() -> Any:
    loop: list[Any] = []
    loop.append(loop)
    return {"loop": loop}


def _deep() -> Any:
    value: Any = 1
    for _ in range(100_000):
        value = [value]
    return value


UNFIT: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "bytes": (lambda: {"a": [1, {"b": b"raw"}]}, ["a[1].b", "base64"]),
    "set": (lambda: {"a": {1, 2}}, ["at a", "list"]),
    "datetime": (lambda: {"when": datetime(2026, 1, 1, tzinfo=UTC)}, ["when", "returns="]),
    "decimal": (lambda: [Decimal(1)], ["[0]", "Decimal"]),
    "object": (lambda: {"o": object()}, ["at o", "object"]),
    "nan": (lambda: {"x": float("nan")}, ["at x", "NaN"]),
    "infinity": (lambda: [1, float("-inf")], ["[1]", "infinity"]),
    "keys": (lambda: {1: "a"}, ["keys must be text"]),
    "circular": (_circular, ["refers to itself"]),
    "deep": (_deep, ["nests too deeply"]),
    "digits": (lambda: {"n": [10**5000]}, ["n[0]", "digits"]),
    "surrogate": (lambda: {"t": ["\ud800"]}, ["t[0]", "surrogate"]),
    "surrogate key": (lambda: {"\udfff": 1}, ["surrogate"]),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_step_result_that_does_not_survive_fails_for_good(kind: str) -> None:
    make, words = UNFIT[kind]
    runs: list[int] = []

    @function
    async def broken(event: Event[Any], step: Step) -> None:
        await step.run("Make it", lambda: runs.append(1) or make())

    execution = outcome_of(broken)
    assert execution.status is Status.FAILED
    assert execution.error is not None
    assert execution.error.reason == "not_serializable"
    for word in ["step 'Make it'", *words]:
        assert word in execution.error.message
    assert execution.failed_attempts == len(runs) == 1


def test_function_result_that_does_not_survive_fails_for_good() -> None:
    @function
    async def broken(event: Event[Any], step: Step) -> Any:
        return {"raw": b"bytes"}

    execution = outcome_of(broken)
    assert execution.status is Status.FAILED
    assert execution.error is not None
    assert "result of broken" in execution.error.message
    assert "raw" in execution.error.message
    assert execution.failed_attempts == 1


def test_step_that_declares_bytes_fails_for_good_with_a_hint() -> None:
    def make() -> bytes:
        return b"x"

    @function
    async def broken(event: Event[Any], step: Step) -> None:
        await step.run("Make", make)

    execution = outcome_of(broken)
    assert execution.status is Status.FAILED
    assert execution.error is not None
    assert "'Make'" in execution.error.message
    assert "base64" in execution.error.message
    assert execution.failed_attempts == 1


def test_step_result_of_another_type_than_declared_fails_for_good() -> None:
    def make() -> Receipt:
        return {"number": "many"}  # type: ignore[return-value]

    @function
    async def broken(event: Event[Any], step: Step) -> None:
        await step.run("Make", make)

    execution = outcome_of(broken)
    assert execution.status is Status.FAILED
    assert execution.error is not None
    assert "Receipt" in execution.error.message
    assert "number" in execution.error.message
    assert execution.failed_attempts == 1


@pytest.mark.parametrize(
    "value",
    [
        "$owner",
        {"$set": {"a.b": 1}},
        {"a.b": {"$where": "1"}},
        "nul \0 in the middle",
        "emoji 🎉 and שלום",
        2**63,
        -(2**70),
        10**300,
        "é",
        "</script>",
        [True, None, 0.1, 1e308, -0.0],
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_odd_but_legal_values_are_kept_literally_everywhere(value: Any) -> None:
    @function(retries=1, retry_delay=0)
    async def odd(event: Event[Any], step: Step) -> Any:
        assert event.data == value
        kept = await step.run("Keep", lambda: value)
        assert kept == value
        if step.attempt == 1:
            raise ValueError(str(value)[:100])
        return kept

    async def main() -> None:
        async with working(odd) as app:
            handle = await app.client.send(odd, value)
            assert await handle.result(timeout=10) == value
            execution = await handle.get()
            assert execution.attempts[0].error is not None
            message = execution.attempts[0].error.message
            assert message == str(value)[:100].replace("\0", "\\x00")

    run(main())


def test_result_of_seventeen_megabytes_fails_for_good_naming_step_and_size() -> None:
    @function
    async def large(event: Event[Any], step: Step) -> None:
        await step.run("Make much", lambda: "x" * 17_000_000)

    execution = outcome_of(large)
    assert execution.status is Status.FAILED
    assert execution.error is not None
    assert "step 'Make much'" in execution.error.message
    assert "17,000,002 bytes" in execution.error.message
    assert execution.failed_attempts == 1


def test_error_text_of_seventeen_megabytes_is_trimmed() -> None:
    @function(retries=0)
    async def loud(event: Event[Any], step: Step) -> None:
        raise ValueError("x" * 17_000_000)

    execution = outcome_of(loud)
    assert execution.status is Status.FAILED
    assert execution.error is not None
    assert len(execution.error.message.encode()) <= 33 * 1024
    assert len((execution.error.traceback or "").encode()) <= 33 * 1024


# --- errors and retries ---------------------------------------------------------------------------


def test_error_keeps_type_message_traceback_and_cause() -> None:
    @function(retries=0)
    async def wrong(event: Event[Any], step: Step) -> None:
        try:
            {}["missing"]  # type: ignore[call-overload]
        except KeyError as error:
            raise RuntimeError("could not look up") from error

    failure = outcome_of(wrong).error
    assert failure is not None
    assert (failure.type, failure.message) == ("RuntimeError", "could not look up")
    assert failure.traceback is not None
    assert "test_authoring.py" in failure.traceback
    assert failure.cause is not None
    assert failure.cause.type == "KeyError"


def test_attempts_are_retried_three_times_by_default_with_growing_waits_and_jitter() -> None:
    @function
    async def failing(event: Event[Any], step: Step) -> None:
        raise ValueError("no")

    first = [failing.retry.delay(1, chance).total_seconds() for chance in (0, 0.5, 0.999)]
    assert failing.retry.retries == 3
    assert first == sorted(set(first))
    assert first[0] == 1
    assert failing.retry.delay(2, 0) == 2 * failing.retry.delay(1, 0)

    async def main() -> None:
        async with working(failing) as app:
            handle = await app.client.send(failing, None)
            waiting = await until(lambda: _retrying(handle))
            assert waiting.due_at - waiting.updated_at >= timedelta(seconds=0.99)

    async def _retrying(handle: Any) -> Execution | None:
        execution = await handle.get()
        return execution if execution.status is Status.RETRYING else None

    run(main())


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_function_is_tried_once_more_than_its_retries(retries: int) -> None:
    runs: list[int] = []

    @function(retries=retries, retry_delay=0)
    async def failing(event: Event[Any], step: Step) -> None:
        runs.append(step.attempt)
        raise ValueError("no")

    execution = outcome_of(failing)
    assert execution.status is Status.FAILED
    assert runs == list(range(1, retries + 2))
    assert execution.failed_attempts == retries + 1
    assert [item.number for item in execution.attempts] == runs


@pytest.mark.parametrize("place", ["function", "step", "gather", "group"])
def test_non_retriable_fails_at_once_wherever_it_is_raised(place: str) -> None:
    def refuse() -> None:
        raise NonRetriable("card stolen")

    @function
    async def refusing(event: Event[Any], step: Step) -> None:
        match place:
            case "function":
                refuse()
            case "step":
                await step.run("Charge", refuse)
            case "gather":
                await asyncio.gather(step.run("Charge", refuse), step.run("Other", lambda: 1))
            case "group":
                async with asyncio.TaskGroup() as group:
                    group.create_task(step.run("Charge", refuse))
                    group.create_task(step.run("Other", lambda: 1))

    execution = outcome_of(refusing)
    assert execution.status is Status.FAILED
    assert execution.failed_attempts == 1
    assert execution.error is not None
    assert "card stolen" in str(execution.error)
    assert execution.error.reason == "not_retriable"


@pytest.mark.parametrize("place", ["function", "step", "group"])
def test_retry_after_says_when_to_try_again(place: str) -> None:
    def later() -> None:
        raise RetryAfter("30s")

    @function
    async def busy(event: Event[Any], step: Step) -> None:
        if place == "function":
            later()
        elif place == "step":
            await step.run("Call", later)
        else:
            async with asyncio.TaskGroup() as group:
                group.create_task(step.run("Call", later))

    async def main() -> None:
        async with working(busy) as app:
            handle = await app.client.send(busy, None)

            async def retrying() -> Execution | None:
                execution = await handle.get()
                return execution if execution.status is Status.RETRYING else None

            waiting = await until(retrying)
            span = waiting.due_at - waiting.updated_at
            assert timedelta(seconds=29) <= span <= timedelta(seconds=31)
            assert waiting.failed_attempts == 1

    run(main())


def test_step_retries_count_by_themselves() -> None:
    runs: list[int] = []

    @function(retries=0)
    async def steady(event: Event[Any], step: Step) -> int:
        def flaky() -> int:
            runs.append(step.attempt)
            if len(runs) < 3:
                raise ConnectionError("no answer")
            return 7

        return await step.run("Call", flaky, retries=2, retry_delay=0)

    execution = outcome_of(steady)
    assert result(execution) == 7
    assert runs == [1, 1, 1]
    assert execution.failed_attempts == 0


@pytest.mark.parametrize("grouped", [False, True])
def test_step_whose_own_retries_are_used_up_fails_the_execution(grouped: bool) -> None:
    runs: list[int] = []

    def broken() -> None:
        runs.append(1)
        raise ConnectionError("no answer")

    @function(retries=5, retry_delay=0)
    async def failing(event: Event[Any], step: Step) -> None:
        if not grouped:
            await step.run("Call", broken, retries=1, retry_delay=0)
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(step.run("Call", broken, retries=1, retry_delay=0))

    execution = outcome_of(failing)
    assert execution.status is Status.FAILED
    assert len(runs) == 2
    assert execution.failed_attempts == 1


def test_error_of_a_step_can_be_caught() -> None:
    def broken() -> None:
        raise ConnectionError("no answer")

    @function(retries=0)
    async def careful(event: Event[Any], step: Step) -> str:
        try:
            await step.run("Call", broken)
        except ConnectionError:
            return await step.run("Fall back", lambda: "cash")
        return "card"

    assert result(outcome_of(careful)) == "cash"


def test_step_timeout_fails_the_step() -> None:
    @function(retries=0)
    async def slow(event: Event[Any], step: Step) -> None:
        await step.run("Hang", asyncio.sleep, 60, timeout="50ms")

    stop = threading.Event()

    @function(retries=0)
    async def slow_thread(event: Event[Any], step: Step) -> None:
        await step.run("Hang", stop.wait, 60, timeout="50ms")

    @function(retries=0)
    def slow_plain(event: Event[Any], step: BlockingStep) -> None:
        step.run("Hang", threading.Event().wait, 0.1, timeout="50ms")

    try:
        for code in (slow, slow_thread, slow_plain):
            execution = outcome_of(code)
            assert execution.status is Status.FAILED
            assert execution.error is not None
            assert execution.error.type.endswith("StepTimeout")
            assert "'Hang' took longer than 0.05 s" in execution.error.message
    finally:
        stop.set()


def test_execution_timeout_fails_for_good() -> None:
    @function(timeout="100ms")
    async def slow(event: Event[Any], step: Step) -> None:
        await step.run("Hang", asyncio.sleep, 60)

    stop = threading.Event()

    @function(timeout="100ms")
    def slow_plain(event: Event[Any], step: BlockingStep) -> None:
        stop.wait(60)

    @function(timeout="200ms", retry_delay=3600)
    async def waiting(event: Event[Any], step: Step) -> None:
        raise ValueError("again in an hour")

    try:
        for code in (slow, slow_plain, waiting):
            execution = outcome_of(code)
            assert execution.status is Status.FAILED
            assert execution.error is not None
            assert execution.error.reason == "timeout"
    finally:
        stop.set()


def test_on_failure_and_on_success_are_executions_of_their_own() -> None:
    told: list[tuple[str, str]] = []

    @function
    async def after_failure(event: Event[dict[str, Any]], step: Step) -> None:
        told.append((event.data["execution"]["status"], event.data["execution"]["id"]))
        assert event.data["execution"]["errorInfo"]["message"] == "no"

    @function
    async def after_success(event: Event[dict[str, Any]], step: Step) -> None:
        told.append((event.data["execution"]["status"], event.data["execution"]["id"]))

    @function(retries=0, on_failure=after_failure, on_success=after_success)
    async def work(event: Event[bool], step: Step) -> None:
        if not event.data:
            raise ValueError("no")

    async def main() -> None:
        async with working(work, after_failure, after_success) as app:
            bad = await outcome(app, work, False)
            good = await outcome(app, work, True)
            await until(lambda: len(told) == 2)
            assert sorted(told) == sorted([("failed", bad.id), ("completed", good.id)])

    run(main())


# --- once -----------------------------------------------------------------------------------------


def test_once_step_that_completes_is_replayed_like_any_other() -> None:
    runs: list[int] = []

    @function(retries=1, retry_delay=0)
    async def careful(event: Event[Any], step: Step) -> int:
        value = await step.run("Charge", lambda: runs.append(1) or 5, once=True)
        if step.attempt == 1:
            raise ValueError("once more")
        return value

    assert result(outcome_of(careful)) == 5
    assert runs == [1]


@pytest.mark.parametrize("kind", ["async", "plain"])
def test_once_step_that_was_begun_and_did_not_end_is_never_begun_again(kind: str) -> None:
    runs: list[int] = []

    def charge() -> None:
        runs.append(1)
        raise ConnectionError("did it work?")

    @function(retries=3, retry_delay=0)
    async def careful(event: Event[Any], step: Step) -> None:
        await step.run("Charge", charge, once=True)

    @function(retries=3, retry_delay=0)
    def careful_plain(event: Event[Any], step: BlockingStep) -> None:
        step.run("Charge", charge, once=True)

    execution = outcome_of(careful if kind == "async" else careful_plain)
    assert execution.status is Status.FAILED
    assert execution.error is not None
    assert execution.error.type.endswith("StepOutcomeUnknown")
    assert "'Charge' was begun in attempt 1" in execution.error.message
    assert runs == [1]
