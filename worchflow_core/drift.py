"""Drift: a stored step that no longer fits the code which replays it, and what a function wants.

Steps are found by their identity, which is made of the title: adding, removing and reordering
steps is no drift.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from typing import Any

from worchflow_core.codec import UNTYPED, Codec
from worchflow_core.errors import InvalidInput, NonDeterminismError, WorchflowError
from worchflow_core.identities import UNDOABLE, Slot
from worchflow_core.models import Status, StepRecord, StepStatus

logger = logging.getLogger("worchflow")

ANEW = "anew"
"""The inner word of the identity under which a step that no longer fits is run anew."""


class OnChange(StrEnum):
    """What becomes of an execution whose stored step no longer fits the code."""

    FAIL = "fail"
    WARN = "warn"
    ADOPT = "adopt"


def called_as(stands: StepRecord) -> str:
    """Return as what kind of step code calls a stored one."""
    return "run" if stands.kind == UNDOABLE else stands.kind


def misfit(stands: StepRecord, step_id: str, title: str, key: str | None, kind: str) -> str | None:
    """Return why a stored step is not the one that is called now; None where it is."""
    # Foreign records may have no title; they carry the step's id in its place.
    if key is None and stands.title not in (title, step_id):
        return (
            f"step {title!r} was stored as step {stands.title!r}, whose identity is the same; "
            "give one of them another title or key="
        )
    if called_as(stands) != kind:
        return (
            f"step {title!r} was stored as {stands.kind}, and is {kind} now; give the changed "
            "step another title"
        )
    return None


def outgrown(stands: StepRecord, title: str, codec: Codec) -> str | None:
    """Return why the stored result of a step does not fit its type; None where it does."""
    if stands.status is StepStatus.STARTED:  # it has no result, whatever its type
        return None
    payload = stands.result
    if stands.kind == "invoke":
        body = json.loads(stands.result or "{}")
        if body.get("status") != Status.COMPLETED:
            return None
        payload = json.dumps(body["result"])
    try:
        codec.decode(payload)
    except InvalidInput as error:
        return _no_longer_fits(title, error)
    return None


def plain_value(stands: StepRecord) -> Any:
    """Return what a stored step, of whatever kind, has handed to user code, as plain JSON."""
    body = json.loads(stands.result or "null")
    match stands.kind:
        case "sleep":
            return None
        case "send":
            return body["id"]
        case "wait":
            return None if body.get("timeout") else body["data"]
        case "invoke":
            return body.get("result")
        case _:
            return body


def _no_longer_fits(title: str, error: InvalidInput) -> str:
    return (
        f"the stored result of step {title!r} no longer fits the code: {error}; give the changed "
        "step another title, or a type that takes both"
    )


class Drift:
    """Compare the steps of one attempt with what is stored, and do as their function wants.

    Args:
        execution_id: for messages.
        recorded: the steps that stand in the store, by id; they grow.
        on_change: what the function wants.

    Attributes:
        is_quiet: log nothing of what is run anew: it is a rehearsal.
    """

    def __init__(
        self, execution_id: str, recorded: Mapping[str, StepRecord], on_change: OnChange
    ) -> None:
        self.on_change = on_change
        self.is_quiet = False
        self._execution_id = execution_id
        self._recorded = recorded

    def placed(self, slot: Slot, key: str | None, kind: str) -> Slot:
        """Return the place of a step under whose identity something is stored.

        Raises:
            NonDeterminismError: that is another step.
        """
        while (stands := self._recorded.get(slot.step_id)) is not None:
            why = misfit(stands, slot.step_id, slot.title, key, kind)
            if why is None:
                break
            if self.on_change is OnChange.FAIL:
                raise NonDeterminismError(why)
            if self.on_change is OnChange.ADOPT:
                return replace(slot, is_adopted=True)
            slot = self._anew(slot, why)
        return slot

    def renewed(self, slot: Slot, codec: Codec) -> Slot:
        """Return the place of a step where what is stored fits, or where nothing is stored yet.

        That is another only for a function that has such steps run anew. The places follow from
        one another, so every replay finds the same.
        """
        while (
            self.on_change is OnChange.WARN
            and (stands := self._recorded.get(slot.step_id)) is not None
            and (why := outgrown(stands, slot.title, codec)) is not None
        ):
            slot = self._anew(slot, why)
        return slot

    def compare(self, title: str, stands: StepRecord, kind: str) -> None:
        """Raise where a step stands that is of another kind than the one asked for."""
        if called_as(stands) != kind:
            raise self._refused(str(misfit(stands, stands.step_id, title, title, kind)))

    def value(self, stands: StepRecord, title: str, codec: Codec) -> Any:
        """Return the value of a stored step; raise `NonDeterminismError` if it no longer fits."""
        if called_as(stands) != "run":
            return plain_value(stands)  # adopted, or `compare` had raised
        try:
            return codec.decode(stands.result)
        except InvalidInput as error:
            if self.on_change is OnChange.ADOPT:
                return Codec(UNTYPED, codec.what).decode(stands.result)
            raise self._refused(_no_longer_fits(title, error)) from error

    def _anew(self, slot: Slot, why: str) -> Slot:
        place = slot.inner(ANEW)
        is_told = place.step_id in self._recorded  # it was run anew in an earlier attempt
        if not is_told and not self.is_quiet:
            logger.warning("execution %s: %s; it is run anew now", self._execution_id, why)
        return place

    def _refused(self, why: str) -> WorchflowError:
        """Return the error of a step that does not fit.

        Where the function has a remedy, it was stored by somebody else since this attempt began:
        the next attempt finds it in time.
        """
        return NonDeterminismError(why) if self.on_change is OnChange.FAIL else WorchflowError(why)
