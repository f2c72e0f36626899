"""The contract of `Records`."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from worchflow_core.protocols import Store
from worchflow_core.testing.contracts.opening import StoreOpener, opened
from worchflow_core.testing.contracts.samples import HOSTILE, record


class RecordsContract(StoreOpener):
    """Records are inserted once, replaced by version, and read in key order."""

    @opened
    async def test_records_of_nothing(self, store: Store) -> None:
        """Empty batches are legal; an empty kind reads as nothing."""
        assert list(await store.records.insert([])) == []
        assert list(await store.records.replace([])) == []
        await store.records.delete("meta", [])
        assert list(await store.records.scan("meta")) == []

    @opened
    async def test_insert_returns_the_new_keys(self, store: Store) -> None:
        """The first insert of a (kind, key) wins; kinds do not see each other."""
        assert set(await store.records.insert([record("a", "1"), record("b", "1")])) == {"a", "b"}
        given = [record("b", "2"), record("c", "2"), record("a", "2", kind="slot")]
        assert set(await store.records.insert(given)) == {"c", "a"}
        assert list(await store.records.scan("meta")) == [
            record("a", "1"),
            record("b", "1"),
            record("c", "2"),
        ]
        assert list(await store.records.scan("slot")) == [record("a", "2", kind="slot")]

    @opened
    async def test_insert_twice_in_one_batch(self, store: Store) -> None:
        """The first of a batch wins as well."""
        await store.records.insert([record("a", "1"), record("a", "2")])
        assert list(await store.records.scan("meta")) == [record("a", "1")]

    @opened
    async def test_replace_compares_versions(self, store: Store) -> None:
        """Only the next version of what is stored is taken; all others are refused by key."""
        await store.records.insert([record(key, "1") for key in "abc"])
        given = [
            record("a", "2", version=2),
            record("b", "3", version=3),
            record("c", "1", version=1),
            record("nobody", "2", version=2),
        ]
        assert set(await store.records.replace(given)) == {"b", "c", "nobody"}
        assert list(await store.records.scan("meta")) == [
            record("a", "2", version=2),
            record("b", "1"),
            record("c", "1"),
        ]

    @opened
    async def test_replacing_by_an_empty_body_removes(self, store: Store) -> None:
        """It compares versions too; what is gone already was to be gone."""
        await store.records.insert([record(key, "1") for key in "abc"])
        given = [
            record("a", "", version=2),
            record("b", "", version=3),
            record("c", "2", version=2),
            record("nobody", "", version=2),
        ]
        assert list(await store.records.replace(given)) == ["b"]
        left = [record("b", "1"), record("c", "2", version=2)]
        assert list(await store.records.scan("meta")) == left
        assert set(await store.records.insert([record("a", "3")])) == {"a"}

    @opened
    async def test_racing_replaces_have_one_winner(self, store: Store) -> None:
        """Of many concurrent replaces of one version, one is taken."""
        await store.records.insert([record("a")])
        given = [record("a", str(number), version=2) for number in range(20)]
        answers = await asyncio.gather(*(store.records.replace([item]) for item in given))
        won = [item for item, refused in zip(given, answers, strict=True) if not refused]
        assert len(won) == 1
        assert list(await store.records.scan("meta")) == won

    @opened
    async def test_racing_inserts_have_one_winner(self, store: Store) -> None:
        """Of many concurrent inserts of one key, one is told that it is new."""
        given = [record("a", str(number)) for number in range(20)]
        answers = await asyncio.gather(*(store.records.insert([item]) for item in given))
        won = [item for item, new in zip(given, answers, strict=True) if "a" in new]
        assert len(won) == 1
        assert list(await store.records.scan("meta")) == won

    @opened
    async def test_delete(self, store: Store) -> None:
        """Deleted keys are gone and may be inserted anew; missing ones are no error."""
        await store.records.insert([record("a"), record("b"), record("a", kind="slot")])
        for _ in range(2):
            await store.records.delete("meta", ["a", "nobody"])
        assert list(await store.records.scan("meta")) == [record("b")]
        assert list(await store.records.scan("slot")) == [record("a", kind="slot")]
        assert set(await store.records.insert([record("a", "2")])) == {"a"}

    @opened
    async def test_scan_pages_in_key_order(self, store: Store) -> None:
        """`after` is left out, `until` too, and `limit` holds."""
        keys = [f"k{number:03}" for number in range(250)]
        await store.records.insert([record(key) for key in reversed(keys)])
        scan = store.records.scan
        assert [item.key for item in await scan("meta")] == keys[:100]
        assert [item.key for item in await scan("meta", limit=7)] == keys[:7]
        assert [item.key for item in await scan("meta", after="k100", limit=3)] == keys[101:104]
        assert [item.key for item in await scan("meta", after="k1", until="k102")] == keys[100:102]
        assert [item.key for item in await scan("meta", after="k249")] == []
        walked: list[str] = []
        while page := await scan("meta", after=walked[-1] if walked else "", limit=60):
            walked += [item.key for item in page]
        assert walked == keys

    @opened
    async def test_kinds(self, store: Store) -> None:
        """Every kind that has records is named once, whatever it is called."""
        assert list(await store.records.kinds()) == []
        kinds = ["slot", "meta", *(text[:200] for text in HOSTILE)]
        given = [record(key, kind=kind) for kind in kinds for key in ("a", "b")]
        await store.records.insert(given)
        assert sorted(await store.records.kinds()) == sorted(set(kinds))
        await store.records.delete("slot", ["a", "b"])
        assert "slot" not in await store.records.kinds()

    @opened
    async def test_hostile_records(self, store: Store) -> None:
        """Kinds, keys and bodies are kept literally and ordered by code point."""
        keys = sorted(text[:200] for text in HOSTILE)
        given = [record(key, body=key * 3, kind="$k") for key in keys]
        assert set(await store.records.insert(given)) == set(keys)
        assert list(await store.records.scan("$k")) == given
        changed = [replace(item, body="2", version=2) for item in given]
        assert list(await store.records.replace(changed)) == []
        assert list(await store.records.scan("$k")) == changed
        await store.records.delete("$k", keys)
        assert list(await store.records.scan("$k")) == []

    @opened
    async def test_a_megabyte_record(self, store: Store) -> None:
        """Bodies up to 1 MiB come back unchanged."""
        given = record("a", "x" * 2**20)
        await store.records.insert([given])
        assert list(await store.records.scan("meta")) == [given]
