"""Walk the crash table: let a process die in every gap, alone and beside another worker.

`python -m tests.faults.crash_matrix` prints the table; it exits with 1 unless every cell ends as
it should.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.faults.arena import Arena, Place
from tests.faults.checker import check
from tests.faults.crash_table import ROWS, Row, Victim
from tests.faults.processes import WorkerProcess
from worchflow_core import Execution, Status
from worchflow_core.crashpoints import EXIT_CRASHED
from worchflow_core.testing.fixtures import with_database
from worchflow_core.testing.servers import MongoServer, RedisServer

AT_ONCE = 8
"""Cells under way at once: they mostly wait for leases to end."""
_PAUSES = (Status.SLEEPING, Status.WAITING)
_LATE = {"sweep_interval": "3s"}
"""For a neighbour that must not be the first to sweep."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cell:
    """One crash.

    Attributes:
        row: where.
        backend: `sqlite` or `servers`.
        is_alone: the crashed process is started again; else another worker was there all along.
    """

    row: Row
    backend: str
    is_alone: bool

    @property
    def name(self) -> str:
        """Name it for people."""
        return f"{self.backend}, {self.row.gap}, {'alone' if self.is_alone else 'beside another'}"


def cells(backends: Sequence[str]) -> list[Cell]:
    """Return all cells there are on these backends."""
    return [
        Cell(row=row, backend=backend, is_alone=is_alone)
        for row in ROWS
        for backend in backends
        if backend != "sqlite" or not row.needs_hints
        for is_alone in (True, False)
    ]


async def walk(
    chosen: Sequence[Cell], directory: Path, urls: Mapping[str, tuple[str, str]]
) -> dict[Cell, str]:
    """Return for each cell what went wrong; an empty text where nothing did.

    Args:
        chosen: the cells to walk.
        directory: for their files.
        urls: store and queue by backend, for those that have servers.
    """
    room = asyncio.Semaphore(AT_ONCE)

    async def one(cell: Cell) -> tuple[Cell, str]:
        name = f"matrix-{uuid.uuid4().hex[:12]}"
        place = Place(directory=directory / name, store_url=f"sqlite:///{directory}/{name}.db")
        if cell.backend in urls:
            store, queue = urls[cell.backend]
            place = replace(
                place, store_url=with_database(store, name), queue_url=queue, prefix=name
            )
        async with room:
            try:
                async with asyncio.timeout(60), Arena(place) as arena:
                    await _Scene(arena, cell).play()
            except Exception as error:
                return cell, f"{type(error).__name__}: {error}"
        return cell, ""

    return dict(await asyncio.gather(*(one(cell) for cell in chosen)))


class _Scene:
    """One cell: bring the process to the gap, see it die, see the rest go on."""

    def __init__(self, arena: Arena, cell: Cell) -> None:
        self.arena = arena
        self.cell = cell
        self.row = cell.row
        self.ids: list[str] = []

    async def play(self) -> None:
        """Raise with what is not as the row says."""
        arena, row = self.arena, self.row
        if not self.cell.is_alone and row.victim is not Victim.SWEEPER:
            await self._busy_neighbour()
        victim = await self._victim()
        code = await victim.exit_code()
        assert code == EXIT_CRASHED, f"it left with {code} instead of dying\n{victim.log()}"
        await self._left()
        arena.open_gate()
        arena.open_gate("neighbour")
        if self.cell.is_alone:
            settings = {"retention": "100ms"} if row.victim is Victim.DELETER else {}
            arena.start("heir", **settings)
        if row.victim is Victim.DELETER:
            await self._gone()
        else:
            await self._as_promised()
        await check(arena)

    # --- before ---------------------------------------------------------------------------------

    async def _busy_neighbour(self) -> None:
        """Start a worker whose hands are full until the crash."""
        arena = self.arena
        settings: dict[str, object] = {"concurrency": 1}
        if self.row.needs_hints:
            settings |= _LATE
        if self.row.victim is Victim.DELETER:
            settings |= {"retention": "100ms", "sweep_interval": "1s"}
        if self.row.point in ("after_place_freed", "after_call"):
            settings |= {"sweep_interval": "1s"}  # else it may call first who is to be called
        blocker = await arena.send(arena.gate("neighbour"))
        arena.start("neighbour", **settings)
        await arena.running(blocker, "1-hold")

    async def _send(self) -> None:
        row = self.row
        for delay in row.delays:
            options = {"delay": delay} if delay else {}
            key = f"cell-{len(self.ids)}"
            self.ids.append(key)
            await self.arena.send(
                *self._steps(),
                function=row.function,
                expect=row.ends,
                execution_id=key,
                **options,
            )

    def _steps(self) -> list[dict[str, object]]:
        gate = self.arena.gate()["gate"]
        return [
            {**step, "gate": gate} if step["do"] in ("hold", "refuse") else step
            for step in self.row.steps
        ]

    async def _victim(self) -> WorkerProcess:
        """Start the process that is to die, and bring it to where it does."""
        match self.row.victim:
            case Victim.SENDER:
                return self._sender()
            case Victim.RETRIER:
                return await self._retrier()
            case Victim.CANCELLER:
                await self._send()
                return self._client("cancel")
            case Victim.INFORMER:
                return await self._informer()
            case Victim.WORKER:
                await self._send()
                return self.arena.start("victim", crash_at=self.row.point)
            case Victim.LEAVER:
                return await self._leaver()
            case Victim.SWEEPER:
                return await self._sweeper()
            case Victim.DELETER:
                return await self._deleter()

    def _sender(self) -> WorkerProcess:
        self.ids.append("cell-0")
        self.arena.expected["cell-0"] = self.row.ends
        return self.arena.start_client(
            "send",
            settings={"crash_at": self.row.point},
            function=self.row.function,
            data={"steps": self._steps()},
            id="cell-0",
        )

    def _client(self, method: str) -> WorkerProcess:
        settings = {"crash_at": self.row.point}
        return self.arena.start_client(method, settings=settings, execution_id=self.ids[0])

    async def _retrier(self) -> WorkerProcess:
        await self._send()
        worker = self.arena.start("first")
        await self.arena.until(self._has_failed, "the first attempt to fail")
        worker.terminate()
        await worker.exit_code()
        self.arena.open_gate()
        self.arena.reopened.add(self.ids[0])
        return self._client("retry")

    async def _informer(self) -> WorkerProcess:
        await self._send()
        worker = self.arena.start("first")
        await self.arena.until(self._waits, "the execution to wait")
        worker.terminate()
        await worker.exit_code()
        settings = {"crash_at": self.row.point}
        return self.arena.start_client(
            "send_event", settings=settings, name=self.row.event, id="cell-event"
        )

    async def _waits(self) -> bool:
        return (await self._now()).status is Status.WAITING

    async def _has_failed(self) -> bool:
        return (await self._now()).status is Status.FAILED

    async def _leaver(self) -> WorkerProcess:
        await self._send()
        worker = self.arena.start("victim", crash_at=self.row.point, grace="0.3s")
        await self.arena.running(self.ids[0], "2-hold")
        worker.terminate()
        return worker

    async def _sweeper(self) -> WorkerProcess:
        await self._send()
        first = self.arena.start("first")
        await self.arena.running(self.ids[0], "2-hold")
        sweeper = self.arena.start("victim", crash_at=self.row.point)
        await self.arena.ready(sweeper)
        if not self.cell.is_alone:
            await self.arena.ready(self.arena.start("neighbour", **_LATE))
        first.kill()
        return sweeper

    async def _deleter(self) -> WorkerProcess:
        await self._send()
        worker = self.arena.start("first")
        await self.arena.ended_one(self.ids[0])
        worker.terminate()
        await worker.exit_code()
        return self.arena.start_deleter("victim", retention="100ms", sweep_interval="50ms")

    # --- after ----------------------------------------------------------------------------------

    async def _now(self) -> Execution:
        (execution,) = await self.arena.store.get(self.ids[:1])
        return execution

    async def _left(self) -> None:
        """See that the process died in the very gap: this is what is left in the store."""
        row = self.row
        others_go_on = row.victim in (Victim.SENDER, Victim.SWEEPER) and not self.cell.is_alone
        if row.needs_hints or others_go_on:
            return  # what it left may be gone already
        execution = await self._now()
        assert execution.status is row.left, f"it left {execution.status}, not {row.left}"
        steps = (await self.arena.store.steps(self.ids[:1])).get(self.ids[0], ())
        # One transaction deletes both where the store has any: nothing is half deleted there.
        stored = 2 if row.victim is Victim.DELETER and self.cell.backend == "sqlite" else row.stored
        assert len(steps) == stored, f"it left {len(steps)} steps, not {stored}"
        if row.subscriber is not None and self.cell.is_alone:
            created = await self.arena.store.get([f"cell-event:{row.subscriber}"])
            assert bool(created) is (row.point == "after_insert"), f"it left {created}"

    async def _as_promised(self) -> None:
        row, arena = self.row, self.arena
        if row.follower is not None:
            fence = len(row.outcomes)
            arena.expected[f"{self.ids[0]}:{row.follower}:{fence}"] = Status.COMPLETED
        if row.subscriber is not None:
            arena.expected[f"cell-event:{row.subscriber}"] = Status.COMPLETED
        if row.victim is Victim.RETRIER:
            arena.expected[f"{self.ids[0]}:on_failure:1"] = Status.COMPLETED
        ended = await arena.ended(*self.ids)
        if row.needs_hints:
            return  # which of them was being noted, and which ran meanwhile, is left to chance
        for execution in ended:
            runs = dict(arena.runs(execution.id))
            assert runs == row.runs, f"its steps ran {runs}, not {row.runs}"
            ended_as = [item.outcome for item in execution.attempts]
            outcomes = tuple(item for item in ended_as if item not in _PAUSES)
            assert outcomes == row.outcomes, f"its attempts ended {outcomes}, not {row.outcomes}"

    async def _gone(self) -> None:
        arena = self.arena

        async def is_gone() -> bool:
            return not await arena.store.get(self.ids)

        await arena.until(is_gone, "the retention to delete it")
        assert not (await arena.store.steps(self.ids)).get(self.ids[0])
        for key in list(arena.expected):  # the neighbour's own is deleted as well
            await arena.until(lambda key=key: _is_gone(arena, key), f"{key} to be deleted")
        arena.expected.clear()


async def _is_gone(arena: Arena, key: str) -> bool:
    return not await arena.store.get([key])


# --- by hand -------------------------------------------------------------------------------------


def main() -> int:
    """Walk everything and print the table."""
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis, mongo = stack.enter_context(RedisServer()), stack.enter_context(MongoServer())
        chosen = cells(["sqlite", "servers"])
        urls = {"servers": (mongo.url, redis.url)}
        results = asyncio.run(walk(chosen, directory, urls))
    _show(results)
    failed = [cell for cell, problem in results.items() if problem]
    for cell in failed:
        _say(f"\n{cell.name}: {results[cell]}")
    seconds = time.monotonic() - began
    _say(f"\n{len(results) - len(failed)} of {len(results)} cells as promised, {seconds:.0f} s")
    return 1 if failed else 0


def _show(results: Mapping[Cell, str]) -> None:
    columns = [(backend, alone) for backend in ("sqlite", "servers") for alone in (True, False)]
    names = ["SQLite alone", "beside", "Redis + MongoDB alone", "beside"]
    width = max(len(row.gap) for row in ROWS)
    _say("  ".join(["the process dies between".ljust(width), *names]))
    by_place = {(cell.row, cell.backend, cell.is_alone): text for cell, text in results.items()}
    for row in ROWS:
        words = []
        for (backend, alone), name in zip(columns, names, strict=True):
            problem = by_place.get((row, backend, alone))
            word = "no gap" if problem is None else "FAILED" if problem else "ok"
            words.append(word.ljust(len(name)))
        _say("  ".join([row.gap.ljust(width), *words]))


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
