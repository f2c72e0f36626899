"""Writing and reading steps: write-once, and only under the newest fence."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import apsw

from worchflow_core import StepRecord, StepStatus
from worchflow_plugins.sqlite.connection import fetch, packed
from worchflow_plugins.sqlite.rows import STEP_COLUMNS, step_from, step_row

_NAMES = STEP_COLUMNS.split(", ")

# The fence is compared by the join: a step of an older claim, or of an execution that is gone,
# finds no execution to hang on.
_INSERT = f"""
    INSERT INTO steps (execution, {STEP_COLUMNS})
    SELECT number, {", ".join(f"value ->> {place}" for place in range(1, len(_NAMES) + 1))}
    FROM jsonb_each(?) CROSS JOIN executions
    ON executions.id = value ->> 0 AND executions.fence = value ->> {_NAMES.index("fence") + 1}
    WHERE true
    ON CONFLICT (execution, step_id) DO UPDATE
    SET {", ".join(f"{name} = excluded.{name}" for name in _NAMES if name != "step_id")}
    WHERE steps.status = 'started' AND excluded.status = 'completed'
    AND steps.fence = excluded.fence
"""

_STANDING = """
    FROM (
        SELECT executions.id, steps.* FROM json_each(?) AS asked
        CROSS JOIN executions ON executions.id = asked.value ->> 0
        CROSS JOIN steps ON execution = number AND step_id = asked.value ->> 1
    )
"""

_ALL = """
    FROM (
        SELECT executions.id, steps.* FROM json_each(?) AS asked
        CROSS JOIN executions ON executions.id = asked.value
        CROSS JOIN steps ON execution = number
    ) ORDER BY seq, started_at
"""


def record(
    connection: apsw.Connection, members: Sequence[Sequence[StepRecord]]
) -> list[list[StepRecord | None]]:
    """Store steps write-once; answer for each with the record that now stands."""
    steps = [step for member in members for step in member]
    connection.execute(_INSERT, (packed([step_row(step) for step in steps]),))
    if connection.changes() == len(steps):
        return [list(member) for member in members]
    keys = packed(list({(step.execution_id, step.step_id) for step in steps}))
    rows = fetch(connection, f"id, {STEP_COLUMNS}", _STANDING, (keys,))
    standing = {(row[0], row[1]): step_from(row) for row in rows}

    def answer(step: StepRecord) -> StepRecord | None:
        found = standing.get((step.execution_id, step.step_id))
        is_refused = (
            found is not None
            and found.status is StepStatus.STARTED
            and step.status is StepStatus.COMPLETED
            and found.fence == step.fence
        )
        return None if is_refused else found

    return [[answer(step) for step in member] for member in members]


def read(
    connection: apsw.Connection, execution_ids: Collection[str]
) -> Mapping[str, Sequence[StepRecord]]:
    """Return the steps by execution id, in order of `seq`, then `started_at`."""
    ids = packed(list(dict.fromkeys(execution_ids)))
    found: dict[str, list[StepRecord]] = {}
    for row in fetch(connection, f"id, {STEP_COLUMNS}", _ALL, (ids,)):
        found.setdefault(row[0], []).append(step_from(row))
    return found


def weight(step: StepRecord) -> int:
    """Return how much of a commit a step takes."""
    return 1 + (len(step.result or "") >> 10)
