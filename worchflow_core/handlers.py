"""What follows an end: `on_failure` and `on_success` as durable executions of their own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from worchflow_core.codec import hash_input
from worchflow_core.functions import Registry
from worchflow_core.journal import Journal
from worchflow_core.models import Execution, Status
from worchflow_core.transitions import handlers_done
from worchflow_core.wire import execution_to_wire

_TOLD = (
    "id",
    "eventName",
    "status",
    "attemptCount",
    "createdAt",
    "finishedAt",
    "errorInfo",
    "tags",
    "codeVersion",
)


def handler_of(execution_function: str, status: Status, registry: Registry) -> str | None:
    """Return the id of the function to run when an execution ends so; None if there is none."""
    function = registry.get(execution_function)
    if function is None:
        return None
    if status is Status.FAILED:
        return function.on_failure
    return function.on_success if status is Status.COMPLETED else None


async def follow_up(executions: Sequence[Execution], registry: Registry, journal: Journal) -> None:
    """Create the executions that ended ones ask for, then note that they exist.

    Their ids derive from the ended execution and its fence, so a repetition creates nothing new,
    while an execution that is retried and ends again is followed up again.
    """
    now = journal.clock.now()
    followers: list[Execution] = []
    done: list[Execution] = []
    for execution in executions:
        handler = handler_of(execution.function, execution.status, registry)
        if handler is None and registry.get(execution.function) is None:
            continue  # another worker knows the function
        done.append(execution)
        if handler is None:
            continue
        word = "on_failure" if execution.status is Status.FAILED else "on_success"
        wire = execution_to_wire(execution)
        data = json.dumps({"execution": {name: wire[name] for name in _TOLD if name in wire}})
        followers.append(
            Execution(
                id=derived_id(f"{execution.id}:{word}:{execution.fence}"),
                function=handler,
                data=data,
                created_at=now,
                updated_at=now,
                due_at=now,
                hinted_at=now if journal.queue.keeps_hints else None,
                input_hash=hash_input(handler, data),
                parent=execution.id,
                headers=execution.headers,
            )
        )
    if followers:
        await journal.create(followers)
    await journal.update([(item, handlers_done(item)) for item in done])


def derived_id(text: str) -> str:
    """Return an id derived from others: the text itself, or a hash where that is too long."""
    return text if len(text) <= 128 else hashlib.sha256(text.encode()).hexdigest()
