"""Faults of worker processes: killed, frozen, blocked, told to leave."""

from __future__ import annotations

import asyncio
import signal

import pytest

from tests.faults.arena import LEASE, Arena
from tests.faults.checker import checked
from worchflow_core import Status, WorkerState
from worchflow_core.cli import exits
from worchflow_core.heart import EXIT_STALLED

ACT: dict[str, object] = {"do": "act"}


@checked
async def test_killed_in_mid_step(arena: Arena) -> None:
    """F1: another worker completes it; only the step that was interrupted runs again."""
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
    """F3: a worker frozen past its lease can settle nothing when it wakes, and goes on anew."""
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
    """F5: what kills its worker again and again fails; what merely ran beside it is not blamed."""
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
    """F7: code that blocks the loop longer than a lease keeps it, is warned of, and runs once."""
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


@pytest.mark.parametrize("combination", ["sqlite"], indirect=True)  # the store has no part in it
@checked
async def test_hung_event_loop(arena: Arena) -> None:
    """F8: a loop that does not turn for two leases ends its process; the poison rule applies."""
    arena.is_excused = lambda line: "has not turned" in line
    poison = await arena.send({"do": "spin"}, expect=Status.FAILED)
    await _kill_workers(arena, poison, EXIT_STALLED)
    assert "_blocking" in arena.workers[0].log()  # the stacks
    execution = await arena.ended_one(poison)
    assert execution.error is not None
    assert execution.error.reason == "worker_lost"


@pytest.mark.parametrize("combination", ["sqlite"], indirect=True)  # the store has no part in it
@checked
async def test_out_of_memory(arena: Arena) -> None:
    """F6: a process that is killed for its memory is a crash like any other."""
    poison = await arena.send({"do": "starve"}, expect=Status.FAILED)
    await _kill_workers(arena, poison, -signal.SIGKILL)
    execution = await arena.ended_one(poison)
    assert execution.error is not None
    assert execution.error.reason == "worker_lost"


@checked
async def test_hung_threads(arena: Arena) -> None:
    """F12: code that hangs fails in time and gives its slot back; too much of it ends the worker.

    A thread cannot be interrupted, so the worker leaves in good order for a fresh process.
    """
    arena.is_excused = lambda line: "3 threads hang" in line
    worker = arena.start("worker", concurrency=2, max_leaked_threads=3)
    await arena.ready(worker)
    hung = [
        await arena.send(arena.gate("never"), function=name, expect=Status.FAILED)
        for name in ("play-briefly", "play-plain-briefly")
    ]
    errors = [item.error for item in await arena.ended(*hung, within=10)]
    assert [error and error.type.rpartition(".")[2] for error in errors] == [
        "StepTimeout",
        "ExecutionTimeout",
    ]
    both = [await arena.send(arena.gate("both")) for _ in range(2)]
    for execution_id in both:  # both slots are free, although two threads still hang
        await arena.running(execution_id, "1-hold")
    arena.open_gate("both")
    await arena.ended(*both)
    held = await arena.send(arena.gate("held"), ACT)
    await arena.running(held, "1-hold")
    last = await arena.send(arena.gate("never"), function="play-briefly", expect=Status.FAILED)
    await arena.ended_one(last)
    await arena.until(lambda: _has_left_work(arena, worker.pid), "the worker to drain")
    arena.open_gate("held")
    assert await worker.exit_code() == exits.WORN_OUT
    assert worker.pid not in {item.pid for item in await arena.store.workers()}
    arena.start("fresh")
    execution = await arena.ended_one(held)
    assert (execution.crashes, execution.failed_attempts) == (0, 0)
    assert arena.runs(held) == {"1-hold": 1, "2-act": 1}


async def _has_left_work(arena: Arena, pid: int) -> bool:
    states = {item.pid: item.state for item in await arena.store.workers()}
    return states.get(pid) is WorkerState.DRAINING
