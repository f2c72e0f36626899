"""Whatever the sequence of calls, the file answers as the store in memory does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from worchflow_core import Execution, Status, StepStatus, Store
from worchflow_core.testing.contracts.lives import LIFE
from worchflow_core.testing.contracts.samples import at, execution, record, step
from worchflow_plugins.memory import MemoryStore
from worchflow_plugins.sqlite import SqliteStore

IDS = ("a", "b", "c", "d")

_ids = st.sampled_from(IDS)
_moments = st.integers(-3, 3).map(at)

_created = st.builds(
    execution,
    _ids,
    function=st.sampled_from(("f", "g")),
    due_at=st.none() | _moments,
    priority=st.integers(-1, 1),
    status=st.sampled_from(Status),
    input_hash=st.sampled_from((None, "h")),
    waits=st.lists(st.sampled_from("xyz"), unique=True).map(tuple),
    tags=st.lists(st.sampled_from("xyz"), unique=True).map(tuple),
)
_step = st.builds(
    step,
    _ids,
    st.sampled_from(("s1", "s2")),
    fence=st.integers(0, 2),
    status=st.sampled_from(StepStatus),
    result=st.sampled_from(("1", "2")),
)
_record = st.builds(
    record, st.sampled_from("kl"), st.text("{}$", max_size=2), version=st.integers(1, 3)
)
_calls = st.one_of(
    st.tuples(st.just("create"), st.lists(_created, min_size=1, max_size=4)),
    st.tuples(
        st.just("claim"),
        st.sampled_from(("w", "v")),
        st.sets(st.sampled_from(("f", "g"))),
        # Room for all: which of several equals are taken is the store's to choose.
        st.just(len(IDS)),
        _moments,
        st.none() | st.lists(_ids, max_size=3),
    ),
    st.tuples(st.just("record"), st.lists(_step, min_size=1, max_size=4)),
    st.tuples(
        st.just("update"),
        st.lists(
            st.tuples(_ids, st.sampled_from(LIFE)),
            min_size=1,
            max_size=4,
        ),
    ),
    st.tuples(st.just("delete"), st.lists(_ids, max_size=3)),
    st.tuples(st.just("insert"), st.lists(_record, max_size=3)),
    st.tuples(st.just("replace"), st.lists(_record, max_size=3)),
)


async def _answer(store: Store, call: tuple[Any, ...], seen: Sequence[Execution]) -> Any:
    """Return what a store answers to a call, in a form that can be compared."""
    match call:
        case ("create", items):
            return list(await store.create(items))
        case ("claim", owner, functions, limit, now, ids):
            found = await store.claim(owner, functions, limit=limit, now=now, ids=ids)
            return {item.id: item for item in found}
        case ("record", steps):
            return list(await store.record(steps))
        case ("update", chosen):
            by_id = {item.id: item for item in seen}
            changes = [build(by_id[key]) for key, build in chosen if key in by_id]
            return set(await store.update(changes))
        case ("delete", ids):
            return set(await store.delete(ids))
        case ("insert", records):
            return set(await store.records.insert(records))
        case ("replace", records):
            return set(await store.records.replace(records))
    raise AssertionError(call)


async def _state(store: Store) -> Any:
    """Return all a store holds."""
    found = {item.id: item for item in await store.get(IDS)}
    steps = {key: list(items) for key, items in (await store.steps(IDS)).items() if items}
    counts = {status: count for status, count in (await store.stats()).items() if count}
    return found, steps, counts, list(await store.records.scan("meta"))


async def _compare(calls: list[tuple[Any, ...]], path: Path) -> None:
    model = MemoryStore()
    async with SqliteStore(str(path)) as store:
        for call in calls:
            seen = await model.get(IDS)
            expected = await _answer(model, call, seen)
            found = await _answer(store, call, seen)
            assert found == expected, call
            assert await _state(store) == await _state(model), call


@settings(max_examples=60, deadline=None)
@given(st.lists(_calls, min_size=1, max_size=12))
def test_the_file_answers_as_memory_does(calls: list[tuple[Any, ...]]) -> None:
    with TemporaryDirectory() as folder:
        asyncio.run(_compare(calls, Path(folder) / "w.db"))
