"""Every error Worchflow raises, in one tree.

    WorchflowError
    ├── ConfigurationError (ValueError)     a setting, a plugin or a function is declared wrongly
    │   ├── SettingsError                   a WORCHFLOW_* value cannot be used
    │   ├── PluginError                     a plugin cannot be loaded, or two claim one name
    │   └── FunctionError                   a function is declared wrongly, or twice
    ├── InvalidInput (ValueError)          the caller gave what cannot be taken; nothing was written
    │   └── NotSerializable                 a value that JSON and its type cannot carry
    ├── IdempotencyConflict (ValueError)    the id exists with another function or other data
    ├── NotFound (LookupError)              no such execution
    ├── NotAllowed                          the execution's status does not permit it
    ├── StoreUnavailable (ConnectionError)  the store did not answer in time
    ├── StoreUnusable                       the store answers, but cannot be used as it is
    ├── WorkerWornOut                       too many threads of a worker never come back
    ├── ExecutionFailed                     a result was asked of an execution that failed
    │   └── ExecutionCancelled              ... or that was cancelled
    ├── ResultTimeout (TimeoutError)        a result was not there in time
    ├── NonRetriable                        raise it in your code: fail now, keep no attempts
    │   ├── NonDeterminismError             a stored step no longer fits the code
    │   └── StepOutcomeUnknown              a `once` step began and nobody knows how it ended
    ├── RetryAfter                          raise it in your code: try again after this long
    ├── EventTimeout (TimeoutError)         no event, or no child's end, came in time
    └── StepTimeout, ExecutionTimeout (TimeoutError)

Control-flow signals (suspend, superseded, cancelled, released) are no errors: they derive from
`BaseException` and live in `signals.py`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from worchflow_core.durations import Duration, parse_duration

if TYPE_CHECKING:
    from worchflow_core.models import Failure


class WorchflowError(Exception):
    """The root of all Worchflow errors; catch it to catch them all."""


class ConfigurationError(WorchflowError, ValueError):
    """Something is declared wrongly; the message names it, its value and the remedy."""


class SettingsError(ConfigurationError):
    """A setting cannot be used; the message is one line per setting."""


class PluginError(ConfigurationError):
    """A plugin cannot be loaded or registered; the message says how to disable it."""


class FunctionError(ConfigurationError):
    """A function is declared wrongly, or two functions have one id."""


class InvalidInput(WorchflowError, ValueError):
    """The caller's input cannot be taken; it is raised before anything is written."""


class NotSerializable(InvalidInput):
    """A value does not survive JSON and its type unchanged; the message names the path."""


class IdempotencyConflict(WorchflowError, ValueError):
    """An execution, or event, with this id exists for something else; it is untouched."""


class NotFound(WorchflowError, LookupError):
    """There is no execution with this id in the store."""


class NotAllowed(WorchflowError):
    """The execution's status does not permit what was asked."""


class StoreUnavailable(WorchflowError, ConnectionError):
    """The store did not answer; what was asked may or may not have happened.

    Attributes:
        execution_id: the id under which `send` tried; sending again with it is safe.
    """

    def __init__(self, message: str, *, execution_id: str | None = None) -> None:
        super().__init__(message)
        self.execution_id = execution_id


class StoreUnusable(WorchflowError):
    """The store answers but cannot be used as it is (schema, index, file); it is left untouched."""


class WorkerWornOut(WorchflowError):
    """Too many threads of a worker run code that nobody waits for; it has left in good order."""


class ExecutionFailed(WorchflowError):
    """A result was asked of an execution that failed for good.

    Attributes:
        execution_id: the execution.
        failure: the stored failure: type, message, traceback, cause.
    """

    def __init__(self, execution_id: str, failure: Failure | None, message: str = "") -> None:
        text = message or (f"{failure.type}: {failure.message}" if failure else "failed")
        super().__init__(f"execution {execution_id}: {text}")
        self.execution_id = execution_id
        self.failure = failure


class ExecutionCancelled(ExecutionFailed):
    """A result was asked of an execution that was cancelled."""


class ResultTimeout(WorchflowError, TimeoutError):
    """The execution did not end within the time the caller allowed; it goes on."""


class NonRetriable(WorchflowError):
    """Raise it in a function or step to fail for good, whatever retries are left."""


class NonDeterminismError(NonRetriable):
    """A stored step no longer fits the code that replays it."""


class StepOutcomeUnknown(NonRetriable):
    """A `once=True` step was started, and whether its effect happened is not known."""


class RetryAfter(WorchflowError):
    """Raise it in a function or step to be tried again after a given time.

    Args:
        delay: how long to wait, as a timedelta, seconds, or text such as "30s".
        message: what people see as the reason.
    """

    def __init__(self, delay: Duration, message: str = "") -> None:
        self.delay: timedelta = parse_duration(delay, name="RetryAfter delay")
        super().__init__(message or f"asked to be retried after {self.delay}")


class EventTimeout(WorchflowError, TimeoutError):
    """A step waited for an event, or for a child execution, longer than its `timeout`."""


class StepTimeout(WorchflowError, TimeoutError):
    """A step took longer than its `timeout`; counts as a failed attempt."""


class ExecutionTimeout(WorchflowError, TimeoutError):
    """An execution passed its deadline; it fails for good."""
