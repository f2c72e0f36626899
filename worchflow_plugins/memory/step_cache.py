"""The step cache in memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from worchflow_core import Execution, StepRecord
from worchflow_plugins.memory.space import InMemory


class MemoryStepCache(InMemory):
    """Copies of steps, by execution id and step id."""

    async def get_all(self, executions: Sequence[Execution]) -> Mapping[str, Sequence[StepRecord]]:
        """Return the cached steps of these very executions, not of deleted namesakes."""
        found = {}
        with self._space.lock:
            for execution in executions:
                steps = [
                    step
                    for step in self._space.cached.get(execution.id, {}).values()
                    if step.execution_created_at == execution.created_at
                ]
                if steps:
                    found[execution.id] = steps
        return found

    async def put(self, steps: Sequence[StepRecord]) -> None:
        """Keep copies of steps that the store has accepted."""
        with self._space.lock:
            for step in steps:
                self._space.cached.setdefault(step.execution_id, {})[step.step_id] = step

    async def drop(self, execution_ids: Collection[str]) -> None:
        """Forget the steps of executions that ended."""
        with self._space.lock:
            for key in execution_ids:
                self._space.cached.pop(key, None)
