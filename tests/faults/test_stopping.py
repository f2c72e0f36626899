"""Workers that are told to leave: nothing is lost, nothing runs on, nobody waits too long."""

from __future__ import annotations

import asyncio
import time

from tests.faults.arena import Arena
from tests.faults.checker import checked
from tests.faults.flows import COUNTED, count
from tests.faults.processes import until
from worchflow_core import Status, Worchflow
from worchflow_core.settings import load_settings

ACT: dict[str, object] = {"do": "act"}


@checked
async def test_short_steps_end_within_the_grace(arena: Arena) -> None:
    """F9: a step that ends in time is recorded; the rest goes on elsewhere, nothing runs again."""
    leaver = arena.start("leaver")
    ids = [
        await arena.send(ACT, arena.gate(), ACT, function=name) for name in ("play", "play-plain")
    ]
    for execution_id in ids:
        await arena.running(execution_id, "2-hold")
    leaver.terminate()
    await _draining(arena, leaver.pid)
    arena.open_gate()
    assert await leaver.exit_code(within=5) == 0
    arena.start("heir")
    for execution in await arena.ended(*ids):
        assert arena.runs(execution.id) == {"1-act": 1, "2-hold": 1, "3-act": 1}
        assert (execution.crashes, execution.failed_attempts) == (0, 0)
        assert [item.outcome for item in execution.attempts] == ["released", "completed"]


@checked
async def test_long_steps_are_given_back_at_the_end_of_the_grace(arena: Arena) -> None:
    """F9: the worker leaves in time; the execution goes on elsewhere, and no crash is counted."""
    leaver = arena.start("leaver", grace="1s")
    ids = [
        await arena.send(ACT, arena.gate(), ACT, function=name) for name in ("play", "play-plain")
    ]
    for execution_id in ids:
        await arena.running(execution_id, "2-hold")
    began = time.monotonic()
    leaver.terminate()
    assert await leaver.exit_code() == 0
    assert time.monotonic() - began < 1 + 2
    arena.open_gate()
    arena.start("heir")
    for execution in await arena.ended(*ids):
        assert arena.runs(execution.id) == {"1-act": 1, "2-hold": 2, "3-act": 1}
        assert (execution.crashes, execution.failed_attempts) == (0, 0)


@checked
async def test_a_second_signal_stops_at_once(arena: Arena) -> None:
    """F10: without a traceback, and with the worker's record removed."""
    leaver = arena.start("leaver", grace="60s")
    ids = [
        await arena.send(ACT, arena.gate(), ACT, function=name) for name in ("play", "play-plain")
    ]
    for execution_id in ids:
        await arena.running(execution_id, "2-hold")
    leaver.terminate()
    await _draining(arena, leaver.pid)
    began = time.monotonic()
    leaver.terminate()
    assert await leaver.exit_code() == 0
    assert time.monotonic() - began < 4
    arena.open_gate()
    arena.start("heir")
    await arena.ended(*ids)


async def _draining(arena: Arena, pid: int) -> None:
    async def is_told() -> bool:
        return any(
            item.pid == pid and item.state == "draining" for item in await arena.store.workers()
        )

    await arena.until(is_told, "the worker to say that it drains")


@checked
async def test_work_that_comes_while_a_worker_stops(arena: Arena) -> None:
    """F11: in the stopping window nothing is lost, and nothing runs once `run` has returned."""
    loops = 100
    settings = load_settings(arena.place.settings(), env_file=None)
    ids: list[str] = []
    async with Worchflow(settings, functions=[count], env_file=None) as app:
        for number in range(loops):
            run = asyncio.create_task(app.worker.run())
            await until(lambda: app.worker.health.is_ready, 10, "the worker to be ready")
            sends = [
                asyncio.create_task(app.client.send("count", {"key": f"{number}-{position}"}))
                for position in range(4)
            ]
            for _ in range(number % 40):  # a little later in each loop
                await asyncio.sleep(0)
            app.worker.stop(now=number % 3 == 0)
            await run
            marks = len(COUNTED)
            ids += [handle.id for handle in await asyncio.gather(*sends)]
            assert len(COUNTED) == marks, "something ran after the worker had stopped"
        stopped = await app.journal.store.get(ids)
        assert len(stopped) == len(ids)
        assert {item.status for item in stopped} <= {Status.QUEUED, Status.COMPLETED}
        assert all(item.owner is None and item.crashes == 0 for item in stopped)
        await app.worker.run(burst=True)
        assert {item.status for item in await app.journal.store.get(ids)} == {Status.COMPLETED}
