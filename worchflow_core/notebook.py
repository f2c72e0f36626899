"""The notebook: gathers what running executions say, and writes it down now and then."""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from worchflow_core.errors import StoreUnavailable
from worchflow_core.ledger import Ledger
from worchflow_core.models import Payload, Record
from worchflow_core.notes import KIND, Notes, Progress, body_of, checked_progress, line, notes_of
from worchflow_core.protocols import Records

logger = logging.getLogger("worchflow")

WRITTEN_EVERY = 1.0
"""Seconds between writes of what is said meanwhile."""


class Notebook:
    """What the executions of one session say; may be written into from any thread.

    Args:
        records: where it is written down.
    """

    def __init__(self, records: Records) -> None:
        self._records = records
        self._ledger = Ledger(records, KIND)
        self._said: dict[str, Notes] = {}
        self._known: dict[str, Record] = {}
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writing: asyncio.Task[None] | None = None

    def progress(self, execution_id: str, done: Any, total: Any, note: Any, at: datetime) -> None:
        """Keep how far an execution is; raise `InvalidInput` for what is no progress."""
        self._say(execution_id, Notes(progress=checked_progress(done, total, note, at)))

    def log(
        self,
        execution_id: str,
        text: Any,
        fields: Mapping[str, Any],
        *,
        at: datetime,
        attempt: int,
        step: str | None,
    ) -> None:
        """Keep a line of an execution."""
        said = line(text, fields, at=at, attempt=attempt, step=step)
        self._say(execution_id, Notes(lines=(said,)))

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Name the event loop on which to write."""
        self._loop = loop

    def close(self, execution_id: str) -> None:
        """Let what an execution said be written soon: its attempt has ended."""
        self._known.pop(execution_id, None) if execution_id not in self._said else self._start(0.0)

    async def drain(self) -> None:
        """Return once all that was said is written, or cannot be for now."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.wait({self._writing})
        await self._write()

    def latest(self, execution_id: str) -> Progress | None:
        """Return what an execution said last of its progress, if that is not written yet."""
        said = self._said.get(execution_id)
        return None if said is None else said.progress

    def _say(self, execution_id: str, said: Notes) -> None:
        with self._lock:
            known = self._said.get(execution_id, Notes())
            is_first = not self._said
            self._said[execution_id] = known.with_more(said)
        if is_first and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(partial(self._start, WRITTEN_EVERY))

    def _start(self, seconds: float) -> None:
        if self._writing is None or self._writing.done():
            self._writing = asyncio.ensure_future(self._write_later(seconds))

    async def _write_later(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._write()
        with self._lock:
            has_more = bool(self._said)
        if has_more:
            self._writing = asyncio.ensure_future(self._write_later(WRITTEN_EVERY))

    async def _write(self) -> None:
        """Write all that was said; what cannot be is kept, and said again later."""
        with self._lock:
            said, self._said = self._said, {}
        if not said:
            return
        try:
            await self._put(said)
        except (StoreUnavailable, ConnectionError) as error:
            logger.debug("notes wait for the store: %s", error)
            with self._lock:
                for key, notes in said.items():
                    self._said[key] = notes.with_more(self._said.get(key, Notes()))
        except Exception:
            logger.exception("what %d executions said cannot be written", len(said))

    async def _put(self, said: dict[str, Notes]) -> None:
        """Write in two calls what nobody else has written, the rest one by one."""
        fresh: list[Record] = []
        grown: list[Record] = []
        for key, notes in said.items():
            known = self._known.get(key)
            if known is None:
                version = 1 + secrets.randbits(40)
                fresh.append(Record(kind=KIND, key=key, body=body_of(notes), version=version))
            else:
                body = body_of(notes_of(known.body).with_more(notes))
                grown.append(Record(kind=KIND, key=key, body=body, version=known.version + 1))
        new = set(await self._records.insert(fresh)) if fresh else set()
        refused = set(await self._records.replace(grown)) if grown else set()
        self._remember([item for item in fresh if item.key in new])
        self._remember([item for item in grown if item.key not in refused])
        for key in refused.union(item.key for item in fresh if item.key not in new):
            self._known.pop(key, None)
            await self._ledger.change(key, partial(_merged, said[key]))

    def _remember(self, records: Sequence[Record]) -> None:
        for record in records:
            self._known[record.key] = record
        for key in list(self._known)[:-1000]:  # of many that said one thing, none is kept long
            del self._known[key]


async def _merged(said: Notes, body: Payload | None) -> Payload:
    return body_of(notes_of(body).with_more(said))
