"""Forks: a new execution that begins with recorded steps of another, some of them edited.

Its execution is stored first, as one that nobody may claim; then its steps; then it is made ready.
Whoever dies in between leaves one that never runs: forking again with its id goes on, and a sweep
ends it otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from typing import Any, Final
from uuid import uuid4

from worchflow_core.clock import to_millis
from worchflow_core.codec import UNTYPED, Codec, hash_input
from worchflow_core.drift import called_as
from worchflow_core.errors import IdempotencyConflict, InvalidInput, NotAllowed, NotFound
from worchflow_core.functions import Registry
from worchflow_core.identities import FACTS, Slot, step_id_of
from worchflow_core.journal import Journal
from worchflow_core.models import (
    Change,
    Created,
    Execution,
    Failure,
    Payload,
    Status,
    StepRecord,
    StepStatus,
    StepTry,
)
from worchflow_core.stages import Stage
from worchflow_core.transitions import UNTIL_WOKEN
from worchflow_core.undos import UNDO, undone_steps
from worchflow_core.validation import check_execution_id

_PART = 500
_PART_SIZE = 4_000_000
"""How many steps, and characters of their results, are copied in one write at the most."""


class Unchanged(Enum):
    """Says that a fork takes its data from the original: None is data as well."""

    UNCHANGED = "unchanged"


UNCHANGED: Final = Unchanged.UNCHANGED


@dataclass(frozen=True, slots=True, kw_only=True)
class Fork:
    """What is wanted of a fork; the fields are the arguments of `Client.fork`."""

    from_step: str | None = None
    data: Any = UNCHANGED
    results: Mapping[str, Any] = field(default_factory=dict)
    id: str | None = None


def is_half_made(execution: Execution) -> bool:
    """Return whether an execution is a fork that has not all of its steps yet.

    A finished fork's fence begins at 1, so that its first claim reads the steps.
    """
    return (
        execution.forked_from is not None
        and execution.fence == 0
        and execution.status is not Status.COMPLETED
    )


def make_ready(execution: Execution, *, now: datetime) -> Change:
    """Let a fork run that has all of its steps."""
    return Change(
        id=execution.id,
        expect={"status": execution.status, "owner": None, "fence": 0},
        values={
            "status": Status.QUEUED,
            "fence": 1,
            "updated_at": now,
            "due_at": now,
            "hint_at": None,
            "hinted_at": now,
            "handlers_due": False,
            "error": None,
            "finished_at": None,
        },
    )


def abandon(execution: Execution, *, now: datetime) -> Change:
    """End a fork whose maker has died before all of its steps were stored."""
    failure = Failure(
        type="ForkUnfinished",
        message="whoever forked it ended before its steps were copied; forking again with its id "
        "finishes it",
    )
    return Change(
        id=execution.id,
        expect={"status": execution.status, "owner": None, "fence": 0},
        values={
            "status": Status.FAILED,
            "updated_at": now,
            "finished_at": now,
            "error": failure,
            "due_at": None,
            "handlers_due": False,
        },
    )


class Forker:
    """Read an execution, decide what its fork begins with, and store that in a safe order."""

    def __init__(self, journal: Journal, registry: Registry, max_payload: int) -> None:
        self._journal = journal
        self._store = journal.store
        self._registry = registry
        self._max_payload = max_payload

    async def prepare(self, source_id: str, wanted: Fork) -> tuple[Execution, list[StepRecord]]:
        """Return the execution that a fork becomes, and the steps it begins with.

        Raises:
            NotFound: there is no such execution.
            NotAllowed: it is a fork that was not finished.
            InvalidInput: a step is not there or cannot be edited so, or a value cannot be taken.
        """
        found = await self._store.get([source_id])
        if not found:
            raise NotFound(f"no execution {source_id!r} in {self._store.describe()}")
        (source,) = found
        if is_half_made(source):
            raise NotAllowed(
                f"execution {source.id} is itself a fork that was not finished; fork "
                f"{source.forked_from} again"
            )
        recorded = (await self._store.steps([source_id])).get(source_id, ())
        undone = undone_steps(recorded)
        source = _without_undos(source, recorded)
        recorded = [step for step in recorded if step.kind not in (*FACTS, UNDO)]
        edits = self._edits(source, recorded, wanted.results)
        kept = [
            step
            for step in _kept(source, recorded, wanted.from_step, edits)
            if step.step_id not in undone or step.step_id in edits
        ]
        kept_ids = {step.step_id for step in kept}
        for step_id, (name, _) in edits.items():
            if step_id not in kept_ids:
                raise InvalidInput(
                    f"step {name!r} is not before {wanted.from_step!r}, so it runs anew and its "
                    "result cannot be replaced; fork from a later step"
                )
        now = self._journal.clock.now()
        execution = self._execution(source, wanted, edits, now)
        copies = [
            replace(
                _edited(step, edits[step.step_id][1], source) if step.step_id in edits else step,
                execution_id=execution.id,
                execution_created_at=now,
                fence=0,
                kind=called_as(step),  # its effect is the original's, and not the fork's to undo
            )
            for step in kept
        ]
        return execution, copies

    async def store(
        self, execution: Execution, copies: Sequence[StepRecord]
    ) -> tuple[Execution, bool]:
        """Store a fork; return it as it is then, and whether this call has created it.

        Raises:
            IdempotencyConflict: the id stands for something else; it is untouched.
        """
        (created,) = await self._journal.create([execution], are_ready=False)
        if created is Created.CONFLICT:
            raise IdempotencyConflict(
                f"execution {execution.id!r} exists and is another fork or none; choose another "
                "id, or fork as it was done before"
            )
        if created is Created.SAME:
            execution = await self._current(execution)
            if not is_half_made(execution) or execution.status is Status.CANCELLED:
                return execution, False
        for part in _parts(copies, execution):
            if not await self._journal.copy(part):
                return await self._current(execution), False  # another has finished it
        change = make_ready(execution, now=self._journal.clock.now())
        done = await self._journal.update([(execution, change)])
        if not done:
            return await self._current(execution), False
        ((_, ready),) = done
        self._journal.queued([ready])
        return ready, created is Created.NEW

    async def _current(self, execution: Execution) -> Execution:
        found = await self._store.get([execution.id])
        if not found:
            raise NotFound(f"execution {execution.id!r} was deleted while it was being forked")
        return found[0]

    def _execution(
        self, source: Execution, wanted: Fork, edits: _Edits, now: datetime
    ) -> Execution:
        name = source.function
        function = self._registry.get(name)
        payload = source.data
        if wanted.data is not UNCHANGED:
            codec = function.data_codec if function else Codec(UNTYPED, f"event data of {name}")
            payload, _ = codec.encode(codec.coerce(wanted.data), limit=self._max_payload)
        asked = {
            "of": source.id,
            "from": wanted.from_step,
            "data": None if wanted.data is UNCHANGED else payload,
            "results": {step_id: value for step_id, (_, value) in edits.items()},
        }
        return Execution(
            id=str(uuid4()) if wanted.id is None else check_execution_id(wanted.id),
            function=name,
            event=source.event,
            data=payload,
            created_at=now,
            updated_at=now,
            due_at=now + UNTIL_WOKEN,
            retries=function.retry.retries if function else source.retries,
            input_hash=hash_input(name, json.dumps(asked)),
            scheduled_for=source.scheduled_for,
            forked_from=source.id,
            priority=source.priority,
            tags=source.tags,
            headers=source.headers,
            gates_passed=Stage.UNIQUE,  # it was asked for: it is no event that is one too many
            handlers_due=True,  # until it is ready: a sweep looks at what is marked so
        )

    def _edits(
        self, source: Execution, recorded: Sequence[StepRecord], results: Mapping[str, Any]
    ) -> _Edits:
        """Return the new results by step id, checked."""
        if not isinstance(results, Mapping):
            kind = type(results).__name__
            raise InvalidInput(f"results is of type {kind}; give a mapping of titles to values")
        edits: _Edits = {}
        for name, value in results.items():
            matches = _named(recorded, name)
            if not matches:
                raise _unknown(source, recorded, name)
            if len(matches) > 1:
                ids = ", ".join(step.step_id for step in matches)
                raise InvalidInput(
                    f"{len(matches)} steps of execution {source.id} are called {name!r}; name one "
                    f"by its step id: {ids}"
                )
            codec = Codec(UNTYPED, f"result of step {name!r}")
            payload, _ = codec.encode(value, limit=self._max_payload)
            if matches[0].step_id in edits:
                raise InvalidInput(f"the result of step {name!r} is replaced twice")
            _edited(matches[0], payload, source)
            edits[matches[0].step_id] = (name, payload)
        return edits


_Edits = dict[str, tuple[str, Payload]]
"""What a step was called, and its new result, by step id."""


def _kept(
    source: Execution, recorded: Sequence[StepRecord], from_step: str | None, edits: _Edits
) -> list[StepRecord]:
    """Return the steps that a fork keeps: those begun before the one it begins with."""
    if from_step is None:
        last = max((_place(step) for step in recorded if step.step_id in edits), default=None)
        return [step for step in recorded if last is not None and _place(step) <= last]
    matches = _named(recorded, from_step)
    if matches:
        edge = min(_place(step) for step in matches)
        return [step for step in recorded if _place(step) < edge]
    if (tried := _tried(source, from_step)) is not None:
        # It was never stored. What is stored was called before it, unless code has caught its
        # error, or called more beside it.
        return [step for step in recorded if not tried.seq or step.seq < tried.seq]
    raise _unknown(source, recorded, from_step)


def _place(step: StepRecord) -> tuple[int, float]:
    """Return where a step stands; foreign ones, without a number, stand by their time."""
    return (step.seq, to_millis(step.started_at) if step.seq == 0 else 0)


def _named(recorded: Sequence[StepRecord], name: object) -> list[StepRecord]:
    """Return the steps that a text names: a step id, a title, `title#2`, or a key."""
    if not isinstance(name, str) or not name:
        raise InvalidInput(f"{name!r} names no step; give its title, or its step id")
    by_id = [step for step in recorded if step.step_id == name]
    by_title = [step for step in recorded if step.title == name]
    return by_id or by_title or [step for step in recorded if step.step_id == step_id_of(name)]


def _without_undos(source: Execution, recorded: Sequence[StepRecord]) -> Execution:
    """Return an execution without the tries of undos: they are no steps to begin at."""
    ids = {Slot(step.step_id, step.title, step.seq).inner(UNDO).step_id for step in recorded}
    attempts = [
        replace(item, tries=tuple(tried for tried in item.tries if tried.step_id not in ids))
        for item in source.attempts
    ]
    return replace(source, attempts=tuple(attempts))


def _failed(source: Execution) -> list[StepTry]:
    return [item for attempt in source.attempts for item in attempt.tries]


def _tried(source: Execution, name: str) -> StepTry | None:
    """Return the newest try of the step that a text names; of several, that of the first."""
    newest = {item.step_id: item for item in _failed(source)}.values()
    by_name = [item for item in newest if name in (item.title, item.step_id)]
    found = by_name or [item for item in newest if item.step_id == step_id_of(name)]
    return min(found, key=lambda item: item.seq, default=None)


def _unknown(source: Execution, recorded: Sequence[StepRecord], name: str) -> InvalidInput:
    titles = dict.fromkeys(
        [step.title for step in recorded] + [item.title for item in _failed(source)]
    )
    there = ", ".join(repr(title) for title in list(titles)[:20]) or "none"
    more = f" and {len(titles) - 20} more" if len(titles) > 20 else ""
    return InvalidInput(
        f"execution {source.id} has no step {str(name)[:200]!r}; there are: {there}{more}"
    )


def _edited(step: StepRecord, payload: Payload, source: Execution) -> StepRecord:
    """Return a step with another result, in the form that its kind is stored in."""
    value = json.loads(payload)
    body = json.loads(step.result or "null")
    match called_as(step):
        case "run":
            text = payload
        case "wait" if not body.get("timeout"):
            text = json.dumps({**body, "data": value})
        case "invoke":
            child = {"child": body["child"], "status": Status.COMPLETED, "result": value}
            text = json.dumps({**child, "error": None, "message": None, "reason": None})
        case _:
            what = "timed out" if step.kind == "wait" else f"is a {step.kind}"
            raise InvalidInput(
                f"step {step.title!r} of execution {source.id} {what}, so it has no result to "
                "replace; fork from it, or from a step before it"
            )
    ended = step.ended_at or step.started_at
    return replace(step, status=StepStatus.COMPLETED, result=text, ended_at=ended)


def _parts(copies: Sequence[StepRecord], execution: Execution) -> Iterator[list[StepRecord]]:
    """Split steps so that no write gets too large; all name the execution as it is stored."""
    part: list[StepRecord] = []
    size = 0
    for step in copies:
        size += len(step.result or "")
        if part and (len(part) >= _PART or size > _PART_SIZE):
            yield part
            part, size = [], len(step.result or "")
        part.append(replace(step, execution_created_at=execution.created_at))
    if part:
        yield part
