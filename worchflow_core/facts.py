"""Facts: what is known of an execution that is asked about, and the reason that follows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from worchflow_core.lines import FAR, Line
from worchflow_core.liveness import is_live
from worchflow_core.models import CLAIMABLE, Execution, StepRecord, Worker
from worchflow_core.pauses import Pause
from worchflow_core.words import human_age

_CHILD = "child:"
_DIGEST = re.compile(r":[0-9a-f]{24}$")
"""The end of the wait key of an event whose data has to match."""

_NAMED = 5
"""How many workers, executions or names a sentence lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One reason why an execution is where it is.

    Attributes:
        code: a word for programs, such as `no_worker` or `retry_later`.
        text: a sentence for people.
        facts: what it rests on: texts, numbers, booleans, aware datetimes, and lists of these.
    """

    code: str
    text: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of an execution when it is asked about.

    Attributes:
        execution: as the store has it.
        now: the store's time.
        steps: all that is recorded of it, also what is no step of its own.
        workers: all that the store knows, dead ones included.
        children: those it waits for that are there, by id.
        functions: ids of the functions that somebody has described.
        pause: the pause of its function.
        lines: the lines of flow control it waits in, by wait key.
        ahead: how many executions are due before it; None where that was not asked.
        keeps_hints: a queue tells workers what to look at; else they ask the store.
        queue_trouble: why the queue cannot be asked.
        max_crashes: how many deaths of workers it survives, as this process is set.
    """

    execution: Execution
    now: datetime
    steps: Sequence[StepRecord] = ()
    workers: Sequence[Worker] = ()
    children: Mapping[str, Execution] = field(default_factory=dict)
    functions: Sequence[str] = ()
    pause: Pause | None = None
    lines: Mapping[str, Line] = field(default_factory=dict)
    ahead: int | None = None
    keeps_hints: bool = False
    queue_trouble: str | None = None
    max_crashes: int | None = None

    @property
    def live(self) -> list[Worker]:
        """The workers that live."""
        return [worker for worker in self.workers if is_live(worker, self.now)]

    @property
    def is_free(self) -> bool:
        """Whether it has not ended and no worker has it."""
        return self.execution.status in CLAIMABLE and self.execution.owner is None

    @property
    def is_due(self) -> bool:
        """Whether a worker may take it now, as far as its own record says."""
        due = self.execution.due_at
        is_asked = self.execution.cancel_requested_at is not None
        return self.is_free and not is_asked and (due is None or due <= self.now)

    @property
    def is_timed(self) -> bool:
        """Whether its due time is a moment that comes, rather than a call that may come."""
        due = self.execution.due_at
        return due is not None and self.now < due < self.now + FAR

    def age(self, moment: datetime) -> str:
        """Return how long ago a moment was, or how soon it comes."""
        return human_age(moment, self.now)

    def soon(self, moment: datetime) -> str:
        """Return how soon a moment comes; one that has just passed is now."""
        return self.age(max(moment, self.now))


Aspect = Callable[[Facts], Iterator[Reason]]
"""Looks at the facts and gives its reasons, or none."""


def waited_children(execution: Execution) -> list[str]:
    """Return the ids of the executions whose end an execution waits for."""
    return [
        key.removeprefix(_CHILD)
        for key in execution.waits
        if key.startswith(_CHILD) and not _is_of_event(key, execution)
    ]


def waited_events(execution: Execution) -> dict[str, bool]:
    """Return the names of the events that an execution waits for, each with whether data counts."""
    events: dict[str, bool] = {}
    for key in execution.waits:
        if "|" in key or (key.startswith(_CHILD) and not _is_of_event(key, execution)):
            continue
        address = _DIGEST.sub("", key)
        name = address.removesuffix(f"@{execution.id}")
        events[name] = events.get(name, False) or address != key
    return events


def _is_of_event(key: str, execution: Execution) -> bool:
    """Return whether a key is one of the two under which an event is awaited, whatever its name."""
    own = f"@{execution.id}"
    address = _DIGEST.sub("", key)
    twin = f"{address}{own}{key.removeprefix(address)}"
    return address.endswith(own) or twin in execution.waits


def listed(names: Sequence[str]) -> str:
    """Return the first of some names, and how many more there are."""
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
