"""Durable control flow: steps that sleep, wait, send and invoke, for both faces of `step`.

A step here never holds a slot while it waits: it records what it waits for, pauses the execution,
and finds its answer when the execution is claimed again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from worchflow_core.clock import from_millis, to_millis
from worchflow_core.codec import UNTYPED, Codec, hash_input
from worchflow_core.drift import OnChange, outgrown
from worchflow_core.durations import Duration, parse_duration
from worchflow_core.errors import (
    EventTimeout,
    ExecutionCancelled,
    ExecutionFailed,
    InvalidInput,
    NonDeterminismError,
)
from worchflow_core.functions import Function, Registry
from worchflow_core.identities import DEADLINE, Slot
from worchflow_core.ids import derived_id
from worchflow_core.journal import Journal
from worchflow_core.lease import Lease
from worchflow_core.mailbox import Mailbox, StoredEvent, child_key, wait_keys
from worchflow_core.matching import check_match
from worchflow_core.models import Execution, Failure, Status, StepRecord
from worchflow_core.signals import Superseded, Suspend
from worchflow_core.step import Answer, Watch
from worchflow_core.stepbook import StepBook
from worchflow_core.subscriptions import Subscriptions
from worchflow_core.transitions import looked
from worchflow_core.validation import check_event_name, check_function_id

IN_PLACE = timedelta(seconds=1)
"""Sleeps shorter than this are waited out in the slot: giving it back would cost more."""


class Control:
    """What an attempt's control-flow steps do; the faces of `step` fix the identities."""

    def __init__(
        self,
        book: StepBook,
        journal: Journal,
        registry: Registry,
        subscriptions: Subscriptions,
        lease: Lease,
        max_payload: int,
    ) -> None:
        self._book = book
        self._journal = journal
        self._registry = registry
        self._subscriptions = subscriptions
        self._lease = lease
        self._max_payload = max_payload
        self._mailbox = Mailbox(journal)

    # --- sleeping -------------------------------------------------------------------------------

    async def sleep(self, slot: Slot, until: datetime) -> None:
        """Return at or after the moment that the first attempt fixed."""
        stands = await self._standing(slot, "sleep", {"wakeAt": to_millis(until)}, ends=until)
        wake_at = from_millis(json.loads(stands.result or "{}")["wakeAt"])
        left = wake_at - self._book.clock.now()
        if left <= timedelta(0):
            return
        if left < IN_PLACE:
            await asyncio.sleep(left.total_seconds())
            return
        raise Suspend(wake_at)

    # --- waiting --------------------------------------------------------------------------------

    async def wait(
        self, slot: Slot, watches: Sequence[Watch], timeout: timedelta | None, on_timeout: str
    ) -> Answer | None:
        """Return the first event that fits, None at the timeout (or raise, by choice)."""
        book = self._book
        if slot.step_id in book.recorded:
            return self._answer(slot, book.replayed(slot, "wait"), on_timeout)
        until = await self._deadline(slot, timeout)
        await self._mailbox.announce(watches)
        found = await self._look(watches)
        if found is None and until is not None and until <= book.clock.now():
            found = await self._look(watches)
            if found is None:
                stands = await self._record(slot, "wait", {"timeout": True})
                return self._answer(slot, stands, on_timeout)
        if found is None:
            book.watches += watches
            keys = [key for item in watches for key in wait_keys(item, book.execution.id)]
            raise Suspend(until, tuple(keys))
        body = {
            "event": found.id,
            "name": found.name,
            "data": json.loads(found.data),
            "at": to_millis(found.at),
        }
        return self._answer(slot, await self._record(slot, "wait", body), on_timeout)

    async def _look(self, watches: Sequence[Watch]) -> StoredEvent | None:
        book = self._book
        async with book.looking:  # two waits of one attempt must not take the same event
            found = await self._mailbox.look(watches, book.execution, book.taken)
            if found is not None:
                book.taken.add(found.id)
            return found

    async def _deadline(self, slot: Slot, timeout: timedelta | None) -> datetime | None:
        """Return when the wait times out, as its first attempt fixed it."""
        if timeout is None:
            return None
        until = self._book.clock.now() + timeout
        inner = slot.inner("until")
        stands = await self._standing(inner, DEADLINE, {"until": to_millis(until)}, ends=until)
        return from_millis(json.loads(stands.result or "{}")["until"])

    def _answer(self, slot: Slot, stands: StepRecord, on_timeout: str) -> Answer | None:
        body = json.loads(stands.result or "{}")
        if body.get("timeout"):
            if on_timeout == "raise":
                raise EventTimeout(f"step {slot.title!r}: no event came in time")
            return None
        return Answer(
            name=body["name"],
            data=body["data"],
            id=body["event"],
            timestamp=from_millis(body["at"]),
        )

    # --- sending --------------------------------------------------------------------------------

    async def send_event(self, slot: Slot, name: str, data: Any) -> str:
        """Send an event once, however often the execution replays; return its id."""
        book = self._book
        if slot.step_id in book.recorded:
            return str(json.loads(book.replayed(slot, "send").result or "{}")["id"])
        event_id = derived_id(f"{book.execution.id}:{slot.step_id}")
        payload = self._encode(f"event data of step {slot.title!r}", data)
        function = self._registry.get(name) if isinstance(name, str) else None
        if function is not None:
            await self._create(function, payload, event_id, parent=None)
        else:
            event = StoredEvent(
                id=event_id,
                name=check_event_name(name),
                data=payload,
                at=book.clock.now(),
                subscribers=await self._subscriptions.of(name, payload),
                headers=book.execution.headers,
            )
            await self._mailbox.put(event)
        stands = await self._record(slot, "send", {"id": event_id, "name": name})
        return str(json.loads(stands.result or "{}")["id"])

    # --- invoking -------------------------------------------------------------------------------

    async def invoke(
        self,
        slot: Slot,
        function: Function[Any, Any] | str,
        data: Any,
        timeout: timedelta | None,
    ) -> Any:
        """Run a function as a child execution and return its result.

        The child's id derives from the step, so there is one child however often this replays.
        """
        book = self._book
        target = function if isinstance(function, Function) else self._registry.get(function)
        name = target.id if target is not None else check_function_id(str(function))
        result = target.result_codec if target else Codec(UNTYPED, "result")
        slot = book.drift.renewed(slot, result)
        child_id = derived_id(f"{book.execution.id}:{slot.step_id}")
        if slot.step_id in book.recorded:
            return self._child_result(slot, book.replayed(slot, "invoke"), result)
        codec = target.data_codec if target else Codec(UNTYPED, f"event data of {name}")
        payload, _ = codec.encode(codec.coerce(data), limit=self._max_payload)
        until = await self._deadline(slot, timeout)
        await self._create(target or name, payload, child_id, parent=book.execution.id)
        found = await self._journal.store.get([child_id])
        child = found[0] if found else None
        if child is not None and child.status.is_final:
            body = {
                "child": child_id,
                "status": child.status,
                "result": json.loads(child.result) if child.result is not None else None,
                "error": child.error.type if child.error else None,
                "message": child.error.message if child.error else None,
                "reason": child.error.reason if child.error else None,
            }
            return self._child_result(slot, await self._record(slot, "invoke", body), result)
        if until is not None and until <= book.clock.now():
            body = {"child": child_id, "timeout": True}
            return self._child_result(slot, await self._record(slot, "invoke", body), result)
        book.children.add(child_id)
        raise Suspend(until, (child_key(child_id),))

    def _child_result(self, slot: Slot, stands: StepRecord, codec: Codec) -> Any:
        body = json.loads(stands.result or "{}")
        if body.get("timeout"):
            raise EventTimeout(f"execution {body['child']} had not ended in time; it goes on")
        if body["status"] == Status.COMPLETED:
            why = outgrown(stands, slot.title, codec)
            if why is None:
                return codec.decode(json.dumps(body["result"]))
            if self._book.drift.on_change is OnChange.ADOPT:
                return body["result"]
            raise NonDeterminismError(why)
        if body["status"] == Status.CANCELLED:
            raise ExecutionCancelled(body["child"], None, "was cancelled")
        failure = None
        if body["error"] is not None:
            failure = Failure(type=body["error"], message=body["message"], reason=body["reason"])
        raise ExecutionFailed(body["child"], failure)

    async def _create(
        self,
        function: Function[Any, Any] | str,
        payload: str,
        execution_id: str,
        *,
        parent: str | None,
    ) -> None:
        now = self._book.clock.now()
        name = function.id if isinstance(function, Function) else function
        known = function if isinstance(function, Function) else None
        execution = Execution(
            id=execution_id,
            function=name,
            data=payload,
            created_at=now,
            updated_at=now,
            due_at=now,
            hinted_at=now if self._journal.queue.keeps_hints else None,
            retries=known.retry.retries if known else None,
            input_hash=hash_input(name, payload),
            parent=parent,
            priority=known.priority if known else 0,
            tags=known.tags if known else (),
            headers=self._book.execution.headers,
        )
        await self._journal.create([execution])

    # --- records --------------------------------------------------------------------------------

    async def _standing(
        self, slot: Slot, kind: str, body: Mapping[str, Any], *, ends: datetime
    ) -> StepRecord:
        """Return the record of a step that only fixes a fact, recording it the first time."""
        if slot.step_id in self._book.recorded:
            return self._book.replayed(slot, kind)
        return await self._record(slot, kind, body, ends=ends)

    async def _record(
        self, slot: Slot, kind: str, body: Mapping[str, Any], *, ends: datetime | None = None
    ) -> StepRecord:
        book = self._book
        if book.is_abandoned:
            raise Superseded("nobody waits for this attempt any more")
        payload = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
        if len(payload.encode(errors="surrogatepass")) > self._max_payload + 1024:
            raise InvalidInput(f"step {slot.title!r} received more than may be kept")
        record = book.fact(slot, kind, payload, ends)
        stands = await self._journal.record(book.execution, record, self._lease)
        if stands is None:
            raise Superseded("a newer claim has this execution")
        book.drift.compare(slot.title, stands, kind)
        book.recorded[slot.step_id] = stands
        return stands

    def _encode(self, what: str, data: Any) -> str:
        payload, _ = Codec(UNTYPED, what).encode(data, limit=self._max_payload)
        return payload


async def look_again(book: StepBook, journal: Journal, settled: Execution) -> None:
    """Wake an execution at once if what it waits for came while it was being settled.

    Only then is it noted that nothing is left to be done for it: until that is stored, a sweep
    would wake it, because whoever was to look may have died.
    """
    is_there = False
    if book.watches:
        is_there = bool(await Mailbox(journal).look(book.watches, settled, book.taken))
    if book.children and not is_there:
        children = await journal.store.get(book.children)
        is_there = any(item.status.is_final for item in children)
    change = looked(settled, is_there=is_there, now=journal.clock.now())
    await journal.update([(settled, change)])


def span_of(title: str, timeout: Duration | None) -> timedelta | None:
    """Return an option's timeout; raise `InvalidInput` naming the step if it is wrong."""
    if timeout is None:
        return None
    try:
        return parse_duration(timeout, name="timeout")
    except ValueError as error:
        raise InvalidInput(f"step {title!r}: {error}") from None


def checked_moment(title: str, moment: datetime) -> datetime:
    """Return a moment in whole milliseconds; raise `InvalidInput` where it has no time zone."""
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise InvalidInput(
            f"step {title!r}: {moment!r} is no moment with a time zone; give an aware datetime, "
            "such as event.timestamp + timedelta(days=1)"
        )
    return from_millis(to_millis(moment))


def checked_watch(title: str, name: str, match: Mapping[str, Any] | None) -> Watch:
    """Return what to wait for; raise `InvalidInput` where name or match cannot be taken."""
    try:
        return Watch(name=check_event_name(name), match=check_match(match))
    except InvalidInput as error:
        raise InvalidInput(f"step {title!r}: {error}") from None


def check_wait(title: str, watches: Sequence[Watch], on_timeout: str) -> None:
    """Raise `InvalidInput` where there is nothing to wait for, or no such choice."""
    if not watches or not all(isinstance(item, Watch) for item in watches):
        raise InvalidInput(f"step {title!r}: give what to wait for as Watch(name=..., match=...)")
    if on_timeout not in ("none", "raise"):
        raise InvalidInput(f"step {title!r}: on_timeout is {on_timeout!r}; give 'none' or 'raise'")
