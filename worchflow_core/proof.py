"""The proof of what a store holds: counts and a checksum that no order of reading changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from worchflow_core.models import Execution
from worchflow_core.protocols import Store
from worchflow_core.query import Query
from worchflow_core.wire import execution_to_wire, step_to_wire

PAGE = 200
"""How many executions are read at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What a store holds: two stores with equal proofs hold the same.

    Attributes:
        executions, steps: how many.
        checksum: of the wire forms of all of them, in whatever order they are read.
    """

    executions: int
    steps: int
    checksum: str

    def __str__(self) -> str:
        return f"{self.executions:,} executions, {self.steps:,} steps, {self.checksum[:16]}"


async def prove(store: Store, form: Callable[[Execution], Execution] = lambda item: item) -> Proof:
    """Return the proof of what a store holds, each execution in the form given."""
    executions = steps = total = 0
    async for page in pages(store):
        recorded = await store.steps([item.id for item in page])
        for item in page:
            executions += 1
            total += _sum(wire_text(form(item)))
            for step in recorded.get(item.id, ()):
                steps += 1
                total += _sum(_text(step_to_wire(step)))
    return Proof(executions=executions, steps=steps, checksum=f"{total % 2**256:064x}")


async def pages(store: Store) -> AsyncIterator[Sequence[Execution]]:
    """Yield all executions of a store, oldest first."""
    after: tuple[datetime, str] | None = None
    while items := (await store.find(Query(descending=False, after=after, limit=PAGE))).items:
        yield items
        after = (items[-1].created_at, items[-1].id)


def wire_text(execution: Execution) -> str:
    """Return an execution as a text that is equal for equal ones."""
    return _text(execution_to_wire(execution))


def _text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def _sum(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")
