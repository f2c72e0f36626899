"""How an execution went that a test has run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar, cast

from worchflow_core.codec import Codec
from worchflow_core.errors import ExecutionCancelled, ExecutionFailed
from worchflow_core.models import Execution, Failure, Status, StepRecord
from worchflow_core.notes import Notes

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(Generic[ResultT]):
    """How an execution went, all attempts together.

    Attributes:
        execution: as the store has it now.
        steps: its recorded steps.
        ran: titles of the steps whose code, or stub, ran, in order; twice where one ran twice.
        replayed: titles of the steps whose stored result was handed on.
        claims: how often a worker took it: once, and again after each failure and crash.
        undone: titles of the steps that were undone, in the order in which they were.
        notes: what it said of itself: progress and log lines.
        codec: rebuilds the result.
    """

    execution: Execution
    steps: tuple[StepRecord, ...]
    ran: tuple[str, ...]
    replayed: tuple[str, ...]
    claims: int
    undone: tuple[str, ...]
    notes: Notes
    codec: Codec = field(repr=False)

    @property
    def status(self) -> Status:
        """Where the execution stands."""
        return self.execution.status

    @property
    def failure(self) -> Failure | None:
        """What the last attempt failed of; None where it did not."""
        return self.execution.error

    @property
    def result(self) -> ResultT:
        """What the function returned.

        Raises:
            ExecutionFailed: it failed for good; the message says of what.
        """
        execution = self.execution
        if execution.status is Status.COMPLETED:
            return cast(ResultT, self.codec.decode(execution.result))
        if execution.status is Status.CANCELLED:
            raise ExecutionCancelled(execution.id, execution.error, "was cancelled")
        raise ExecutionFailed(execution.id, execution.error)
