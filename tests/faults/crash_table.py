"""The crash table: every gap between two writes, what it leaves behind, and who repairs it.

A row more is a line more here, and one in `docs/reliability.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from worchflow_core import Status

ACT: dict[str, object] = {"do": "act"}
HOLD: dict[str, object] = {"do": "hold"}
"""Waits for the cell's gate."""


class Victim(StrEnum):
    """Which process dies at the point."""

    SENDER = "the sender"
    RETRIER = "a client that retries"
    CANCELLER = "a client that cancels"
    INFORMER = "the sender of an event"
    WORKER = "the worker that runs it"
    LEAVER = "the worker that gives it back"
    SWEEPER = "a worker that takes it from a dead one"
    DELETER = "the worker whose retention has come"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Row:
    """One gap.

    Attributes:
        gap: the write that was made, and the one that was not.
        point: where the process dies, as WORCHFLOW_CRASH_AT takes it.
        victim: which process dies.
        left: the status it leaves.
        stored: how many steps are in the store then.
        repaired_by: who goes on, for people.
        steps: what the execution does.
        function: which function runs them.
        runs: how often each step's code runs in all.
        ends: how it ends.
        follower: the word in the id of an execution that has to follow.
        outcomes: how its attempts ended, pauses left out.
        event: what its informer sends, and it waits for.
        subscriber: a function that has to run for that event.
        needs_hints: the gap exists only where the queue keeps hints.
        delays: one execution is sent for each, due that many seconds later.
    """

    gap: str
    point: str
    left: Status
    repaired_by: str
    runs: Mapping[str, int]
    outcomes: tuple[str, ...]
    victim: Victim = Victim.WORKER
    stored: int = 0
    steps: tuple[dict[str, object], ...] = (ACT, ACT)
    function: str = "play"
    ends: Status = Status.COMPLETED
    follower: str | None = None
    event: str = "go"
    subscriber: str | None = None
    needs_hints: bool = False
    delays: tuple[float, ...] = field(default=(0.0,))


BOOK: dict[str, object] = {"do": "book"}
"""Can be undone, and is when a later step fails for good."""
FAILS: dict[str, object] = {"do": "fail", "times": 9}
UNDONE = {"1-book": 1, "2-fail": 1, "undo-1-book": 1}
ONCE = {"1-act": 1, "2-act": 1}
CRASHED = ("crashed", "completed")
NAP: dict[str, object] = {"do": "nap", "seconds": 1.5}
INVOKE: dict[str, object] = {"do": "invoke"}
REFUSES: dict[str, object] = {"do": "refuse"}
"""Fails until the cell's gate is open."""

ROWS = (
    Row(
        gap="insert / hint",
        point="after_insert",
        victim=Victim.SENDER,
        left=Status.QUEUED,
        repaired_by="the sweeper: it is older than the hint at the queue's head",
        runs=ONCE,
        outcomes=("completed",),
    ),
    Row(
        gap="pop / claim",
        point="after_pop",
        left=Status.QUEUED,
        repaired_by="the sweeper: it is older than the hint at the queue's head",
        runs=ONCE,
        outcomes=("completed",),
    ),
    Row(
        gap="claim / first step",
        point="after_claim",
        left=Status.PROCESSING,
        repaired_by="the sweeper: its owner's lease ends",
        runs=ONCE,
        outcomes=CRASHED,
    ),
    Row(
        gap="deadline / first step",
        point="after_deadline",
        left=Status.PROCESSING,
        repaired_by="the sweeper: its owner's lease ends; the deadline stands",
        function="play-in-time",
        runs=ONCE,
        outcomes=CRASHED,
    ),
    Row(
        gap="user code / step insert",
        point="before_step_insert:2",
        left=Status.PROCESSING,
        stored=1,
        repaired_by="the sweeper: its owner's lease ends; that step runs again",
        runs={"1-act": 1, "2-act": 2},
        outcomes=CRASHED,
    ),
    Row(
        gap="step insert / next step",
        point="after_step_insert",
        left=Status.PROCESSING,
        stored=1,
        repaired_by="the sweeper: its owner's lease ends",
        runs=ONCE,
        outcomes=CRASHED,
    ),
    Row(
        gap="last step / complete",
        point="before_complete",
        left=Status.PROCESSING,
        stored=2,
        repaired_by="the sweeper: its owner's lease ends; the body is replayed",
        runs=ONCE,
        outcomes=CRASHED,
    ),
    Row(
        gap="complete / queue's mirror",
        point="after_complete",
        left=Status.COMPLETED,
        stored=2,
        repaired_by="nobody has to: what outside readers see in Redis expires",
        runs=ONCE,
        outcomes=("completed",),
    ),
    Row(
        gap="complete / on_success",
        point="after_complete",
        left=Status.COMPLETED,
        stored=2,
        function="play-followed",
        follower="on_success",
        repaired_by="the sweeper: a handler is due",
        runs=ONCE,
        outcomes=("completed",),
    ),
    Row(
        gap="on_success / note that it exists",
        point="after_insert",
        left=Status.COMPLETED,
        stored=2,
        function="play-followed",
        follower="on_success",
        repaired_by="the sweeper: a handler is due, and its id is taken",
        runs=ONCE,
        outcomes=("completed",),
    ),
    Row(
        gap="fail / on_failure",
        point="after_fail",
        left=Status.FAILED,
        stored=1,
        steps=(ACT, {"do": "fail", "times": 9}),
        function="play-followed",
        follower="on_failure",
        ends=Status.FAILED,
        repaired_by="the sweeper: a handler is due",
        runs={"1-act": 1, "2-fail": 1},
        outcomes=("failed",),
    ),
    Row(
        gap="begin of undoing / first undo",
        point="after_undoing",
        left=Status.PROCESSING,
        stored=2,
        steps=(BOOK, FAILS),
        function="play-followed",
        follower="on_failure",
        ends=Status.FAILED,
        repaired_by="the sweeper: its owner's lease ends; it is undone all the same",
        runs=UNDONE,
        outcomes=("crashed", "failed"),
    ),
    Row(
        gap="undo / its record",
        point="before_step_insert:3",
        left=Status.PROCESSING,
        stored=2,
        steps=(BOOK, FAILS),
        function="play-followed",
        follower="on_failure",
        ends=Status.FAILED,
        repaired_by="the sweeper: its owner's lease ends; that undo runs again",
        runs={**UNDONE, "undo-1-book": 2},
        outcomes=("crashed", "failed"),
    ),
    Row(
        gap="undo's record / fail",
        point="after_step_insert:3",
        left=Status.PROCESSING,
        stored=3,
        steps=(BOOK, FAILS),
        function="play-followed",
        follower="on_failure",
        ends=Status.FAILED,
        repaired_by="the sweeper: its owner's lease ends; no undo runs again",
        runs=UNDONE,
        outcomes=("crashed", "failed"),
    ),
    Row(
        gap="retry / anything",
        point="after_retry",
        left=Status.RETRYING,
        stored=1,
        steps=(ACT, {"do": "fail", "times": 1}),
        repaired_by="any worker: it is due in the store",
        runs={"1-act": 1, "2-fail": 2},
        outcomes=("retrying", "completed"),
    ),
    Row(
        gap="note of the hint / hint",
        point="after_hint_mark",
        left=Status.QUEUED,
        delays=(0.3, 0.6, 0.9, 1.2, 1.5),
        needs_hints=True,
        repaired_by="the sweeper: it is older than the hint at the queue's head",
        runs=ONCE,
        outcomes=("completed",),
    ),
    Row(
        gap="sleep insert / suspend",
        point="after_step_insert:2",
        left=Status.PROCESSING,
        stored=2,
        steps=(ACT, NAP, ACT),
        repaired_by="the sweeper: its owner's lease ends; the moment to wake at stands",
        runs={"1-act": 1, "3-act": 1},
        outcomes=CRASHED,
    ),
    Row(
        gap="suspend / anything",
        point="after_suspend",
        left=Status.SLEEPING,
        stored=2,
        steps=(ACT, NAP, ACT),
        repaired_by="any worker: it is due in the store",
        runs={"1-act": 1, "3-act": 1},
        outcomes=("completed",),
    ),
    Row(
        gap="wait / second look, the event came between",
        point="after_suspend",
        left=Status.WAITING,
        stored=2,
        steps=(ACT, {"do": "await-told", "event": "go"}, ACT),
        repaired_by="the sweeper: nobody noted that it was looked at again",
        runs={"1-act": 1, "2-tell": 1, "3-act": 1},
        outcomes=("completed",),
    ),
    Row(
        gap="wait / second look, the child ended between",
        point="after_suspend",
        left=Status.WAITING,
        stored=2,
        steps=(ACT, {"do": "invoke-ended"}, ACT),
        repaired_by="the sweeper: nobody noted that it was looked at again",
        runs={"1-act": 1, "2-watch": 1, "3-act": 1},
        outcomes=("completed",),
    ),
    Row(
        gap="event insert / wake",
        point="after_event_insert",
        victim=Victim.INFORMER,
        left=Status.WAITING,
        stored=1,
        steps=(ACT, {"do": "await", "event": "go"}, ACT),
        repaired_by="the sweeper: the event is noted as undelivered",
        runs={"1-act": 1, "3-act": 1},
        outcomes=("completed",),
    ),
    Row(
        gap="event insert / subscriber's execution",
        point="after_event_insert",
        victim=Victim.INFORMER,
        left=Status.WAITING,
        stored=1,
        steps=(ACT, {"do": "await", "event": "shout"}, ACT),
        event="shout",
        subscriber="subscriber",
        repaired_by="the sweeper: the event is noted as undelivered, with whom it runs",
        runs={"1-act": 1, "3-act": 1},
        outcomes=("completed",),
    ),
    Row(
        gap="subscriber's execution / wake",
        point="after_insert",
        victim=Victim.INFORMER,
        left=Status.WAITING,
        stored=1,
        steps=(ACT, {"do": "await", "event": "shout"}, ACT),
        event="shout",
        subscriber="subscriber",
        repaired_by="the sweeper: the event is noted as undelivered; what it runs is there",
        runs={"1-act": 1, "3-act": 1},
        outcomes=("completed",),
    ),
    Row(  # F57
        gap="child insert / suspend",
        point="after_insert",
        left=Status.PROCESSING,
        stored=1,
        steps=(ACT, INVOKE, ACT),
        repaired_by="the sweeper: its owner's lease ends; the child's id is taken",
        runs={"1-act": 1, "3-act": 1},
        outcomes=CRASHED,
    ),
    Row(
        gap="child's end / wake",
        point="after_complete",
        left=Status.WAITING,
        stored=1,
        steps=(ACT, INVOKE, ACT),
        repaired_by="the sweeper: a handler is due",
        runs={"1-act": 1, "3-act": 1},
        outcomes=("completed",),
    ),
    Row(
        gap="release / hint",
        point="after_release",
        victim=Victim.LEAVER,
        left=Status.QUEUED,
        stored=1,
        steps=(ACT, HOLD),
        repaired_by="the sweeper: it is older than the hint at the queue's head",
        runs={"1-act": 1, "2-hold": 2},
        outcomes=("released", "completed"),
    ),
    Row(
        gap="worker declared dead / requeue",
        point="after_bury",
        victim=Victim.SWEEPER,
        left=Status.PROCESSING,
        stored=1,
        steps=(ACT, HOLD),
        repaired_by="the next sweep: its owner is dead",
        runs={"1-act": 1, "2-hold": 2},
        outcomes=CRASHED,
    ),
    Row(
        gap="requeue / hint",
        point="after_requeue",
        victim=Victim.SWEEPER,
        left=Status.QUEUED,
        stored=1,
        steps=(ACT, HOLD),
        repaired_by="the sweeper: it is due in the store",
        runs={"1-act": 1, "2-hold": 2},
        outcomes=CRASHED,
    ),
    Row(
        gap="retry on request / hint",
        point="after_update",
        victim=Victim.RETRIER,
        left=Status.QUEUED,
        stored=1,
        steps=(ACT, REFUSES),
        function="play-followed",
        follower="on_success",
        repaired_by="the sweeper: it is older than the hint at the queue's head",
        runs={"1-act": 1, "2-refuse": 2},
        outcomes=("failed", "completed"),
    ),
    Row(
        gap="cancel / queue's mirror",
        point="after_update",
        victim=Victim.CANCELLER,
        left=Status.CANCELLED,
        ends=Status.CANCELLED,
        repaired_by="nobody has to: what outside readers see in Redis expires",
        runs={},
        outcomes=(),
    ),
    Row(
        gap="delete steps / delete execution",
        point="between_deletes",
        victim=Victim.DELETER,
        left=Status.COMPLETED,
        repaired_by="the next pass of the retention",
        runs=ONCE,
        outcomes=("completed",),
    ),
)
