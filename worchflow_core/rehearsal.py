"""Rehearsal: replay the recorded steps of one execution against today's code, and write nothing.

It is a real attempt whose store holds nothing and takes nothing: steps answer from their records,
and whoever meets one that is not recorded waits, as for an event. So no step's code runs, whatever
kinds of steps there are; the code between the steps does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
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
from worchflow_core.notes import Notes
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

_LASTING = timedelta(days=1)


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


class ResourceUsed(Exception):
    """Code between the steps uses a resource, and in a rehearsal none is opened."""


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
        try:
            function.data_codec.decode(execution.data)
        except InvalidInput as error:
            return Rehearsed(execution=execution, verdict=Verdict.BREAKS, why=str(error))
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
                outcome, book = await self._threads.run(
                    own.run, lambda: self._replay(function, execution, steps)
                )
        except TimeoutError:
            why = f"its code takes longer than {seconds:g} s between the steps"
            return Rehearsed(execution=execution, verdict=Verdict.UNKNOWN, why=why)
        except Exception as error:  # its records are such that no attempt could begin with them
            why = f"it cannot be replayed: {type(error).__name__}: {error}"
            return Rehearsed(execution=execution, verdict=Verdict.UNKNOWN, why=why)
        finally:
            own.cut_off()  # does nothing to one that has ended
        unreached = tuple(step.title for step in steps if step.step_id not in book.met)
        found = judge(execution, outcome, tuple(book.new), unreached)
        if found.verdict is Verdict.RAISES and _is_batched(function):
            why = f"{found.why}; it may have run for a batch, and was replayed for itself alone"
            return replace(found, verdict=Verdict.UNKNOWN, why=why)
        return found

    async def _replay(
        self,
        function: Function[Any, Any],
        execution: Execution,
        steps: Sequence[StepRecord],
    ) -> tuple[Outcome | None, _Book]:
        around = self._surroundings(function)
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
            return await attempt.run(), book
        finally:
            around.functions.close()
            around.steps.close()

    def _surroundings(self, function: Function[Any, Any]) -> Surroundings:
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
            resources={opener: _Unopened(name) for name, opener in names},
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


def _is_batched(function: Function[Any, Any]) -> bool:
    return function.flow is not None and function.flow.batch is not None


def _of_failure(execution: Execution, failure: Failure) -> tuple[Verdict, str]:
    if failure.reason == "non_deterministic":
        return Verdict.BREAKS, failure.message
    if failure.type.endswith(ResourceUsed.__name__):
        return Verdict.UNKNOWN, failure.message
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

    def _say(self, execution_id: str, said: Notes) -> None:
        pass

    async def close(self, execution_id: str) -> None:
        pass


class _Unopened:
    """What stands in for a resource: steps may be given it, and code between them not use it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)  # what copies and prints things may ask for
        self._refuse()

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        self._refuse()

    def __getitem__(self, key: Any) -> NoReturn:
        self._refuse()

    def __iter__(self) -> NoReturn:
        self._refuse()

    def __enter__(self) -> NoReturn:
        self._refuse()

    def __exit__(self, *args: Any) -> None: ...

    async def __aenter__(self) -> NoReturn:
        self._refuse()

    async def __aexit__(self, *args: Any) -> None: ...

    def _refuse(self) -> NoReturn:
        raise ResourceUsed(
            f"its code uses {self._name!r} between the steps, and no resource is opened for a check"
        )


async def _reach() -> NoReturn:
    raise LookupError("this step is not recorded")
