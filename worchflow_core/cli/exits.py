"""Exit codes, and which error leads to which."""

from __future__ import annotations

DONE = 0
FAILED = 1
USAGE = 2
NOT_FOUND = 3
NOT_ALLOWED = 4
UNREACHABLE = 5
EXECUTION_FAILED = 6
TIMED_OUT = 7
WORN_OUT = 8
INTERRUPTED = 130


class CommandError(Exception):
    """A command ends with one line `error: ...`, perhaps more lines, a hint and an exit code."""

    def __init__(
        self, message: str, *, code: int = USAGE, hint: str = "", details: tuple[str, ...] = ()
    ) -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint
        self.details = details


def code_of(error: BaseException) -> int | None:
    """Return the exit code of an error of the core; None for one that nobody foresaw."""
    from worchflow_core import errors

    table: tuple[tuple[type[BaseException], int], ...] = (
        (CommandError, getattr(error, "code", USAGE)),
        (errors.ConfigurationError, USAGE),
        (errors.InvalidInput, USAGE),
        (errors.IdempotencyConflict, USAGE),
        (errors.NotFound, NOT_FOUND),
        (errors.NotAllowed, NOT_ALLOWED),
        (errors.StoreUnavailable, UNREACHABLE),
        (errors.ExecutionFailed, EXECUTION_FAILED),
        (errors.ResultTimeout, TIMED_OUT),
        # The store answers, so it is reached; what it holds has to be repaired by hand.
        (errors.StoreUnusable, FAILED),
        (errors.WorkerWornOut, WORN_OUT),
        (errors.WorchflowError, FAILED),
        (ConnectionError, UNREACHABLE),
    )
    return next((code for kind, code in table if isinstance(error, kind)), None)
