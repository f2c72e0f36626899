"""Recording steps, write-once, and reading them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pymongo import ReplaceOne
from pymongo.asynchronous.collection import AsyncCollection

from worchflow_core import StepRecord, StepStatus, step_from_wire
from worchflow_plugins.mongo.connection import Connection
from worchflow_plugins.mongo.documents import Document, step_document
from worchflow_plugins.mongo.indexes import ID
from worchflow_plugins.mongo.inserts import check_size, insert

_Key = tuple[str, str]
_STARTED = StepStatus.STARTED.value


class Steps:
    """The documents of `steps`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def _steps(self) -> AsyncCollection[Any]:
        return self._connection.collection("steps")

    async def record(self, steps: Sequence[StepRecord]) -> Sequence[StepRecord | None]:
        """Store steps write-once; answer for each with the record that now stands."""
        answers: list[StepRecord | None] = [None] * len(steps)
        for positions in _without_repeats(steps):
            stands = await self._record([steps[position] for position in positions])
            for position, answer in zip(positions, stands, strict=True):
                answers[position] = answer
        return answers

    async def of(self, execution_ids: Collection[str]) -> Mapping[str, Sequence[StepRecord]]:
        """Return the steps by execution id, in order of `seq`, then `started_at`."""
        found: dict[str, list[StepRecord]] = {}
        cursor = self._steps.find({"executionId": {"$in": list(execution_ids)}}, batch_size=10_000)
        async for document in cursor:
            step = step_from_wire(document)
            found.setdefault(step.execution_id, []).append(step)
        for items in found.values():
            items.sort(key=lambda step: (step.seq, step.started_at))
        return found

    async def _record(self, steps: Sequence[StepRecord]) -> list[StepRecord | None]:
        documents = []
        for step in steps:
            document = step_document(step)
            check_size(document, f"the result of step {step.title!r}", step.result)
            documents.append(document)
        ids = {step.execution_id for step in steps}
        inserted, existing = await asyncio.gather(
            insert(self._steps, documents), self._existing(ids)
        )
        answers: list[StepRecord | None] = list(steps)
        if len(existing) < len(ids):
            orphans = []
            for position, step in enumerate(steps):
                if step.execution_id not in existing:
                    answers[position] = None
                    if position not in inserted.present:
                        orphans.append(documents[position]["_id"])
            await self._steps.delete_many({"_id": {"$in": orphans}})
        present = [item for item in inserted.present if answers[item] is not None]
        if present:
            stands = await self._adopt([steps[item] for item in present], documents, present)
            for position, answer in zip(present, stands, strict=True):
                answers[position] = answer
        return answers

    async def _existing(self, ids: Collection[str]) -> set[str]:
        """Return which executions exist; answered from the index alone."""
        cursor = self._connection.collection("executions").find(
            {"id": {"$in": list(ids)}}, {"_id": 0, "id": 1}, hint=list(ID.key),
            batch_size=len(ids) + 1,
        )  # fmt: skip
        return {item["id"] for item in await cursor.to_list()}

    async def _adopt(
        self, steps: Sequence[StepRecord], documents: Sequence[Document], positions: Sequence[int]
    ) -> list[StepRecord | None]:
        """Answer for steps that were there already; complete what the same claim started."""
        standing = await self._standing(steps)
        completing = [
            ReplaceOne(
                {**_filter(step), "status": _STARTED, "fence": step.fence},
                {name: value for name, value in documents[position].items() if name != "_id"},
            )
            for step, position in zip(steps, positions, strict=True)
            if step.status is StepStatus.COMPLETED
            and (found := standing.get((step.execution_id, step.step_id))) is not None
            and found.status is StepStatus.STARTED
            and found.fence == step.fence
        ]
        if completing:
            await self._steps.bulk_write(completing, ordered=False)
            standing = await self._standing(steps)
        return [standing.get((step.execution_id, step.step_id)) for step in steps]

    async def _standing(self, steps: Sequence[StepRecord]) -> dict[_Key, StepRecord]:
        wanted = {
            "executionId": {"$in": list({step.execution_id for step in steps})},
            "stepId": {"$in": list({step.step_id for step in steps})},
        }
        cursor = self._steps.find(wanted, batch_size=10_000)
        found = [step_from_wire(item) for item in await cursor.to_list()]
        return {(item.execution_id, item.step_id): item for item in found}


def _filter(step: StepRecord) -> Document:
    return {"executionId": step.execution_id, "stepId": step.step_id}


def _without_repeats(steps: Sequence[StepRecord]) -> list[list[int]]:
    """Split positions so that no step is twice in one part, and each step's keep their order."""
    keys = [(step.execution_id, step.step_id) for step in steps]
    if len(set(keys)) == len(keys):
        return [list(range(len(keys)))] if keys else []
    parts: list[list[int]] = []
    seen: dict[_Key, int] = {}
    for position, key in enumerate(keys):
        number = seen[key] = seen.get(key, -1) + 1
        if number == len(parts):
            parts.append([])
        parts[number].append(position)
    return parts
