"""Turning exceptions into stored failures, and deciding whether another attempt may help."""

from __future__ import annotations

import sys
import traceback as tracebacks
from types import TracebackType

from worchflow_core.errors import (
    ExecutionTimeout,
    FunctionError,
    InvalidInput,
    NonDeterminismError,
    NonRetriable,
    NotSerializable,
)
from worchflow_core.models import Failure

TEXT_LIMIT = 32 * 1024
"""Bytes of an error's text and of its traceback that are kept."""

_CAUSES = 5


def failure_of(error: BaseException, *, reason: str | None = None) -> Failure:
    """Return an exception as data: type, message, traceback and causes, each trimmed.

    Never raises, whatever the exception's own methods do.
    """
    return _failure(error, reason or _reason(error), depth=0)


def error_of(failure: Failure) -> Exception | None:
    """Return an exception of a failure's class and text; None where that class is not loaded.

    What else the exception carried is gone.
    """
    *path, name = failure.type.split(".")
    for size in range(len(path), -1, -1):
        module = sys.modules.get(".".join(path[:size]) or "builtins")
        found: object = module
        for part in (*path[size:], name):
            found = vars(found).get(part) if hasattr(found, "__dict__") else None
        if isinstance(found, type) and issubclass(found, Exception):
            try:
                error = found.__new__(found, failure.message)
                error.args = (failure.message,)
            except Exception:
                return None
            return error
    return None


def is_final(error: BaseException) -> bool:
    """Return whether another attempt cannot help: the code or its data must change first."""
    return isinstance(error, (NonRetriable, InvalidInput, FunctionError, ExecutionTimeout))


def members_of(error: BaseException) -> list[BaseException]:
    """Return the exceptions in a group, however deep; an exception that is no group by itself."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for member in error.exceptions for leaf in members_of(member)]


def _reason(error: BaseException) -> str:
    reasons = [_own_reason(member) for member in members_of(error)]
    return next((reason for reason in reasons if reason != "error"), "error")


def _own_reason(error: BaseException) -> str:
    match error:
        case NotSerializable() | InvalidInput():
            return "not_serializable"
        case NonDeterminismError():
            return "non_deterministic"
        case NonRetriable() | FunctionError():
            return "not_retriable"
        case ExecutionTimeout():
            return "timeout"
        case _:
            return "error"


def _failure(error: BaseException, reason: str, depth: int) -> Failure:
    cause = error.__cause__
    if cause is None and not error.__suppress_context__:
        cause = error.__context__
    return Failure(
        type=type_name(error),
        message=trim(message_of(error)),
        traceback=trim(_traceback(error)) if depth == 0 else None,
        cause=_failure(cause, _reason(cause), depth + 1) if cause and depth < _CAUSES else None,
        reason=reason,
    )


def type_name(error: BaseException) -> str:
    """Return an exception's class name, with its module outside builtins."""
    kind = type(error)
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )


def trim(text: str) -> str:
    """Return text cut to the limit, lone surrogates and NUL made visible, so any store takes it."""
    clean = text.encode(errors="backslashreplace").decode().replace("\0", "\\x00")
    if len(clean.encode()) <= TEXT_LIMIT:
        return clean
    head = clean.encode()[: TEXT_LIMIT // 2].decode(errors="ignore")
    tail = clean.encode()[-TEXT_LIMIT // 2 + 100 :].decode(errors="ignore")
    return f"{head}\n... {len(clean):,} characters in all, the middle left out ...\n{tail}"


def message_of(error: BaseException) -> str:
    """Return an exception's text; never raises, whatever its own methods do."""
    try:
        return str(error)
    except BaseException as second:
        return f"(its text cannot be made: {type(second).__name__})"


def _traceback(error: BaseException) -> str:
    try:
        own = _without_engine(error.__traceback__)
        return "".join(tracebacks.format_exception(type(error), error, own, limit=-50))
    except BaseException:
        return "".join(tracebacks.format_tb(error.__traceback__, limit=-50))


def _without_engine(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback from the first frame on that is not Worchflow's own."""
    first = trace
    while first is not None:
        if not first.tb_frame.f_globals.get("__name__", "").startswith("worchflow_core."):
            return first
        first = first.tb_next
    return trace
