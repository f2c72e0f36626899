"""The store in one SQLite file: what each method writes or reads is in the file of its noun."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self, TypeVar

from worchflow_core import (
    Beat,
    Change,
    Condition,
    Created,
    Execution,
    Finding,
    Page,
    Query,
    Records,
    Status,
    StepRecord,
    Tally,
    Worker,
)
from worchflow_plugins.sqlite import executions as _executions
from worchflow_plugins.sqlite import queries, workers
from worchflow_plugins.sqlite import steps as _steps
from worchflow_plugins.sqlite.checking import examined
from worchflow_plugins.sqlite.handle import Handle
from worchflow_plugins.sqlite.place import mode_of, path_of
from worchflow_plugins.sqlite.records import SqliteRecords
from worchflow_plugins.sqlite.writer import Kind

T = TypeVar("T")

# In the order in which one commit runs them: an execution before its steps, a step before the
# change that ends its attempt, and that before others look for what is free.
_CREATE = Kind(10, _executions.create)
_RECORD = Kind(20, _steps.record)
_UPDATE = Kind(30, _executions.update)
_BURY = Kind(40, workers.bury)
_DRAIN = Kind(42, workers.drain)
_DELETE = Kind(50, _executions.delete)
_CLAIM = Kind(70, _executions.claim)

_PIECE = 1_000


class SqliteStore:
    """Executions, steps, workers and records in one file, for the processes of one machine.

    Args:
        path: the file, or a URL of the scheme `sqlite:`; one that ends in `?mode=rw` creates no
            file either, and one that ends in `?mode=ro` takes no writes.
        create: whether a missing file is created; else entering raises `StoreUnavailable`.
    """

    def __init__(self, path: str, *, create: bool = True) -> None:
        self.path = path_of(path)
        mode = mode_of(path)
        self._file = Handle(self.path, create=create and mode == "rwc", is_reader=mode == "ro")
        self._records = SqliteRecords(self._file)

    async def __aenter__(self) -> Self:
        """Open the file, creating what is missing."""
        await self._file.open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Commit what waits and close the file."""
        await self._file.close()

    def describe(self) -> str:
        """Return kind and place."""
        return f"sqlite  {self.path}"

    async def check(self) -> Sequence[Finding]:
        """Examine every page of the file, its log, and where it lies; takes a second per GB."""
        return await self._file.read(examined, self.path)

    @property
    def records(self) -> Records:
        """The records kept in this store."""
        return self._records

    async def create(self, executions: Sequence[Execution]) -> Sequence[Created]:
        """Insert executions; answer for each, in order."""
        answers: list[Created] = []
        for piece, weight in _pieces(executions, _executions.weight):
            answers += await self._file.write(_CREATE, piece, weight=weight)
        return answers

    async def claim(
        self,
        owner: str,
        functions: Collection[str],
        *,
        limit: int,
        now: datetime,
        ids: Collection[str] | None = None,
    ) -> Sequence[Execution]:
        """Take up to `limit` claimable executions, higher priority first, then oldest due."""
        if not functions or limit < 1 or (ids is not None and not ids):
            return []
        asked = _executions.Claim(owner=owner, functions=functions, limit=limit, now=now, ids=ids)
        taken: list[Execution] = await self._file.write(_CLAIM, asked, weight=limit)
        return taken

    async def record(self, steps: Sequence[StepRecord]) -> Sequence[StepRecord | None]:
        """Store steps write-once; answer for each with the record that now stands."""
        answers: list[StepRecord | None] = []
        for piece, weight in _pieces(steps, _steps.weight):
            answers += await self._file.write(_RECORD, piece, weight=weight)
        return answers

    async def update(self, changes: Sequence[Change]) -> Collection[str]:
        """Apply compare-and-sets, each by itself; return the ids that were refused."""
        refused: set[str] = set()
        for piece, weight in _pieces(changes, _executions.change_weight):
            refused |= await self._file.write(_UPDATE, piece, weight=weight)
        return refused

    def beat(self, worker: Worker, *, lease: timedelta) -> Beat:
        """Renew a worker's lease; blocks, on a connection of its own."""
        return self._file.database.beat(lambda connection: workers.beat(connection, worker, lease))

    async def workers(self) -> Sequence[Worker]:
        """Return all workers, dead ones included."""
        return await self._file.read(workers.read)

    async def bury(self, worker_ids: Collection[str], *, overdue: timedelta) -> Collection[str]:
        """Declare dead those whose lease ended `overdue` ago; return all that are dead."""
        dead: set[str] = await self._file.write(_BURY, (worker_ids, overdue))
        return dead

    async def drain(self, worker_ids: Collection[str], *, now: datetime) -> None:
        """Ask workers to stop taking work; their next beat brings it to them."""
        await self._file.write(_DRAIN, (worker_ids, now))

    async def get(self, ids: Collection[str]) -> Sequence[Execution]:
        """Return the executions that exist among these ids."""
        return await self._file.read(queries.get, ids)

    async def steps(self, execution_ids: Collection[str]) -> Mapping[str, Sequence[StepRecord]]:
        """Return the steps by execution id, in order of `seq`, then `started_at`."""
        return await self._file.read(_steps.read, execution_ids)

    async def find(self, query: Query) -> Page:
        """Answer a query."""
        return await self._file.read(queries.find, query)

    async def stats(self) -> Mapping[Status, int]:
        """Count executions by status."""
        return await self._file.read(queries.stats)

    async def tally(self, where: Sequence[Condition], *, bucket: timedelta) -> Sequence[Tally]:
        """Count ended executions by function, status and `finished_at` rounded down."""
        return await self._file.read(queries.tally, where, bucket)

    async def delete(self, ids: Collection[str]) -> Collection[str]:
        """Delete final executions and their steps; return the ids that are gone."""
        gone: set[str] = set()
        for piece, weight in _pieces(list(ids), lambda _: 1):
            gone |= await self._file.write(_DELETE, piece, weight=weight)
        return gone


def _pieces(items: Sequence[T], weigh: Callable[[T], int]) -> Iterator[tuple[Sequence[T], int]]:
    """Yield a long batch in pieces with their weights: no commit may keep others for long."""
    start = total = 0
    for end, item in enumerate(items):
        total += weigh(item)
        if total >= _PIECE:
            yield items[start : end + 1], total
            start, total = end + 1, 0
    if total:
        yield items[start:], total
