"""Every change the core can build, one after the other: the life the contract tests play."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from worchflow_core.models import Change, Execution, Failure, Status
from worchflow_core.testing.contracts.samples import at
from worchflow_core.transitions import (
    Outcome,
    expire,
    handlers_done,
    mark_hinted,
    release_crashed,
    reopen,
    request_cancel,
    settle,
    wake,
)


def _settled(status: Status, **fields: Any) -> Callable[[Execution], Change]:
    return lambda item: settle(
        item,
        Outcome(status=status, **fields),
        now=item.updated_at + timedelta(milliseconds=7),
        code_version="flows 1.2",
        retries=2,
        has_hint=True,
        has_handler=status.is_final,
    )


_FAILURE = Failure(type="builtins.ValueError", message="bad", traceback="File ...")
LIFE: tuple[Callable[[Execution], Change], ...] = (
    lambda item: request_cancel(item, now=at(1)),
    _settled(Status.RETRYING, failure=_FAILURE, due_at=at(3), counts=True, steps_recorded=2),
    lambda item: mark_hinted(item, now=at(2)),
    lambda item: wake(item, now=at(2)),
    _settled(Status.WAITING, waits=("k1", "k2"), steps_recorded=0, step_failures={"s": 1}),
    _settled(Status.SLEEPING, due_at=at(9), waits=()),
    lambda item: expire(item, now=at(8), has_handler=True),
    lambda item: handlers_done(replace(item, handlers_due=True)),
    lambda item: reopen(item, now=at(9)),
    lambda item: release_crashed(item, now=at(10), max_crashes=5, has_grown=False, has_hint=True),
    lambda item: release_crashed(
        item, now=at(10), max_crashes=1, has_grown=True, has_hint=False, has_handler=True
    ),
    _settled(Status.COMPLETED, result='{"ok": true}'),
    _settled(Status.CANCELLED),
    lambda item: request_cancel(item, now=at(11)),
)
"""One change of each kind, in an order in which each applies to what the one before left."""
