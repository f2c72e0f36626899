"""The contract of `update`: compare-and-set, each change by itself."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import Any

from worchflow_core.models import Change, Execution, Fields, Status
from worchflow_core.protocols import Store
from worchflow_core.query import Condition, Operator, Query
from worchflow_core.rules import applied, claimed, is_applied, is_claimable
from worchflow_core.testing.contracts.lives import LIFE
from worchflow_core.testing.contracts.opening import StoreOpener, opened
from worchflow_core.testing.contracts.samples import (
    HOSTILE,
    NOW,
    at,
    execution,
    full_execution,
    release,
)
from worchflow_core.transitions import (
    Outcome,
    request_cancel,
    settle,
)

_GUARDS: tuple[tuple[str, Any, Any], ...] = (
    ("status", Status.SLEEPING, Status.WAITING),
    ("owner", "w", "v"),
    ("owner", None, "v"),
    ("owner", "w", None),
    ("fence", 3, 4),
    ("fence", 0, 1),
    ("due_at", at(1), at(1.001)),
    ("due_at", None, at(1)),
    ("due_at", at(1), None),
    ("hint_at", at(2), at(2.001)),
    ("hint_at", None, at(2)),
    ("cancel_requested_at", at(3), at(4)),
    ("cancel_requested_at", None, at(3)),
    ("handlers_due", True, False),
    ("handlers_due", False, True),
)
"""A field a change may expect something of, a value it has, and one it has not."""


async def _one(store: Store, execution_id: str) -> Execution:
    (found,) = await store.get([execution_id])
    return found


class UpdatingContract(StoreOpener):
    """A change is applied where all it expects holds, and only there."""

    @opened
    async def test_each_guard_is_compared(self, store: Store) -> None:
        """A change applies where the expected value is there, None matching a missing one."""
        for number, (name, actual, other) in enumerate(_GUARDS):
            item = execution(f"e{number}", **{name: actual})
            await store.create([item])
            wrong = _change(item.id, {name: other})
            assert set(await store.update([wrong])) == {item.id}, (name, actual, other)
            assert await _one(store, item.id) == item
            right = _change(item.id, {name: actual})
            assert list(await store.update([right])) == [], (name, actual)
            assert (await _one(store, item.id)).code_version == "new"

    @opened
    async def test_all_guards_must_hold(self, store: Store) -> None:
        """One expectation that fails refuses the whole change."""
        item = execution("a", owner="w", fence=2, status=Status.PROCESSING, due_at=None)
        await store.create([item])
        expect = {"owner": "w", "fence": 2, "status": Status.PROCESSING, "due_at": None}
        for name, value in (("owner", "v"), ("fence", 1), ("due_at", NOW)):
            assert set(await store.update([_change("a", {**expect, name: value})])) == {"a"}
        assert await _one(store, "a") == item
        assert list(await store.update([_change("a", expect)])) == []

    @opened
    async def test_a_change_without_guards_always_applies(self, store: Store) -> None:
        """Nothing expected is nothing refused, but the execution must exist."""
        await store.create([execution("a")])
        assert set(await store.update([_change("a", {}), _change("nobody", {})])) == {"nobody"}
        assert (await _one(store, "a")).code_version == "new"

    @opened
    async def test_mixed_batch(self, store: Store) -> None:
        """Accepted, refused and unknown in one batch: each is judged by itself."""
        items = [execution(f"e{number}", fence=number % 3) for number in range(12)]
        await store.create(items)
        changes = [_change(item.id, {"fence": 1, "owner": None}) for item in items]
        changes.insert(5, _change("nobody", {"fence": 1}))
        refused = await store.update(changes)
        assert set(refused) == {"nobody", *(item.id for item in items if item.fence != 1)}
        for item in await store.get([item.id for item in items]):
            assert (item.code_version == "new") is (item.fence == 1)

    @opened
    async def test_every_field_can_be_set_and_cleared(self, store: Store) -> None:
        """Whatever a change sets is kept, also None and the empty."""
        full, bare = full_execution("a"), execution("a")
        await store.create([bare])
        names = sorted(Fields.__annotations__)
        for source in (full, bare, full):
            values: Any = {name: getattr(source, name) for name in names}
            assert list(await store.update([Change(id="a", expect={}, values=values)])) == []
            assert await _one(store, "a") == replace(bare, **values)

    @opened
    async def test_each_field_alone(self, store: Store) -> None:
        """Setting one field leaves all others as they are."""
        names = sorted(Fields.__annotations__)
        bare = execution("x")
        items = [replace(full_execution(name), cancel_requested_at=at(9)) for name in names]
        await store.create(items)
        values: list[Any] = [{name: getattr(bare, name)} for name in names]
        changes = [
            Change(id=name, expect={"fence": 7}, values=value)
            for name, value in zip(names, values, strict=True)
        ]
        assert list(await store.update(changes)) == []
        found = {item.id: item for item in await store.get(names)}
        for item, value in zip(items, values, strict=True):
            assert found[item.id] == replace(item, **value)

    @opened
    async def test_a_repeated_change_is_not_refused(self, store: Store) -> None:
        """A try whose answer was lost is repeated; the store sees that it was applied."""
        await store.create([execution("a"), execution("b"), execution("c", due_at=at(50))])
        first, second = sorted(
            await store.claim("w", ["f"], limit=2, now=NOW), key=lambda item: item.id
        )
        changes = [
            settle(first, Outcome(status=Status.COMPLETED, result="1"), now=at(1)),
            request_cancel(second, now=at(1)),
            request_cancel(execution("c", due_at=at(50)), now=at(1)),
        ]
        assert list(await store.update(changes)) == []
        before = await store.get(["a", "b", "c"])
        for _ in range(2):
            assert list(await store.update(changes)) == []
        assert sorted(await store.get(["a", "b", "c"]), key=_by_id) == sorted(before, key=_by_id)

    @opened
    async def test_a_repeat_after_the_next_claim_is_refused(self, store: Store) -> None:
        """A late settle of a superseded claim changes nothing and is told so."""
        await store.create([execution("a")])
        (first,) = await store.claim("w", ["f"], limit=1, now=NOW)
        late = settle(first, Outcome(status=Status.COMPLETED, result="1"), now=at(1))
        await store.update([release(first, now=at(1))])
        (second,) = await store.claim("w", ["f"], limit=1, now=at(2))
        assert set(await store.update([late, release(first, now=at(1))])) == {"a"}
        assert await _one(store, "a") == second

    @opened
    async def test_an_execution_is_settled_once(self, store: Store) -> None:
        """Of many racing ends of one claim, the first wins."""
        await store.create([execution("a")])
        (item,) = await store.claim("w", ["f"], limit=1, now=NOW)
        ends = [
            settle(item, Outcome(status=Status.COMPLETED, result=str(number)), now=at(number))
            for number in range(20)
        ]
        answers = await asyncio.gather(*(store.update([end]) for end in ends))
        won = [end for end, refused in zip(ends, answers, strict=True) if not refused]
        assert len(won) == 1
        assert await _one(store, "a") == applied(item, won[0])

    @opened
    async def test_every_transition_is_kept(self, store: Store) -> None:
        """Each change the core can build leaves the store as the pure function says."""
        item = full_execution("a")
        await store.create([item])
        (taken,) = await store.claim("w", [item.function], limit=1, now=NOW)
        expected = taken
        for build in LIFE:
            change = build(expected)
            after = applied(expected, change)
            assert after is not None
            expected = after
            assert list(await store.update([change])) == [], change
            assert await _one(store, "a") == expected, change

    @opened
    async def test_waits_and_tags_stay_findable(self, store: Store) -> None:
        """What a change sets is what a query finds, and what it removes is not found."""
        await store.create([execution("a", waits=("k1", "k2"), tags=("t1",)), execution("b")])
        steps: list[tuple[Fields, set[str], set[str]]] = [
            ({}, {"k1", "k2"}, {"t1"}),
            ({"waits": ("k2", "k3")}, {"k2", "k3"}, {"t1"}),
            ({"tags": ("t2", "t3")}, {"k2", "k3"}, {"t2", "t3"}),
            ({"waits": (), "tags": ("t3",)}, set(), {"t3"}),
            ({"waits": HOSTILE, "tags": HOSTILE}, set(HOSTILE), set(HOSTILE)),
            ({"tags": ()}, set(HOSTILE), set()),
        ]
        for values, waits, tags in steps:
            await store.update([Change(id="a", expect={"owner": None}, values=values)])
            for name, wanted in (("waits", waits), ("tags", tags)):
                for value in {"k1", "k2", "k3", "t1", "t2", "t3", *HOSTILE}:
                    where = (Condition(name, Operator.HAS, (value,)),)
                    page = await store.find(Query(where=where))
                    assert [item.id for item in page.items] == ["a"] * (value in wanted)

    @opened
    async def test_a_refused_change_touches_no_waits(self, store: Store) -> None:
        """Fields kept elsewhere than in the record are guarded like all others."""
        await store.create([execution("a", waits=("k1",), tags=("t1",), fence=2)])
        change = Change(id="a", expect={"fence": 1}, values={"waits": ("k2",), "tags": ("t2",)})
        assert set(await store.update([change])) == {"a"}
        for name, value, found in (("waits", "k1", 1), ("waits", "k2", 0), ("tags", "t2", 0)):
            where = (Condition(name, Operator.HAS, (value,)),)
            assert len((await store.find(Query(where=where))).items) == found

    @opened
    async def test_random_lives_agree_with_the_model(self, store: Store) -> None:
        """Whatever the sequence of claims and changes, the store is as the pure functions say."""
        chance = random.Random(20)
        model = {
            f"e{number}": execution(f"e{number}", due_at=at(chance.randint(-3, 3)))
            for number in range(12)
        }
        await store.create(list(model.values()))
        for second in range(120):
            now = at(second / 10)
            if chance.random() < 0.4:
                await _claim_as_the_model(store, model, chance, now=now)
            else:
                chosen = chance.sample(sorted(model), 4)
                await _change_as_the_model(store, [model[key] for key in chosen], model, chance)
            found = {item.id: item for item in await store.get(list(model))}
            assert found == model


async def _claim_as_the_model(
    store: Store, model: dict[str, Execution], chance: random.Random, *, now: Any
) -> None:
    ids = chance.sample(sorted(model), 5)
    found = await store.claim("w", ["f"], limit=5, now=now, ids=ids)
    expected = {key: claimed(model[key], "w", now) for key in ids if is_claimable(model[key], now)}
    assert {item.id: item for item in found} == expected
    model.update(expected)


async def _change_as_the_model(
    store: Store, seen: list[Execution], model: dict[str, Execution], chance: random.Random
) -> None:
    changes = [chance.choice(LIFE)(item) for item in seen]
    if chance.random() < 0.3:
        changes[0] = replace(changes[0], expect={**changes[0].expect, "fence": 99})
    expected = set()
    for change in changes:
        after = applied(model[change.id], change)
        if after is not None:
            model[change.id] = after
        elif not is_applied(model[change.id], change):
            expected.add(change.id)
    assert set(await store.update(changes)) == expected


def _by_id(item: Execution) -> str:
    return item.id


def _change(execution_id: str, expect: dict[str, Any]) -> Change:
    fields: Any = expect
    return Change(id=execution_id, expect=fields, values={"code_version": "new"})
