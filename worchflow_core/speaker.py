"""The speaker: what one attempt says of itself, each thing once however often it replays."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from worchflow_core.clock import Clock
from worchflow_core.identities import FACTS
from worchflow_core.models import Execution, StepRecord
from worchflow_core.notebook import Notebook

running_step: ContextVar[tuple[str, str, str] | None] = ContextVar("worchflow_step", default=None)
"""(execution id, step id, title) of the step whose code is running here."""


class Speaker:
    """Pass on what an attempt says, once it is where no earlier one has been.

    Args:
        execution: as it was claimed.
        recorded: its steps that are in the store, as the attempt begins and goes on.
        notebook: where it is kept.
        clock: the store's time.
    """

    def __init__(
        self,
        execution: Execution,
        recorded: Mapping[str, StepRecord],
        notebook: Notebook,
        clock: Clock,
    ) -> None:
        self._execution = execution
        self._recorded = recorded
        self._notebook = notebook
        self._clock = clock
        self._ahead = {step.step_id for step in recorded.values() if step.kind not in FACTS}

    def met(self, step_id: str) -> None:
        """Note that a step is called: a recorded one, or one with which something new begins."""
        if step_id in self._recorded:
            self._ahead.discard(step_id)
        else:
            self._ahead.clear()

    def progress(self, done: float, total: float | None, note: str | None) -> None:
        """Say how far the execution is."""
        if not self._ahead:
            self._notebook.progress(self._execution.id, done, total, note, self._clock.now())

    def log(self, text: str, fields: Mapping[str, Any]) -> None:
        """Say something for people to read."""
        if self._ahead:
            return
        inside = running_step.get()
        self._notebook.log(
            self._execution.id,
            text,
            fields,
            at=self._clock.now(),
            attempt=self._execution.failed_attempts + 1,
            step=inside[2] if inside is not None and inside[0] == self._execution.id else None,
        )
