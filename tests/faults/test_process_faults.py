"""Faults of worker processes: killed, frozen, blocked, told to leave."""

from __future__ import annotations

import asyncio

from tests.faults.arena import LEASE, Arena
from tests.faults.checker import checked

ACT = {"do": "act"}


@checked
async def test_killed_in_mid_step(arena: Arena) -> None:
    """Another worker completes it; only the step that was interrupted runs again."""
    doomed = arena.start("doomed")
    await arena.ready(doomed)
    execution_id = await arena.send(ACT, arena.gate(), ACT)
    await arena.running(execution_id, "2-hold")
    heir = arena.start("heir")
    await arena.ready(heir)
    doomed.kill()
    arena.open_gate()
    execution = await arena.ended_one(execution_id, within=10)
    assert arena.runs(execution_id) == {"1-act": 1, "2-hold": 2, "3-act": 1}
    assert (execution.failed_attempts, execution.fence) == (0, 2)
    assert [item.outcome for item in execution.attempts] == ["crashed", "completed"]


@checked
async def test_zombie(arena: Arena) -> None:
    """A worker frozen past its lease can settle nothing when it wakes, and goes on anew."""
    zombie = arena.start("zombie")
    before = await arena.ready(zombie)
    execution_id = await arena.send(ACT, arena.gate(), ACT)
    await arena.running(execution_id, "2-hold")
    zombie.freeze()
    heir = arena.start("heir")
    await arena.running(execution_id, "2-hold", times=2)
    arena.open_gate()
    ended = await arena.ended_one(execution_id)
    await asyncio.sleep(LEASE * 2)  # past the limit at which an event loop counts as hung
    zombie.thaw()

    async def reborn() -> bool:
        alive = {item.id for item in await arena.store.workers() if item.pid == zombie.pid}
        return bool(alive - {before.id})

    await arena.until(reborn, "the zombie to register under a new id")
    heir.terminate()
    assert await heir.exit_code() == 0
    await arena.ended_one(await arena.send(ACT))  # only the zombie is left to do it
    (now,) = await arena.store.get([execution_id])
    assert now == ended
    assert arena.runs(execution_id)["3-act"] == 1
