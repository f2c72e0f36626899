"""The contract of `create` and `get`."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from worchflow_core.models import Created, Status
from worchflow_core.protocols import Store
from worchflow_core.testing.contracts.opening import StoreOpener, opened
from worchflow_core.testing.contracts.samples import (
    HOSTILE,
    NOW,
    at,
    execution,
    full_execution,
)


class CreatingContract(StoreOpener):
    """Executions are created once, and come back as they were given."""

    @opened
    async def test_describe_is_one_line(self, store: Store) -> None:
        """`describe` names kind and place in one line."""
        assert store.describe().strip()
        assert "\n" not in store.describe()

    @opened
    async def test_check_of_a_fresh_store_finds_no_problem(self, store: Store) -> None:
        """`check` returns findings and leaves the store as it was."""
        await store.create([execution("a")])
        for finding in await store.check():
            assert finding.level in {"ok", "warning"}, finding
            assert finding.subject
            assert finding.text
        assert [item.id for item in await store.get(["a"])] == ["a"]

    @opened
    async def test_create_of_nothing_answers_nothing(self, store: Store) -> None:
        """Empty batches are legal everywhere and touch nothing."""
        assert list(await store.create([])) == []
        assert list(await store.get([])) == []
        assert list(await store.record([])) == []
        assert list(await store.update([])) == []
        assert list(await store.delete([])) == []
        assert dict(await store.steps([])) == {}

    @opened
    async def test_create_answers_new_in_order(self, store: Store) -> None:
        """New executions are inserted and come back equal."""
        given = [execution(f"e{number}", priority=number) for number in range(5)]
        assert list(await store.create(given)) == [Created.NEW] * 5
        found = {item.id: item for item in await store.get([item.id for item in given])}
        assert found == {item.id: item for item in given}

    @opened
    async def test_create_keeps_every_field(self, store: Store) -> None:
        """An execution with every field set survives unchanged; so does one with none."""
        full = full_execution("full")
        bare = execution("bare", due_at=None)
        await store.create([full, bare])
        found = {item.id: item for item in await store.get(["full", "bare"])}
        assert found["full"] == full
        assert found["bare"] == bare

    @opened
    async def test_create_repeated_answers_same(self, store: Store) -> None:
        """The same id with the same function and input hash is untouched, whatever else differs."""
        first = execution("a", input_hash="h", data="1")
        await store.create([first])
        again = replace(first, created_at=at(9), updated_at=at(9), data="2", priority=9)
        assert list(await store.create([again])) == [Created.SAME]
        assert list(await store.get(["a"])) == [first]

    @opened
    async def test_create_repeated_after_the_execution_went_on_answers_same(
        self, store: Store
    ) -> None:
        """A repeated send finds its execution also while it runs."""
        await store.create([execution("a", input_hash="h")])
        (before,) = await store.claim("w", ["f"], limit=1, now=at(1))
        assert list(await store.create([execution("a", input_hash="h")])) == [Created.SAME]
        assert list(await store.get(["a"])) == [before]

    @opened
    async def test_create_with_another_input_answers_conflict(self, store: Store) -> None:
        """Another input hash, or another function, is a conflict; nothing is touched."""
        first = execution("a", input_hash="h")
        await store.create([first])
        answers = await store.create(
            [execution("a", input_hash="other"), execution("a", input_hash="h", function="g")]
        )
        assert list(answers) == [Created.CONFLICT, Created.CONFLICT]
        assert list(await store.create([execution("a")])) == [Created.CONFLICT]
        assert list(await store.get(["a"])) == [first]

    @opened
    async def test_create_twice_in_one_batch(self, store: Store) -> None:
        """One batch may name an id twice: the first counts, the others are measured by it."""
        answers = await store.create(
            [
                execution("a", input_hash="h"),
                execution("b"),
                execution("a", input_hash="h"),
                execution("a", input_hash="other"),
            ]
        )
        assert list(answers) == [Created.NEW, Created.NEW, Created.SAME, Created.CONFLICT]

    @opened
    async def test_create_mixed_batch(self, store: Store) -> None:
        """Known and new ids in one batch are answered each by itself, in order."""
        await store.create([execution("a"), execution("b", input_hash="h")])
        answers = await store.create(
            [execution("b"), execution("c"), execution("a"), execution("d", function="g")]
        )
        assert list(answers) == [Created.CONFLICT, Created.NEW, Created.SAME, Created.NEW]

    @opened
    async def test_racing_creates_make_one_execution(self, store: Store) -> None:
        """Of many concurrent sends with one id, exactly one is new."""
        sends = [execution("a", input_hash="h", data=str(number)) for number in range(30)]
        answers = await asyncio.gather(*(store.create([item]) for item in sends))
        flat = [answer for (answer,) in answers]
        assert flat.count(Created.NEW) == 1
        assert flat.count(Created.SAME) == 29
        (kept,) = await store.get(["a"])
        assert kept == sends[flat.index(Created.NEW)]

    @opened
    async def test_get_leaves_out_what_is_missing(self, store: Store) -> None:
        """Unknown ids are left out; asking twice for one returns it once."""
        await store.create([execution("a"), execution("b")])
        found = await store.get(["a", "nobody", "a", ""])
        assert [item.id for item in found] == ["a"]

    @opened
    async def test_hostile_texts_are_kept_literally(self, store: Store) -> None:
        """No text of a user is evaluated, trimmed or normalised, wherever it stands."""
        given = [full_execution(f"id{number}", text) for number, text in enumerate(HOSTILE)]
        await store.create(given)
        found = {item.id: item for item in await store.get([item.id for item in given])}
        for item in given:
            assert found[item.id] == item

    @opened
    async def test_hostile_ids_are_ids(self, store: Store) -> None:
        """An id that a foreign client chose works like any other, hostile as it may be."""
        texts = [text[:200] for text in HOSTILE]
        assert list(await store.create([execution(text) for text in texts])) == [Created.NEW] * len(
            texts
        )
        for text in texts:
            assert [item.id for item in await store.get([text])] == [text]
        claimed = await store.claim("w", ["f"], limit=100, now=NOW, ids=texts)
        assert {item.id for item in claimed} == set(texts)

    @opened
    async def test_a_megabyte_is_kept(self, store: Store) -> None:
        """Payloads up to 1 MiB come back unchanged."""
        for size in (1024, 65_536, 1_048_576):
            payload = '"' + "\u00e9" * ((size - 2) // 2) + '"'
            given = execution(f"e{size}", data=payload, result=payload, status=Status.COMPLETED)
            await store.create([given])
            assert list(await store.get([given.id])) == [given]
