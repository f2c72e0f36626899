"""Cancelling what talks to a backend always gets through: nobody who has to end goes on."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.faults.arena import Arena
from tests.faults.checker import checked
from worchflow_core import Record
from worchflow_core.functions import Registry
from worchflow_core.settings import load_settings
from worchflow_core.sweeper import Sweeper

ROUNDS = 300


@checked
async def test_a_cancelled_call_ends(arena: Arena) -> None:
    """Wherever in a call the cancellation comes, it reaches the caller."""
    store = arena.store
    calls: list[Callable[[], Coroutine[Any, Any, object]]] = [
        lambda: store.get(["nobody"]),
        lambda: store.steps(["nobody"]),
        store.workers,
        lambda: store.records.scan("nothing"),
        lambda: store.records.insert([Record(kind="nothing", key="k", body="{}")]),
    ]
    rng = random.Random(7)
    for number in range(ROUNDS):
        task = asyncio.ensure_future(calls[number % len(calls)]())
        for _ in range(rng.randrange(12)):
            await asyncio.sleep(0)
        if task.cancel():
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            task.result()
    assert await store.get(["nobody"]) == []


@checked
async def test_a_cancelled_sweeper_ends(arena: Arena) -> None:
    """Even over a store that loses cancellations."""
    assert arena._app is not None
    journal = arena._app.journal
    loses = asyncio.Event()
    find = journal.store.find

    async def find_regardless(query: Any) -> Any:
        loses.set()
        task = asyncio.current_task()
        assert task is not None
        if not task.cancelling():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(30)
        return await find(query)

    settings = load_settings(arena.place.settings(sweep_interval="10ms"), env_file=None)
    journal.store = _Replacing(journal.store, find=find_regardless)
    sweeper = Sweeper(journal, Registry([]), settings)
    task = asyncio.create_task(sweeper.run())
    await loses.wait()
    task.cancel()
    async with asyncio.timeout(10):
        await asyncio.wait([task])
    journal.store = journal.store._store


class _Replacing:
    """A store with one method of the test's own."""

    def __init__(self, store: Any, **methods: Any) -> None:
        self._store = store
        self._methods = methods

    def __getattr__(self, name: str) -> Any:
        return self._methods.get(name) or getattr(self._store, name)
