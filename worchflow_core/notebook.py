"""The notebook: gathers what running executions say, and writes it down now and then."""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from worchflow_core.batching import Batcher
from worchflow_core.errors import StoreUnavailable
from worchflow_core.ledger import Ledger
from worchflow_core.models import Payload, Record
from worchflow_core.notes import (
    KIND,
    LINES_KEPT,
    LogLine,
    Notes,
    Progress,
    body_of,
    checked_progress,
    line,
    notes_of,
)
from worchflow_core.protocols import Records

logger = logging.getLogger("worchflow")

WRITTEN_EVERY = 1.0
"""Seconds between writes of what is said meanwhile."""

PATIENCE = 1.0
"""Seconds that the end of an attempt waits at most for what it said to be written."""

_KNOWN = 1000
"""Of so many executions the record last written is remembered, so that it need not be read."""


@dataclass(slots=True)
class _Page:
    """What one execution has said and is not written; saying more costs the same, however much."""

    progress: Progress | None = None
    lines: deque[LogLine] = field(default_factory=lambda: deque(maxlen=LINES_KEPT))
    logged: int = 0

    def notes(self) -> Notes:
        """Return it as notes, cut to what is kept."""
        dropped = self.logged - len(self.lines)
        return Notes(dropped=dropped).with_more(
            Notes(progress=self.progress, lines=tuple(self.lines))
        )


class Notebook:
    """What the executions of one session say; may be written into from any thread.

    Args:
        records: where it is written down.
    """

    def __init__(self, records: Records) -> None:
        self._records = records
        self._ledger = Ledger(records, KIND)
        self._pages: dict[str, _Page] = {}
        self._open: set[str] = set()
        self._known: dict[str, Record] = {}
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._writes = Batcher(self._write, is_outage=lambda _: True)

    def progress(self, execution_id: str, done: Any, total: Any, note: Any, at: datetime) -> None:
        """Keep how far an execution is; raise `InvalidInput` for what is no progress."""
        progress = checked_progress(done, total, note, at)
        with self._lock:
            page, is_first = self._page(execution_id)
            page.progress = progress
        self._soon(is_first)

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
        with self._lock:
            page, is_first = self._page(execution_id)
            page.lines.append(said)
            page.logged += 1
        self._soon(is_first)

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Name the event loop on which to write."""
        self._loop = loop

    def is_open(self, execution_id: str) -> bool:
        """Return whether an execution has said anything in its attempt here."""
        return execution_id in self._open

    async def close(self, execution_id: str) -> None:
        """Return once all is written that an execution said, or has to wait: its attempt is over.

        So whoever sees that it has ended finds its last words, and nothing of it is written when
        it may be deleted already.
        """
        await asyncio.wait({self._writes.submit(execution_id)}, timeout=PATIENCE)
        self._open.discard(execution_id)
        self._known.pop(execution_id, None)

    async def drain(self) -> None:
        """Return once all that was said is written, or cannot be for now; write nothing later."""
        self._loop = None
        if self._timer is not None:
            self._timer.cancel()
        with self._lock:
            left = {self._writes.submit(execution_id) for execution_id in self._pages}
        if left:
            await asyncio.wait(left, timeout=5 * PATIENCE)

    # --- inside ---------------------------------------------------------------------------------

    def _page(self, execution_id: str) -> tuple[_Page, bool]:
        """Return what an execution has said, and whether nobody had said anything."""
        is_first = not self._pages
        page = self._pages.get(execution_id)
        if page is None:
            page = self._pages[execution_id] = _Page()
            self._open.add(execution_id)
        return page, is_first

    def _soon(self, is_first: bool) -> None:
        loop = self._loop
        if is_first and loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._arm)

    def _arm(self) -> None:
        if self._timer is None and self._loop is not None:
            self._timer = self._loop.call_later(WRITTEN_EVERY, self._write_all)

    def _write_all(self) -> None:
        self._timer = None
        with self._lock:
            pages = list(self._pages)
        for execution_id in pages:
            self._writes.submit(execution_id)

    async def _write(self, ids: Sequence[str]) -> Sequence[None]:
        """Write what these executions have said; what cannot be written is said again later."""
        with self._lock:
            pages = {key: self._pages.pop(key) for key in set(ids) if key in self._pages}
        said = {key: page.notes() for key, page in pages.items()}
        try:
            await self._put(said)
        except (StoreUnavailable, ConnectionError) as error:
            logger.debug("notes wait for the store: %s", error)
            self._keep(said)
        except Exception:
            logger.exception("what %d executions said cannot be written", len(said))
        with self._lock:
            has_more = bool(self._pages)
        if has_more:
            self._arm()
        return [None] * len(ids)

    def _keep(self, said: Mapping[str, Notes]) -> None:
        """Put back what was not written, before what was said since."""
        with self._lock:
            for key, before in said.items():
                since = self._pages.get(key, _Page())
                self._pages[key] = _Page(
                    progress=since.progress or before.progress,
                    lines=deque((*before.lines, *since.lines), maxlen=LINES_KEPT),
                    logged=before.dropped + len(before.lines) + since.logged,
                )

    async def _put(self, said: dict[str, Notes]) -> None:
        """Write in two calls what nobody else has written, the rest one by one.

        What was written is taken out, so that it is not said twice should the store go away.
        """
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
        if fresh:
            new = set(await self._records.insert(fresh))
            self._written(said, [item for item in fresh if item.key in new])
        if grown:
            refused = set(await self._records.replace(grown))
            self._written(said, [item for item in grown if item.key not in refused])
        for key in list(said):
            self._known.pop(key, None)
            await self._ledger.change(key, partial(_merged, said[key]))
            del said[key]

    def _written(self, said: dict[str, Notes], records: Sequence[Record]) -> None:
        for record in records:
            del said[record.key]
            self._known[record.key] = record
        for key in list(self._known)[:-_KNOWN]:
            del self._known[key]


async def _merged(said: Notes, body: Payload | None) -> Payload:
    return body_of(notes_of(body).with_more(said))
