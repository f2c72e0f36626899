"""What the dashboard's tests share: an application in memory, its dashboard, a client of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import httpx

from worchflow_core import Execution, Function, Status, StepRecord, Worchflow, load_settings
from worchflow_core.query import Condition, Page, Query
from worchflow_plugins.dashboard import create_dashboard
from worchflow_plugins.dashboard.demo.functions import FUNCTIONS
from worchflow_plugins.memory import MemoryStore

T = TypeVar("T")

NOW = datetime.now(UTC).replace(microsecond=0)
HOST = "http://localhost:8765"


def run(main: Coroutine[Any, Any, T], *, limit: float = 60) -> T:
    """Run a test's coroutine; a test that hangs fails."""

    async def limited() -> T:
        async with asyncio.timeout(limit):
            return await main

    return asyncio.run(limited())


class CountingStore(MemoryStore):
    """A store in memory that counts the questions it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    async def get(self, ids: Any) -> Sequence[Execution]:
        self.asked.append("get")
        return await super().get(ids)

    async def find(self, query: Query) -> Page:
        self.asked.append("find")
        return await super().find(query)

    async def steps(self, execution_ids: Any) -> Mapping[str, Sequence[StepRecord]]:
        self.asked.append("steps")
        return await super().steps(execution_ids)

    async def stats(self) -> Mapping[Status, int]:
        self.asked.append("stats")
        return await super().stats()

    async def tally(self, where: Sequence[Condition], *, bucket: timedelta) -> Any:
        self.asked.append("tally")
        return await super().tally(where, bucket=bucket)


def application(
    store: Any = None, *, functions: Sequence[Function[Any, Any]] = FUNCTIONS, **more: Any
) -> Worchflow:
    """Return an application over a store in memory, not yet open, without other plugins."""
    settings = load_settings(
        {"disabled_plugins": "dashboard,logs,memory,mongo,redis,sample-audit,sample-panel,sqlite"},
        env_file=None,
    )
    return Worchflow(
        settings, functions=functions, store=store or MemoryStore(), env_file=None, **more
    )


@asynccontextmanager
async def served(
    store: Any = None, *, plugins: Sequence[object] = (), **options: Any
) -> AsyncIterator[tuple[httpx.AsyncClient, Worchflow]]:
    """Open an application and its dashboard; yield a client of the one and the other."""
    async with application(store, plugins=plugins) as app:
        transport = httpx.ASGITransport(
            create_dashboard(app, **options), raise_app_exceptions=False
        )
        async with httpx.AsyncClient(transport=transport, base_url=HOST) as client:
            yield client, app


def execution(execution_id: str, **fields: Any) -> Execution:
    """Return a queued execution of process-payment, sent a minute ago."""
    sent = NOW - timedelta(minutes=1)
    given = {"function": "process-payment", "created_at": sent, "updated_at": sent, "due_at": sent}
    return Execution(id=execution_id, **{**given, **fields})


def step(execution_id: str, number: int, **fields: Any) -> StepRecord:
    """Return a completed step that took a tenth of a second."""
    began = NOW - timedelta(minutes=1) + timedelta(seconds=number / 5)
    given: dict[str, Any] = {
        "step_id": f"step-{number}",
        "title": f"Step {number}",
        "result": json.dumps({"number": number}),
        "seq": number,
        "started_at": began,
        "ended_at": began + timedelta(milliseconds=100),
        "execution_created_at": NOW - timedelta(minutes=1),
        **fields,
    }
    return StepRecord(execution_id=execution_id, **given)
