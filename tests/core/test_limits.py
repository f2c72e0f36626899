from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from worchflow_core import (
    Batch,
    Debounce,
    Event,
    FunctionError,
    Limit,
    Rate,
    Singleton,
    Step,
    Unique,
    function,
)
from worchflow_core.limits import (
    described,
    digest_of,
    key_of,
    make_flow,
    turn_of,
    value_of,
)
from worchflow_core.models import Execution

NOTHING: dict[str, Any] = dict.fromkeys(
    ("concurrency", "rate_limit", "throttle", "debounce", "batch", "singleton", "unique")
)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Limit(0), "Limit of 0; give a whole number, 1 to 10,000"),
        (lambda: Limit(True), "Limit of True; give a whole number"),
        (lambda: Limit(1, key="tenant"), "Limit key is 'tenant'; give a field of the event"),
        (lambda: Limit(1, fair_by="data."), "Limit fair_by is 'data.'; give a field"),
        (lambda: Rate(1_001, "1m"), "Rate of 1001; give a whole number, 1 to 1,000"),
        (lambda: Rate(1, 0), "Rate per is 0; give a span above 0"),
        (lambda: Rate(1, "soon"), "Rate per"),
        (lambda: Debounce("2s", max_wait="1s"), "Debounce max_wait is '1s', less than wait"),
        (lambda: Batch(1, "1s"), "Batch of 1; give a whole number, 2 to 1,000"),
        (lambda: Singleton("drop"), "Singleton when_taken is 'drop'; give one of skip"),
        (lambda: Unique("order"), "Unique key is 'order'; give a field of the event"),
        (lambda: Unique(window=0), "Unique window is 0; give a span above 0"),
    ],
)
def test_what_an_option_cannot_be_is_said(make: Any, said: str) -> None:
    with pytest.raises(FunctionError) as caught:
        make()
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"concurrency": "10"}, "concurrency is '10'; give Limit, such as Limit(10)"),
        ({"concurrency": [10]}, "concurrency is 10; give Limit"),
        ({"throttle": "10/m"}, "throttle is '10/m'; give Rate, such as Rate(10, \"1m\")"),
        ({"batch": 10}, "batch is 10; give Batch"),
        ({"unique": 7}, "unique is 7; give Unique"),
        ({"batch": Batch(2, 1), "unique": "data"}, "batch keeps every event"),
    ],
)
def test_what_a_function_cannot_ask_for_is_said(option: dict[str, Any], said: str) -> None:
    with pytest.raises(FunctionError) as caught:

        @function(**option)
        async def limited(event: Event[Any], step: Step) -> None: ...

    assert said in str(caught.value)


def test_a_function_that_asks_for_nothing_has_no_flow_control() -> None:
    assert make_flow(**NOTHING) is None
    assert make_flow(**{**NOTHING, "concurrency": []}) is None


def test_limits_with_a_key_come_first() -> None:
    wide, narrow = Limit(10), Limit(2, key="data.tenant")
    flow = make_flow(**{**NOTHING, "concurrency": [wide, narrow]})
    assert flow is not None
    assert flow.concurrency == (narrow, wide)


def test_what_is_asked_for_is_told_in_words() -> None:
    flow = make_flow(
        [Limit(1_000, fair_by="data.team")],
        Rate(5, "1m", key="data.user"),
        Rate(1, "100ms"),
        "10s",
        None,
        "cancel",
        Unique("data.order", window="1d"),
    )
    assert described(flow) == (
        "at most 1,000 at once, data.team taking turns",
        "one under way at a time, else the new one replaces it",
        "5 in 1m for each data.user, more are turned away",
        "1 in 100ms, more start later",
        "the last of a burst, when none came for 10s",
        "each data.order once for 1d",
    )


@pytest.mark.parametrize(
    ("path", "data", "value"),
    [
        ("data", '{"a": 1}', {"a": 1}),
        ("data.a.b", '{"a": {"b": "x"}}', "x"),
        ("data.a.b", '{"a": 1}', None),
        ("data.a", "[1]", None),
        ("data.a", None, None),
        (None, '{"a": 1}', None),
    ],
)
def test_a_key_names_a_field_of_the_data(path: str | None, data: str | None, value: Any) -> None:
    assert value_of(path, data) == value


def test_values_that_json_has_equal_have_one_key() -> None:
    assert digest_of(1) == digest_of(1.0)
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
    assert len({digest_of(item) for item in (1, "1", True, [1], {"a": 1}, "", None)}) == 7
    assert digest_of("\ud800")  # a foreign client may have written it


def test_a_key_is_short_whatever_the_data_is() -> None:
    now = datetime(2030, 1, 31, tzinfo=UTC)
    execution = Execution(
        id="x", function="f" * 128, data=f'"{"long" * 1000}"', created_at=now, updated_at=now
    )
    assert len(key_of(execution, "concurrency-0", "data")) < 200
    assert len(turn_of("data", execution.data)) == 4


def test_spans_are_read_as_everywhere() -> None:
    assert Rate(1, "1m").span == timedelta(minutes=1)
    assert Debounce(2, max_wait="1m").longest == timedelta(minutes=1)
    assert Unique(window="1h").span == timedelta(hours=1)
