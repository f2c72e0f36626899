"""A worker dies at its first write, at its second, at its third, whichever they are."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.arena import Arena, Place
from tests.faults.checker import check
from worchflow_core.crashpoints import EXIT_CRASHED
from worchflow_core.testing.fixtures import with_database

LIFE: list[dict[str, object]] = [
    {"do": "act"},
    {"do": "fail", "times": 1},
    {"do": "nap", "seconds": 1.1},
    {"do": "act"},
]
"""An attempt that fails, one that sleeps, and one that completes."""
FEWEST_RUNS = {"1-act": 1, "2-fail": 2, "4-act": 1}
WRITES = 24
AT_ONCE = 8
pytestmark = pytest.mark.timeout(300)


def test_every_write_to_a_file(tmp_path: Path) -> None:
    place = Place(directory=tmp_path, store_url="sqlite:///")
    asyncio.run(_walk(place, after=False))


@pytest.mark.servers
@pytest.mark.parametrize("after", [False, True], ids=["before it", "after it"])
def test_every_write_to_servers(
    after: bool, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    mongo = os.environ.get("WORCHFLOW_TEST_MONGODB_URL")
    redis = os.environ.get("WORCHFLOW_TEST_REDIS_URL")
    place = Place(
        directory=tmp_path,
        store_url=mongo or request.getfixturevalue("mongo_server").url,
        queue_url=redis or request.getfixturevalue("redis_server").url,
    )
    asyncio.run(_walk(place, after=after))


async def _walk(place: Place, *, after: bool) -> None:
    """Die at each write; there must have been enough of them to cover a whole life."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> bool:
        async with room:
            return await _die_at(_own(place), number, after=after)

    has_died = await asyncio.gather(*(one(number) for number in range(1, WRITES + 1)))
    assert sum(has_died) >= 8, f"it died only at {sum(has_died)} writes"
    assert not has_died[-1], f"a life has more than {WRITES} writes: let WRITES be more"


def _own(place: Place) -> Place:
    name = f"life-{uuid.uuid4().hex[:12]}"
    directory = place.directory / name
    if not place.has_servers:
        return Place(directory=directory, store_url=f"sqlite:///{directory}/worchflow.db")
    url = with_database(place.store_url, name)
    return replace(place, directory=directory, store_url=url, prefix=name)


async def _die_at(place: Place, number: int, *, after: bool) -> bool:
    """Return whether the worker had so many writes to make, and died."""
    async with Arena(place) as arena:
        execution_id = await arena.send(*LIFE)
        doomed = arena.start_doomed("doomed", number, after=after)

        async def is_over() -> bool:
            (execution,) = await arena.store.get([execution_id])
            return execution.status.is_final or not doomed.is_running

        await arena.until(is_over, "a death or an end")
        arena.start("heir")
        await arena.ended_one(execution_id)
        runs = arena.runs(execution_id)
        assert runs >= Counter(FEWEST_RUNS)
        assert runs.total() <= sum(FEWEST_RUNS.values()) + 1, f"died at {number}: {runs}"
        if doomed.is_running:
            doomed.terminate()  # its last writes are those of its leaving
        code = await doomed.exit_code()
        assert code in (0, EXIT_CRASHED), doomed.log()
        await check(arena)
        return code == EXIT_CRASHED
