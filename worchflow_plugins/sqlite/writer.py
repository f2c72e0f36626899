"""The writer: one thread per process and file, and one commit for all that waits.

What arrives while a commit is under way leaves with the next, so that under load hundreds of
writes share one sync of the disk, and on a quiet system nothing waits.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import apsw

from worchflow_core import StoreUnavailable, StoreUnusable
from worchflow_plugins.sqlite.connection import begin, rolled_back
from worchflow_plugins.sqlite.faults import as_input_error, as_store_error, forked

MOST_WEIGHT = 8_000
"""How much one commit takes on: rows, each weighing one more per KiB it carries."""

_PAUSE = 0.0003


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of write: all waiting members of one kind are run by one call.

    Attributes:
        rank: kinds of a commit run in this order; a step goes before the end of its execution.
        run: given the members of several callers, returns an answer for each caller.
    """

    rank: int
    run: Callable[[apsw.Connection, Sequence[Any]], Sequence[Any]]


@dataclass(slots=True, eq=False)
class _Operation:
    """What one caller asked for, and where the answer goes."""

    kind: Kind
    member: Any
    weight: int
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    answer: Any = None
    error: BaseException | None = field(default=None)


class Writer:
    """Take writes from any event loop of this process and commit them together.

    Args:
        path: the file, for messages.
        connect: opens a connection; called anew after the disk reported an error.
        verify: raises when the file is no longer the one that was opened.
        gate: held while a commit is under way.
    """

    def __init__(
        self,
        path: str,
        *,
        connect: Callable[[], apsw.Connection],
        verify: Callable[[], None],
        gate: threading.Lock,
    ) -> None:
        self._path = path
        self._connect = connect
        self._verify = verify
        self._gate = gate
        self._connection: apsw.Connection | None = None
        self._waiting: deque[_Operation] = deque()
        self._is_needed = threading.Condition()
        self._is_stopping = False
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._run, name="worchflow-sqlite", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Commit what waits, end the thread and close the connection."""
        with self._is_needed:
            self._is_stopping = True
            self._is_needed.notify()
        if self._thread.ident is not None:
            self._thread.join()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def write(self, kind: Kind, member: Any, *, weight: int = 1) -> Any:
        """Return the answer to one write once it is durable.

        The write happens even when the caller is cancelled while it waits.
        """
        if os.getpid() != self._pid:
            raise forked(self._path, self._pid)
        loop = asyncio.get_running_loop()
        operation = _Operation(kind, member, weight, loop, loop.create_future())
        with self._is_needed:
            if self._is_stopping:
                raise StoreUnavailable(f"{self._path} was closed; open it before writing")
            self._waiting.append(operation)
            self._is_needed.notify()
        return await operation.future

    def _run(self) -> None:
        while batch := self._next_batch():
            with self._gate:
                self._commit(batch)
            _deliver(batch)
            if self._waiting:
                # A gap in which other processes can begin: they are waiting, we need not know.
                time.sleep(_PAUSE)

    def _next_batch(self) -> list[_Operation]:
        """Wait for work; return what one commit takes on, nothing when it is time to end."""
        with self._is_needed:
            while not self._waiting and not self._is_stopping:
                self._is_needed.wait()
            batch: list[_Operation] = []
            weight = 0
            while self._waiting and (not batch or weight < MOST_WEIGHT):
                operation = self._waiting.popleft()
                weight += operation.weight
                batch.append(operation)
        return batch

    def _commit(self, batch: list[_Operation]) -> None:
        """Run a batch in one transaction; where a member is bad, each in one of its own."""
        try:
            self._transact(batch)
        except Exception as error:
            fault = as_store_error(error, self._path) or _already(error)
            if fault is not None:
                for operation in batch:
                    operation.error = fault
                    operation.error.__cause__ = error if fault is not error else None
            elif len(batch) == 1:
                batch[0].error = as_input_error(error)
            else:
                for operation in batch:
                    self._commit([operation])

    def _transact(self, batch: list[_Operation]) -> None:
        self._verify()
        if self._connection is None:
            self._connection = self._connect()
        try:
            begin(self._connection)
            for _, group in itertools.groupby(sorted(batch, key=_rank), key=_rank):
                operations = list(group)
                answers = operations[0].kind.run(
                    self._connection, [operation.member for operation in operations]
                )
                for operation, answer in zip(operations, answers, strict=True):
                    operation.answer = answer
            self._connection.execute("COMMIT")
        except BaseException as error:
            self._connection = rolled_back(self._connection, error)
            raise


def _rank(operation: _Operation) -> int:
    return operation.kind.rank


def _already(error: BaseException) -> BaseException | None:
    """Return an error that says already what it means."""
    return error if isinstance(error, (StoreUnavailable, StoreUnusable)) else None


def _deliver(batch: list[_Operation]) -> None:
    """Hand answers to their callers, waking each event loop once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Operation]] = {}
    for operation in batch:
        by_loop.setdefault(operation.loop, []).append(operation)
    for loop, operations in by_loop.items():
        try:
            loop.call_soon_threadsafe(_settle, operations)
        except RuntimeError:
            continue  # that loop was closed meanwhile: nobody waits there any more


def _settle(operations: list[_Operation]) -> None:
    for operation in operations:
        if operation.future.done():
            continue
        if operation.error is not None:
            operation.future.set_exception(operation.error)
        else:
            operation.future.set_result(operation.answer)
