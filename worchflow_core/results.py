"""Waiting for executions to end: one shared poll per process, however many wait."""

from __future__ import annotations

import asyncio
import logging

from worchflow_core.errors import StoreUnavailable
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
        self._waiting: dict[str, set[asyncio.Future[Execution]]] = {}
        self._task: asyncio.Task[None] | None = None
        self._new = asyncio.Event()

    def settled(self, execution: Execution) -> None:
        """Tell those who wait for this execution that it has ended."""
        if execution.status.is_final:
            for future in self._waiting.pop(execution.id, ()):
                if not future.done():
                    future.set_result(execution)

    async def wait(self, execution_id: str) -> Execution | None:
        """Return the execution once it is final; None when there is no such execution."""
        found = await self._store.get([execution_id])
        if not found:
            return None
        if found[0].status.is_final:
            return found[0]
        future: asyncio.Future[Execution] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(execution_id, set()).add(future)
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
        """Stop polling; those who still wait are cancelled."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        for futures in self._waiting.values():
            for future in futures:
                future.cancel()

    async def _poll(self) -> None:
        wait = _FIRST
        while self._waiting:
            ids = list(self._waiting)
            try:
                for start in range(0, len(ids), _PAGE):
                    for execution in await self._store.get(ids[start : start + _PAGE]):
                        self.settled(execution)
            except StoreUnavailable as error:
                logger.debug("the store is away while results are awaited: %s", error)
            self._new.clear()
            try:
                # Not wait_for: before Python 3.12 it may lose a cancellation.
                async with asyncio.timeout(wait):
                    await self._new.wait()
                wait = _FIRST
            except TimeoutError:
                wait = min(wait * 1.5, _LONGEST)
