"""Functions that leave traces: each run of user code appends a line that survives any crash."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import time
import uuid
from collections.abc import AsyncIterator
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from worchflow_core import (
    BlockingStep,
    Event,
    Execution,
    Filter,
    Step,
    Worchflow,
    function,
    hookimpl,
)

TRACE = "WORCHFLOW_FAULTS_TRACE"
"""The environment variable that names the file of traces."""

_fence: ContextVar[int] = ContextVar("fence", default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One line: what happened in which claim of an execution.

    Attributes:
        word: `began` an attempt, `ran` a step's code, `saw` a step's result.
        step: the step's title, or `-`.
        fence: the claim.
        at: seconds since the epoch.
        value: what the step returned.
    """

    execution: str
    step: str
    fence: int
    at: float
    word: str
    value: str


def note(word: str, execution: str, step: str = "-", value: str = "-") -> None:
    """Append a line in one write, which the kernel keeps whole however many processes do."""
    line = f"{execution} {step} {_fence.get()} {time.time():.6f} {word} {value}\n"
    file = os.open(os.environ[TRACE], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def read_traces(path: Path) -> list[Trace]:
    """Return all lines so far, in the order in which they were written."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text().splitlines():
        execution, step, fence, at, word, value = line.split(" ")
        found.append(
            Trace(
                execution=execution,
                step=step,
                fence=int(fence),
                at=float(at),
                word=word,
                value=value,
            )
        )
    return found


class Tracing:
    """A plugin that notes each attempt and lets the traces carry its fence."""

    @hookimpl
    def worchflow_execution_scope(
        self, execution: Execution
    ) -> contextlib.AbstractAsyncContextManager[None]:
        """Enter an attempt."""
        return self._scope(execution)

    @contextlib.asynccontextmanager
    async def _scope(self, execution: Execution) -> AsyncIterator[None]:
        token = _fence.set(execution.fence)
        note("began", execution.id)
        try:
            yield
        finally:
            _fence.reset(token)


# --- what a step can do --------------------------------------------------------------------------


class Refused(Exception):
    """A step failed because it was told to."""


def _title(number: int, spec: dict[str, Any]) -> str:
    return f"{number}-{spec['do']}"


def _start(execution: str, title: str) -> str:
    value = uuid.uuid4().hex
    note("ran", execution, title, value)
    return value


def _is_open(gate: str) -> bool:
    return os.path.exists(gate)


def _blocking(spec: dict[str, Any], attempt: int) -> None:
    """Do what needs no event loop."""
    match spec["do"]:
        case "block":
            time.sleep(spec["seconds"])
        case "fail":
            if attempt <= spec["times"]:
                raise Refused(f"attempt {attempt}")
        case "refuse":
            if not _is_open(spec["gate"]):
                raise Refused("the gate is closed")
        case "die":
            os._exit(1)
        case "starve":
            _starve()
        case "spin":
            while True:
                pass


def _starve() -> None:
    """Take memory up to a limit, and be killed there, as by a kernel that has none left."""
    resource.setrlimit(resource.RLIMIT_AS, (1_500_000_000, 1_500_000_000))
    hoard = []
    try:
        while True:
            hoard.append(bytearray(64_000_000))
    except MemoryError:
        os.kill(os.getpid(), signal.SIGKILL)


def take_back(execution: str, title: str, value: str) -> None:
    """Undo a step, and leave a trace of it."""
    note("ran", execution, f"undo-{title}", value)


async def act(execution: str, title: str, spec: dict[str, Any], attempt: int) -> str:
    """Leave a trace and do what `spec` says; return a value that no other run returns."""
    value = _start(execution, title)
    match spec["do"]:
        case "hold":
            while not _is_open(spec["gate"]):  # noqa: ASYNC110 - it is opened from outside
                await asyncio.sleep(0.01)
        case "sleep":
            await asyncio.sleep(spec["seconds"])
        case _:
            _blocking(spec, attempt)
    return value


def act_plainly(execution: str, title: str, spec: dict[str, Any], attempt: int) -> str:
    """Do the same in a thread."""
    value = _start(execution, title)
    match spec["do"]:
        case "hold":
            while not _is_open(spec["gate"]):
                time.sleep(0.01)
        case "sleep":
            time.sleep(spec["seconds"])
        case _:
            _blocking(spec, attempt)
    return value


async def tell(execution: str, title: str, spec: dict[str, Any]) -> str:
    """Send an event, as another process would, while a sibling has begun to wait for it."""
    value = _start(execution, title)
    async with Worchflow(functions=(), env_file=None) as app:
        await app.client.send_event(spec["event"])
    return value


async def watch(execution: str, title: str) -> str:
    """Return when an execution's child has ended, and all that follows its end is done."""
    value = _start(execution, title)
    async with Worchflow(functions=(), env_file=None) as app:
        while True:
            found = (await app.client.find(Filter(parent=execution))).items
            if found and found[0].status.is_final and not found[0].handlers_due:
                return value
            await asyncio.sleep(0.02)


# --- the functions -------------------------------------------------------------------------------


async def _play(event: Event[dict[str, Any]], step: Step) -> list[str]:
    values = []
    for number, spec in enumerate(event.data["steps"], start=1):
        title = _title(number, spec)
        match spec["do"]:
            case "nap":
                await step.sleep(title, spec["seconds"])
            case "await":
                await step.wait_for_event(title, spec["event"])
            case "invoke":
                await step.invoke(title, "follow-up", {"seconds": 0.5})
            case "await-told":
                waiting = step.wait_for_event(title, spec["event"])
                telling = step.run(f"{number}-tell", tell, event.id, f"{number}-tell", spec)
                values.append((await asyncio.gather(waiting, telling))[1])
                note("saw", event.id, f"{number}-tell", values[-1])
            case "invoke-ended":
                calling = step.invoke(title, "follow-up", {})
                watching = step.run(f"{number}-watch", watch, event.id, f"{number}-watch")
                values.append((await asyncio.gather(calling, watching))[1])
                note("saw", event.id, f"{number}-watch", values[-1])
            case "book":
                value = await step.run(
                    title,
                    partial(act, event.id, title, spec, step.attempt),
                    returns=str,
                    undo=partial(take_back, event.id, title),
                )
                note("saw", event.id, title, value)
                values.append(value)
            case _:
                value = await step.run(title, act, event.id, title, spec, step.attempt)
                note("saw", event.id, title, value)
                values.append(value)
    return values


@function(id="play", retries=3, retry_delay=0.3)
async def play(event: Event[dict[str, Any]], step: Step) -> list[str]:
    """Run the steps that the event lists, one after the other; return all their values."""
    return await _play(event, step)


def _play_plainly(event: Event[dict[str, Any]], step: BlockingStep) -> list[str]:
    values = []
    for number, spec in enumerate(event.data["steps"], start=1):
        title = _title(number, spec)
        value = step.run(title, act_plainly, event.id, title, spec, step.attempt)
        note("saw", event.id, title, value)
        values.append(value)
    return values


@function(id="play-plain", retries=3, retry_delay=0.3)
def play_plain(event: Event[dict[str, Any]], step: BlockingStep) -> list[str]:
    """Do the same in a thread."""
    return _play_plainly(event, step)


@function(id="follow-up", retries=0)
async def follow_up(event: Event[dict[str, Any]], step: Step) -> list[str]:
    """Follow an execution that has ended, or be invoked by one, which is to wait before it ends."""
    seconds = event.data.get("seconds")
    spec = {"do": "sleep", "seconds": seconds} if seconds else {"do": "act"}
    value = await step.run("1-act", act, event.id, "1-act", spec, step.attempt)
    note("saw", event.id, "1-act", value)
    return [value]


@function(id="subscriber", retries=0, triggers=["shout*"])
async def subscriber(event: Event[Any], step: Step) -> list[str]:
    """Run for an event."""
    value = await step.run("1-act", act, event.id, "1-act", {"do": "act"}, step.attempt)
    note("saw", event.id, "1-act", value)
    return [value]


@function(id="play-followed", retries=0, on_success=follow_up, on_failure=follow_up)
async def play_followed(event: Event[dict[str, Any]], step: Step) -> list[str]:
    """Run the steps, and be followed by another execution however it ends."""
    return await _play(event, step)


@function(id="play-in-time", retries=3, retry_delay=0.3, timeout="15s")
async def play_in_time(event: Event[dict[str, Any]], step: Step) -> list[str]:
    """Run the steps within 15 seconds of the first attempt, or fail for good."""
    return await _play(event, step)


@function(id="play-briefly", retries=0)
async def play_briefly(event: Event[dict[str, Any]], step: Step) -> list[str]:
    """Run one step in a thread, for half a second at most."""
    (spec,) = event.data["steps"]
    title = _title(1, spec)
    value = await step.run(title, act_plainly, event.id, title, spec, step.attempt, timeout=0.5)
    note("saw", event.id, title, value)
    return [value]


@function(id="play-plain-briefly", retries=0, timeout="1s")
def play_plain_briefly(event: Event[dict[str, Any]], step: BlockingStep) -> list[str]:
    """Run the steps in a thread within a second, or fail for good."""
    return _play_plainly(event, step)


COUNTED: list[str] = []
"""What `count` did in this process."""


@function(id="count", retries=0)
async def count(event: Event[dict[str, str]], step: Step) -> str:
    """Count a key, in this process alone."""

    async def add() -> str:
        COUNTED.append(event.data["key"])
        return event.data["key"]

    return await step.run("add", add)


FUNCTIONS = (
    *(play, play_plain, play_followed, play_in_time, play_briefly, play_plain_briefly),
    *(follow_up, subscriber),
)
