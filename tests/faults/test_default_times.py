"""The same with the times a user has by default: slow, so all of it at once and on one backend."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from tests.faults.arena import Arena, Place
from tests.faults.checker import check
from worchflow_core.settings import Settings

DEFAULTS = {
    name: f"{Settings.model_fields[name].default.total_seconds():g}s"
    for name in ("lease", "heartbeat", "sweep_interval", "grace")
}


@pytest.mark.timeout(180)
def test_default_lease(tmp_path: Path) -> None:
    """Code that blocks for 20 s keeps its lease; what another machine dropped moves on in 35 s."""
    place = Place(directory=tmp_path, store_url=f"sqlite:///{tmp_path}/worchflow.db")

    async def main() -> None:
        async with Arena(place) as arena:
            await _twenty_seconds(arena)
            await check(arena)

    asyncio.run(main())


async def _twenty_seconds(arena: Arena) -> None:
    blocked = arena.start("blocked", **DEFAULTS, concurrency=1)
    await arena.registered(blocked)
    blocking = await arena.send({"do": "block", "seconds": 20})
    await arena.running(blocking, "1-block")
    doomed = arena.start("doomed", **DEFAULTS, concurrency=1)
    dropped = await arena.send(arena.gate())
    await arena.running(dropped, "1-hold")
    heir = arena.start("heir", **DEFAULTS)
    await arena.registered(heir)
    doomed.kill()
    died = time.monotonic()
    arena.open_gate()
    execution = await arena.ended_one(blocking, within=40)
    assert arena.runs(blocking) == {"1-block": 1}
    assert (execution.fence, execution.crashes) == (1, 0)
    assert "declared dead" not in blocked.log()
    assert "has not turned" in blocked.log()
    await arena.ended_one(dropped, within=60)
    assert time.monotonic() - died < 40  # 35 s, and what a busy machine adds
    assert arena.runs(dropped) == {"1-hold": 2}
