"""Undoing: an execution that fails for good takes back, last first, what its steps have done.

What begins with a record, write-once, of why: from then on no attempt goes forward again. A later
attempt runs the function only to meet its recorded steps, and with them their undos, once more.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from worchflow_core.annotations import is_async
from worchflow_core.failures import failure_of, is_final
from worchflow_core.identities import UNDOING, Slot
from worchflow_core.journal import Journal
from worchflow_core.lease import Lease
from worchflow_core.models import Failure, StepRecord, StepTry
from worchflow_core.retries import RetryPolicy
from worchflow_core.signals import Superseded
from worchflow_core.speaker import running_step
from worchflow_core.stepbook import StepBook
from worchflow_core.threads import ThreadPool
from worchflow_core.undos import BEGUN, UNDO, Undo, reason_of
from worchflow_core.wire import failure_to_wire

logger = logging.getLogger("worchflow")


@dataclass(frozen=True, slots=True, kw_only=True)
class Undone:
    """How far undoing has come.

    Attributes:
        failure: why the execution fails, with what could not be undone.
        again_at: when to go on, after an undo that failed; None where all is done.
    """

    failure: Failure
    again_at: datetime | None = None


class Undoer:
    """Undo what the steps of one attempt have done.

    Args:
        book: the attempt's steps.
        journal: where undos are recorded.
        lease: whether this worker may write.
        threads: where plain undos run.
        retry: how often and how soon an undo that fails is tried again.
    """

    def __init__(
        self,
        book: StepBook,
        journal: Journal,
        lease: Lease,
        threads: ThreadPool,
        retry: RetryPolicy,
    ) -> None:
        self._book = book
        self._journal = journal
        self._lease = lease
        self._threads = threads
        self._retry = retry

    async def begin(self, failure: Failure) -> Failure:
        """Record why all is undone, and return the reason that stands.

        Raises:
            Superseded: a newer claim has this execution.
        """
        body = json.dumps({"failure": failure_to_wire(failure)}, ensure_ascii=False)
        slot = Slot(BEGUN, "Undoing", self._next_seq)
        await self._record(self._book.fact(slot, UNDOING, body, None))
        self._journal.reach("after_undoing")
        return reason_of(self._book.recorded) or failure

    async def undo(self, failure: Failure) -> Undone:
        """Run the undos that are not recorded yet, the last step's first.

        Raises:
            Superseded: a newer claim has this execution.
            ControlSignal: this worker is leaving, or somebody has cancelled the execution.
        """
        count = 0
        lost: list[str] = []
        for undo in sorted(self._book.undos.values(), key=lambda item: -item.slot.seq):
            slot = undo.slot.inner(UNDO)
            slot = Slot(slot.step_id, f"Undo {undo.slot.title}"[:256], self._next_seq)
            if slot.step_id not in self._book.recorded:
                self._book.check()
                again_at = await self._one(slot, undo)
                if again_at is not None:
                    return Undone(failure=failure, again_at=again_at)
            error = json.loads(self._book.recorded[slot.step_id].result or "null")
            count += error is None
            if error is not None:
                lost.append(f"{undo.slot.title!r} could not be undone: {error['message']}")
        message = "; ".join((failure.message, *lost))
        return Undone(failure=replace(failure, message=message, undone=count))

    async def _one(self, slot: Slot, undo: Undo) -> datetime | None:
        """Run and record one undo; return when to try it again, None where it is over."""
        book = self._book
        began = book.clock.now()
        book.current = slot.title
        token = running_step.set((book.execution.id, slot.step_id, slot.title))
        lost: Failure | None = None
        try:
            await self._call(undo.code, undo.value)
        except Exception as error:
            lost = failure_of(error)
            tried = StepTry(
                step_id=slot.step_id,
                title=slot.title,
                started_at=began,
                ended_at=book.clock.now(),
                error=lost,
            )
            book.tries.append(tried)
            failures = book.step_failures.get(slot.step_id, 0) + 1
            book.step_failures[slot.step_id] = failures
            if failures <= self._retry.retries and not is_final(error):
                return book.clock.now() + self._retry.delay(failures, random.random())
            logger.error("execution %s: %s failed for good", book.execution.id, slot.title)
        finally:
            running_step.reset(token)
            book.current = None
        body = "null" if lost is None else json.dumps(failure_to_wire(lost), ensure_ascii=False)
        record = replace(book.fact(slot, UNDO, body, None), started_at=began)
        await self._record(record)
        return None

    @property
    def _next_seq(self) -> int:
        return 1 + max((step.seq for step in self._book.recorded.values()), default=0)

    async def _call(self, code: Callable[[Any], Any], value: Any) -> None:
        if is_async(code):
            await code(value)
            return
        answer = await self._threads.run(code, value)
        if hasattr(answer, "__await__"):
            await answer

    async def _record(self, record: StepRecord) -> None:
        stands = await self._journal.record(self._book.execution, record, self._lease)
        if stands is None:
            raise Superseded("a newer claim has this execution")
        self._book.recorded[record.step_id] = stands
