"""The contracts a backend fulfils: `Queue`, `Store` with its `Records`, and `StepCache`.

All are async context managers: entering connects and creates schema and indexes, leaving closes
what was opened. Writes are plural and may be repeated. Policy (what to retry, when, what a crash
means) lives in the core; a backend keeps and compares. Every method that talks to a server raises
`StoreUnavailable` (a store) or `ConnectionError` (queue, step cache) when it cannot be reached.

`worchflow_core.testing.contracts` holds one test class per contract: subclass it for yours.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Protocol, Self

from worchflow_core.models import (
    Beat,
    Change,
    Created,
    Execution,
    Finding,
    Hint,
    QueueView,
    Record,
    Status,
    StepRecord,
    Tally,
    Worker,
)
from worchflow_core.query import Condition, Page, Query


class Backend(Protocol):
    """What all backends share: entering opens, leaving closes, `describe` says where."""

    async def __aenter__(self) -> Self:
        """Connect, and create what is missing; raise `StoreUnusable` rather than alter data."""

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close what this object opened itself; connections a caller handed in stay open."""

    def describe(self) -> str:
        """Return one line for people: kind, place, no password ("sqlite  /data/worchflow.db")."""

    async def check(self) -> Sequence[Finding]:
        """Examine the backend for `doctor`; never changes anything."""


class Queue(Backend, Protocol):
    """Carry hints from senders to workers.

    A queue may lose, repeat or reorder hints: a lost one costs latency, an extra one a claim that
    finds nothing. It must not block while it holds a hint somebody may have.

    Attributes:
        keeps_hints: False when nothing is stored and `push` only wakes waiting workers; the core
            then neither hints delayed work nor looks for lost hints.
    """

    keeps_hints: bool

    async def push(self, hints: Sequence[Hint]) -> None:
        """Tell workers to look at these executions; called after the store has them."""

    async def pop(
        self, functions: Collection[str], *, limit: int, wait: timedelta
    ) -> Sequence[str]:
        """Return up to `limit` execution ids, waiting at most `wait` for the first.

        Returning nothing is always allowed: the worker then claims straight from the store. Ids
        of other functions may be returned; the worker pushes them back as misrouted.

        Raises:
            ConfigurationError: no worker may use this queue as it is, which ends the worker; all
            other errors only make it ask the store instead.
        """

    async def mirror(self, executions: Sequence[Execution]) -> None:
        """Keep what outside readers see beside the queue up to date; may do nothing."""

    async def view(self) -> QueueView | None:
        """Describe the queue to the sweeper; None when it keeps no hints."""


class StepCache(Backend, Protocol):
    """Keep copies of recorded steps near the workers; losing them costs time, never correctness."""

    async def get_all(self, executions: Sequence[Execution]) -> Mapping[str, Sequence[StepRecord]]:
        """Return the cached steps by execution id; leave out executions nothing is known of.

        Entries whose `execution_created_at` differs from the execution's belong to a namesake
        that was deleted, and must not be returned.
        """

    async def put(self, steps: Sequence[StepRecord]) -> None:
        """Keep copies of steps that the store has accepted."""

    async def drop(self, execution_ids: Collection[str]) -> None:
        """Forget, or let expire soon, the steps of executions that ended."""


class Records(Protocol):
    """Keep all that is small, shared, and neither an execution nor a step."""

    async def insert(self, records: Sequence[Record]) -> Collection[str]:
        """Insert records whose (kind, key) is new; return the keys that were."""

    async def replace(self, records: Sequence[Record]) -> Collection[str]:
        """Replace each record whose stored version is `version - 1`; return the keys refused.

        A record whose body is empty removes what it replaces; what is gone already is not refused.
        """

    async def delete(self, kind: str, keys: Collection[str]) -> None:
        """Delete records; missing ones are no error."""

    async def scan(
        self, kind: str, *, after: str = "", until: str | None = None, limit: int = 100
    ) -> Sequence[Record]:
        """Return records of a kind in key order, keys greater than `after` and below `until`."""

    async def kinds(self) -> Collection[str]:
        """Return the kinds of which there are records; what moves a store must know them all."""


class Store(Backend, Protocol):
    """Keep executions, steps, workers and records: the only lock and the only truth.

    A write that returned is durable. An execution is *claimable* exactly when it has no owner,
    its status is queued, retrying, sleeping or waiting, its `due_at` has come (None counts as
    due), and its `cancel_requested_at` is None.
    """

    @property
    def records(self) -> Records:
        """The records kept in this store."""

    async def create(self, executions: Sequence[Execution]) -> Sequence[Created]:
        """Insert executions; answer for each, in order.

        NEW: it was inserted. SAME: the id exists with the same function and `input_hash`; nothing
        was touched. CONFLICT: the id exists otherwise; nothing was touched.
        """

    async def claim(
        self,
        owner: str,
        functions: Collection[str],
        *,
        limit: int,
        now: datetime,
        ids: Collection[str] | None = None,
    ) -> Sequence[Execution]:
        """Take up to `limit` claimable executions of these functions for `owner`.

        Atomically per execution: set `owner`, status processing, `claimed_at` and `updated_at` to
        `now`, raise `fence` by one, clear `due_at` and `hint_at`. With `ids` only among those;
        without, higher priority first, then oldest due. Two callers never get one execution.
        Returns the executions as they now are.
        """

    async def record(self, steps: Sequence[StepRecord]) -> Sequence[StepRecord | None]:
        """Store steps write-once; answer for each, in order, with the record that now stands.

        A step that is already there is returned as it stands, whoever wrote it; only a `started`
        one of the same fence gives way to `completed`. None: refused, because the execution is
        gone or, in stores that can tell within the write, the step's fence is not the newest.
        """

    async def update(self, changes: Sequence[Change]) -> Collection[str]:
        """Apply compare-and-sets, each by itself; return the ids that were refused.

        A change whose own earlier, unanswered try was applied must not be reported as refused.
        """

    def beat(self, worker: Worker, *, lease: timedelta) -> Beat:
        """Renew a worker's lease by the store's own clock. Blocking, on a connection of its own.

        Called from the heart's thread, never from the event loop, so that code which blocks the
        loop cannot stop it. State `starting` registers the worker; `stopped` removes its record,
        a dead one's too; anything else updates a record that must exist and not be dead (else
        `is_alive` is False).
        """

    async def workers(self) -> Sequence[Worker]:
        """Return all workers, dead ones included, with `beat_at` and `lease_until`."""

    async def bury(self, worker_ids: Collection[str], *, overdue: timedelta) -> Collection[str]:
        """Declare dead those of these workers whose lease ended `overdue` ago by the store's clock.

        A negative `overdue` also takes those whose lease ends within that span: the sweeper knows
        for certain that their processes have ended.

        Returns the ids that are now dead or were before. A buried worker's next beat tells it so.
        """

    async def drain(self, worker_ids: Collection[str], *, now: datetime) -> None:
        """Ask workers to stop taking work; their next beat brings it to them."""

    async def get(self, ids: Collection[str]) -> Sequence[Execution]:
        """Return the executions that exist among these ids, in any order."""

    async def steps(self, execution_ids: Collection[str]) -> Mapping[str, Sequence[StepRecord]]:
        """Return the steps by execution id, in order of `seq`, then `started_at`."""

    async def find(self, query: Query) -> Page:
        """Answer a query; every condition in use is served by an index."""

    async def stats(self) -> Mapping[Status, int]:
        """Count executions by status; may be a second old, must stay cheap with a million."""

    async def tally(self, where: Sequence[Condition], *, bucket: timedelta) -> Sequence[Tally]:
        """Count ended executions by function, status and `finished_at` rounded down to `bucket`.

        `where` holds a SINCE on finished_at, and may hold BEFORE on it and EQUAL on function.
        Buckets start at the epoch; `total_seconds` adds up created to finished.
        """

    async def delete(self, ids: Collection[str]) -> Collection[str]:
        """Delete final executions, their steps first; return the ids that are gone."""
