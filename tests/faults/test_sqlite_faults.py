"""Faults of one file that many processes share."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import apsw

from tests.faults.arena import Arena, Place
from tests.faults.checker import check
from tests.faults.processes import WorkerProcess
from worchflow_core import Send, Status

PROCESSES = 8
EXECUTIONS = 400
KILLS = 24


def test_eight_processes_killed_at_random(tmp_path: Path) -> None:
    """Whoever is killed in whatever write: nothing is lost, and the file stays whole."""
    place = Place(directory=tmp_path, store_url=f"sqlite:///{tmp_path}/worchflow.db")

    async def main() -> None:
        async with Arena(place) as arena:
            await _storm(arena)
            await check(arena)

    asyncio.run(main())
    connection = apsw.Connection(str(tmp_path / "worchflow.db"))
    assert connection.execute("PRAGMA integrity_check").get == "ok"
    connection.close()


async def _storm(arena: Arena) -> None:
    rng = random.Random(33)
    steps = [{"do": "sleep", "seconds": 0.3}, {"do": "act"}, {"do": "fail", "times": 1}]
    events = [
        Send(
            function="play-plain" if number % 4 == 0 else "play",
            data={"steps": steps if number % 3 == 0 else steps[:2]},
            id=f"storm-{number}",
        )
        for number in range(EXECUTIONS)
    ]
    # Deaths here are the environment's, not the executions': none is to be given up.
    settings = {"max_crashes": 100, "concurrency": 5}
    workers = [arena.start_here(f"worker-{number}", **settings) for number in range(PROCESSES)]
    for start in range(0, EXECUTIONS, 100):
        part = events[start : start + 100]
        await arena.client.send_many(part)
        arena.expected.update({str(event.id): Status.COMPLETED for event in part})
    for kill in range(KILLS):
        await asyncio.sleep(rng.uniform(0.02, 0.3))
        victim = rng.randrange(PROCESSES)
        await _kill(workers[victim])
        start = arena.start_here if kill % 3 else arena.start
        workers[victim] = start(f"worker-{victim}", **settings)
    ended = await arena.ended(*arena.expected, within=60)
    crashed = [item for item in ended if any(a.outcome == "crashed" for a in item.attempts)]
    assert len(crashed) >= KILLS, f"only {len(crashed)} executions were hit"


async def _kill(worker: WorkerProcess) -> None:
    worker.kill()
    await worker.exit_code()
