"""The client: sends events, reads executions, cancels, retries and deletes them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, TypeVar, overload
from uuid import uuid4

from worchflow_core import catalog, pauses
from worchflow_core.bulk import Bulk, BulkChange, Verb
from worchflow_core.changing import Changer
from worchflow_core.codec import Codec
from worchflow_core.doubles import Doubles
from worchflow_core.durations import Duration, parse_duration
from worchflow_core.errors import (
    IdempotencyConflict,
    NotAllowed,
    NotFound,
    ResultTimeout,
    StoreUnavailable,
    WorchflowError,
)
from worchflow_core.explaining import read_facts
from worchflow_core.facts import Reason
from worchflow_core.filters import Filter
from worchflow_core.forking import UNCHANGED, Fork, Forker
from worchflow_core.functions import Function, Registry
from worchflow_core.handles import ExecutionHandle, result_of
from worchflow_core.identities import FACTS
from worchflow_core.informing import Informer
from worchflow_core.journal import Journal
from worchflow_core.leadership import Leader, read_leader
from worchflow_core.models import (
    Created,
    Execution,
    Finding,
    Status,
    StepRecord,
    Tally,
    Worker,
)
from worchflow_core.notes import Notes, read_notes
from worchflow_core.pauses import Pause, check_reason
from worchflow_core.query import Page
from worchflow_core.reasons import explain
from worchflow_core.results import Results
from worchflow_core.schedules import id_prefix
from worchflow_core.sending import Send, SentEvent, prepare
from worchflow_core.settings import Settings
from worchflow_core.timetable import ScheduleInfo, ScheduleRun, Timetable, read_runs

logger = logging.getLogger("worchflow")

DataT = TypeVar("DataT")
ResultT = TypeVar("ResultT")
T = TypeVar("T")


class Client:
    """Send events and work with executions. An open `Worchflow` has one as `app.client`."""

    def __init__(self, journal: Journal, registry: Registry, settings: Settings) -> None:
        self._journal = journal
        self._store = journal.store
        self._registry = registry
        self._settings = settings
        self._timetable = Timetable(journal.store.records)
        self._results = Results(journal.store)
        self._doubles = Doubles(journal.store, journal.clock, registry)
        self._changer = Changer(journal, registry)
        self._forker = Forker(journal, registry, settings.max_payload)
        self._informer = Informer(journal, registry, settings)
        self._bulk = Bulk(self._changer, journal.store)
        journal.on_settled.append(self._results.settled)

    # --- sending --------------------------------------------------------------------------------

    @overload
    async def send(
        self,
        function: Function[DataT, ResultT],
        data: DataT,
        *,
        id: str | None = None,
        delay: Duration | None = None,
        at: datetime | None = None,
        tags: Iterable[str] = (),
        priority: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> ExecutionHandle[ResultT]: ...

    @overload
    async def send(
        self,
        function: str,
        data: Any = None,
        *,
        id: str | None = None,
        delay: Duration | None = None,
        at: datetime | None = None,
        tags: Iterable[str] = (),
        priority: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> ExecutionHandle[Any]: ...

    async def send(
        self,
        function: Function[Any, Any] | str,
        data: Any = None,
        *,
        id: str | None = None,
        delay: Duration | None = None,
        at: datetime | None = None,
        tags: Iterable[str] = (),
        priority: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> ExecutionHandle[Any]:
        """Send an event: once this returns, the execution is in the store and will be attempted.

        Args:
            function: the function, or its id. With the function itself, data and result are typed.
            data: the event's data: what the function declares, or plain JSON; checked here where
                the function is known to this process.
            id: the execution's id; sending again with the same id and data creates nothing new.
            delay: not before this long from now.
            at: not before this moment (an aware datetime).
            tags: labels to find it by.
            priority: higher is claimed first, -100 to 100; the function's own by default.
            headers: small text facts to travel along.

        Raises:
            InvalidInput: something given cannot be taken; nothing was written.
            IdempotencyConflict: the id exists with another function or other data.
            StoreUnavailable: the store did not answer within WORCHFLOW_SEND_TIMEOUT; the error
                carries the id, and sending again with it is safe.
        """
        event = Send(
            function=function,
            data=data,
            id=id,
            delay=delay,
            at=at,
            tags=tags,
            priority=priority,
            headers=headers or {},
        )
        (handle,) = await self.send_many([event])
        return handle

    async def send_many(self, events: Iterable[Send]) -> list[ExecutionHandle[Any]]:
        """Send many events in few round trips; all are checked before the first is written.

        Of a function that takes a key only once (`unique=`), and that this process knows, the
        handle is that of the execution which has the key; nothing more is created for it.

        Raises:
            InvalidInput, IdempotencyConflict, StoreUnavailable: as `send` does. After a conflict
            or an outage some of the others may have been stored; sending all again is safe where
            each has an `id`.
        """
        prepared = [
            prepare(
                event,
                self._registry,
                now=self._journal.clock.now(),
                has_hint=self._journal.queue.keeps_hints,
                max_payload=self._settings.max_payload,
            )
            for event in events
        ]
        handles: list[ExecutionHandle[Any]] = []
        for start in range(0, len(prepared), 1000):
            part = prepared[start : start + 1000]
            executions = [execution for execution, _ in part]
            doubles = await self._within(None, self._doubles.find(executions))
            fresh = [item for item in executions if item.id not in doubles]
            answers = await self._create(fresh) if fresh else ()
            created = iter(answers)
            for execution, codec in part:
                if execution.id in doubles:
                    known = doubles[execution.id]
                    handles.append(ExecutionHandle(self, known, codec, is_new=False))
                    continue
                answer = next(created)
                if answer is Created.CONFLICT:
                    raise IdempotencyConflict(
                        f"execution {execution.id!r} exists with another function or other data; "
                        "choose another id, or send what was sent before"
                    )
                handles.append(
                    ExecutionHandle(self, execution, codec, is_new=answer is Created.NEW)
                )
        return handles

    async def send_event(
        self,
        name: str,
        data: Any = None,
        *,
        id: str | None = None,
        tags: Iterable[str] = (),
        headers: Mapping[str, str] | None = None,
    ) -> SentEvent[ExecutionHandle[Any]]:
        """Send an event to every function that subscribes to it, and to those who wait for it.

        Each subscriber runs in an execution of its own, whose id derives from the event's. The
        data is not compared with what a subscriber declares: one that it does not fit fails, and
        the others run. An event is kept for the retention: an execution that begins to wait later
        still finds it, if it was sent since that execution was created.

        Args:
            name: the event's name, such as `order/paid`. The name of a function is for `send`.
            data: plain JSON.
            id: sending again with the same id delivers nothing twice.
            tags: labels for the executions, beside those of their functions.
            headers: small text facts that travel along with them.

        Raises:
            InvalidInput: something given cannot be taken; nothing was written.
            IdempotencyConflict: the id stands for another name or other data; nothing was written.
            StoreUnavailable: the store did not answer; sending again with the same id is safe.
        """
        event = self._informer.event(name, data, id, headers)
        delivery = await self._within(event.id, self._informer.deliver(event, tags))
        handles = [
            ExecutionHandle[Any](
                self, item, self._result_codec(item.function), is_new=answer is Created.NEW
            )
            for item, answer in delivery.executions
        ]
        return SentEvent(id=event.id, name=name, executions=tuple(handles))

    async def signal(
        self, execution_id: str, name: str, data: Any = None, *, id: str | None = None
    ) -> str:
        """Send an event to one execution, which waits for `name` or will; return its id.

        Raises:
            NotFound: there is no such execution.
            NotAllowed: it has ended.
            IdempotencyConflict: the id stands for another event; nothing was written.
            InvalidInput, StoreUnavailable: as `send_event` does.
        """
        event = self._informer.signal(name, execution_id, data, id)
        execution = await self.get(execution_id)
        if execution.status.is_final:
            raise NotAllowed(f"execution {execution_id} is {execution.status} already")
        await self._within(event.id, self._informer.deliver_signal(event))
        return event.id

    async def subscribers(self, name: str, data: Any = None) -> tuple[str, ...]:
        """Return the ids of the functions that an event would run now; see `send_event`."""
        return await self._informer.subscribers(name, data)

    # --- reading --------------------------------------------------------------------------------

    async def get(self, execution_id: str) -> Execution:
        """Return an execution; raise `NotFound` if there is none with this id."""
        found = await self._store.get([execution_id])
        if not found:
            raise NotFound(f"no execution {execution_id!r} in {self._store.describe()}")
        return found[0]

    async def steps(self, execution_id: str) -> Sequence[StepRecord]:
        """Return the recorded steps of an execution, in order; empty if there are none."""
        steps = (await self._store.steps([execution_id])).get(execution_id, ())
        return tuple(step for step in steps if step.kind not in FACTS)

    async def notes(self, execution_id: str) -> Notes:
        """Return what an execution has said of itself: its progress, and the lines it logged."""
        return await read_notes(self._store.records, execution_id)

    async def explain(self, execution_id: str) -> tuple[Reason, ...]:
        """Return why an execution is not running, or how it runs or has ended; see `Reason`.

        What holds it now comes first, what threatens it last. It reads, and changes nothing.

        Raises:
            NotFound: there is none with this id.
        """
        execution = await self.get(execution_id)
        return explain(await read_facts(execution, self._journal, self._settings.max_crashes))

    async def find(self, filter: Filter | None = None) -> Page:
        """Return executions that match, a page at a time; see `Filter`."""
        return await self._store.find((filter or Filter()).query())

    async def stats(self) -> Mapping[Status, int]:
        """Count the executions of each status; every status is there, also with 0."""
        counts = await self._store.stats()
        return {status: counts.get(status, 0) for status in Status}

    async def tally(
        self,
        *,
        since: datetime,
        until: datetime | None = None,
        function: str | None = None,
        bucket: timedelta = timedelta(minutes=1),
    ) -> Sequence[Tally]:
        """Count ended executions by function, status and bucket of time."""
        query = Filter(function=function, finished_since=since, finished_until=until).query()
        return await self._store.tally(query.where, bucket=bucket)

    async def workers(self) -> Sequence[Worker]:
        """Return the workers that the store knows, dead ones included."""
        return await self._store.workers()

    async def functions(self) -> Sequence[catalog.FunctionInfo]:
        """Return the functions workers have described to this store, and this process's own."""
        known = {item.id: catalog.describe(item) for item in self._registry}
        known.update((info.id, info) for info in await catalog.read(self._store.records))
        return [known[name] for name in sorted(known)]

    async def forget_function(self, function_id: str) -> None:
        """Forget the description of a function that was removed; events run it no longer.

        Raises:
            InvalidInput: this is no function's id.
            NotFound: no worker has described it.
            NotAllowed: a live worker has it, and would describe it again.
        """
        await catalog.forget(function_id, self._store)

    async def schedules(self) -> Sequence[ScheduleInfo]:
        """Return the schedules that schedulers have registered with this store, by function."""
        return await self._timetable.read()

    async def schedule_runs(
        self, schedules: Sequence[ScheduleInfo], count: int = 20
    ) -> Mapping[str, Sequence[ScheduleRun]]:
        """Return what became of the last `count` ticks of each schedule, the newest first."""
        return await read_runs(schedules, self._store.get, count)

    async def scheduler(self) -> Leader | None:
        """Return which scheduler fires the ticks, or did last; None where none ever did."""
        return await read_leader(self._store.records)

    async def mirrored(self, execution_id: str) -> Mapping[str, str]:
        """Return what the queue shows outside readers of an execution; {} where it shows nothing.

        Only a queue that keeps a mirror has a method `mirrored`; that it does not answer is no
        error, because the store has told the truth already.
        """
        read = getattr(self._journal.queue, "mirrored", None)
        if read is None:
            return {}
        try:
            return dict(await read(execution_id))
        except ConnectionError as error:
            logger.debug("the queue does not show its mirror: %s", error)
            return {}

    async def check(self) -> Sequence[Finding]:
        """Return what store, queue and step cache find of themselves; never changes anything."""
        journal = self._journal
        backends = [journal.store, journal.queue, *([journal.cache] if journal.cache else [])]
        return [finding for backend in backends for finding in await backend.check()]

    def describe(self) -> Mapping[str, str]:
        """Return one line for people per backend: where store, queue and step cache are."""
        journal = self._journal
        lines = {"store": journal.store.describe(), "queue": journal.queue.describe()}
        return {**lines, "step cache": journal.cache.describe()} if journal.cache else lines

    async def wait(self, execution_id: str, *, timeout: Duration | None = None) -> Execution:
        """Return an execution once it has ended.

        Raises:
            ResultTimeout: it has not, within `timeout`.
            NotFound: there is none with this id.
        """
        seconds = None if timeout is None else parse_duration(timeout).total_seconds()
        try:
            async with asyncio.timeout(seconds):
                execution = await self._results.wait(execution_id)
        except TimeoutError:
            raise ResultTimeout(
                f"execution {execution_id} had not ended after {seconds:g} s; it goes on"
            ) from None
        if execution is None:
            raise NotFound(f"no execution {execution_id!r} in {self._store.describe()}")
        return execution

    async def result(self, execution_id: str, *, timeout: Duration | None = None) -> Any:
        """Return what an execution's function returned, once it has ended.

        The value is rebuilt as its declared type where this process knows the function, else
        plain JSON.

        Raises:
            ExecutionFailed: it failed for good; the error carries the stored failure.
            ExecutionCancelled: it was cancelled.
            ResultTimeout, NotFound: as `wait` does.
        """
        execution = await self.wait(execution_id, timeout=timeout)
        return result_of(execution, self._result_codec(execution.function))

    # --- changing -------------------------------------------------------------------------------

    async def cancel(self, execution_id: str) -> Execution:
        """Cancel an execution: at once if no worker has it, else at its next step boundary.

        Returns the execution as it is after the request.

        Raises:
            NotFound: there is none with this id.
            NotAllowed: it has ended already.
        """
        return await self._changer.one(execution_id, self._changer.cancelled)

    async def retry(self, execution_id: str) -> Execution:
        """Queue a failed or cancelled execution again; its recorded steps are kept.

        Raises:
            NotFound: there is none with this id.
            NotAllowed: it is running or waiting, or has completed.
        """
        return await self._changer.one(execution_id, self._changer.reopened)

    async def fork(
        self,
        execution_id: str,
        *,
        from_step: str | None = None,
        data: Any = UNCHANGED,
        results: Mapping[str, Any] | None = None,
        id: str | None = None,
    ) -> ExecutionHandle[Any]:
        """Run an execution again from one of its steps, as a new one; the original is untouched.

        The fork begins with the results of the steps that were begun before `from_step`, whatever
        has become of the original, and runs the rest. Sleeps, waits and children among the kept
        steps are facts: nothing of them happens again.

        Args:
            execution_id: the original.
            from_step: where to begin: a step's title, `title#2` for its second call, its key or
                its id; it may also be one that failed. Left out: the first step, or with
                `results` the one behind the last that is replaced.
            data: other event data; the original's if left out.
            results: other results, as plain JSON, for steps that are kept: a value by title or
                step id. Of a wait it replaces the event's data, of a child its result.
            id: the fork's id; forking again with the same id and arguments creates nothing new.

        Raises:
            NotFound: there is no such execution.
            InvalidInput: something given cannot be taken, or names no step of it (the message
                names those there are); nothing was written.
            NotAllowed: it is itself a fork that was not finished.
            IdempotencyConflict: the id stands for something else.
            StoreUnavailable: the store did not answer; the error carries the fork's id, and
                forking again with it is safe.
        """
        wanted = Fork(from_step=from_step, data=data, results=results or {}, id=id)
        execution, steps = await self._forker.prepare(execution_id, wanted)
        fork, is_new = await self._within(execution.id, self._forker.store(execution, steps))
        return ExecutionHandle(self, fork, self._result_codec(fork.function), is_new=is_new)

    async def delete(self, execution_id: str) -> None:
        """Delete an ended execution and its steps.

        Raises:
            NotFound: there is none with this id.
            NotAllowed: it has not ended; cancel it first.
        """
        errors = await self.delete_many([execution_id])
        for error in errors.values():
            raise error

    async def cancel_many(self, ids: Collection[str]) -> Mapping[str, Execution | WorchflowError]:
        """Cancel many; return for each the execution as it is now, or why it was not."""
        return await self._changer.many(ids, self._changer.cancelled)

    async def retry_many(self, ids: Collection[str]) -> Mapping[str, Execution | WorchflowError]:
        """Retry many; return for each the execution as it is now, or why it was not."""
        return await self._changer.many(ids, self._changer.reopened)

    async def delete_many(self, ids: Collection[str]) -> Mapping[str, WorchflowError]:
        """Delete many; return the reason for each that was not."""
        return await self._changer.delete(ids)

    async def cancel_matching(
        self,
        filter: Filter,
        *,
        dry_run: bool = False,
        everything: bool = False,
        at_most: int | None = None,
    ) -> BulkChange:
        """Cancel all executions that match and have not ended, newest first, page by page.

        What arrives meanwhile is left alone. It may be interrupted and repeated: what was changed
        stays changed. One that has changed since it was found is looked at again, and skipped
        with the reason if it no longer matches.

        Args:
            filter: which; its limit, skip and order are for lists.
            dry_run: change nothing, count them.
            everything: needed for a filter that restricts nothing.
            at_most: stop after so many; `next` of the answer then says where to go on.

        Raises:
            InvalidInput: the filter restricts nothing, or cannot be taken.
            NotAllowed: this can be done in none of the statuses that it names.
            StoreUnavailable: the store went away; some may have been changed.
        """
        return await self._bulk.change(
            Verb.CANCEL, filter, dry_run=dry_run, everything=everything, at_most=at_most
        )

    async def retry_matching(
        self,
        filter: Filter,
        *,
        dry_run: bool = False,
        everything: bool = False,
        at_most: int | None = None,
    ) -> BulkChange:
        """Queue all executions again that match and failed or were cancelled.

        As `cancel_matching`, which explains the arguments.
        """
        return await self._bulk.change(
            Verb.RETRY, filter, dry_run=dry_run, everything=everything, at_most=at_most
        )

    async def delete_matching(
        self,
        filter: Filter,
        *,
        dry_run: bool = False,
        everything: bool = False,
        at_most: int | None = None,
    ) -> BulkChange:
        """Delete all executions that match and have ended, and their steps.

        As `cancel_matching`, which explains the arguments.
        """
        return await self._bulk.change(
            Verb.DELETE, filter, dry_run=dry_run, everything=everything, at_most=at_most
        )

    async def drain(self, worker_ids: Collection[str]) -> None:
        """Ask workers to stop taking work and leave once they are empty."""
        await self._store.drain(worker_ids, now=self._journal.clock.now())

    # --- paused functions -----------------------------------------------------------------------

    async def pause_function(self, function_id: str, *, reason: str = "") -> Pause:
        """Begin no execution of a function until it is resumed; return the pause that holds.

        Workers hear of it within about a second. What runs goes on, events are stored and wait. A
        function that is paused already keeps its earlier pause.

        Args:
            function_id: the function, which a worker, or this process, must have described.
            reason: why, for others who wonder; up to 500 characters.

        Raises:
            NotFound: nobody has described such a function.
            InvalidInput: the reason is too long.
        """
        check_reason(reason)
        known = [item.id for item in await self.functions()]
        if function_id not in known:
            names = ", ".join(known) or "none"
            raise NotFound(f"no function {function_id!r}; there are: {names}")
        now = self._journal.clock.now()
        return await pauses.pause(self._store.records, function_id, reason=reason, now=now)

    async def resume_function(self, function_id: str) -> None:
        """Let a function's executions begin again; one that is not paused stays so."""
        await pauses.resume(self._store.records, function_id)

    async def paused_functions(self) -> Mapping[str, Pause]:
        """Return the pauses there are, by function."""
        return await pauses.paused(self._store.records)

    # --- schedules ------------------------------------------------------------------------------

    async def pause_schedule(self, function_id: str) -> ScheduleInfo:
        """Fire no tick of a function's schedule until it is resumed; raise `NotFound`."""
        now = self._journal.clock.now()
        return await self._change_schedule(
            function_id,
            lambda item: item if item.is_paused else replace(item, paused_at=now, waiting=None),
        )

    async def resume_schedule(self, function_id: str) -> ScheduleInfo:
        """Fire the ticks of a paused schedule again, from now on; raise `NotFound`.

        Ticks of the pause were not missed, and are not made up for.
        """
        now = self._journal.clock.now()
        return await self._change_schedule(
            function_id,
            lambda item: (
                replace(item, paused_at=None, last_tick=max(item.last_tick, now))
                if item.is_paused
                else item
            ),
        )

    async def run_schedule_now(self, function_id: str) -> ExecutionHandle[Any]:
        """Create an execution as the schedule would, at once, paused or not; raise `NotFound`.

        It stands for no tick: `event.scheduled_for` is None, and the next tick stays as it is.
        """
        item = await self._change_schedule(function_id, lambda item: item)
        execution = item.execution(
            f"{id_prefix(function_id)}now-{uuid4().hex[:12]}",
            now=self._journal.clock.now(),
            has_hint=self._journal.queue.keeps_hints,
            tick=None,
        )
        await self._create([execution])
        codec = self._result_codec(function_id)
        return ExecutionHandle(self, execution, codec, is_new=True)

    async def close(self) -> None:
        """Stop waiting for results; the application closes the backends."""
        await self._results.close()

    # --- inside ---------------------------------------------------------------------------------

    def _result_codec(self, function_id: str) -> Codec | None:
        function = self._registry.get(function_id)
        return function.result_codec if function else None

    async def _create(self, executions: Sequence[Execution]) -> Sequence[Created]:
        known_id = executions[0].id if len(executions) == 1 else None
        return await self._within(known_id, self._journal.create(executions))

    async def _within(self, known_id: str | None, write: Awaitable[T]) -> T:
        """Return what a write answers; raise `StoreUnavailable` where it takes too long."""
        seconds = self._settings.send_timeout.total_seconds()
        try:
            async with asyncio.timeout(seconds):
                return await write
        except TimeoutError:
            raise StoreUnavailable(
                f"{self._store.describe()} did not answer within {seconds:g} s; "
                "sending again with the same id is safe",
                execution_id=known_id,
            ) from None
        except StoreUnavailable as error:
            raise StoreUnavailable(str(error), execution_id=known_id) from error

    async def _change_schedule(
        self, function_id: str, decide: Callable[[ScheduleInfo], ScheduleInfo]
    ) -> ScheduleInfo:
        item = await self._timetable.change(function_id, decide) if function_id else None
        if item is None:
            known = ", ".join(item.function for item in await self.schedules()) or "none"
            raise NotFound(f"no schedule of a function {function_id!r}; there are: {known}")
        return item
