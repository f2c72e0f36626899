"""Faults of worker processes: killed, frozen, blocked, told to leave."""

from __future__ import annotations

import asyncio
import signal

import pytest

from tests.faults.arena import LEASE, Arena
from tests.faults.checker import checked
from worchflow_core import Status
from worchflow_core.heart import EXIT_STALLED

ACT: dict[str, object] = {"do": "act"}


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


@checked
async def test_killed_beside_a_neighbour(arena: Arena) -> None:
    """On one machine nobody waits for the lease of a process that is gone."""
    patient = {"lease": "60s", "heartbeat": "10s", "sweep_interval": "0.2s"}
    doomed = arena.start_here("doomed", **patient)
    await arena.ready(doomed)
    execution_id = await arena.send(ACT, arena.gate(), ACT)
    await arena.running(execution_id, "2-hold")
    await arena.registered(arena.start_here("heir", **patient))
    doomed.kill()
    arena.open_gate()
    await arena.ended_one(execution_id, within=15)
    assert arena.runs(execution_id) == {"1-act": 1, "2-hold": 2, "3-act": 1}


@checked
async def test_poison_pill(arena: Arena) -> None:
    """What kills its worker again and again fails; what merely ran beside it is not blamed."""
    poison = await arena.send({"do": "die"}, function="play-followed", expect=Status.FAILED)
    # They are in the middle of a step when their worker dies the first two times.
    beside = [await arena.send(arena.gate(), ACT) for _ in range(3)]
    await _kill_workers(arena, poison, 1)
    others = [await arena.send(ACT, ACT)]
    execution = await arena.ended_one(poison)
    arena.expected[f"{poison}:on_failure:{execution.fence}"] = Status.COMPLETED
    assert execution.error is not None
    assert execution.error.reason == "worker_lost"
    assert (execution.crashes, execution.failed_attempts) == (3, 0)
    assert arena.runs(poison) == {"1-die": 3}
    arena.expected[f"{poison}:on_failure:{execution.fence}"] = Status.COMPLETED
    await arena.ended(*beside, *others)


async def _kill_workers(arena: Arena, poison: str, code: int) -> None:
    """Start workers, as a supervisor does, until a third has died of the poison."""
    for number in range(3):
        worker = arena.start_here(f"worker-{number}", max_crashes=3)
        assert await worker.exit_code() == code
        arena.open_gate()
    await arena.running(poison, next(iter(arena.runs(poison))), times=3)
    arena.start_here("last", max_crashes=3)


@checked
async def test_blocked_event_loop(arena: Arena) -> None:
    """Code that blocks the loop for longer than a lease keeps it, is warned of, and runs once."""
    worker = arena.start("worker")
    before = await arena.ready(worker)
    await arena.ready(arena.start("other", concurrency=1))
    execution_id = await arena.send({"do": "block", "seconds": 1.5 * LEASE}, ACT)
    execution = await arena.ended_one(execution_id)
    assert arena.runs(execution_id) == {"1-block": 1, "2-act": 1}
    assert (execution.fence, execution.crashes) == (1, 0)
    assert before.id in {item.id for item in await arena.store.workers()}
    logs = arena.logs()
    assert "the event loop has not turned" in logs
    assert "_blocking (" in logs  # it names what blocks


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)  # the store has no part in it
@checked
async def test_hung_event_loop(arena: Arena) -> None:
    """A loop that does not turn for two leases ends its process; the poison rule applies."""
    arena.is_excused = lambda line: "has not turned" in line
    poison = await arena.send({"do": "spin"}, expect=Status.FAILED)
    await _kill_workers(arena, poison, EXIT_STALLED)
    assert "_blocking" in arena.workers[0].log()  # the stacks
    execution = await arena.ended_one(poison)
    assert execution.error is not None
    assert execution.error.reason == "worker_lost"


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)  # the store has no part in it
@checked
async def test_out_of_memory(arena: Arena) -> None:
    """A process that is killed for its memory is a crash like any other."""
    poison = await arena.send({"do": "starve"}, expect=Status.FAILED)
    await _kill_workers(arena, poison, -signal.SIGKILL)
    execution = await arena.ended_one(poison)
    assert execution.error is not None
    assert execution.error.reason == "worker_lost"
