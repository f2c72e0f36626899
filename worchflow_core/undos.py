"""Undos: what takes back the effect of a step, and how an execution says that it is undone."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from worchflow_core.identities import UNDOING, Slot, step_id_of
from worchflow_core.models import Failure, StepRecord
from worchflow_core.wire import failure_from_wire

UNDO = "undo"
"""The kind of a recorded undo, and the inner word of its identity within its step's."""

BEGUN = step_id_of(f"\0{UNDOING}")
"""The identity of the record that says why; no title holds a NUL."""


@dataclass(frozen=True, slots=True)
class Undo:
    """What takes back a step that was done.

    Attributes:
        slot: the step's place.
        code: takes the step's result.
        value: the step's result.
    """

    slot: Slot
    code: Callable[[Any], Any]
    value: Any


def reason_of(recorded: Mapping[str, StepRecord]) -> Failure | None:
    """Return why an execution is being undone; None where it is not."""
    stands = recorded.get(BEGUN)
    if stands is None:
        return None
    return failure_from_wire(json.loads(stands.result or "{}")["failure"])


def undone_steps(recorded: Sequence[StepRecord]) -> set[str]:
    """Return the ids of the steps whose effect was taken back: they are done no more."""
    ids = {step.step_id for step in recorded if step.kind == UNDO}
    return {
        step.step_id
        for step in recorded
        if Slot(step.step_id, step.title, step.seq).inner(UNDO).step_id in ids
    }
