"""Reasons: why an execution is not running, as a pure function of what the store says.

Each aspect looks at the facts and gives its reasons, or none; all of them together are the answer.
What else may keep executions from running adds an aspect to `ASPECTS`, and what it has to know to
`Facts`, which `explaining.py` reads.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

from worchflow_core import delays
from worchflow_core.facts import Aspect, Facts, Reason, listed
from worchflow_core.forking import is_half_made
from worchflow_core.liveness import SLACK, is_live, no_worker
from worchflow_core.models import Status, Worker, WorkerState
from worchflow_core.undos import is_being_undone, left_to_undo


def explain(facts: Facts) -> tuple[Reason, ...]:
    """Return all reasons why an execution is not running, or how it runs or ended."""
    return tuple(reason for aspect in ASPECTS for reason in aspect(facts))


# --- ended, or owned ------------------------------------------------------------------------------


def _ended(facts: Facts) -> Iterator[Reason]:
    execution = facts.execution
    if not execution.status.is_final:
        return
    text = f"it {'was cancelled' if execution.status is Status.CANCELLED else execution.status}"
    if execution.finished_at is not None:
        text += f" {facts.age(execution.finished_at)}"
    known: dict[str, Any] = {"finished_at": execution.finished_at}
    if execution.error is not None and execution.status is not Status.COMPLETED:
        text += f" of {execution.error.type}: {execution.error.message}"
        known |= {
            "error": execution.error.type,
            "message": execution.error.message,
            "reason": execution.error.reason,
            "failed_attempts": execution.failed_attempts,
        }
    yield Reason(code=str(execution.status), text=text, facts=known)


def _half_made(facts: Facts) -> Iterator[Reason]:
    execution = facts.execution
    if facts.is_free and is_half_made(execution):
        yield Reason(
            code="fork_unfinished",
            text=f"it is a fork of {execution.forked_from} whose steps are still being copied; if "
            "its maker has died, forking again with its id finishes it",
            facts={"forked_from": execution.forked_from},
        )


def _owned(facts: Facts) -> Iterator[Reason]:
    execution = facts.execution
    if execution.status.is_final or execution.owner is None:
        return
    worker = next((item for item in facts.workers if item.id == execution.owner), None)
    known: dict[str, Any] = {"worker_id": execution.owner, "claimed_at": execution.claimed_at}
    if worker is None or not is_live(worker, facts.now):
        yield _lost(facts, worker, known)
        return
    mine = [item for item in worker.running if item.execution_id == execution.id]
    step = mine[0].step if mine else None
    known |= {
        "worker": worker.name,
        "step": step,
        "beat_at": worker.beat_at,
        "lease_until": worker.lease_until,
    }
    text = f"it runs on {worker.name}"
    if execution.claimed_at is not None:
        text += f", claimed {facts.age(execution.claimed_at)}"
    if step is not None:
        text += f", in step {step!r} at the last beat"
    if worker.lease_until is not None:
        text += f"; the worker's lease ends {facts.soon(worker.lease_until)} unless it is renewed"
    yield Reason(code="running", text=text, facts=known)
    if worker.beat_at is None or worker.lease_until is None:
        return
    # Two beats and a half fit into the time after which silence is worth a word.
    if facts.now - worker.beat_at > (worker.lease_until - worker.beat_at) / 3 + SLACK:
        yield Reason(
            code="worker_silent",
            text=f"its worker {worker.name} was last heard of {facts.age(worker.beat_at)}; others "
            f"may take it over {facts.soon(worker.lease_until)}",
            facts={"beat_at": worker.beat_at, "lease_until": worker.lease_until},
        )


def _strange(facts: Facts) -> Iterator[Reason]:
    execution = facts.execution
    if execution.status is Status.PROCESSING and execution.owner is None:
        yield Reason(
            code="not_ours",
            text="it is processing, and no worker of Worchflow has it: another system's worker "
            "does, or did; nobody here takes it unless its status is set to queued",
        )


def _lost(facts: Facts, worker: Worker | None, known: dict[str, Any]) -> Reason:
    text = "its worker is gone"
    if worker is not None:
        known |= {"worker": worker.name, "lease_until": worker.lease_until}
        text = f"its worker {worker.name} is gone"
        if worker.lease_until is not None and worker.lease_until <= facts.now:
            text += f", its lease ended {facts.age(worker.lease_until)}"
    remedy = (
        "the next sweep of a live worker releases it"
        if facts.live
        else "no worker is live, so nobody releases it until one starts"
    )
    return Reason(code="worker_lost", text=f"{text}; {remedy}", facts=known)


def _cancelling(facts: Facts) -> Iterator[Reason]:
    execution = facts.execution
    asked = execution.cancel_requested_at
    if execution.status.is_final or asked is None:
        return
    where = "at its next step" if execution.owner is not None else "at the next sweep"
    yield Reason(
        code="cancel_requested",
        text=f"somebody asked {facts.age(asked)} to cancel it; it ends {where}",
        facts={"cancel_requested_at": asked},
    )


# --- due, and not taken ---------------------------------------------------------------------------


def _unserved(facts: Facts) -> Iterator[Reason]:
    """Say that nobody would take it, were it due now."""
    name = facts.execution.function
    if not facts.is_free or is_half_made(facts.execution):
        return
    if any(name in worker.functions for worker in facts.live):
        return
    if not facts.live:
        yield Reason(
            code="no_live_worker",
            text=f"{no_worker(name)}: none is live; start one: worchflow worker",
        )
        return
    names = sorted(worker.name for worker in facts.live)
    there = {item for worker in facts.live for item in worker.functions}
    near = difflib.get_close_matches(name, sorted(there | set(facts.functions)), n=3, cutoff=0.6)
    near = [item for item in near if item != name]
    text = f"{no_worker(name)}; live are {listed(names)}"
    if near:
        text += f"; did you mean {', '.join(near)}?"
    yield Reason(
        code="no_worker",
        text=text,
        facts={"function": name, "workers": names, "near": near},
    )


def _untaken(facts: Facts) -> Iterator[Reason]:
    """Say why it is due, its function is there, and it does not run yet."""
    if not facts.is_due or facts.pause is not None:
        return
    name = facts.execution.function
    there = [worker for worker in facts.live if name in worker.functions]
    if not there:
        return
    taking = [
        worker
        for worker in there
        if worker.state is not WorkerState.DRAINING and worker.drain_requested_at is None
    ]
    names = sorted(worker.name for worker in there)
    if not taking:
        yield Reason(
            code="workers_draining",
            text=f"the live workers that have {name} take no more work: {listed(names)}",
            facts={"workers": names},
        )
        return
    room = [worker for worker in taking if len(worker.running) < worker.concurrency]
    if not room:
        full = [f"{item.name} ({len(item.running)} of {item.concurrency})" for item in taking]
        line = f"; {facts.ahead:,} executions are due before it" if facts.ahead else ""
        yield Reason(
            code="workers_full",
            text=f"all live workers that have {name} are full: {listed(full)}{line}",
            facts={"workers": sorted(item.name for item in taking), "ahead": facts.ahead},
        )
        return
    yield Reason(
        code="about_to_run",
        text=f"it is due, and {listed(sorted(item.name for item in room))} had room at the last "
        "beat: it is taken within a moment",
        facts={"workers": sorted(item.name for item in room)},
    )
    yield from _told(facts)


def _told(facts: Facts) -> Iterator[Reason]:
    """Say how workers learn of it."""
    execution = facts.execution
    if facts.queue_trouble is not None:
        yield Reason(
            code="queue_unreachable",
            text=f"the queue does not answer ({facts.queue_trouble}); workers ask the store",
        )
    elif not facts.keeps_hints:
        yield Reason(
            code="store_polled", text="there is no queue that keeps hints; workers ask the store"
        )
    elif execution.hint_at is not None:
        yield Reason(
            code="queue_not_told",
            text="the queue was not told of it yet; a sweep does, and workers whose queue is empty "
            "ask the store",
            facts={"hint_at": execution.hint_at},
        )


# --- what it has to fear --------------------------------------------------------------------------


def _suspected(facts: Facts) -> Iterator[Reason]:
    execution = facts.execution
    if execution.status.is_final or not execution.crashes:
        return
    most = facts.max_crashes
    limit = f"; at {most} it fails for good" if most is not None else ""
    alone = ", so it runs alone on its worker" if execution.crashes > 1 else ""
    times = "once" if execution.crashes == 1 else f"{execution.crashes} times in a row"
    yield Reason(
        code="crashes",
        text=f"its worker died {times} while running it{alone}{limit}",
        facts={"crashes": execution.crashes, "max_crashes": most},
    )


def _deadline(facts: Facts) -> Iterator[Reason]:
    execution = facts.execution
    deadline = execution.deadline_at
    if execution.status.is_final or deadline is None:
        return
    if is_being_undone(facts.steps):  # it has failed already, and that has no deadline
        return
    is_past = deadline <= facts.now
    text = f"it fails for good {facts.age(deadline)}, whatever it is doing"
    if is_past:
        text = f"its deadline passed {facts.age(deadline)}; {_who_ends_it(facts)}"
    yield Reason(
        code="deadline_passed" if is_past else "deadline", text=text, facts={"deadline": deadline}
    )


def _who_ends_it(facts: Facts) -> str:
    if facts.execution.owner is not None:
        return "its worker ends it"
    if left_to_undo(facts.steps):
        return "a worker that has its function undoes its steps, and then it fails"
    return "it fails at the next sweep of a live worker"


ASPECTS: tuple[Aspect, ...] = (
    _ended,
    _half_made,
    _owned,
    _strange,
    _cancelling,
    delays.undoing,
    delays.paused,
    delays.in_line,
    delays.waiting,
    delays.sleeping,
    delays.later,
    _unserved,
    _untaken,
    _suspected,
    _deadline,
)
"""What is looked at, in the order of the answer: what holds it first, what threatens it last."""
