"""Errors as data: readable, bounded, and made whatever the exception does."""

from __future__ import annotations

import json

import pytest

from worchflow_core import InvalidInput, NonRetriable, NotSerializable
from worchflow_core.errors import ExecutionTimeout, FunctionError, NonDeterminismError
from worchflow_core.failures import TEXT_LIMIT, failure_of, is_final, members_of, trim
from worchflow_core.wire import failure_from_wire, failure_to_wire


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def test_type_message_traceback_and_causes_are_kept() -> None:
    error = raised(ValueError("outer"))
    error.__cause__ = raised(KeyError("inner"))
    error.__cause__.__context__ = raised(OSError("innermost"))
    failure = failure_of(error)
    assert (failure.type, failure.message, failure.reason) == ("ValueError", "outer", "error")
    assert failure.traceback is not None
    assert "in raised" in failure.traceback
    assert failure.cause is not None
    assert failure.cause.cause is not None
    assert failure.cause.cause.message == "innermost"
    assert failure_from_wire(json.loads(json.dumps(failure_to_wire(failure)))) == failure


def test_class_is_named_with_its_module_outside_builtins() -> None:
    assert failure_of(json.JSONDecodeError("m", "d", 0)).type == "json.decoder.JSONDecodeError"


def test_circle_of_causes_and_a_long_chain_end() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    assert failure_of(one).message == "one"
    error: BaseException = ValueError("0")
    for number in range(1, 2000):
        outer = ValueError(str(number))
        outer.__cause__ = error
        error = outer
    failure = failure_of(error)
    depth = 0
    while failure.cause is not None:
        failure, depth = failure.cause, depth + 1
    assert depth == 5


def test_suppressed_context_is_left_out() -> None:
    error = ValueError("shown")
    error.__context__ = KeyError("hidden")
    error.__suppress_context__ = True
    assert failure_of(error).cause is None


@pytest.mark.parametrize("text", ["x" * 20_000_000, "é" * 40_000, "\ud800" * 20_000, "\0" * 20_000])
def test_text_is_cut_to_the_limit_with_its_head_and_tail(text: str) -> None:
    cut = trim(f"head {text} tail")
    assert len(cut.encode()) <= TEXT_LIMIT + 100
    assert cut.startswith("head ")
    assert cut.endswith(" tail")
    assert "left out" in cut


def test_short_text_is_kept_and_made_safe_for_any_store() -> None:
    assert trim("short é 🎉") == "short é 🎉"
    assert trim("a\0b\ud800c") == "a\\x00b\\ud800c"


@pytest.mark.parametrize(
    ("error", "reason", "final"),
    [
        (ValueError(), "error", False),
        (NonRetriable(), "not_retriable", True),
        (NonDeterminismError(), "non_deterministic", True),
        (NotSerializable(), "not_serializable", True),
        (InvalidInput(), "not_serializable", True),
        (FunctionError(), "not_retriable", True),
        (ExecutionTimeout(), "timeout", True),
    ],
)
def test_reason_and_finality(error: Exception, reason: str, final: bool) -> None:
    assert failure_of(error).reason == reason
    assert is_final(error) is final
    group = ExceptionGroup("many", [KeyError(), ExceptionGroup("inner", [error])])
    assert failure_of(group).reason == reason
    assert members_of(group)[1] is error


def test_deep_recursion_is_kept_briefly() -> None:
    def recurse() -> None:
        recurse()

    try:
        recurse()
    except RecursionError as error:
        failure = failure_of(error)
        assert failure.traceback is not None
        assert len(failure.traceback) < TEXT_LIMIT
