"""Additive hooks: append one JSON line per fact to a file that WORCHFLOW_SAMPLE_AUDIT_FILE names.

Nothing is written while the variable is unset, so installing the package changes nothing. A hook
takes only the arguments it names; it is told after the fact is stored and can harm no execution.
"""

from __future__ import annotations

import json
import os

from worchflow_core import Execution, Failure, StepRecord, hookimpl

VARIABLE = "WORCHFLOW_SAMPLE_AUDIT_FILE"


@hookimpl
def worchflow_execution_started(execution: Execution) -> None:
    """Note that an attempt began."""
    note("execution started", execution)


@hookimpl
def worchflow_step_completed(execution: Execution, step: StepRecord) -> None:
    """Note that a step ran."""
    note("step completed", execution, step=step.title, number=step.seq)


@hookimpl
def worchflow_step_replayed(execution: Execution, step: StepRecord) -> None:
    """Note that a stored step was not run again."""
    note("step replayed", execution, step=step.title, number=step.seq)


@hookimpl
def worchflow_execution_completed(execution: Execution) -> None:
    """Note that it completed."""
    note("execution completed", execution)


@hookimpl
def worchflow_execution_failed(execution: Execution, failure: Failure) -> None:
    """Note that it failed for good, and what of."""
    note("execution failed", execution, error=failure.type)


def note(fact: str, execution: Execution, **more: object) -> None:
    """Append a line to the audit file, if there is to be one."""
    path = os.environ.get(VARIABLE)
    if path:
        line = {"fact": fact, "function": execution.function, "execution": execution.id, **more}
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps({**line, "process": os.getpid()}) + "\n")
