"""What the dashboard changes: sends, retries, cancels, drains; one at a time or all that match."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from worchflow_core import (
    BulkChange,
    Execution,
    ExecutionHandle,
    FunctionInfo,
    InvalidInput,
    NotFound,
    Pause,
    ScheduleInfo,
    SentEvent,
    WorchflowError,
)
from worchflow_plugins.dashboard.parameters import (
    BulkBody,
    ForkBody,
    SendBody,
    make_choice,
    parse_cursor,
)
from worchflow_plugins.dashboard.reader import Reader
from worchflow_plugins.dashboard.source import Source

PART = 500
"""How many executions one request changes at the most; the answer says where to go on."""

_PROBLEMS_MAX = 20

Verb = Literal["retry", "cancel"]


class DataDoesNotFit(InvalidInput):
    """Event data does not fit the schema of its function.

    Attributes:
        problems: where, and why.
    """

    def __init__(self, function: str, found: Sequence[tuple[str, str]]) -> None:
        self.problems = list(found[:_PROBLEMS_MAX])
        lines = "; ".join(f"{path[:200]}: {message[:500]}" for path, message in self.problems)
        super().__init__(f"event data does not fit {function}: {lines}")


class Actions:
    """Carry out what people ask for, and forget the snapshots, so that they see it at once."""

    def __init__(self, source: Source, reader: Reader) -> None:
        self._source = source
        self._reader = reader

    async def send(self, body: SendBody) -> str:
        """Send an event; return the execution's id.

        Raises:
            InvalidInput: nobody knows the function, or the data does not fit; `force` skips both.
        """
        if not body.force:
            await self._check(body.name, body.data)
        handle = await self._source.client.send(
            body.name,
            body.data,
            id=body.id,
            delay=body.delay,
            priority=body.priority,
            tags=body.tags,
        )
        self._reader.snapshots.forget()
        return handle.id

    async def is_event(self, body: SendBody) -> bool:
        """Return whether a body is to be sent as an event: it says so, or functions subscribe."""
        if body.event:
            return True
        known = await self._reader.functions()
        is_function = any(item.id == body.name for item in known)
        return not is_function and any(item.subscribes(body.name) for item in known)

    async def send_event(self, body: SendBody) -> SentEvent[ExecutionHandle[Any]]:
        """Send an event to who subscribes to it or waits for it.

        Raises:
            InvalidInput: the name is a function's, or an option is given that events lack.
        """
        if await self._reader.function(body.name) is not None:
            raise InvalidInput(f"{body.name!r} is a function; leave event out")
        if body.delay is not None or body.priority is not None:
            raise InvalidInput(
                f"delay and priority are for functions, and {body.name!r} is sent as an event"
            )
        sent = await self._source.client.send_event(
            body.name, body.data, id=body.id, tags=body.tags
        )
        self._reader.snapshots.forget()
        return sent

    async def _check(self, name: str, data: Any) -> None:
        known = await self._reader.functions()
        # An empty catalogue says nothing: then no worker has ever run on this store.
        if not known:
            return
        info: FunctionInfo | None = next((item for item in known if item.id == name), None)
        if info is None:
            names = ", ".join(item.id for item in known[:10])
            raise InvalidInput(
                f"no worker has a function {name!r}, and none subscribes to it; there are: "
                f"{names}. Send with event to reach those who wait for an event of this name, "
                "with force to queue it until a worker has the function."
            )
        found = info.problems(data)
        if found:
            raise DataDoesNotFit(name, found)

    async def retry(self, execution_id: str) -> Execution:
        """Queue a failed or cancelled execution again."""
        try:
            return await self._source.client.retry(execution_id)
        finally:
            self._reader.snapshots.forget()

    async def cancel(self, execution_id: str) -> Execution:
        """Cancel an execution: at once, or at its next step boundary."""
        try:
            return await self._source.client.cancel(execution_id)
        finally:
            self._reader.snapshots.forget()

    async def fork(self, execution_id: str, body: ForkBody) -> ExecutionHandle[Any]:
        """Run an execution again from one of its steps, as a new one."""
        given = {"data": body.data} if body.has_data else {}
        try:
            return await self._source.client.fork(
                execution_id,
                from_step=body.from_step or None,
                results=body.results,
                id=body.id,
                **given,
            )
        finally:
            self._reader.snapshots.forget()

    async def drain(self, worker_id: str) -> None:
        """Ask a worker to stop taking work; raise `NotFound` if there is none with this id."""
        if worker_id not in {worker.id for worker in await self._reader.workers()}:
            raise NotFound(f"no worker {worker_id[:200]!r}")
        await self._source.client.drain([worker_id])
        self._reader.snapshots.forget()

    async def pause_function(self, function_id: str, reason: str) -> Pause:
        """Begin no execution of a function until it is resumed."""
        try:
            return await self._source.client.pause_function(function_id, reason=reason)
        finally:
            self._reader.snapshots.forget()

    async def resume_function(self, function_id: str) -> None:
        """Let a function's executions begin again; raise `NotFound` if it is not paused."""
        if function_id not in await self._source.client.paused_functions():
            raise NotFound(f"no function {function_id[:200]!r} is paused")
        await self._source.client.resume_function(function_id)
        self._reader.snapshots.forget()

    async def change_schedule(self, function_id: str, pause: bool) -> ScheduleInfo:
        """Pause a schedule, or resume it; raise `NotFound` if the function has none."""
        client = self._source.client
        try:
            return await (client.pause_schedule if pause else client.resume_schedule)(function_id)
        finally:
            self._reader.snapshots.forget()

    async def run_schedule(self, function_id: str) -> str:
        """Create an execution as a schedule would; return its id."""
        try:
            return (await self._source.client.run_schedule_now(function_id)).id
        finally:
            self._reader.snapshots.forget()

    async def many(self, verb: Verb, body: BulkBody) -> BulkChange:
        """Retry or cancel many: those named, or a part of those that match."""
        if (body.ids is None) == (body.filter is None):
            raise InvalidInput("give either ids or filter")
        try:
            if body.filter is None:
                return await self._named(verb, list(dict.fromkeys(body.ids or ())), body.dry_run)
            choice = make_choice(body.filter.model_dump(exclude_unset=True))
            client = self._source.client
            change = client.retry_matching if verb == "retry" else client.cancel_matching
            return await change(
                choice.filter(after=parse_cursor("after", body.after)),
                dry_run=body.dry_run,
                everything=True,
                at_most=PART,
            )
        finally:
            if not body.dry_run:
                self._reader.snapshots.forget()

    async def _named(self, verb: Verb, ids: Sequence[str], dry_run: bool) -> BulkChange:
        if dry_run:
            return BulkChange(matched=len(ids))
        client = self._source.client
        answers = await (client.retry_many if verb == "retry" else client.cancel_many)(ids)
        errors = {key: item for key, item in answers.items() if isinstance(item, WorchflowError)}
        changed = tuple(key for key in answers if key not in errors)
        return BulkChange(matched=len(ids), changed=changed, skipped=errors)
