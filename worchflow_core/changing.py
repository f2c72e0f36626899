"""Changing executions from outside: cancel, retry, delete, one or many, against running workers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from worchflow_core import transitions
from worchflow_core.errors import NotAllowed, NotFound, WorchflowError
from worchflow_core.forking import is_half_made
from worchflow_core.functions import Registry
from worchflow_core.handlers import follow_up
from worchflow_core.journal import Journal
from worchflow_core.models import Change, Execution, Status

Decision = Callable[[Execution], Change | WorchflowError]
"""Decides for an execution what to change, or why not."""


class Changer:
    """Read, decide, compare-and-set, until each execution was changed or cannot be."""

    def __init__(self, journal: Journal, registry: Registry) -> None:
        self._journal = journal
        self._store = journal.store
        self._registry = registry

    async def one(self, execution_id: str, decide: Decision) -> Execution:
        """Change one execution; raise why it was not."""
        answer = (await self.many([execution_id], decide))[execution_id]
        if isinstance(answer, WorchflowError):
            raise answer
        return answer

    async def many(
        self, ids: Collection[str], decide: Decision, *, known: Sequence[Execution] = ()
    ) -> dict[str, Execution | WorchflowError]:
        """Read, decide, compare-and-set; what changed meanwhile is read and decided anew.

        `known` are the executions of all these ids where they were read just now.
        """
        answers: dict[str, Execution | WorchflowError] = {}
        left = list(dict.fromkeys(ids))
        while left:
            found, known = known or await self._store.get(left), ()
            pairs: list[tuple[Execution, Change]] = []
            for execution in found:
                change = decide(execution)
                if isinstance(change, WorchflowError):
                    answers[execution.id] = change
                else:
                    pairs.append((execution, change))
            there = {execution.id for execution in found}
            for item in left:
                if item not in there:
                    place = self._store.describe()
                    answers[item] = NotFound(f"no execution {item!r} in {place}")
            done = await self._journal.update(pairs)
            answers.update({before.id: after for before, after in done})
            ended = [after for _, after in done if after.status.is_final and after.handlers_due]
            if ended:
                await follow_up(ended, self._registry, self._journal)
            left = [item for item in left if item not in answers]
        return answers

    def cancelled(self, execution: Execution) -> Change | WorchflowError:
        """Decide to cancel an execution, unless it has ended."""
        if execution.status.is_final:
            return NotAllowed(f"execution {execution.id} is {execution.status} already")
        return transitions.request_cancel(execution, now=self._journal.clock.now())

    def reopened(self, execution: Execution) -> Change | WorchflowError:
        """Decide to queue an execution again, if it failed or was cancelled."""
        if is_half_made(execution):
            return NotAllowed(
                f"execution {execution.id} is a fork that was not finished, so it has not all of "
                f"its steps; fork {execution.forked_from} again"
            )
        if execution.status not in (Status.FAILED, Status.CANCELLED):
            return NotAllowed(
                f"execution {execution.id} is {execution.status}; "
                "only a failed or cancelled one can be retried"
            )
        if execution.error is not None and execution.error.undone:
            return NotAllowed(
                f"execution {execution.id} has failed and its steps were undone; send the event "
                "anew, or fork it from a step before those"
            )
        return transitions.reopen(execution, now=self._journal.clock.now())

    async def delete(self, ids: Collection[str]) -> Mapping[str, WorchflowError]:
        """Delete ended executions and their steps; return the reason for each that was not."""
        found = {item.id: item for item in await self._store.get(ids)} if ids else {}
        ended = [key for key, item in found.items() if item.status.is_final]
        gone = await self._journal.delete(ended) if ended else ()
        errors: dict[str, WorchflowError] = {}
        for key in ids:
            if key not in found:
                errors[key] = NotFound(f"no execution {key!r} in {self._store.describe()}")
            elif key not in gone:
                status = found[key].status
                errors[key] = NotAllowed(f"execution {key} is {status}; cancel it first")
        return errors
