"""A world for models of flow control: two workers and a sweep over one store, which may die.

Each worker's way to the store takes a varying number of turns of the event loop, so that what they
do at once mixes in every order; and it may die before or after any write, after which it writes
nothing more.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from worchflow_core import Execution, Function, Status, transitions
from worchflow_core.admission import Admission, Admitted
from worchflow_core.app import Worchflow
from worchflow_core.clock import Clock
from worchflow_core.functions import Registry
from worchflow_core.journal import Journal
from worchflow_core.models import FINAL
from worchflow_core.query import Condition, Operator, Query
from worchflow_core.sending import Send, prepare
from worchflow_core.sweeper import Sweeper
from worchflow_core.transitions import Outcome

WRITES = {"create", "claim", "update", "insert", "replace", "delete", "record"}


class Hand(Clock):
    """A clock that is moved by hand, and by a millisecond each time it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.moment = datetime(2030, 1, 31, 9, tzinfo=UTC)
        self.shift(timedelta(0))  # nobody is to measure it

    def now(self) -> datetime:
        return self.moment

    def tick(self) -> None:
        self.moment += timedelta(milliseconds=1)


class Died(Exception):
    """The process ended here."""


@dataclass
class Life:
    """How long a worker lives: `left` writes, of which the last is still made, or not."""

    left: int | None = None
    is_last_made: bool = True
    is_over: bool = False


class Shaky:
    """A part of a store, on the way to which a worker may be delayed, or die."""

    def __init__(self, real: Any, life: Life, chance: random.Random) -> None:
        self._real = real
        self._life = life
        self._chance = chance

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._real, name)
        if name == "records":
            return Shaky(member, self._life, self._chance)
        if not asyncio.iscoroutinefunction(member):
            return member
        return lambda *args, **kwargs: self._call(name, lambda: member(*args, **kwargs))

    async def _call(self, name: str, call: Callable[[], Awaitable[Any]]) -> Any:
        life = self._life
        for _ in range(self._chance.randrange(3)):
            await asyncio.sleep(0)
        if life.is_over:
            raise Died
        if name in WRITES and life.left is not None:
            life.left -= 1
            life.is_over = life.left < 0
            if life.is_over and not life.is_last_made:
                raise Died
        answer = await call()
        for _ in range(self._chance.randrange(3)):
            await asyncio.sleep(0)
        if life.is_over:
            raise Died
        return answer


@dataclass
class Hands:
    """One worker: what it runs, and what it has left of its life."""

    name: str
    life: Life
    journal: Journal
    admission: Admission
    running: dict[str, Admitted] = field(default_factory=dict)


class World:
    """Two workers over one store.

    Args:
        app: an open application in memory; its worker does not run.
        functions: what the workers know.
        seed: decides in which order they get through to the store.
    """

    def __init__(self, app: Worchflow, functions: Sequence[Function[Any, Any]], seed: int) -> None:
        self.app = app
        self.clock = Hand()
        self.chance = random.Random(seed)
        self.registry = Registry(functions)
        self.function = functions[0]
        self.store = app.journal.store
        self.sent: list[str] = []
        self.begun: list[str] = []
        self.born = 0
        self.workers = [self.worker(), self.worker()]
        self.check: Callable[[], None] = lambda: None

    def worker(self) -> Hands:
        self.born += 1
        life = Life()
        store = Shaky(self.store, life, self.chance)
        journal = Journal(store, self.app.journal.queue, None, self.app.plugins, self.clock)
        admission = Admission(journal, self.registry)
        return Hands(name=f"w{self.born}", life=life, journal=journal, admission=admission)

    # --- what may happen ------------------------------------------------------------------------

    async def send(self, data: Any) -> str:
        self.clock.tick()
        name = f"x{len(self.sent):03d}"
        event = Send(function=self.function, data=data, id=name)
        execution, _ = prepare(
            event, self.registry, now=self.clock.now(), has_hint=False, max_payload=10_000
        )
        await self.store.create([execution])
        self.sent.append(name)
        return name

    async def claim(self, number: int, many: int) -> None:
        """Let a worker claim, and begin what is let in."""
        worker = self.workers[number]

        async def work() -> None:
            claimed = await worker.journal.claim(
                worker.name, self.registry.ids, limit=many, ids=None
            )
            for item in await worker.admission.admit(claimed):
                worker.running[item.execution.id] = item
                self.begun.append(item.execution.id)
                self.check()

        await self._alive(number, work)

    async def end(self, number: int, status: Status = Status.COMPLETED) -> None:
        """Let what a worker has run longest end."""
        worker = self.workers[number]
        if not worker.running:
            return
        execution_id = next(iter(worker.running))
        execution = worker.running[execution_id].execution

        async def work() -> None:
            outcome = Outcome(
                status=status,
                result='"done"' if status is Status.COMPLETED else None,
                due_at=self.clock.now() if status in (Status.RETRYING, Status.SLEEPING) else None,
            )
            change = transitions.settle(execution, outcome, now=self.clock.now())
            worker.running.pop(execution_id)  # its code has ended, whatever is stored of it
            done = await worker.journal.update([(execution, change)])
            for _, after in done:
                await worker.admission.leave(after)

        await self._alive(number, work)

    async def tend(self, number: int) -> None:
        await self._alive(number, self.workers[number].admission.tend)

    async def cancel(self, place: int) -> None:
        if self.sent:
            execution_id = self.sent[place % len(self.sent)]
            (execution,) = await self.store.get([execution_id])
            if execution.owner is None and execution.status not in FINAL:
                await self.store.update(
                    [transitions.request_cancel(execution, now=self.clock.now())]
                )

    async def _alive(self, number: int, work: Callable[[], Awaitable[None]]) -> None:
        """Do something as a worker; where it dies over it, another takes its place."""
        worker = self.workers[number]
        try:
            await work()
        except (Died, asyncio.CancelledError):
            assert worker.life.is_over
        if worker.life.is_over:
            worker.running.clear()
            self.workers[number] = self.worker()

    async def bury(self) -> None:
        """Release what dead workers own, and cancel what they were to, as the sweep does."""
        alive = tuple(worker.name for worker in self.workers)
        sweeper = Sweeper(self.workers[0].journal, self.registry, self.app.settings)

        async def work() -> None:
            owned = await self.store.find(
                Query(where=(Condition("owner", Operator.NOT_IN, alive),), limit=1000)
            )
            await sweeper._release(owned.items)
            await sweeper._cancel()

        await self._alive(0, work)

    # --- the end --------------------------------------------------------------------------------

    async def finish(self, *, rounds: int = 400) -> dict[str, Execution]:
        """Let nobody die any more, and work until all have ended; fail where some never do."""
        for worker in self.workers:
            worker.life.left = None
        for _ in range(rounds):
            found = {item.id: item for item in await self.store.get(self.sent)}
            if all(item.status in FINAL for item in found.values()):
                return found
            await self.bury()
            await self.workers[0].admission.tend()
            for number in (0, 1):
                await self.claim(number, 5)
            for number in (0, 1):
                while self.workers[number].running:
                    await self.end(number)
            self.clock.moment += timedelta(milliseconds=200)
        stuck = [item for item in found.values() if item.status not in FINAL]
        raise AssertionError(f"{len(stuck)} never ended: {stuck[:2]}")
