"""The space behind a name: what this process holds in memory."""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import RLock
from types import TracebackType
from typing import Self

from worchflow_core import Execution, Finding, Record, StepRecord, Worker


@dataclass(slots=True)
class Space:
    """What one name holds; guarded by `lock`, because beats come from threads of their own.

    Attributes:
        executions: all, by id.
        unended: ids of those that are in no final status.
        steps: by execution id and step id.
        workers, records: by id, and by kind and key.
        hints: function by execution id, oldest first.
        epoch: names this memory to the sweeper.
        sleepers: who waits for a hint, each in its own event loop.
        cached: the step cache's copies, by execution id and step id.
    """

    lock: RLock = field(default_factory=RLock)
    executions: dict[str, Execution] = field(default_factory=dict)
    unended: set[str] = field(default_factory=set)
    steps: dict[str, dict[str, StepRecord]] = field(default_factory=dict)
    workers: dict[str, Worker] = field(default_factory=dict)
    records: dict[tuple[str, str], Record] = field(default_factory=dict)
    hints: OrderedDict[str, str] = field(default_factory=OrderedDict)
    epoch: str = field(default_factory=lambda: secrets.token_hex(8))
    sleepers: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = field(default_factory=set)
    cached: dict[str, dict[str, StepRecord]] = field(default_factory=dict)

    def keep(self, execution: Execution) -> None:
        """Keep an execution as it now is."""
        self.executions[execution.id] = execution
        if execution.status.is_final:
            self.unended.discard(execution.id)
        else:
            self.unended.add(execution.id)


_SPACES: dict[str, Space] = {}
"""Every named space of this process; that they outlive their clients is their purpose."""


class InMemory:
    """What the three backends share: a space, and nothing to open or close."""

    def __init__(self, name: str | None = None) -> None:
        """Use the space `name` of this process, or one of its own when no name is given."""
        self.name = name
        self._space = Space() if name is None else _SPACES.setdefault(name, Space())

    async def __aenter__(self) -> Self:
        """Do nothing: the space is there."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Do nothing: the space stays for others of this process."""

    def describe(self) -> str:
        """Return kind and name."""
        return f"memory  {self.name or '(unnamed)'}, lost when the process ends"

    async def check(self) -> Sequence[Finding]:
        """Return a warning: nothing here is durable."""
        text = "nothing survives the process; use it for tests and trials only"
        return [Finding(level="warning", subject="memory", text=text)]
