"""Executions in every state, for a look around, for pictures and for tests: `--demo`.

Nothing of it has run: the records are written as a worker would have left them.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from worchflow_core import (
    Execution,
    RunningExecution,
    Status,
    StepRecord,
    Store,
    Worker,
    WorkerState,
    from_millis,
    to_millis,
)
from worchflow_plugins.dashboard.demo.functions import STEPS
from worchflow_plugins.dashboard.demo.maker import Maker
from worchflow_plugins.dashboard.demo.schedules import seed_schedules

_PART = 500
_BEAT_SECONDS = 4.0
_NOW: tuple[Status, ...] = (
    *[Status.PROCESSING] * 7,
    *[Status.QUEUED] * 2,
    *[Status.RETRYING] * 2,
    Status.FAILED,
    Status.SLEEPING,
)
"""What is going on at the moment, whatever chance says."""


async def seed(store: Store, count: int = 2000, *, seed: int = 7, hours: float = 24.0) -> None:
    """Write `count` executions with steps, schedules with their last ticks, and four workers.

    The functions are `demo.functions.FUNCTIONS`; an application given them knows their schemas.

    Args:
        store: an open store, best an empty one.
        count: how many executions.
        seed: the same seed makes the same executions.
        hours: over how long a time they were sent.
    """
    now = from_millis(to_millis(datetime.now(UTC)))
    maker = Maker(seed, now)
    ages = sorted(_ages(random.Random(seed), count, hours), reverse=True)
    running: list[Execution] = []
    for start in range(0, count, _PART):
        made = [maker.make(timedelta(seconds=age)) for age in ages[start : start + _PART]]
        if start + _PART >= count:
            made += [
                maker.make(timedelta(seconds=0.7 + 1.3 * index), status, _name(index))
                for index, status in enumerate(_NOW)
            ]
        await write(store, made)
        running += [execution for execution, _ in made if execution.owner is not None]
    await write(store, await seed_schedules(store, maker, now))
    for worker in _workers(now, running):
        await asyncio.to_thread(_register, store, worker)


async def write(store: Store, made: Sequence[tuple[Execution, list[StepRecord]]]) -> None:
    """Write executions and their steps."""
    await store.create([execution for execution, _ in made])
    steps = [
        replace(step, fence=execution.fence, execution_created_at=execution.created_at)
        for execution, its in made
        for step in its
    ]
    if steps:
        await store.record(steps)


def make(
    status: Status, *, function_id: str = "process-payment", age: float = 60.0, seed: int = 1
) -> tuple[Execution, list[StepRecord]]:
    """Return one execution in a status, sent `age` seconds ago, with its steps."""
    return Maker(seed, datetime.now(UTC)).make(timedelta(seconds=age), status, function_id)


def _ages(pick: random.Random, count: int, hours: float) -> list[float]:
    """Return ages in seconds: more by day than by night, and a third of it lately."""
    longest = hours * 3600
    ages: list[float] = []
    while len(ages) < count:
        age = pick.uniform(20, min(3600, longest) if pick.random() < 0.15 else longest)
        wave = 0.55 + 0.45 * math.cos(age / 86400 * 2 * math.pi) * (
            0.7 + 0.3 * math.sin(age / 9000)
        )
        if pick.random() < wave:
            ages.append(age)
    return ages


def _name(index: int) -> str:
    return ("process-payment", "encode-video", "sync-inventory")[index % 3]


def _workers(now: datetime, running: Sequence[Execution]) -> list[Worker]:
    workers = []
    for number in range(4):
        mine = [item for item in running if item.owner == f"demo-{number}"][:5]
        workers.append(
            Worker(
                id=f"demo-{number}",
                name=f"host-{number}:{4100 + number}",
                host=f"host-{number}",
                pid=4100 + number,
                version="0.1.0",
                state=WorkerState.STARTING,
                started_at=now - timedelta(hours=5 * number + 1, minutes=12),
                concurrency=8,
                functions=tuple(sorted(STEPS)),
                running=tuple(
                    RunningExecution(
                        execution_id=item.id,
                        function=item.function,
                        step=STEPS[item.function][-1],
                        since=now - timedelta(milliseconds=350),
                    )
                    for item in mine
                ),
            )
        )
    return workers


async def keep_alive(store: Store) -> None:
    """Beat for the workers of the demonstration until cancelled, so that they look alive."""
    while True:
        await asyncio.sleep(_BEAT_SECONDS)
        for worker in await store.workers():
            if worker.id.startswith("demo-") and worker.id != "demo-3":
                running = replace(worker, state=WorkerState.RUNNING)
                await asyncio.to_thread(store.beat, running, lease=timedelta(hours=24))


def _register(store: Store, worker: Worker) -> None:
    """Let a worker appear for a day; the last one has been silent for too long."""
    is_lost = worker.id == "demo-3"
    lease = timedelta(milliseconds=1) if is_lost else timedelta(hours=24)
    store.beat(worker, lease=lease)
    store.beat(replace(worker, state=WorkerState.RUNNING), lease=lease)
