"""What the dashboard changes: sends, retries, cancels, drains; one at a time or all that match."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from worchflow_core import (
    FINAL,
    Execution,
    ExecutionHandle,
    FunctionInfo,
    InvalidInput,
    NotFound,
    SentEvent,
    Status,
    WorchflowError,
)
from worchflow_plugins.dashboard.parameters import (
    BulkBody,
    Choice,
    SendBody,
    format_cursor,
    make_choice,
    parse_cursor,
)
from worchflow_plugins.dashboard.reader import Reader
from worchflow_plugins.dashboard.source import Source

PART = 500
"""How many executions one request changes at the most; the answer says where to go on."""

_PROBLEMS_MAX = 20

_POSSIBLE: Mapping[str, tuple[Status, ...]] = {
    "retry": (Status.FAILED, Status.CANCELLED),
    "cancel": tuple(status for status in Status if status not in FINAL),
}

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


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkAnswer:
    """What became of many.

    Attributes:
        matched: how many the request meant; for a filter, how many still match.
        changed: ids that were changed.
        skipped: why others were not, by id.
        next: where to go on; None when all were seen.
        is_capped: whether counting stopped at the cap.
    """

    matched: int
    changed: tuple[str, ...] = ()
    skipped: Mapping[str, str]
    next: str | None = None
    is_capped: bool = False


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

    async def drain(self, worker_id: str) -> None:
        """Ask a worker to stop taking work; raise `NotFound` if there is none with this id."""
        if worker_id not in {worker.id for worker in await self._reader.workers()}:
            raise NotFound(f"no worker {worker_id[:200]!r}")
        await self._source.client.drain([worker_id])
        self._reader.snapshots.forget()

    async def many(self, verb: Verb, body: BulkBody) -> BulkAnswer:
        """Retry or cancel many: those named, or a part of those that match."""
        if (body.ids is None) == (body.filter is None):
            raise InvalidInput("give either ids or filter")
        if body.ids is not None:
            ids = list(dict.fromkeys(body.ids))
            if body.dry_run:
                return BulkAnswer(matched=len(ids), skipped={})
            return await self._change(verb, ids, matched=len(ids))
        assert body.filter is not None
        choice = narrowed(verb, make_choice(body.filter.model_dump(exclude_unset=True)))
        if choice is None:
            return BulkAnswer(matched=0, skipped={})
        matched, is_capped = await self._reader.count(choice)
        if body.dry_run:
            return BulkAnswer(matched=matched, skipped={}, is_capped=is_capped)
        return await self._change_part(verb, choice, body.after, matched, is_capped)

    async def _change_part(
        self, verb: Verb, choice: Choice, after: str | None, matched: int, is_capped: bool
    ) -> BulkAnswer:
        # By a cursor, because an execution that was asked to cancel goes on matching for a while.
        page = await self._source.client.find(
            choice.filter(limit=PART, after=parse_cursor("after", after))
        )
        answer = await self._change(verb, [item.id for item in page.items], matched=matched)
        place = None
        if len(page.items) == PART:
            place = format_cursor(page.items[-1].created_at, page.items[-1].id)
        return replace(answer, next=place, is_capped=is_capped)

    async def _change(self, verb: Verb, ids: Collection[str], *, matched: int) -> BulkAnswer:
        client = self._source.client
        change = client.retry_many if verb == "retry" else client.cancel_many
        try:
            answers = await change(ids)
        finally:
            self._reader.snapshots.forget()
        errors = {
            item: str(answer)
            for item, answer in answers.items()
            if isinstance(answer, WorchflowError)
        }
        changed = tuple(item for item in answers if item not in errors)
        return BulkAnswer(matched=matched, changed=changed, skipped=errors)


def narrowed(verb: Verb, choice: Choice) -> Choice | None:
    """Return the choice without executions the verb cannot touch; None where none is left."""
    possible = _POSSIBLE[verb]
    status = tuple(item for item in choice.status if item in possible)
    if choice.status and not status:
        return None
    return replace(choice, status=status or possible)
