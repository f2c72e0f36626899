"""The hash of an execution, as outside readers know it: all values are texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta

from worchflow_core import Execution, to_millis
from worchflow_plugins.redis.keys import Keys
from worchflow_plugins.redis.packing import Command, Form

ENDED_KEPT = timedelta(days=1)
"""How long the keys of an execution that ended are kept, unless set otherwise."""
_ONGOING_KEPT = int(timedelta(days=30).total_seconds())
"""Refreshed by every write, so that nothing stays for ever."""
_BYTES_AT_ONCE = 8 * 1024 * 1024
_EXECUTIONS_AT_ONCE = 500
_HASH = Form(
    "HSET", None, "id", None, "eventName", None, "status", None, "attemptCount", None,
    "createdAt", None, "updatedAt", None,
)  # fmt: skip
_EXPIRE = Form("EXPIRE", None, None)


def commands(
    keys: Keys, execution: Execution, ended_kept: int, *, with_data: bool
) -> Iterator[Command]:
    """Yield the commands that bring an execution's hash up to date and let it expire."""
    key, is_final = keys.execution(execution.id), execution.status.is_final
    more: list[str] = []
    if with_data and execution.data is not None:
        more += ("eventData", execution.data)
    if execution.result is not None:
        more += ("result", execution.result)
    if execution.error is not None:
        more += ("error", execution.error.message)
    own = (
        key,
        execution.id,
        execution.function,
        execution.status.value,
        execution.failed_attempts,
        to_millis(execution.created_at),
        to_millis(execution.updated_at),
    )
    yield _HASH.filled(own, more)
    is_first = execution.fence == 0 or (execution.fence == 1 and is_final)
    if execution.error is None and (execution.failed_attempts or not is_first):
        yield ("HDEL", key, "error")
    yield _EXPIRE.filled((key, ended_kept if is_final else _ONGOING_KEPT))


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
