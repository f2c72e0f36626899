"""What the tests of moving share: a store full of all kinds of executions, and dying in a move."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from worchflow_core import Execution, Status, StepRecord, StepStatus, Store
from worchflow_core.crashpoints import EXIT_CRASHED
from worchflow_core.migration import Migration
from worchflow_core.plugins import Plugins
from worchflow_core.settings import load_settings
from worchflow_core.testing.contracts.samples import (
    HOSTILE,
    at,
    execution,
    full_execution,
    record,
    step,
)

OTHERS = "logs,sample-audit"


def some_execution(number: int) -> Execution:
    """Return an execution; eight in a row are in eight statuses, and every tenth says all."""
    status = list(Status)[number % 8]
    fields: dict[str, Any] = {"status": status, "fence": number % 5, "created_at": at(number // 3)}
    if status.is_final:
        fields |= {"finished_at": at(number + 1), "due_at": None, "result": f'{{"n":{number}}}'}
    elif status is Status.PROCESSING:
        fields |= {"owner": "killed", "fence": 3, "due_at": None, "claimed_at": at(number)}
    elif status is Status.WAITING:
        fields |= {"waits": (f"key-{number}",), "due_at": at(10**6)}
    item = execution(f"e{number:05}", data=f'"{number}"', input_hash=f"h{number}", **fields)
    if number % 10 == 0:
        item = replace(
            full_execution(item.id, HOSTILE[number // 10 % 7]),
            status=status,
            owner=item.owner,
            fence=item.fence,
        )
    return item


def some_steps(item: Execution) -> Sequence[StepRecord]:
    """Return steps of an execution, one of each claim it had, and one that only began."""
    steps = [
        step(
            item.id,
            f"s{fence}",
            seq=fence,
            fence=fence,
            result=f'"{item.id} {fence}"',
            execution_created_at=item.created_at,
        )
        for fence in range(1, item.fence + 1)
    ]
    if item.fence == 4:
        began = step(item.id, "once", seq=5, fence=4, result=None, ended_at=None)
        steps.append(replace(began, status=StepStatus.STARTED))
    return steps


async def fill(store: Store, count: int) -> None:
    """Put executions, their steps and records of many kinds into an empty store."""
    for start in range(0, count, 500):
        items = [some_execution(number) for number in range(start, min(count, start + 500))]
        for fence in range(1, 5):
            # A store takes steps of the newest claim alone: each claim has its turn.
            if fence == 1:
                await store.create([replace(item, fence=min(1, item.fence)) for item in items])
            else:
                await _raise_fences(store, [item for item in items if item.fence >= fence], fence)
            steps = [one for item in items for one in some_steps(item) if one.fence == fence]
            stands = await store.record(steps)
            assert None not in stands
    for kind in ("event", "schedule", "function", "$strange.kind", "meta"):
        await store.records.insert(
            [record(f"{kind}-{n:03}", f'"{n}"', kind=kind, version=n + 1) for n in range(250)]
        )


async def _raise_fences(store: Store, items: Sequence[Execution], fence: int) -> None:
    from worchflow_core import Change

    changes = [Change(id=item.id, expect={}, values={"fence": fence}) for item in items]
    assert not await store.update(changes)


def open_stores(source: str, target: str) -> tuple[Store, Store]:
    """Return stores for two URLs, not yet entered."""
    settings = load_settings({"disabled_plugins": OTHERS}, env_file=None)
    plugins = Plugins(disabled=settings.disabled_plugins)
    return plugins.open_store(source, settings), plugins.open_store(target, settings)


class Dying:
    """A target whose process dies before or after the n-th call of one of its methods."""

    def __init__(self, inner: Any, method: str, calls: int, *, done: bool) -> None:
        self._inner = inner
        self._method = method
        self._left = calls
        self._done = done

    @property
    def records(self) -> Any:
        return self._inner.records

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._inner, name)
        if name != self._method:
            return call

        async def counted(*args: Any, **kwargs: Any) -> Any:
            self._left -= 1
            if self._left == 0 and not self._done:
                os._exit(EXIT_CRASHED)
            answer = await call(*args, **kwargs)
            if self._left == 0:
                os._exit(EXIT_CRASHED)
            return answer

        return counted


async def _move_and_die(source: str, target: str, method: str, calls: int, done: bool) -> None:
    left, right = open_stores(source, target)
    async with left, right:
        dying: Any = Dying(right, method, calls, done=done)
        await Migration(left, dying).run()


if __name__ == "__main__":
    _, first, second, name, number, moment = sys.argv
    asyncio.run(_move_and_die(first, second, name, int(number), moment == "after"))
