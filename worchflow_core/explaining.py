"""Explaining: read what is to be known of an execution, for the reasons why it is not running."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from worchflow_core import catalog, lines, pauses
from worchflow_core.clock import to_millis
from worchflow_core.facts import Facts, Reason, waited_children
from worchflow_core.journal import Journal
from worchflow_core.lines import Line
from worchflow_core.lookup import read_record
from worchflow_core.models import CLAIMABLE, Execution, StepRecord
from worchflow_core.protocols import Store
from worchflow_core.query import Condition, Operator, Query


async def read_facts(execution: Execution, journal: Journal, max_crashes: int) -> Facts:
    """Return what is to be known of an execution; what cannot matter to it is not read."""
    store, now = journal.store, journal.clock.now()
    if execution.status.is_final:
        return Facts(execution=execution, now=now)
    workers = await store.workers()
    facts = Facts(
        execution=execution,
        now=now,
        workers=workers,
        max_crashes=max_crashes,
        keeps_hints=journal.queue.keeps_hints,
    )
    if execution.owner is not None:
        is_limited = execution.deadline_at is not None  # what is being undone has no deadline
        return replace(facts, steps=await _steps(execution, store)) if is_limited else facts
    children = waited_children(execution)
    found = await store.get(children) if children else ()
    known = await catalog.read(store.records)
    paused = await pauses.paused(store.records)
    return Facts(
        execution=execution,
        now=now,
        steps=await _steps(execution, store),
        workers=workers,
        children={item.id: item for item in found},
        functions=tuple(item.id for item in known),
        pause=paused.get(execution.function),
        lines=await _lines(execution, journal),
        ahead=await _ahead(facts, paused, journal),
        keeps_hints=journal.queue.keeps_hints,
        queue_trouble=await _queue_trouble(facts, journal),
        max_crashes=max_crashes,
    )


async def _steps(execution: Execution, store: Store) -> Sequence[StepRecord]:
    return (await store.steps([execution.id])).get(execution.id, ())


async def _lines(execution: Execution, journal: Journal) -> Mapping[str, Line]:
    found: dict[str, Line] = {}
    for key in execution.waits:
        name, _ = lines.parted(key)
        record = await read_record(journal.store.records, lines.KIND, name) if name else None
        if record is not None:
            found[key] = lines.line_of(name, record.body)
    return found


async def _ahead(facts: Facts, paused: Collection[str], journal: Journal) -> int | None:
    """Return how many executions the same workers are to take first, where one is due."""
    execution = facts.execution
    if not facts.is_due or execution.due_at is None:
        return None
    having = [item for item in facts.live if execution.function in item.functions]
    there = sorted({name for worker in having for name in worker.functions})
    names = pauses.open_functions(there, paused)
    if not names:
        return None
    query = Query(
        where=(
            Condition("status", Operator.IN, tuple(sorted(CLAIMABLE))),
            Condition("function", Operator.IN, names),
            Condition("due_at", Operator.BEFORE, execution.due_at),
        ),
        order="due_at",
        descending=False,
        limit=1,
        counted=True,
    )
    return (await journal.store.find(query)).total


async def _queue_trouble(facts: Facts, journal: Journal) -> str | None:
    if not facts.is_due or not facts.keeps_hints:
        return None
    try:
        await journal.queue.view()
    except Exception as error:  # whatever is wrong with a queue is worth a word here, and no more
        return f"{type(error).__name__}: {error}"
    return None


def reason_to_wire(reason: Reason) -> dict[str, Any]:
    """Return a reason as a JSON-able mapping: camelCase names, moments as epoch milliseconds."""
    facts = {_camel(name): _plain(value) for name, value in reason.facts.items()}
    return {"code": reason.code, "text": reason.text, "facts": facts}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return to_millis(value)
    return list(value) if isinstance(value, tuple) else value


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)
