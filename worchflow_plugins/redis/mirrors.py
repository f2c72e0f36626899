"""The hash of an execution, as outside readers know it: all values are texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta

from worchflow_core import Execution, to_millis
from worchflow_plugins.redis.keys import Keys
from worchflow_plugins.redis.packing import Command

ENDED_KEPT = timedelta(days=1)
"""How long the keys of an execution that ended are kept, unless set otherwise."""
_ONGOING_KEPT = int(timedelta(days=30).total_seconds())
"""Refreshed by every write, so that nothing stays for ever."""
_BYTES_AT_ONCE = 8 * 1024 * 1024
_EXECUTIONS_AT_ONCE = 500


def commands(
    keys: Keys, execution: Execution, ended_kept: int, *, with_data: bool
) -> Iterator[Command]:
    """Yield the commands that bring an execution's hash up to date and let it expire."""
    key = keys.execution(execution.id)
    fields: list[str | bytes | int] = [
        "HSET", key,
        "id", execution.id,
        "eventName", execution.function,
        "status", execution.status.value,
        "attemptCount", execution.failed_attempts,
        "createdAt", to_millis(execution.created_at),
        "updatedAt", to_millis(execution.updated_at),
    ]  # fmt: skip
    if with_data and execution.data is not None:
        fields += ("eventData", execution.data)
    if execution.result is not None:
        fields += ("result", execution.result)
    if execution.error is not None:
        fields += ("error", execution.error.message)
    yield tuple(fields)
    is_first = execution.fence == 0 or (execution.fence == 1 and execution.status.is_final)
    if execution.error is None and (execution.failed_attempts or not is_first):
        yield ("HDEL", key, "error")
    yield ("EXPIRE", key, ended_kept if execution.status.is_final else _ONGOING_KEPT)


def batches(executions: Sequence[Execution]) -> Iterator[Sequence[Execution]]:
    """Split executions so that one trip carries at most 500, and few megabytes."""
    start = size = 0
    for position, item in enumerate(executions):
        weight = len(item.data or "") + len(item.result or "")
        count = position - start
        if count and (count == _EXECUTIONS_AT_ONCE or size + weight > _BYTES_AT_ONCE):
            yield executions[start:position]
            start, size = position, 0
        size += weight
    if start < len(executions):
        yield executions[start:]
