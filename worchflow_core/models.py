"""The records that travel between the core and its backends: frozen, keyword-built, unread.

A payload is JSON text; only `codec.py` reads or writes one. A moment is an aware UTC datetime in
whole milliseconds, a span a timedelta. `wire.py` says how a record looks outside Python.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TypedDict

Payload = str
"""JSON text. Backends move it unread."""


class Status(StrEnum):
    """Where an execution stands. The first five are the original system's words."""

    QUEUED = "queued"
    PROCESSING = "processing"
    RETRYING = "retrying"
    COMPLETED = "completed"
    FAILED = "failed"
    SLEEPING = "sleeping"
    WAITING = "waiting"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether an execution in this status has ended; only an explicit retry reopens it."""
        return self in FINAL


FINAL = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED})
CLAIMABLE = frozenset({Status.QUEUED, Status.RETRYING, Status.SLEEPING, Status.WAITING})
"""The statuses from which an execution may be claimed, once unowned and due."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What went wrong, as data: readable without the class that was raised.

    Attributes:
        type: the exception's class name, qualified by its module outside builtins.
        message: its text, trimmed.
        traceback: the formatted traceback, trimmed; None when there is none.
        cause: what it was raised from.
        reason: why the execution failed: `error`, `timeout`, `worker_lost`, `not_serializable`,
            `non_deterministic`, `not_retriable`, `turned_away`.
        undone: how many of the execution's steps were undone because of it.
    """

    type: str
    message: str
    traceback: str | None = None
    cause: Failure | None = None
    reason: str = "error"
    undone: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTry:
    """A step that was tried and did not succeed; `seq` as of a `StepRecord`, 0 where unknown."""

    step_id: str
    title: str
    started_at: datetime
    ended_at: datetime
    error: Failure | None = None
    seq: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try at an execution, as history keeps it.

    Attributes:
        number: 1 for the first; a crash or a sleep does not raise it.
        worker: the id of the worker that made it.
        started_at: when it was claimed.
        ended_at: when it was settled.
        outcome: the status it was settled with, `crashed` or `released`.
        error: what it ended in, without traceback.
        tries: the steps that failed in it. Steps that succeeded are step records.
    """

    number: int
    worker: str
    started_at: datetime
    ended_at: datetime
    outcome: str
    error: Failure | None = None
    tries: tuple[StepTry, ...] = ()


@dataclass(frozen=True, kw_only=True)  # no slots: a dictionary is copied at once
class Execution:
    """One run to the end of a function for one event, as the store keeps it.

    Attributes:
        id: unique in the store.
        function: the id of the function that runs.
        event: the name of the event that caused it; the function's id unless a trigger matched.
        data: the event's data, JSON text; None when a foreign client wrote none.
        status: where it stands; says nothing about ownership.
        failed_attempts: attempts that ended in an error since the last (re)open.
        retries: how many failures it may survive, as known when it was last settled; for display.
        created_at, updated_at: when it was sent; when its record last changed.
        result: what the function returned, JSON text, once completed.
        error: why the last attempt failed.
        due_at: not before this moment; None counts as due. Only while unowned and unfinished.
        hint_at, hinted_at: when the queue must be told of it, None once it was; when it was last.
        owner: the worker that has it; None when free.
        fence: raised by each claim; the newest wins.
        claimed_at: when the newest claim took it.
        crashes: claims that ended with the worker's death since steps last grew.
        steps_recorded: how many steps the last clean settle counted; None when unknown.
        step_failures: failures per step id, for steps with a retry policy of their own.
        attempts: the newest attempts, oldest first, bounded.
        cancel_requested_at: when somebody asked to cancel it.
        deadline_at: when it fails for good, whatever it is doing.
        waits: wait keys; an event with any of them wakes it.
        input_hash: hash of function and data, to tell a repeated send from a conflict.
        scheduled_for: the tick it was sent for.
        finished_at: when it reached a final status.
        code_version: distribution and version of the function that last ran it.
        parent, forked_from: the execution that invoked it; the one it was forked from.
        priority, tags: higher is claimed first; free labels to filter by.
        headers: small text facts that travel along, such as a trace context.
        handlers_due: what follows its status is still to be done: its handler, children and parent
            of one that has ended; of one that waits, to look whether what it waits for came.
        gates_passed: how many gates of flow control it has passed.
    """

    id: str
    function: str
    event: str | None = None
    data: Payload | None = None
    status: Status = Status.QUEUED
    failed_attempts: int = 0
    retries: int | None = None
    created_at: datetime
    updated_at: datetime
    result: Payload | None = None
    error: Failure | None = None
    due_at: datetime | None = None
    hint_at: datetime | None = None
    hinted_at: datetime | None = None
    owner: str | None = None
    fence: int = 0
    claimed_at: datetime | None = None
    crashes: int = 0
    steps_recorded: int | None = None
    step_failures: Mapping[str, int] = field(default_factory=dict)
    attempts: tuple[Attempt, ...] = ()
    cancel_requested_at: datetime | None = None
    deadline_at: datetime | None = None
    waits: tuple[str, ...] = ()
    input_hash: str | None = None
    scheduled_for: datetime | None = None
    finished_at: datetime | None = None
    code_version: str | None = None
    parent: str | None = None
    forked_from: str | None = None
    priority: int = 0
    tags: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    handlers_due: bool = False
    gates_passed: int = 0


class Fields(TypedDict, total=False):
    """Some fields of an `Execution`, to compare with or to set."""

    data: Payload | None
    status: Status
    failed_attempts: int
    retries: int | None
    updated_at: datetime
    result: Payload | None
    error: Failure | None
    due_at: datetime | None
    hint_at: datetime | None
    hinted_at: datetime | None
    owner: str | None
    fence: int
    claimed_at: datetime | None
    crashes: int
    steps_recorded: int | None
    step_failures: Mapping[str, int]
    attempts: tuple[Attempt, ...]
    cancel_requested_at: datetime | None
    deadline_at: datetime | None
    waits: tuple[str, ...]
    finished_at: datetime | None
    code_version: str | None
    priority: int
    tags: tuple[str, ...]
    headers: Mapping[str, str]
    handlers_due: bool
    gates_passed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A compare-and-set on one execution: where all of `expect` holds, set all of `values`.

    `transitions.py` builds every change there is; a backend only compares and keeps. `expect`
    names only `status`, `owner`, `fence`, `due_at`, `hint_at`, `cancel_requested_at` and
    `handlers_due`, each compared for equality (None also matches a field that is missing).
    """

    id: str
    expect: Fields
    values: Fields


class Created(StrEnum):
    """What `create` found for one execution."""

    NEW = "new"
    SAME = "same"
    CONFLICT = "conflict"


class StepStatus(StrEnum):
    """Whether a recorded step is done; `started` is for `once=True` steps and long waits."""

    STARTED = "started"
    COMPLETED = "completed"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """A step as the store keeps it, write-once.

    Attributes:
        execution_id: the execution it belongs to.
        step_id: MD5 hex of the title, of `title#2` and so on for repeats, or of the `key`.
        title: what people read.
        kind: `run`, `undoable` (a run with an undo), `sleep`, `wait`, `send`, `invoke`, `undo`.
        status: `completed`, or `started` for a step that must not begin twice.
        result: JSON text; None only while `started`.
        seq: the order in which steps of this execution were begun, from 1.
        fence: the claim that recorded it.
        attempt: the attempt that recorded it, from 1.
        started_at, ended_at: when its code ran.
        execution_created_at: tells this execution from a deleted namesake in a cache.
    """

    execution_id: str
    step_id: str
    title: str
    kind: str = "run"
    status: StepStatus = StepStatus.COMPLETED
    result: Payload | None = None
    seq: int = 0
    fence: int = 0
    attempt: int = 1
    started_at: datetime
    ended_at: datetime | None = None
    execution_created_at: datetime


class WorkerState(StrEnum):
    """The life of a worker."""

    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"
    STOPPED = "stopped"
    DEAD = "dead"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningExecution:
    """What a worker is doing in one of its slots, as its last beat told."""

    execution_id: str
    function: str
    step: str | None = None
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A worker process as the store knows it.

    Attributes:
        id: random per process start, and again after it was declared dead.
        name: what people call it: host and process id unless set.
        host, pid, version: where it runs and which Worchflow.
        origin: names its process so that a neighbour can see that it is gone; empty if unknown.
        state: where it stands; a backend sets `dead`, a worker the rest.
        started_at: when it registered.
        concurrency: how many executions it runs at once.
        functions: ids of the functions it has, sorted.
        running: what it is running now.
        beat_at, lease_until: set by the store from its own clock.
        drain_requested_at: somebody asked it to stop taking work.
    """

    id: str
    name: str
    host: str
    pid: int
    version: str
    state: WorkerState
    started_at: datetime
    concurrency: int
    functions: tuple[str, ...]
    origin: str = ""
    running: tuple[RunningExecution, ...] = ()
    beat_at: datetime | None = None
    lease_until: datetime | None = None
    drain_requested_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """What a heartbeat brought back.

    Attributes:
        now: the store's clock.
        is_alive: False when this worker was declared dead or its record is gone.
        cancels: ids of executions it owns that somebody asked to cancel.
        is_drain_requested: somebody asked it to stop taking work.
    """

    now: datetime
    is_alive: bool
    cancels: tuple[str, ...] = ()
    is_drain_requested: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Something small and shared that is neither an execution nor a step.

    Attributes:
        kind: its family: `function`, `event`, `slot`, `schedule`, `token`, `meta`.
        key: unique within the kind; `scan` reads in key order.
        body: JSON text; empty only for `replace`, which then removes the record.
        version: 1 when inserted; `replace` succeeds only over `version - 1`.
    """

    kind: str
    key: str
    body: Payload
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """A word to the queue: look at this execution.

    Attributes:
        execution: the execution to look at, as just written.
        is_misrouted: a worker that lacks its function got it; put it in the function's own lane.
    """

    execution: Execution
    is_misrouted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueView:
    """What a queue says of itself to the sweeper.

    Attributes:
        epoch: changes when the queue lost its memory; the sweeper then refills it.
        head, length: a few ids that will be popped next, oldest first; how many hints it holds.
    """

    epoch: str
    head: tuple[str, ...]
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How many executions of one function ended in one status within one bucket of time."""

    function: str
    status: Status
    start: datetime
    count: int
    total_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of `doctor`: how grave (`ok`, `warning`, `problem`), about what, and a sentence."""

    level: str
    subject: str
    text: str
