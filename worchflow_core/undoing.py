"""Undoing: an execution that fails for good takes back, last first, what its steps have done.

What begins with a record, write-once, of why: from then on no attempt goes forward again. A later
attempt runs the function only to meet its recorded steps, and with them their undos, once more.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from worchflow_core.annotations import is_async
from worchflow_core.errors import RetryAfter, WorchflowError
from worchflow_core.failures import failure_of, is_final, message_of, trim
from worchflow_core.identities import UNDOING, Slot
from worchflow_core.journal import Journal
from worchflow_core.lease import Lease
from worchflow_core.models import Failure, StepRecord, StepTry
from worchflow_core.retries import RetryPolicy
from worchflow_core.signals import ControlSignal, Superseded
from worchflow_core.speaker import running_step
from worchflow_core.stepbook import StepBook
from worchflow_core.threads import ThreadPool
from worchflow_core.undos import BEGUN, TITLE, UNDO, Undo, begun_body, reason_of, undo_failure
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
        slot = Slot(BEGUN, "Undoing", self._next_seq)
        body = begun_body(failure, self._book.tries)
        await self._record(self._book.fact(slot, UNDOING, body, None))
        self._journal.reach("after_undoing")
        return reason_of(self._book.recorded) or failure

    async def undo(self, failure: Failure) -> Undone:
        """Run the undos that are not recorded yet, the last step's first.

        Raises:
            Superseded: a newer claim has this execution.
            ControlSignal: this worker is leaving, or somebody has cancelled the execution.
        """
        book = self._book
        missing = book.undos.missing()
        if missing and (again_at := self._again_at(BEGUN, None)) is not None:
            return Undone(failure=failure, again_at=again_at)
        for undo in sorted(book.undos.met.values(), key=lambda item: -item.slot.seq):
            slot = undo.slot.inner(UNDO)
            slot = Slot(slot.step_id, TITLE.format(undo.slot.title)[:256], self._next_seq)
            if slot.step_id in book.recorded:
                continue
            book.check()
            again_at = await self._one(slot, undo)
            if again_at is not None:
                return Undone(failure=failure, again_at=again_at)
        return Undone(failure=self._summed_up(failure, missing))

    def _summed_up(self, failure: Failure, missing: list[StepRecord]) -> Failure:
        """Return why the execution fails, with how much of it was undone and what could not be."""
        undos = [step for step in self._book.recorded.values() if step.kind == UNDO]
        lost = [(step, found) for step in undos if (found := undo_failure(step)) is not None]
        told = [
            f"{step.title.removeprefix(TITLE.format(''))!r} could not be undone: {found.message}"
            for step, found in lost
        ]
        told += [
            f"{step.title!r} could not be undone: the function no longer comes to it, or gives it "
            "no undo"
            for step in missing
        ]
        message = trim("; ".join((failure.message, *told)))
        return replace(failure, message=message, undone=len(undos) - len(lost))

    async def _one(self, slot: Slot, undo: Undo) -> datetime | None:
        """Run and record one undo; return when to try it again, None where it is over."""
        book = self._book
        began = book.clock.now()
        book.current = slot.title
        book.speaker.met(slot.step_id)
        token = running_step.set((book.execution.id, slot.step_id, slot.title))
        lost: Failure | None = None
        try:
            await self._scoped(slot, undo)
        except ControlSignal:
            raise
        except BaseException as raised:  # user code may raise anything; the worker goes on
            error = self._tamed(raised, slot)
            lost = self._note(slot, error, began)
            again_at = self._again_at(slot.step_id, error)
            if again_at is not None:
                return again_at
            logger.error("execution %s: %s failed for good", book.execution.id, slot.title)
        finally:
            running_step.reset(token)
            book.current = None
        body = "null" if lost is None else json.dumps(failure_to_wire(lost), ensure_ascii=False)
        record = replace(book.fact(slot, UNDO, body, None), started_at=began)
        await self._record(record)
        return None

    def _tamed(self, raised: BaseException, slot: Slot) -> Exception:
        """Return what an undo raised as an error; raise where it was this attempt that was cut."""
        if isinstance(raised, Exception):
            return raised
        task = asyncio.current_task()
        if isinstance(raised, asyncio.CancelledError) and task is not None and task.cancelling():
            raise raised
        error = WorchflowError(f"{slot.title} raised {type(raised).__name__}: {message_of(raised)}")
        error.__cause__ = raised
        return error

    def _note(self, slot: Slot, error: Exception, began: datetime) -> Failure:
        book = self._book
        failure = failure_of(error)
        tried = StepTry(
            step_id=slot.step_id,
            title=slot.title,
            started_at=began,
            ended_at=book.clock.now(),
            error=failure,
        )
        book.tries.append(tried)
        if book.plugins.hears("worchflow_step_failed"):
            book.plugins.notify("worchflow_step_failed", execution=book.execution, step=tried)
        return failure

    def _again_at(self, step_id: str, error: Exception | None) -> datetime | None:
        """Count one more failure, and return when to try again; None where no try is left."""
        book = self._book
        failures = book.step_failures.get(step_id, 0) + 1
        book.step_failures[step_id] = failures
        if failures > self._retry.retries or (error is not None and is_final(error)):
            return None
        if isinstance(error, RetryAfter):
            return book.clock.now() + error.delay
        return book.clock.now() + self._retry.delay(failures, random.random())

    @property
    def _next_seq(self) -> int:
        return 1 + max((step.seq for step in self._book.recorded.values()), default=0)

    async def _scoped(self, slot: Slot, undo: Undo) -> None:
        book = self._book
        async with AsyncExitStack() as stack:
            if book.plugins.wraps("worchflow_step_scope"):
                for scope in book.plugins.step_scopes(book.execution, slot.title):
                    await stack.enter_async_context(scope)
            await self._call(undo.code, undo.read())

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
