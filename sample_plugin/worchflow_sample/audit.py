"""Additive hooks: append one JSON line per fact to a file that WORCHFLOW_SAMPLE_AUDIT_FILE names.

While the variable is unset nothing is registered, so installing the package changes nothing and
costs nothing. A hook takes only the arguments it names; it is told after the fact is stored, and
can harm no execution.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from worchflow_core import Execution, Failure, StepRecord, hookimpl

VARIABLE = "WORCHFLOW_SAMPLE_AUDIT_FILE"


@hookimpl
def worchflow_add_plugins() -> Sequence[object]:
    """Add the audit, if a file for it is named."""
    path = os.environ.get(VARIABLE)
    return [AuditFile(Path(path))] if path else []


class AuditFile:
    """Append what happens to a file.

    Args:
        path: the file; it is created when the first fact is noted.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @hookimpl
    def worchflow_execution_started(self, execution: Execution) -> None:
        """Note that an attempt began."""
        self._note("execution started", execution)

    @hookimpl
    def worchflow_step_completed(self, execution: Execution, step: StepRecord) -> None:
        """Note that a step ran."""
        self._note("step completed", execution, step=step.title, number=step.seq)

    @hookimpl
    def worchflow_step_replayed(self, execution: Execution, step: StepRecord) -> None:
        """Note that a stored step was not run again."""
        self._note("step replayed", execution, step=step.title, number=step.seq)

    @hookimpl
    def worchflow_execution_completed(self, execution: Execution) -> None:
        """Note that it completed."""
        self._note("execution completed", execution)

    @hookimpl
    def worchflow_execution_failed(self, execution: Execution, failure: Failure) -> None:
        """Note that it failed for good, and what of."""
        self._note("execution failed", execution, error=failure.type)

    def _note(self, fact: str, execution: Execution, **more: object) -> None:
        line = {"fact": fact, "function": execution.function, "execution": execution.id, **more}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**line, "process": os.getpid()}) + "\n")
