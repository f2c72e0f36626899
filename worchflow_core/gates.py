"""Gates: what every gate of flow control is, and the ways to give an execution back at one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from datetime import datetime
from typing import Protocol, TypeVar

from worchflow_core import holding
from worchflow_core.functions import Registry
from worchflow_core.handlers import follow_up
from worchflow_core.journal import Journal
from worchflow_core.limits import FlowControl, digest_of, value_of
from worchflow_core.models import Change, Execution, Failure, Status
from worchflow_core.stages import Stage

OptionT = TypeVar("OptionT")


class Gate(Protocol):
    """A gate that an execution passes once in its life."""

    @property
    def stage(self) -> Stage:
        """Which gate it is."""

    async def pass_through(self, coming: Sequence[Execution]) -> Collection[str]:
        """Give back who may not pass now, and return the ids of who may.

        Everybody who comes was just claimed, and may have been here before.
        """


class Doorman:
    """Find out what a function allows, and give executions back that may not run yet, or never.

    Args:
        journal: where everything is written.
        registry: the functions, whose options say what is allowed.
    """

    def __init__(self, journal: Journal, registry: Registry) -> None:
        self.journal = journal
        self.registry = registry

    def flow(self, execution: Execution) -> FlowControl | None:
        """Return what an execution's function asks of flow control, if anything."""
        function = self.registry.get(execution.function)
        return None if function is None else function.flow

    async def by_key(
        self,
        coming: Sequence[Execution],
        what: str,
        option: Callable[[FlowControl], OptionT | None],
        pass_one: Callable[[str, Sequence[Execution], OptionT], Awaitable[Collection[str]]],
    ) -> Collection[str]:
        """Return who passes: who has no such option, and who `pass_one` lets in, key by key."""
        passed: set[str] = set()
        groups: dict[str, tuple[OptionT, list[Execution]]] = {}
        for item in coming:
            flow = self.flow(item)
            chosen = None if flow is None else option(flow)
            if chosen is None:
                passed.add(item.id)
                continue
            key = key_of(item, what, getattr(chosen, "key", None))
            groups.setdefault(key, (chosen, []))[1].append(item)
        answers = await asyncio.gather(
            *(pass_one(key, group, chosen) for key, (chosen, group) in groups.items())
        )
        return passed.union(*answers)

    async def park(
        self,
        parked: Iterable[tuple[Execution, str]],
        stage: Stage,
        status: Status = Status.QUEUED,
    ) -> None:
        """Let executions wait until they are called by their wait keys."""
        now = self.journal.clock.now()
        await self._give_back(
            [
                (
                    item,
                    holding.park(
                        item,
                        now=now,
                        key=key,
                        gates_passed=max(item.gates_passed, stage),
                        status=status,
                    ),
                )
                for item, key in parked
            ]
        )

    async def put_off(self, turns: Iterable[tuple[Execution, datetime]], stage: Stage) -> None:
        """Let executions come again at their moments."""
        now = self.journal.clock.now()
        await self._give_back(
            [
                (
                    item,
                    holding.put_off(
                        item,
                        now=now,
                        until=until,
                        gates_passed=max(item.gates_passed, stage),
                        has_hint=self.journal.queue.keeps_hints,
                    ),
                )
                for item, until in turns
            ]
        )

    async def turn_away(self, over: Iterable[tuple[Execution, str]], kind: str) -> None:
        """Cancel executions, each for a reason that people can read."""
        now = self.journal.clock.now()
        pairs = [
            (
                item,
                holding.turn_away(
                    item, now=now, failure=Failure(type=kind, message=why, reason="turned_away")
                ),
            )
            for item, why in over
        ]
        if pairs:
            self.journal.reach("after_gate")
            ended = [after for _, after in await self.journal.update(pairs)]
            await follow_up(ended, self.registry, self.journal)

    async def let_in(self, passed: Sequence[Execution]) -> list[Execution]:
        """Note that executions have passed their gates for good; return those still ours."""
        done = await self.journal.update(
            [(item, holding.let_in(item, gates_passed=max(Stage))) for item in passed],
            is_quiet=True,
        )
        return [after for _, after in done]

    async def _give_back(self, pairs: Sequence[tuple[Execution, Change]]) -> None:
        if pairs:
            self.journal.reach("after_gate")
            await self.journal.update(pairs, is_quiet=True)


def key_of(execution: Execution, what: str, path: str | None) -> str:
    """Return the key of a limit: which function, which limit, and for which value."""
    return f"{execution.function}|{what}|{digest_of(value_of(path, execution.data))}"


def age(execution: Execution) -> tuple[datetime, str]:
    """Return the key by which executions are ordered, the oldest first."""
    return (execution.created_at, execution.id)
