"""Waiting for executions to end: one shared poll per process, however many wait."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection

from worchflow_core.errors import StoreUnavailable, WorchflowError
from worchflow_core.models import Execution
from worchflow_core.protocols import Store

logger = logging.getLogger("worchflow")

_FIRST = 0.02
_LONGEST = 1.0
_PAGE = 500


class Results:
    """Hand every ended execution to those who wait for it.

    What this process settles itself is told at once; the rest is found by one query for all,
    at first quickly, then once a second.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: dict[str, set[asyncio.Future[Execution | None]]] = {}
        self._fresh: set[str] = set()
        self._task: asyncio.Task[None] | None = None
        self._new = asyncio.Event()

    def settled(self, execution: Execution) -> None:
        """Tell those who wait for this execution that it has ended."""
        if execution.status.is_final:
            self._answer(execution.id, execution)

    async def wait(self, execution_id: str) -> Execution | None:
        """Return the execution once it is final; None when there is no such execution."""
        future: asyncio.Future[Execution | None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(execution_id, set()).add(future)
        self._fresh.add(execution_id)
        self._new.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._poll())
        try:
            return await future
        finally:
            futures = self._waiting.get(execution_id)
            if futures is not None:
                futures.discard(future)
                if not futures:
                    del self._waiting[execution_id]

    async def close(self) -> None:
        """Stop polling; those who still wait are told so."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._fail(WorchflowError("the application was closed while a result was awaited"))

    async def _poll(self) -> None:
        try:
            wait = _FIRST
            while self._waiting:
                # New ones are asked for at once and by themselves, all of them in the rhythm.
                fresh, self._fresh = self._fresh, set()
                self._new.clear()
                await self._ask(list(fresh) if fresh else list(self._waiting))
                try:
                    # Not wait_for: before Python 3.12 it may lose a cancellation.
                    async with asyncio.timeout(wait):
                        await self._new.wait()
                    wait = _FIRST
                except TimeoutError:
                    wait = min(wait * 1.5, _LONGEST)
        except Exception as error:  # not the store being away: those who wait must know
            self._fail(error)

    async def _ask(self, ids: list[str]) -> None:
        try:
            for start in range(0, len(ids), _PAGE):
                page = ids[start : start + _PAGE]
                found = await self._store.get(page)
                for execution in found:
                    self.settled(execution)
                self._missing(set(page) - {execution.id for execution in found})
        except StoreUnavailable as error:
            logger.debug("the store is away while results are awaited: %s", error)

    def _missing(self, ids: Collection[str]) -> None:
        for execution_id in ids:
            self._answer(execution_id, None)

    def _answer(self, execution_id: str, execution: Execution | None) -> None:
        for future in self._waiting.pop(execution_id, ()):
            if not future.done():
                future.set_result(execution)

    def _fail(self, error: Exception) -> None:
        for futures in self._waiting.values():
            for future in futures:
                if not future.done():
                    future.set_exception(error)
