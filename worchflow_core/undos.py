"""Undos: what takes back the effect of a step, and how an execution says that it is undone."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from typing import Any

from worchflow_core.errors import InvalidInput
from worchflow_core.failures import error_of, failure_of, message_of, trim, type_name
from worchflow_core.identities import UNDOABLE, UNDOING, Slot, step_id_of
from worchflow_core.models import (
    Change,
    Execution,
    Failure,
    Payload,
    StepRecord,
    StepStatus,
    StepTry,
)
from worchflow_core.signals import ControlSignal, Undoing
from worchflow_core.transitions import expire, wake
from worchflow_core.wire import failure_from_wire, failure_to_wire

UNDO = "undo"
"""The kind of a recorded undo, and the inner word of its identity within its step's."""

TITLE = "Undo {}"
"""What people read of the undo of a step."""

BEGUN = step_id_of(f"\0{UNDOING}")
"""The identity of the record that says why; no title holds a NUL."""

_FAILED_KEPT = 5_000
_FAILED_LENGTH = 1_000_000
"""Of so many steps it is recorded what they had raised, and so many characters in all."""

TO_MEET_OTHERS = 2.0
"""Seconds that branches of code which is being undone have to meet their recorded steps."""


@dataclass(frozen=True, slots=True)
class Undo:
    """What takes back a step that was done.

    Attributes:
        slot: the step's place.
        code: takes the step's result.
        read: returns the step's result as it is stored; user code may have changed what it got.
    """

    slot: Slot
    code: Callable[[Any], Any]
    read: Callable[[], Any]


class Undos:
    """The undos of one attempt: those it has met, and whether anything new may begin.

    Attributes:
        met: what takes back the steps that this attempt has met, by step id.
        are_given: a step was called that can be undone.
        frozen: what a step that is not recorded raises: nothing new may begin; None lets it.
    """

    def __init__(self, execution: Execution, recorded: Mapping[str, StepRecord]) -> None:
        self.met: dict[str, Undo] = {}
        self.are_given = False
        self.frozen: ControlSignal | None = None
        self._execution = execution
        self._recorded = recorded
        if BEGUN in recorded:
            self.freeze()

    @property
    def are_begun(self) -> bool:
        """Whether the execution is being undone: it never goes forward again."""
        return isinstance(self.frozen, Undoing)

    @property
    def are_due(self) -> bool:
        """Whether a failure for good has anything to undo."""
        return bool(self.met) or bool(left_to_undo(list(self._recorded.values())))

    @property
    def are_over(self) -> bool:
        """Whether all is undone, so that there is nothing to meet any more."""
        return self.are_begun and not self.are_due

    def freeze(self) -> None:
        """Let no step begin any more: the execution is being undone."""
        self.frozen = Undoing("the execution is being undone")

    def expect(self, title: str, undo: object) -> None:
        """Note that a step can be undone; raise `InvalidInput` where `undo` cannot do it."""
        if not callable(undo):
            raise InvalidInput(
                f"step {title!r}: undo is {type(undo).__name__}; give a function that takes the "
                "step's result"
            )
        self.are_given = True
        try:
            signature = inspect.signature(undo)
        except (TypeError, ValueError):  # some builtins do not tell what they take
            return
        try:
            signature.bind(None)
        except TypeError:
            raise InvalidInput(
                f"step {title!r}: undo takes {signature}; it is called with one argument, the "
                "step's result"
            ) from None

    def missing(self) -> list[StepRecord]:
        """Return the steps that are to be undone and that this attempt has not met."""
        left = left_to_undo(list(self._recorded.values()))
        return [step for step in left if step.step_id not in self.met]

    async def until_met(self, is_over: Callable[[], bool]) -> None:
        """Return when all is met that is to be undone, or when other branches have had the time."""
        for _ in range(round(TO_MEET_OTHERS / 0.02)):
            if is_over() or not self.missing():
                return
            await asyncio.sleep(0.02)

    def failed_before(self, step_id: str) -> Exception | None:
        """Return what a step raised in an earlier attempt; None where it did not, as is known."""
        tries = [
            tried
            for attempt in self._execution.attempts
            for tried in attempt.tries
            if tried.step_id == step_id
        ]
        failure = _failures_at(self._recorded).get(step_id) or (tries[-1].error if tries else None)
        return None if failure is None else error_of(failure)


def begun_body(failure: Failure, tries: Iterable[StepTry]) -> Payload:
    """Return what is recorded when undoing begins: why, and what steps raised until then."""
    errors = {tried.step_id: tried.error for tried in tries if tried.error is not None}
    errors = dict(islice(errors.items(), _FAILED_KEPT))
    length = _FAILED_LENGTH // max(1, len(errors))  # all in one record, however many they are
    failed = {
        key: {"type": error.type[:200], "message": error.message[: min(2000, length)]}
        for key, error in errors.items()
    }
    return json.dumps(
        {"failure": failure_to_wire(failure), **({"failed": failed} if failed else {})},
        ensure_ascii=False,
    )


def undoable_no_more(failure: Failure | None, error: Exception) -> Failure:
    """Return why an execution fails whose undoing could not go on, for a reason of ours."""
    why = f"undoing it failed: {type_name(error)}: {message_of(error)}"
    if failure is None:
        return replace(failure_of(error), message=trim(why))
    return replace(failure, message=trim(f"{failure.message}; {why}"))


def reason_of(recorded: Mapping[str, StepRecord]) -> Failure | None:
    """Return why an execution is being undone; None where it is not."""
    stands = recorded.get(BEGUN)
    if stands is None:
        return None
    return failure_from_wire(json.loads(stands.result or "{}")["failure"])


def _failures_at(recorded: Mapping[str, StepRecord]) -> dict[str, Failure]:
    """Return what steps had raised in the attempt in which undoing began, by step id."""
    stands = recorded.get(BEGUN)
    body = {} if stands is None else json.loads(stands.result or "{}")
    return {key: failure_from_wire(item) for key, item in body.get("failed", {}).items()}


def left_to_undo(recorded: Sequence[StepRecord]) -> list[StepRecord]:
    """Return the steps that were done, can be undone and are not."""
    able = [step for step in recorded if step.kind == UNDOABLE]
    if not able:
        return []
    there = {step.step_id for step in recorded if step.kind == UNDO}
    return [
        step
        for step in able
        if step.status is StepStatus.COMPLETED and _undo_of(step).step_id not in there
    ]


def is_kept(execution: Execution, step: StepRecord) -> bool:
    """Return whether a fork has a step from its original, and so no business to undo it."""
    return execution.forked_from is not None and step.fence == 0


def is_being_undone(recorded: Sequence[StepRecord]) -> bool:
    """Return whether undoing has begun, so that the execution never goes forward again."""
    return any(step.kind == UNDOING for step in recorded)


def expired(
    execution: Execution, recorded: Sequence[StepRecord], *, now: datetime, has_handler: bool
) -> Change | None:
    """Return what becomes of an unowned execution whose deadline has passed; None: nothing yet.

    What has steps to undo is made due: that takes its code, so a worker ends it.
    """
    if is_being_undone(recorded):
        return None  # it has failed already, and takes the time it needs
    if not left_to_undo(recorded):
        return expire(execution, now=now, has_handler=has_handler)
    is_asleep = execution.due_at is not None and execution.due_at > now
    return wake(execution, now=now) if is_asleep else None


def undone_steps(recorded: Sequence[StepRecord]) -> set[str]:
    """Return the ids of the steps whose effect was taken back: they are done no more."""
    ids = {step.step_id for step in recorded if step.kind == UNDO}
    return {step.step_id for step in recorded if _undo_of(step).step_id in ids}


def undone_titles(recorded: Sequence[StepRecord]) -> tuple[str, ...]:
    """Return the titles of the steps whose effect was taken back, in the order in which it was."""
    undos = [step for step in recorded if step.kind == UNDO and not is_lost(step)]
    undos.sort(key=lambda step: step.seq)
    return tuple(step.title.removeprefix(TITLE.format("")) for step in undos)


def undo_failure(step: StepRecord) -> Failure | None:
    """Return why a recorded undo has failed; None where it has not, or the step is none."""
    body = json.loads(step.result or "null") if step.kind == UNDO else None
    return None if body is None else failure_from_wire(body)


def is_lost(step: StepRecord) -> bool:
    """Return whether a recorded step is an undo that could not be made; its result says why."""
    return step.kind == UNDO and step.result not in (None, "null")


def _undo_of(step: StepRecord) -> Slot:
    return Slot(step.step_id, step.title, step.seq).inner(UNDO)
