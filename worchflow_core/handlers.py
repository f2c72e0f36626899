"""What follows an end: `on_failure` and `on_success` executions, and parents that wait."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

from worchflow_core.codec import hash_input
from worchflow_core.functions import Registry
from worchflow_core.ids import derived_id
from worchflow_core.journal import Journal
from worchflow_core.mailbox import Mailbox, child_key
from worchflow_core.models import FINAL, Execution, Status
from worchflow_core.protocols import Store
from worchflow_core.query import Condition, Operator, Query
from worchflow_core.transitions import handlers_done, request_cancel
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


def has_followers(execution: Execution, status: Status, registry: Registry) -> bool:
    """Return whether anything is to be done once an execution ends so."""
    if status is Status.CANCELLED or (execution.parent is not None and status.is_final):
        return True
    return handler_of(execution.function, status, registry) is not None


async def follow_up(executions: Sequence[Execution], registry: Registry, journal: Journal) -> None:
    """Create the executions that ended ones ask for, wake their parents, then note that it is done.

    Their ids derive from the ended execution and its fence, so a repetition creates nothing new,
    while an execution that is retried and ends again is followed up again.
    """
    now = journal.clock.now()
    followers: list[Execution] = []
    done: list[Execution] = []
    for execution in executions:
        handler = handler_of(execution.function, execution.status, registry)
        is_known = registry.get(execution.function) is not None
        if not is_known and execution.parent is None and execution.status is not Status.CANCELLED:
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
    cancelled = tuple(item.id for item in done if item.status is Status.CANCELLED)
    if cancelled:
        await _cancel_children(cancelled, journal)
    awaited = [child_key(item.id) for item in done if item.parent is not None]
    if awaited:
        await Mailbox(journal).wake(awaited)
    await journal.update([(item, handlers_done(item)) for item in done])


async def cancelled_parents(executions: Sequence[Execution], store: Store) -> Collection[str]:
    """Return which of these executions were invoked by one that is cancelled now.

    Their parent asked for them while it was being cancelled, or after it was taken for dead: its
    own cancellation came too early to find them.
    """
    # Later claims follow from one that has asked already, unless its worker died.
    asked = [item for item in executions if item.parent and (item.fence == 1 or item.crashes)]
    if not asked:
        return ()
    found = await store.get({str(item.parent) for item in asked})
    cancelled = {item.id for item in found if item.status is Status.CANCELLED}
    return {item.id for item in asked if item.parent in cancelled}


async def _cancel_children(parents: tuple[str, ...], journal: Journal) -> None:
    """Cancel what cancelled executions have invoked; each of them cancels its own in turn."""
    query = Query(
        where=(
            Condition("parent", Operator.IN, parents),
            Condition("status", Operator.IN, tuple(set(Status) - FINAL)),
            Condition("cancel_requested_at", Operator.EQUAL, None),
        ),
        descending=False,
        limit=1000,
    )
    # Once more until nothing is left: those that were claimed or settled meanwhile are refused.
    while children := (await journal.store.find(query)).items:
        now = journal.clock.now()
        await journal.update([(item, request_cancel(item, now=now)) for item in children])
