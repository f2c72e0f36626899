"""What must hold after every fault, whatever happened: compared with traces, logs and servers."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import redis

from tests.faults.arena import Arena, Place
from tests.faults.flows import Trace
from worchflow_core import Execution, Status, StepRecord, WorkerState
from worchflow_core.models import FINAL

_UNHANDLED = re.compile(
    r"Traceback|Unhandled|never retrieved|never awaited|Exception ignored|CRITICAL|ERROR|"
    r"database is locked|BusyError"
)
"""What no log may hold, unless a test brings it about on purpose."""


def checked(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Make a plain test of an async one: open an arena, hand it over, check, end all processes.

    The test takes the arena first, then whatever fixtures it names.
    """

    def run(place: Place, **fixtures: Any) -> None:
        async def main() -> None:
            async with Arena(place) as arena:
                await test(arena, **fixtures)
                await check(arena)

        asyncio.run(main())

    _, *others = inspect.signature(test).parameters.values()
    keyword = inspect.Parameter.KEYWORD_ONLY
    place = inspect.Parameter("place", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [place, *(item.replace(kind=keyword) for item in others)]
    run.__signature__ = inspect.Signature(names)  # type: ignore[attr-defined]
    run.__name__ = test.__name__
    run.__qualname__ = test.__qualname__
    run.__module__ = test.__module__
    run.__doc__ = test.__doc__
    return run


async def check(arena: Arena) -> None:
    """Let everything end, let every worker leave, and raise with all that is not as promised."""
    final = [key for key, status in arena.expected.items() if status in FINAL]
    await arena.ended(*final)
    await _leave(arena)
    problems = [*_logs(arena)]
    found = {item.id: item for item in await arena.store.get(list(arena.expected))}
    steps = await arena.store.steps(list(arena.expected))
    traces: dict[str, list[Trace]] = {}
    for trace in arena.traces():
        traces.setdefault(trace.execution, []).append(trace)
    for execution_id, status in arena.expected.items():
        execution = found.get(execution_id)
        if execution is None:
            problems.append(f"(a) {execution_id} was acknowledged and is gone")
            continue
        if execution.status is not status:
            problems.append(
                f"(a) {execution_id} is {execution.status}, expected {status}: {execution.error}"
            )
        own = traces.get(execution_id, [])
        problems += _values(execution, steps.get(execution_id, ()), own)
        is_reopened = execution_id in arena.reopened
        seen = arena.finals.get(execution_id)
        problems += _ends(execution, seen, own, is_reopened=is_reopened)
    problems += await _owners(arena)
    problems += _keys(arena.place)
    assert not problems, "\n".join([*problems, arena.logs()])


async def _leave(arena: Arena) -> None:
    """Ask all workers that still run to stop, and see them do it."""
    running = [item for item in arena.workers if item.is_running]
    for worker in running:
        worker.thaw()
        await arena.registered(worker)
        worker.terminate()
    for worker in running:
        code = await worker.exit_code()
        assert code == 0, f"{worker.name} left with {code}\n{worker.log()[-4000:]}"


def _logs(arena: Arena) -> Iterator[str]:
    """(h) Nothing went wrong unseen."""
    for worker in arena.workers:
        for line in worker.log().splitlines():
            if _UNHANDLED.search(line) and not arena.is_excused(line):
                yield f"(h) {worker.name} logged: {line}"


def _values(
    execution: Execution, steps: Sequence[StepRecord], traces: Sequence[Trace]
) -> Iterator[str]:
    steps = [step for step in steps if step.kind in ("run", "undoable")]
    stored = {step.title: json.loads(step.result or "null") for step in steps}
    for trace in traces:
        if trace.word == "saw" and stored.get(trace.step) != trace.value:
            yield f"(b) {execution.id}: {trace.step} was {trace.value}, is {stored.get(trace.step)}"
    produced = {(item.step, item.value) for item in traces if item.word == "ran"}
    for title, value in stored.items():
        if (title, value) not in produced:
            yield f"(b) {execution.id}: no run of {title} returned {value}"
    seen = [item for item in traces if item.word == "saw"]
    for ran in [item for item in traces if item.word == "ran"]:
        for saw in seen:
            if saw.step == ran.step and saw.fence < ran.fence and saw.at < ran.at:
                yield f"(c) {execution.id}: stored {ran.step} ran again in claim {ran.fence}"
    if execution.status is Status.COMPLETED:
        values = [stored[step.title] for step in steps]
        if json.loads(execution.result or "null") != values:
            yield f"(d) {execution.id}: result {execution.result} of steps {values}"


def _ends(
    execution: Execution,
    seen: Execution | None,
    traces: Sequence[Trace],
    *,
    is_reopened: bool,
) -> Iterator[str]:
    if seen is not None and (seen.status, seen.result, seen.finished_at, seen.fence) != (
        execution.status,
        execution.result,
        execution.finished_at,
        execution.fence,
    ):
        yield f"(e) {execution.id} left its end: was {seen}, is {execution}"
    ends = [item.outcome for item in execution.attempts[:-1] if item.outcome in FINAL]
    if ends and not is_reopened:
        yield f"(e) {execution.id} was attempted after it had ended: {ends}"
    began = Counter(item.fence for item in traces if item.word == "began")
    for fence, count in began.items():
        if count > 1:
            yield f"(e) {execution.id}: claim {fence} was run {count} times"
        if fence > execution.fence:
            yield f"(e) {execution.id}: claim {fence} ran, and the store knows {execution.fence}"


async def _owners(arena: Arena) -> list[str]:
    """(f) Nothing belongs to the dead, and nobody who left is still registered."""
    left = {item.pid for item in arena.workers if item.has_left}
    registered = [
        f"(f) registered, though it has left: {worker}"
        for worker in await arena.store.workers()
        if worker.pid in left and worker.state is not WorkerState.DEAD
    ]
    owned = [
        f"(f) {execution.id} still belongs to {execution.owner}"
        for execution in await arena.store.get(list(arena.expected))
        if execution.owner is not None
    ]
    return [*registered, *owned]


def _keys(place: Place) -> Iterator[str]:
    """(g) Everything in Redis expires, but for the queue, its lanes and the epoch."""
    if place.queue_url is None:
        return
    with redis.Redis.from_url(place.queue_url, decode_responses=True) as client:
        for key in client.scan_iter(f"{place.prefix}:*", count=1000):
            name = key.removeprefix(f"{place.prefix}:")
            allowed = name in ("queue", "epoch") or name.startswith("queue:")
            if not allowed and client.ttl(key) == -1:
                yield f"(g) {key} never expires"


# --- what is left behind -------------------------------------------------------------------------


def handles() -> int:
    """Return how many files and sockets this process has open."""
    return len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0


def clients(place: Place) -> int:
    """Return how many clients the place's Redis has, this question aside."""
    if place.queue_url is None:
        return 0
    with redis.Redis.from_url(place.queue_url) as client:
        return len(client.client_list()) - 1


def guarded(found: Place) -> Iterator[Place]:
    """Hand out a place; fail when something is left behind that was not there before."""
    forkserver.ensure_running()
    before = (handles(), clients(found))
    yield found
    _back_to(before[0], handles, "open files")
    _back_to(before[1], lambda: clients(found), "clients of Redis")
    _back_to(0, _threads, "threads of ours")


def _threads() -> int:
    return sum(item.name.startswith("worchflow-") for item in threading.enumerate())


def _back_to(most: int, count: Callable[[], int], what: str) -> None:
    """Fail unless a count falls back to what it was; those who closed may need a moment."""
    deadline = time.monotonic() + 10
    while (now := count()) > most:
        assert time.monotonic() < deadline, f"(i) {now} {what}, {most} before the test"
        time.sleep(0.02)
