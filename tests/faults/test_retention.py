"""What ended longer ago than the retention goes away with its steps; the rest stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import redis

from tests.faults.arena import Arena
from tests.faults.checker import checked
from worchflow_core import Execution, Status, StepRecord
from worchflow_core.functions import Registry
from worchflow_core.settings import Settings, load_settings
from worchflow_core.sweeper import Sweeper

MANY = 1_200
"""More than two batches of deletes."""


def test_retention_is_on_by_default() -> None:
    assert Settings.model_fields["retention"].default == timedelta(days=30)


@checked
async def test_old_executions_go_with_their_steps(arena: Arena) -> None:
    """In batches, oldest first; young, unended and unknown ones stay."""
    store = arena.store
    settings = load_settings(arena.place.settings(retention="1d"), env_file=None)
    now = arena._app.journal.clock.now()  # type: ignore[union-attr]
    day = timedelta(days=1)
    old = [_ended(f"old-{number}", now - day * 2 - number * day) for number in range(3)]
    many = [_ended(f"many-{number}", now - day * 3) for number in range(MANY)]
    young = [_ended(f"young-{number}", now - day / 2) for number in range(3)]
    unended = [
        replace(item, id=f"unended-{status}", status=status, finished_at=None, due_at=now + day)
        for item, status in zip(
            [old[0]] * 3, (Status.QUEUED, Status.RETRYING, Status.SLEEPING), strict=True
        )
    ]
    everything = [*old, *many, *young, *unended]
    await store.create(everything)
    for start in range(0, len(everything), 400):
        part = everything[start : start + 400]
        await store.record([_step(item) for item in part])
    deletes: list[int] = []
    journal = arena._app.journal  # type: ignore[union-attr]
    delete = journal.delete

    async def counted(ids: Sequence[str]) -> object:
        deletes.append(len(ids))
        return await delete(ids)

    journal.delete = counted  # type: ignore[method-assign, assignment]
    await Sweeper(journal, Registry([]), settings).retain()
    left = {item.id for item in await store.get([item.id for item in everything])}
    assert left == {item.id for item in (*young, *unended)}
    assert set(await store.steps([item.id for item in everything])) == left
    assert len(deletes) >= 3
    assert max(deletes) <= 500


@checked
async def test_workers_delete_by_themselves(arena: Arena) -> None:
    """A running worker removes what has had its time, and what Redis shows of it expires."""
    patient = arena.start("patient")
    first = await arena.send({"do": "act"})
    await arena.ended_one(first)
    patient.terminate()
    assert await patient.exit_code() == 0
    if arena.place.queue_url is not None:
        with redis.Redis.from_url(arena.place.queue_url) as client:
            assert client.ttl(f"{arena.place.prefix}:execution:{first}") > 0
    arena.start("forgetful", retention="1s", sweep_interval="50ms")

    async def is_gone() -> bool:
        return not await arena.store.get([first]) and not await arena.store.steps([first])

    await arena.until(is_gone, "the retention")
    arena.expected.pop(first)


def _ended(execution_id: str, at: datetime) -> Execution:
    return Execution(
        id=execution_id,
        function="play",
        data="{}",
        status=Status.COMPLETED,
        created_at=at,
        updated_at=at,
        finished_at=at,
        result="[]",
        fence=1,
    )


def _step(execution: Execution) -> StepRecord:
    return StepRecord(
        execution_id=execution.id,
        step_id="0" * 32,
        title="Old",
        result="1",
        seq=1,
        fence=execution.fence,
        started_at=execution.created_at,
        ended_at=execution.created_at,
        execution_created_at=execution.created_at,
    )
