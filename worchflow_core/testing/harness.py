"""Run functions in a test: in process, in memory, with stubs, crashes and skipped time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self, TypeVar, cast, overload
from uuid import uuid4

from worchflow_core import transitions
from worchflow_core.admission import Admission
from worchflow_core.app import Worchflow
from worchflow_core.attempt import Attempt, Surroundings
from worchflow_core.blocking import BlockingClient
from worchflow_core.codec import UNTYPED, Codec
from worchflow_core.durations import Duration, parse_duration
from worchflow_core.errors import WorchflowError
from worchflow_core.functions import Function
from worchflow_core.handlers import follow_up, handler_of
from worchflow_core.lease import Lease
from worchflow_core.models import CLAIMABLE, Execution, Status
from worchflow_core.notebook import Notebook
from worchflow_core.polling import PollingQueue
from worchflow_core.query import Condition, Operator, Query
from worchflow_core.settings import load_settings
from worchflow_core.subscriptions import Subscriptions
from worchflow_core.testing.runs import Run
from worchflow_core.testing.stubs import Plan, under_test
from worchflow_core.threads import ThreadPool
from worchflow_core.undos import expired, undone_titles

DataT = TypeVar("DataT")
ResultT = TypeVar("ResultT")

_OWNER = "test-harness"
_FOREVER = timedelta(days=36500)


class Harness:
    """Run functions as a worker would, at once, and look at what happened.

    `with Harness() as harness: run = harness.run(process_payment, {...})`, or the pytest fixture
    `worchflow_harness`. Everything is real but three things: the store is in memory, time is
    skipped instead of waited for, and a crash is simulated. Methods block, in tests of both kinds.

    Args:
        functions: the functions there are; those of installed packages if left out. A function
            given to `run` need not be among them.
        plugins: plugin modules or objects, beside the installed ones.
        resources: what to give for parameters declared with `Resource`, by parameter name; the
            others are opened as a worker would.
        now: what time it is when the test begins; the real time if left out.
        settings: settings by field name, such as `max_crashes`; the environment is read too, but
            for the backends.

    Attributes:
        client: a client of the same store, for the code under test.
    """

    def __init__(
        self,
        functions: Iterable[Function[Any, Any]] | None = None,
        *,
        plugins: Iterable[object] = (),
        resources: Mapping[str, Any] | None = None,
        now: datetime | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        place = {"store_url": f"memory://{uuid4().hex}", "queue_url": "", "step_cache_url": ""}
        chosen = load_settings({**(settings or {}), **place}, env_file=None)
        self._app = Worchflow(
            chosen, functions=functions, plugins=plugins, queue=PollingQueue(), env_file=None
        )
        self._start = now
        self._resources = dict(resources or {})
        self.client = BlockingClient(self._app)

    def __enter__(self) -> Self:
        self.client.__enter__()
        clock = self._app.journal.clock
        self._lease = Lease(_FOREVER, clock)
        self._lease.confirm(clock.lease_time())
        if self._start is not None:
            clock.shift(self._start - clock.now())
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.client.__exit__(exc_type, exc, traceback)

    @property
    def now(self) -> datetime:
        """What time it is for the functions: the real time and all that was skipped."""
        return self._app.journal.clock.now()

    def advance(self, span: Duration) -> None:
        """Let time pass."""
        self._app.journal.clock.shift(parse_duration(span))

    @overload
    def run(
        self,
        function: Function[DataT, ResultT],
        data: DataT | Mapping[str, Any] | None = None,
        *,
        stub: Mapping[str, Any] | None = None,
        crash_after: str | int | None = None,
        crash_during: str | int | None = None,
        id: str | None = None,
    ) -> Run[ResultT]: ...

    @overload
    def run(
        self,
        function: str,
        data: Any = None,
        *,
        stub: Mapping[str, Any] | None = None,
        crash_after: str | int | None = None,
        crash_during: str | int | None = None,
        id: str | None = None,
    ) -> Run[Any]: ...

    def run(
        self,
        function: Function[Any, Any] | str,
        data: Any = None,
        *,
        stub: Mapping[str, Any] | None = None,
        crash_after: str | int | None = None,
        crash_during: str | int | None = None,
        id: str | None = None,
    ) -> Run[Any]:
        """Send an event and run its execution until it has ended, waits for retries skipped.

        Args:
            function: the function, or its id.
            data: the event's data.
            stub: what stands in for a step's code, by the step's title: a value to return, an
                exception to raise, or a callable that gets the step's arguments.
            crash_after: let the worker die once this step is stored: its title, or 2 for the
                second that ran. The next attempt replays what is stored, as after a real crash.
            crash_during: let the worker die after this step's code ran and before it is stored,
                so that it runs twice.
            id: the execution's id.

        Raises:
            WorchflowError: a stub or a crash names no step of an execution that completed.
        """
        if isinstance(function, Function) and self._app.registry.get(function.id) is None:
            self._app.registry.add(function)
        handle = self.client.send(cast(str, function), data, id=id)
        plan = Plan(stub=stub or {}, crash_after=crash_after, crash_during=crash_during)
        given = function if isinstance(function, Function) else None
        return self.client.wait_for(self._run(handle.id, plan, given))

    def run_all(self) -> list[Run[Any]]:
        """Run everything that was sent and has not ended, handlers included; skip delays."""
        runs: list[Run[Any]] = []
        while (execution := self.client.wait_for(self._next())) is not None:
            runs.append(self.client.wait_for(self._run(execution.id, Plan(), None)))
        return runs

    def sent(self, function: Function[Any, Any] | str | None = None) -> list[Execution]:
        """Return the executions that were created, oldest first, by any means."""
        name = function.id if isinstance(function, Function) else function
        where = () if name is None else (Condition("function", Operator.EQUAL, name),)
        query = Query(where=where, descending=False, limit=1000)
        return list(self.client.wait_for(self._app.journal.store.find(query)).items)

    def assert_sent(
        self, function: Function[Any, Any] | str, data: Any = None, *, times: int | None = None
    ) -> None:
        """Fail the test unless an event was sent.

        Args:
            function: the function, or its id.
            data: what its data has to hold; with a mapping, other keys may be there too.
            times: how often exactly; at least once if left out.
        """
        found = self.sent(function)
        values = [Codec(UNTYPED, "event data").decode(item.data) for item in found]
        count = sum(data is None or _holds(value, data) for value in values)
        if count != times if times is not None else count == 0:
            name = function.id if isinstance(function, Function) else function
            wanted = f"{name} with {data!r}" if data is not None else name
            often = f"{times} times" if times is not None else "at least once"
            raise AssertionError(
                f"expected {wanted} to be sent {often}; sent {count} times; all data sent to "
                f"{name}: {values or 'none'}"
            )

    # --- inside: what a worker does, one execution at a time ------------------------------------

    async def _next(self) -> Execution | None:
        query = Query(
            where=(Condition("status", Operator.IN, tuple(CLAIMABLE)),),
            order="due_at",
            descending=False,
            limit=1,
        )
        return next(iter((await self._app.journal.store.find(query)).items), None)

    async def _run(self, execution_id: str, plan: Plan, given: Function[Any, Any] | None) -> Any:
        client = self._app.client
        execution = await client.get(execution_id)
        function = given or self._app.registry.get(execution.function)
        if function is None:
            known = ", ".join(self._app.registry.ids) or "none"
            raise WorchflowError(f"no function {execution.function!r}; there are: {known}")
        claims = 0
        async with AsyncExitStack() as stack:
            around = await self._surroundings(stack, function)
            while not execution.status.is_final:
                claims += 1
                await self._attempt(execution, function, plan, around)
                execution = await client.get(execution_id)
        if execution.status is Status.COMPLETED:
            _check_plan(plan)
        steps = tuple(await client.steps(execution_id))
        return Run(
            execution=execution,
            steps=steps,
            ran=tuple(plan.ran),
            replayed=tuple(plan.replayed),
            claims=claims,
            undone=undone_titles(steps),
            notes=await client.notes(execution_id),
            codec=function.result_codec,
        )

    async def _surroundings(
        self, stack: AsyncExitStack, function: Function[Any, Any]
    ) -> Surroundings:
        resources: dict[Any, Any] = {}
        for name, opener in function.resources.items():
            if name in self._resources:
                resources[opener] = self._resources[name]
                continue
            manager = opener()
            resources[opener] = (
                await stack.enter_async_context(manager)
                if isinstance(manager, AbstractAsyncContextManager)
                else stack.enter_context(manager)
            )
        around = Surroundings(
            journal=self._app.journal,
            lease=self._lease,
            plugins=self._app.plugins,
            settings=self._app.settings,
            registry=self._app.registry,
            subscriptions=Subscriptions(self._app.registry, self._app.journal.store.records),
            functions=ThreadPool(1, "function"),
            steps=ThreadPool(32, "step"),
            notebook=Notebook(self._app.journal.store.records),
            admission=Admission(self._app.journal, self._app.registry),
            resources=resources,
        )
        stack.push_async_callback(around.notebook.drain)
        stack.callback(around.functions.close)
        stack.callback(around.steps.close)
        return around

    async def _attempt(
        self,
        waiting: Execution,
        function: Function[Any, Any],
        plan: Plan,
        around: Surroundings,
    ) -> None:
        journal, clock = self._app.journal, self._app.journal.clock
        due, deadline = waiting.due_at, waiting.deadline_at
        if due is None and waiting.status is Status.WAITING:
            raise WorchflowError(f"execution {waiting.id} waits for an event that was not sent")
        if due is not None and deadline is not None and deadline <= due:
            self._skip_to(deadline)
            stored = (await journal.store.steps([waiting.id])).get(waiting.id, ())
            has_handler = self._handler(function, Status.FAILED)
            change = expired(waiting, stored, now=clock.now(), has_handler=has_handler)
            if change is not None:
                await journal.update([(waiting, change)])
                return
        self._skip_to(due)
        claimed = await journal.claim(_OWNER, [function.id], limit=1, ids=[waiting.id])
        if not claimed:
            raise WorchflowError(f"execution {waiting.id} is {waiting.status}; it cannot be run")
        execution = claimed[0]
        steps = await journal.load_steps(claimed)
        journal.started(execution)
        if function.timeout is not None and execution.deadline_at is None:
            change = transitions.set_deadline(execution, clock.now() + function.timeout)
            execution = await journal.amend(execution, change, self._lease) or execution
        tested = replace(function, code=under_test(function, plan))
        recorded = steps.get(execution.id, ())
        outcome = await Attempt(tested, execution, recorded, around).run()
        if outcome is None:
            await self._die(execution, function)
            return
        change = transitions.settle(
            execution,
            outcome,
            now=clock.now(),
            retries=function.retry.retries,
            code_version=function.code_version,
            has_handler=self._handler(function, outcome.status),
        )
        settled = await journal.settle(execution, change, self._lease)
        if settled is not None and settled.status.is_final and settled.handlers_due:
            await follow_up([settled], self._app.registry, journal)

    async def _die(self, execution: Execution, function: Function[Any, Any]) -> None:
        """Do what a sweeper does once the worker's lease has run out."""
        journal = self._app.journal
        self.advance(self._app.settings.lease)
        steps = await journal.store.steps([execution.id])
        change = transitions.release_crashed(
            execution,
            now=journal.clock.now(),
            max_crashes=self._app.settings.max_crashes,
            has_grown=any(step.fence == execution.fence for step in steps.get(execution.id, ())),
            has_hint=False,
            has_handler=self._handler(function, Status.FAILED),
        )
        await journal.update([(execution, change)])

    def _handler(self, function: Function[Any, Any], status: Status) -> bool:
        return handler_of(function.id, status, self._app.registry) is not None

    def _skip_to(self, moment: datetime | None) -> None:
        clock = self._app.journal.clock
        if moment is not None and moment > clock.now():
            clock.shift(moment - clock.now())


def _check_plan(plan: Plan) -> None:
    unused = plan.stub.keys() - plan.stubbed
    if unused:
        raise WorchflowError(
            f"no step took the stub for {min(unused)!r}; the steps that ran: {plan.ran}"
        )
    wanted = plan.crash_after if plan.crash_after is not None else plan.crash_during
    if wanted is not None and not plan.has_crashed:
        raise WorchflowError(f"there was no crash at {wanted!r}; the steps that ran: {plan.ran}")


def _holds(value: Any, wanted: Any) -> bool:
    if isinstance(value, dict) and isinstance(wanted, Mapping):
        return all(key in value and _holds(value[key], item) for key, item in wanted.items())
    return bool(value == wanted)
