"""What the driver raises, as the errors the core knows; the driver's error stays the cause."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Any

from bson.errors import BSONError
from pymongo import errors

from worchflow_core import InvalidInput, StoreUnavailable, StoreUnusable, WorchflowError

DUPLICATE = 11000
_TOO_LARGE = frozenset({2, 10334, 17280, 17419, 17420})
_REFUSED_USER = frozenset({13, 18, 8000})
_PASSING = frozenset(
    {6, 7, 50, 64, 79, 89, 91, 189, 262, 317, 358, 384, 9001, 10058, 10107, 11600, 11602, 13435}
    | {13436, 14031}
)
"""Codes of the server that say "not now": stepdown, shutdown, time limit, write concern, disk."""


class Guard:
    """A `with` block around calls of the driver: its errors come out as ours.

    One object serves all calls; it also refuses a process that is not the one that opened it,
    because the driver's connections do not survive a fork.
    """

    __slots__ = ("_pid", "_place")

    def __init__(self, place: str) -> None:
        self._place = place
        self._pid = os.getpid()

    def __enter__(self) -> None:
        if os.getpid() != self._pid:
            raise StoreUnusable(
                f"the MongoDB store {self._place} was opened in process {self._pid} and is used in "
                f"its forked child {os.getpid()}; open a store in the child, after the fork"
            )

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(exc, (errors.PyMongoError, BSONError, OverflowError, UnicodeEncodeError)):
            raise translated(exc, self._place) from exc


def translated(error: Exception, place: str) -> WorchflowError:
    """Return our error for one of the driver's."""
    text = _short(error)
    if isinstance(error, (BSONError, OverflowError, UnicodeEncodeError, errors.DocumentTooLarge)):
        return InvalidInput(f"MongoDB cannot keep this value: {text}")
    if is_passing(error):
        return StoreUnavailable(f"MongoDB at {place} did not answer as it should: {text}")
    code = _code(error)
    if code in _TOO_LARGE and ("large" in text.lower() or "size" in text.lower()):
        return InvalidInput(
            f"an execution would grow past MongoDB's 16 MiB for one document: {text}"
        )
    if code in _REFUSED_USER:
        return StoreUnusable(
            f"MongoDB at {place} refuses the user: {text}; check user, password, authSource and "
            "rights (readWrite on the database) in WORCHFLOW_STORE_URL"
        )
    return StoreUnusable(f"MongoDB at {place} refused: {text}")


def is_passing(error: BaseException) -> bool:
    """Return whether trying again later may help; the write may have happened or not."""
    if isinstance(error, (errors.ConnectionFailure, errors.WTimeoutError, errors.ExecutionTimeout)):
        return True
    if isinstance(error, (errors.WriteConcernError, errors.WaitQueueTimeoutError)):
        return True
    if isinstance(error, errors.BulkWriteError):
        details: Any = error.details or {}
        return bool(details.get("writeConcernErrors")) or any(
            item.get("code") in _PASSING for item in details.get("writeErrors") or ()
        )
    if isinstance(error, errors.PyMongoError) and error.timeout:
        return True
    if isinstance(error, errors.ConfigurationError):  # of mongodb+srv://, when no name is resolved
        return type(error.__cause__).__module__.startswith("dns.")
    return _code(error) in _PASSING


def is_lost_answer(error: BaseException) -> bool:
    """Return whether the connection broke in mid-call: repeating at once is worth one try."""
    return isinstance(error, errors.AutoReconnect) and not isinstance(
        error, errors.ServerSelectionTimeoutError
    )


def _code(error: BaseException) -> int | None:
    if isinstance(error, errors.BulkWriteError):
        details: Any = error.details or {}
        codes = [item.get("code") for item in details.get("writeErrors") or ()]
        return codes[0] if codes else None
    return error.code if isinstance(error, errors.OperationFailure) else None


def _short(error: Exception) -> str:
    """Return the driver's message without the topology it appends."""
    if isinstance(error, errors.BulkWriteError):
        details: Any = error.details or {}
        items = [*(details.get("writeErrors") or ()), *(details.get("writeConcernErrors") or ())]
        text = "; ".join(str(item.get("errmsg")) for item in items[:3])
    else:
        text = str(error).split(", full error:")[0].split(", Timeout:")[0]
        text = text.split(" (configured timeouts:")[0]
    return text if len(text) <= 300 else text[:297] + "..."
