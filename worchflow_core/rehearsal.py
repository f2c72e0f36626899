"""Rehearsal: replay the recorded steps of one execution against today's code, and write nothing.

It is a real attempt whose store holds nothing and takes nothing: steps answer from their records,
and whoever meets one that is not recorded waits, as for an event. So no step's code runs, whatever
kinds of steps there are; the code between the steps does.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NoReturn, cast

from worchflow_core.admission import Admission
from worchflow_core.attempt import Attempt, Surroundings
from worchflow_core.clock import Clock
from worchflow_core.errors import InvalidInput
from worchflow_core.failures import failure_of
from worchflow_core.functions import Function, Registry
from worchflow_core.identities import FACTS, Slot, StepCall
from worchflow_core.journal import Journal
from worchflow_core.lease import Lease
from worchflow_core.models import Execution, Failure, Status, StepRecord, StepStatus
from worchflow_core.notebook import Notebook
from worchflow_core.ownloop import OwnLoop
from worchflow_core.plugins import Plugins
from worchflow_core.polling import PollingQueue
from worchflow_core.protocols import Records, Store
from worchflow_core.settings import Settings
from worchflow_core.signals import StepBackoff, Suspend
from worchflow_core.stepbook import StepBook
from worchflow_core.subscriptions import Subscriptions
from worchflow_core.threads import ThreadPool
from worchflow_core.transitions import Outcome
from worchflow_core.undos import UNDO
from worchflow_core.unopened import Unopened, Used

logger = logging.getLogger("worchflow")

_LASTING = timedelta(days=1)
_LEFT_BEHIND = 8
"""While so many threads run code that nobody waits for any more, no more code is begun."""


class Verdict(StrEnum):
    """What today's code makes of an execution.

    FINE: it goes where its records say. CHANGED: it goes elsewhere, which is legal. BREAKS: it
    would fail for good. RAISES: its code raises between the steps. UNKNOWN: nobody can say.
    """

    FINE = "fine"
    CHANGED = "changed"
    BREAKS = "breaks"
    RAISES = "raises"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsed:
    """How the rehearsal of one execution went.

    Attributes:
        execution: as the store has it.
        verdict: what today's code makes of it.
        why: what is wrong, in a sentence; empty where nothing is.
        new: titles of the steps it reaches that are not recorded, in order.
        unreached: titles of the recorded steps that it does not reach, in order.
    """

    execution: Execution
    verdict: Verdict
    why: str = ""
    new: tuple[str, ...] = ()
    unreached: tuple[str, ...] = ()


class Rehearsal:
    """Rehearse executions of the functions of this process.

    Args:
        registry: today's code.
        settings: limits, as for a worker.
        limit: how long the code of one execution may take before nobody waits for it any more.
    """

    def __init__(self, registry: Registry, settings: Settings, limit: timedelta) -> None:
        self._registry = registry
        self._settings = settings
        self._limit = limit
        self._threads = ThreadPool(1, "rehearsal")

    def close(self) -> None:
        """Let the thread end, unless code that never returns holds it; it is a daemon."""
        self._threads.close()

    async def rehearse(
        self, function: Function[Any, Any], execution: Execution, recorded: Sequence[StepRecord]
    ) -> Rehearsed:
        """Replay one execution in a thread and an event loop of its own, and judge it."""
        if self._threads.leaked >= _LEFT_BEHIND:
            why = f"its code was not run: that of {self._threads.leaked} others has not returned"
            return Rehearsed(execution=execution, verdict=Verdict.UNKNOWN, why=why)
        # An undo, and a step whose outcome is unknown, say nothing of where the code goes.
        steps = [
            step
            for step in recorded
            if step.kind not in (*FACTS, UNDO) and step.status is not StepStatus.STARTED
        ]
        seconds = self._limit.total_seconds()
        own = OwnLoop()
        try:
            async with asyncio.timeout(seconds):
                return await self._threads.run(self._begin, own, function, execution, steps)
        except TimeoutError:
            why = f"its code takes longer than {seconds:g} s between the steps"
            return Rehearsed(execution=execution, verdict=Verdict.UNKNOWN, why=why)
        except Exception as error:  # its records are such that no attempt could begin with them
            why = f"it cannot be replayed: {type(error).__name__}: {error}"
            return Rehearsed(execution=execution, verdict=Verdict.UNKNOWN, why=why)
        finally:
            own.cut_off()  # does nothing to one that has ended

    def _begin(
        self,
        own: OwnLoop,
        function: Function[Any, Any],
        execution: Execution,
        steps: Sequence[StepRecord],
    ) -> Rehearsed:
        """Rehearse in this thread, whatever the code does: it cannot end who checks it."""
        try:
            function.data_codec.decode(execution.data)
        except InvalidInput as error:
            return Rehearsed(execution=execution, verdict=Verdict.BREAKS, why=str(error))
        except BaseException as error:  # the attempt meets it too, and says so
            logger.debug("execution %s: its data cannot be decoded: %r", execution.id, error)
        try:
            return own.run(lambda: self._replay(function, execution, steps))
        except (SystemExit, KeyboardInterrupt) as error:
            # Raised in a task that the code began, it goes through the event loop.
            why = f"its code raises {type(error).__name__}: {error}"
            return Rehearsed(execution=execution, verdict=Verdict.RAISES, why=why)

    async def _replay(
        self,
        function: Function[Any, Any],
        execution: Execution,
        steps: Sequence[StepRecord],
    ) -> Rehearsed:
        asyncio.get_running_loop().set_default_executor(_Daemons())
        used = Used()
        around = self._surroundings(function, used)
        # A deadline that has passed would hide what the code does.
        alone = replace(execution, deadline_at=None)
        batch = (alone,) if _is_batched(function) else ()
        attempt = Attempt(function, alone, steps, around, batch)
        attempt.book = book = _Book(
            attempt.execution,
            {step.step_id: step for step in steps},
            around.plugins,
            around.journal.clock,
            max_payload=self._settings.max_payload,
            max_steps=self._settings.max_steps,
            notebook=around.notebook,
            on_change=function.on_change,
        )
        book.drift.is_quiet = True
        try:
            outcome = await attempt.run()
        finally:
            around.functions.close()
            around.steps.close()
        unreached = tuple(step.title for step in steps if step.step_id not in book.met)
        found = judge(execution, outcome, tuple(book.new), unreached)
        return _doubted(found, used, is_batched=_is_batched(function))

    def _surroundings(self, function: Function[Any, Any], used: Used) -> Surroundings:
        plugins = Plugins(discover=False)
        clock = Clock()
        journal = _Journal(cast(Store, _Nothing()), PollingQueue(), None, plugins, clock)
        lease = Lease(_LASTING, clock)
        lease.confirm(clock.lease_time())
        records = cast(Records, _Nothing())
        names = function.resources.items()
        return Surroundings(
            journal=journal,
            lease=lease,
            plugins=plugins,
            settings=self._settings,
            registry=self._registry,
            subscriptions=Subscriptions(self._registry, records),
            functions=ThreadPool(1, "rehearsed"),
            steps=ThreadPool(1, "rehearsed"),
            resources={opener: Unopened(name, used) for name, opener in names},
            admission=Admission(journal, Registry()),
            notebook=_Notebook(records),
        )


def judge(
    execution: Execution,
    outcome: Outcome | None,
    new: tuple[str, ...],
    unreached: tuple[str, ...],
) -> Rehearsed:
    """Return what it means that a rehearsal went so."""

    def found(verdict: Verdict, why: str = "") -> Rehearsed:
        return Rehearsed(
            execution=execution, verdict=verdict, why=why, new=new, unreached=unreached
        )

    if outcome is None:
        return found(Verdict.UNKNOWN, "the rehearsal was cut off")
    failure = outcome.failure
    if outcome.counts and failure is not None:
        return found(*_of_failure(execution, failure))
    is_changed = bool(unreached) or (bool(new) and execution.status is Status.COMPLETED)
    return found(Verdict.CHANGED if is_changed else Verdict.FINE)


def _doubted(found: Rehearsed, used: Used, *, is_batched: bool) -> Rehearsed:
    """Return what a rehearsal found, unless it may have gone so because it was one."""

    def unknown(why: str) -> Rehearsed:
        text = f"{found.why}; {why}" if found.why else why
        return replace(found, verdict=Verdict.UNKNOWN, why=text)

    names = " and ".join(map(repr, used.refused or used.touched))
    is_otherwise = found.verdict in (Verdict.RAISES, Verdict.CHANGED)
    if is_otherwise and used.refused:
        return unknown(f"its code uses {names} between the steps, and no resource is opened here")
    if found.verdict is Verdict.RAISES and used.touched:
        return unknown(f"its code uses {names}, and no resource is opened here")
    if found.verdict is Verdict.RAISES and is_batched:
        return unknown("it may have run for a batch, and was replayed for itself alone")
    return found


def _is_batched(function: Function[Any, Any]) -> bool:
    return function.flow is not None and function.flow.batch is not None


def _of_failure(execution: Execution, failure: Failure) -> tuple[Verdict, str]:
    if failure.reason == "non_deterministic":
        return Verdict.BREAKS, failure.message
    if execution.error is not None and execution.error.type == failure.type:
        return Verdict.FINE, ""  # it fails as it did
    return Verdict.RAISES, f"its code raises {failure.type}: {failure.message}"


class _Book(StepBook):
    """The steps of a rehearsal: notes which are met, and lets none that is not recorded run."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.met: set[str] = set()
        self.new: list[str] = []

    def call(
        self, title: str, code: Callable[..., Any], args: tuple[Any, ...], **options: Any
    ) -> StepCall:
        call = super().call(title, code, args, **{**options, "undo": None})
        self._note(call.step_id, title)
        if self.is_recorded(call):
            return call
        return replace(call, code=_reach, args=(), once=False, timeout=None)

    def enter(self, title: str, key: str | None, kind: str = "run") -> Slot:
        slot = super().enter(title, key, kind)
        if kind != "run" or slot.step_id in self.recorded:
            self._note(slot.step_id, title)
        return slot

    def failed(self, call: StepCall, error: BaseException, started_at: datetime) -> BaseException:
        # Held like any pause, until all other branches have come as far as they can.
        return StepBackoff(self.clock.now(), failure_of(error))

    def _note(self, step_id: str, title: str) -> None:
        if step_id in self.recorded:
            self.met.add(step_id)
        else:
            self.new.append(title)


class _Journal(Journal):
    """A journal that takes nothing: who comes to write, waits."""

    async def record(self, *args: Any) -> NoReturn:
        raise Suspend(None)

    async def create(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise Suspend(None)

    async def update(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise Suspend(None)

    async def settle(self, *args: Any) -> NoReturn:
        raise Suspend(None)

    async def amend(self, *args: Any) -> NoReturn:
        raise Suspend(None)


class _Nothing:
    """A store, and its records, that hold nothing and take nothing: who asks, waits."""

    @property
    def records(self) -> _Nothing:
        return self

    def __getattr__(self, name: str) -> Any:
        async def ask(*args: Any, **kwargs: Any) -> NoReturn:
            raise Suspend(None)

        return ask


class _Notebook(Notebook):
    """A notebook in which nothing is written."""

    async def close(self, execution_id: str) -> None:
        pass


class _Daemons(ThreadPoolExecutor):
    """Threads for `asyncio.to_thread`: code that never returns holds up neither loop nor exit."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=work, name="worchflow-rehearsed", daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave what still runs behind."""


async def _reach() -> NoReturn:
    raise LookupError("this step is not recorded")
