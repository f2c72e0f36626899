"""Functions: how they are declared, what is refused, and the registry."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.core.support import outcome_of
from worchflow_core import BlockingStep, Event, FunctionError, Status, Step, function
from worchflow_core.annotations import declared_result
from worchflow_core.codec import UNTYPED
from worchflow_core.functions import Function, Registry, stamped

if TYPE_CHECKING:
    from decimal import Decimal as Hidden


async def plain(event: Event[Any], step: Step) -> None:
    """Do a thing.

    More about it.
    """


def test_bare_decorator_takes_the_name_with_dashes() -> None:
    @function
    async def process_payment(event: Event[Any], step: Step) -> None:
        return None

    assert process_payment.id == "process-payment"
    assert process_payment.is_async
    assert (process_payment.retry.retries, process_payment.timeout) == (3, None)


def test_options_are_kept() -> None:
    made = function(
        id="pay",
        retries=5,
        retry_delay="2s",
        timeout="10m",
        cron="@daily",
        tz="Europe/Paris",
        on_failure="told",
        priority=-3,
        tags=["b", "a"],
    )(plain)
    assert made.id == "pay"
    assert made.retry.first == timedelta(seconds=2)
    assert made.timeout == timedelta(minutes=10)
    assert made.cron is not None
    assert made.cron.text == "0 0 * * *"
    assert (made.on_failure, made.on_success) == ("told", None)
    assert made.tags == ("a", "b")
    assert made.description == "Do a thing."
    assert "test_functions.py:" in made.source


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"id": "no spaces"}, "function id 'no spaces'"),
        ({"id": ""}, "function id ''"),
        ({"id": 7}, "function id 7"),
        ({"retries": -1}, "retries is -1"),
        ({"retries": "3"}, "retries is '3'"),
        ({"retries": True}, "retries is True"),
        ({"retry_delay": "soon"}, "retry_delay is 'soon'"),
        ({"timeout": 0}, "timeout is 0"),
        ({"timeout": "soon"}, "timeout is 'soon'"),
        ({"timeout": -5}, "timeout is -5"),
        ({"cron": "often"}, "cron is 'often'"),
        ({"cron": "@daily", "tz": "Mars"}, "tz is 'Mars'"),
        ({"on_failure": 7}, "on_failure is 7"),
        ({"on_success": "no spaces"}, "function id 'no spaces'"),
        ({"priority": 101}, "priority is 101"),
        ({"priority": True}, "priority is True"),
        ({"priority": "high"}, "priority is 'high'"),
        ({"tags": "abc"}, "list of texts"),
        ({"tags": [""]}, "tag ''"),
        ({"tags": ["a", None]}, "tag None"),
    ],
    ids=str,
)
def test_option_that_cannot_be_taken_is_refused_by_name(options: dict[str, Any], word: str) -> None:
    with pytest.raises(FunctionError) as caught:
        function(**options)(plain)
    assert word in str(caught.value)
    assert str(caught.value).startswith("function ")


def test_code_that_is_no_workflow_is_refused() -> None:
    def generator(event: Event[Any], step: Step) -> Any:
        yield

    def no_step(event: Event[Any]) -> None:
        return None

    def too_many(event: Event[Any], step: Step, more: int) -> None:
        return None

    def by_name(*, event: Any, step: Any) -> None:
        return None

    def raw(event: Event[bytes], step: Step) -> None:
        return None

    def returning(event: Event[Any], step: Step) -> bytes:
        return b""

    for code, word in (
        (generator, "use return instead of yield"),
        (no_step, "must take an event and a step"),
        (too_many, "must take an event and a step"),
        (by_name, "must take an event and a step"),
        (raw, "bytes"),
        (returning, "bytes"),
    ):
        with pytest.raises(FunctionError, match=word):
            function(code)  # type: ignore[call-overload]
    with pytest.raises(FunctionError, match=r"write @function\(id='name'\)"):
        function("name")  # type: ignore[call-overload]


def test_type_that_cannot_be_resolved_is_named_with_the_remedy() -> None:
    async def hidden(event: Event[Hidden], step: Step) -> None:
        return None

    with pytest.raises(FunctionError, match=r"Hidden.*top of the module"):
        function(hidden)


def test_calling_a_function_calls_its_code() -> None:
    @function
    async def double(event: Any, step: Any) -> int:
        return int(event.data) * 2

    event = Event(name="double", data=4, id="e", timestamp=None)  # type: ignore[arg-type]
    assert asyncio.run(double(event, None)) == 8


class Callable_:
    def __call__(self) -> int:
        return 1


def annotated() -> int:
    return 1


async def annotated_async() -> int:
    return 1


def returning_awaitable() -> Awaitable[int]:
    return annotated_async()


def returning_coroutine() -> Coroutine[Any, Any, list[int]]:
    raise NotImplementedError


@functools.wraps(annotated)
def wrapping(*args: Any) -> Any:
    return annotated()


@pytest.mark.parametrize(
    ("code", "declared"),
    [
        (annotated, int),
        (annotated_async, int),
        (returning_awaitable, int),
        (returning_coroutine, list[int]),
        (functools.partial(annotated), int),
        (Callable_(), int),
        (wrapping, int),
        (lambda: 1, UNTYPED),
        (int, UNTYPED),
        (len, UNTYPED),
        ("text".upper, UNTYPED),
    ],
)
def test_declared_result_is_found_through_wrappers(code: Callable[..., Any], declared: Any) -> None:
    assert declared_result(code) == declared


def test_plain_step_that_returns_an_awaitable_is_awaited_and_typed() -> None:
    seen: list[Any] = []

    @function
    async def lazily(event: Event[Any], step: Step) -> None:
        seen.append(await step.run("Later", returning_awaitable))

    @function
    def lazily_plain(event: Event[Any], step: BlockingStep) -> None:
        seen.append(step.run("Later", returning_awaitable))

    for code in (lazily, lazily_plain):
        assert outcome_of(code).status is Status.COMPLETED
    assert seen == [1, 1]


def test_step_whose_annotation_cannot_be_resolved_fails_for_good() -> None:
    def hidden() -> Hidden:
        raise NotImplementedError

    @function
    async def using(event: Event[Any], step: Step) -> None:
        await step.run("Use", hidden)

    execution = outcome_of(using)
    assert execution.status is Status.FAILED
    assert execution.failed_attempts == 1
    assert execution.error is not None
    assert "Hidden" in execution.error.message


def test_registry_refuses_two_of_one_id_and_takes_one_twice() -> None:
    one = function(id="same")(plain)

    async def other(event: Event[Any], step: Step) -> None:
        return None

    two = stamped(function(id="same")(other), origin="m", distribution="acme", version="1.2")
    registry = Registry([one, one])
    with pytest.raises(FunctionError) as caught:
        registry.add(two)
    for word in ("'same'", "acme 1.2", "test_functions"):
        assert word in str(caught.value)
    assert len(registry) == 1
    registry.add(stamped(one, origin="m", distribution="acme", version="1.2"))
    found = registry.get("same")
    assert isinstance(found, Function)
    assert found.code_version == "acme 1.2"


def test_registry_of_some_functions_names_what_is_missing() -> None:
    registry = Registry([function(id=name)(plain) for name in ("a", "b")])
    assert registry.only(["b"]).ids == ("b",)
    with pytest.raises(FunctionError, match="no function 'c'; there are: a, b"):
        registry.only(["c"])
