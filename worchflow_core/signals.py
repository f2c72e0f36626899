"""Control-flow signals: how the engine unwinds user code. They are not errors.

They derive from `BaseException` so that `except Exception` in user code cannot swallow them.
"""

from __future__ import annotations

from datetime import datetime

from worchflow_core.models import Failure


class ControlSignal(BaseException):
    """The root of the signals; the runner turns each into an outcome."""


class Suspend(ControlSignal):
    """The execution has to wait; the slot is given back until `wake_at` or an event.

    Attributes:
        wake_at: when to try again at the latest; None means only an event wakes it.
        waits: wait keys, any of which wakes it.
    """

    def __init__(self, wake_at: datetime | None, waits: tuple[str, ...] = ()) -> None:
        super().__init__("suspended")
        self.wake_at = wake_at
        self.waits = waits


class StepBackoff(ControlSignal):
    """A step with retries of its own failed; the execution tries again at `wake_at`."""

    def __init__(self, wake_at: datetime, failure: Failure) -> None:
        super().__init__("a step is tried again later")
        self.wake_at = wake_at
        self.failure = failure


class Superseded(ControlSignal):
    """Another claim owns this execution now; stop and write nothing more."""


class Cancelled(ControlSignal):
    """Somebody asked to cancel this execution; stop at this step boundary."""


class TimedOut(ControlSignal):
    """The execution passed its deadline."""


class Undoing(ControlSignal):
    """The execution is being undone: no step may begin any more."""


class Released(ControlSignal):
    """The worker is leaving; stop at this step boundary and give the execution back."""
