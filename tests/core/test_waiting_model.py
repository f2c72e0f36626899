"""Waits against a simple model: whatever is sent when, and whoever dies, no event is lost.

One execution waits again and again. Events are sent before, during and after its waits; attempts
and senders die between two writes; time passes. The model knows one rule: a wait receives the
oldest event that fits and that no earlier wait has received, and is told that there is none only
if there is none.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.support import application
from worchflow_core import Event, Execution, Status, Step, Worchflow, function, transitions
from worchflow_core.admission import Admission
from worchflow_core.attempt import Attempt, Surroundings
from worchflow_core.clock import Clock
from worchflow_core.control import look_again
from worchflow_core.lease import Lease
from worchflow_core.notebook import Notebook
from worchflow_core.subscriptions import Subscriptions
from worchflow_core.sweeper import Sweeper
from worchflow_core.threads import ThreadPool

TIMEOUT = 60
ROUNDS = 4


class Hand(Clock):
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.moment = datetime(2030, 1, 31, 9, tzinfo=UTC)
        self.shift(timedelta(0))  # nobody is to measure it

    def now(self) -> datetime:
        return self.moment


@function(id="collects", retries=0)
async def collects(event: Event[Any], step: Step) -> Any:
    """In each round wait for an event of either kind, at the same time."""
    found = []
    for number in range(ROUNDS):
        waits = [
            step.wait_for_event(f"{number} {kind}", "number", match={"kind": kind}, timeout=TIMEOUT)
            for kind in (0, 1)
        ]
        found += [answer.id if answer else None for answer in await asyncio.gather(*waits)]
    return found


class SenderDied(Exception):
    """The process of a sender ended between two writes."""


@dataclass
class Play:
    """One execution, its mailbox, and what the model knows of them."""

    app: Worchflow
    clock: Hand
    around: Surroundings
    sent: list[tuple[str, int]] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    told: set[str] = field(default_factory=set)

    async def execution(self) -> Execution:
        return await self.app.client.get("x")

    async def send(self, kind: int, *, to_all: bool, dies: bool) -> None:
        name = f"e{len(self.sent)}"
        self.sent.append((name, kind))

        def die(point: str) -> None:
            if dies and point == "after_event_insert":
                raise SenderDied

        self.app.journal.reach = die
        data = {"kind": kind}
        with suppress(SenderDied):
            if to_all:
                await self.app.client.send_event("number", data, id=name)
            else:
                await self.app.client.signal("x", "number", data, id=name)
        self.app.journal.reach = lambda point: None

    async def attempt(self, *, dies: str, between: tuple[int, ...]) -> None:
        """Claim and run the execution, if it is due; it dies before its settle, or after it."""
        journal = self.app.journal
        claimed = await journal.claim("w", ["collects"], limit=1, ids=None)
        if not claimed:
            return
        (execution,) = claimed
        steps = await journal.load_steps(claimed)
        attempt = Attempt(collects, execution, steps.get("x", ()), self.around)
        outcome = await attempt.run()
        assert outcome is not None
        await self.compare()
        for kind in between:
            await self.send(kind, to_all=False, dies=False)
        now = self.clock.now()
        if dies == "before":
            change = transitions.release_crashed(
                execution, now=now, max_crashes=99, has_grown=True, has_hint=False
            )
            await journal.update([(execution, change)])
            return
        change = transitions.settle(execution, outcome, now=now)
        settled = await journal.settle(execution, change, self.around.lease)
        assert settled is not None
        if settled.waits and dies != "after":
            await look_again(attempt.book, journal, settled)

    async def sweep(self) -> None:
        self.clock.moment += timedelta(seconds=3)
        app = self.app
        await Sweeper(app.journal, app.registry, app.settings).repair()

    async def compare(self) -> None:
        """Hold what was recorded since the last time against the model."""
        steps = await self.app.client.steps("x")
        for step in steps:
            if step.step_id in self.told:
                continue
            self.told.add(step.step_id)
            expected = self.expected(int(step.title.split()[1]))
            body = json.loads(step.result or "{}")
            assert body.get("event") == expected, (step.title, body, self.sent, self.taken)
            if expected is not None:
                self.taken.append(expected)

    def expected(self, kind: int) -> str | None:
        """Return what a wait for this kind receives now."""
        fitting = (name for name, of in self.sent if of == kind and name not in self.taken)
        return next(fitting, None)

    async def finish(self) -> None:
        """Let everybody do what is left to do: nothing may be stuck."""
        for _ in range(ROUNDS * 8):
            await self.sweep()
            await self.attempt(dies="", between=())
            execution = await self.execution()
            if execution.status.is_final:
                break
            open_kinds = await self.open_kinds()
            if all(self.expected(kind) is None for kind in open_kinds):
                self.clock.moment += timedelta(seconds=TIMEOUT)
            elif execution.due_at is not None:
                assert execution.due_at <= self.clock.now(), "an event is there, and wakes nobody"
        execution = await self.execution()
        assert execution.status is Status.COMPLETED, execution
        result = json.loads(execution.result or "[]")
        received = [name for name in result if name is not None]
        assert sorted(received) == sorted(self.taken)
        assert len(set(received)) == len(received)

    async def open_kinds(self) -> set[int]:
        """Return which kinds the round that goes on still waits for."""
        done = {step.title for step in await self.app.client.steps("x")}
        for number in range(ROUNDS):
            missing = {kind for kind in (0, 1) if f"{number} {kind}" not in done}
            if missing:
                return missing
        return set()


KIND = st.integers(0, 1)
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), KIND, st.booleans(), st.booleans()),
        st.tuples(
            st.just("attempt"),
            st.sampled_from(["", "", "before", "after"]),
            st.lists(KIND, max_size=2).map(tuple),
        ),
        st.tuples(st.just("time"), st.sampled_from([1, 20, TIMEOUT])),
        st.tuples(st.just("sweep")),
    ),
    max_size=24,
)


@settings(max_examples=120, deadline=None)
@given(operations=OPERATIONS)
def test_a_wait_receives_what_the_model_says(operations: list[tuple[Any, ...]]) -> None:
    asyncio.run(played(operations))


async def played(operations: list[tuple[Any, ...]]) -> None:
    """Play one story to its end."""
    async with application(collects, url=f"memory://{uuid.uuid4().hex}") as app:
        clock = app.journal.clock = Hand()
        lease = Lease(timedelta(days=1), clock)
        lease.confirm(clock.lease_time())
        functions, steps = ThreadPool(1, "function"), ThreadPool(1, "step")
        around = Surroundings(
            journal=app.journal,
            lease=lease,
            plugins=app.plugins,
            settings=app.settings,
            registry=app.registry,
            subscriptions=Subscriptions(app.registry, app.journal.store.records),
            functions=functions,
            steps=steps,
            notebook=Notebook(app.journal.store.records),
            admission=Admission(app.journal, app.registry),
            resources={},
        )
        play = Play(app, clock, around)
        await app.client.send(collects, None, id="x")
        for word, *details in operations:
            if (await play.execution()).status.is_final:
                break
            match word:
                case "send":
                    await play.send(details[0], to_all=details[1], dies=details[2])
                case "attempt":
                    await play.attempt(dies=details[0], between=details[1])
                case "time":
                    clock.moment += timedelta(seconds=details[0])
                case _:
                    await play.sweep()
        await play.finish()
        functions.close()
        steps.close()
