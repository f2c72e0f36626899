"""The contract of `claim`."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from worchflow_core.models import Execution, Status
from worchflow_core.protocols import Store
from worchflow_core.rules import claimed, is_claimable
from worchflow_core.testing.contracts.opening import StoreOpener, opened
from worchflow_core.testing.contracts.samples import NOW, at, execution, full_execution, release


class ClaimingContract(StoreOpener):
    """Executions are claimed by one worker at a time, and only when they are claimable."""

    @opened
    async def test_claim_sets_owner_and_raises_the_fence(self, store: Store) -> None:
        """A claim changes exactly the fields the contract names, in the answer and the store."""
        given = [
            full_execution("full"),
            execution("plain", function="text", hint_at=at(-1), fence=3),
        ]
        await store.create(given)
        found = await store.claim("w", ["text"], limit=10, now=at(5))
        expected = {item.id: claimed(item, "w", at(5)) for item in given}
        assert {item.id: item for item in found} == expected
        assert {item.id: item for item in await store.get(list(expected))} == expected

    @opened
    async def test_claim_takes_exactly_what_is_claimable(self, store: Store) -> None:
        """Status, owner, due time and cancel request decide, and nothing else."""
        given = [
            execution(
                f"{status.value}-{owner}-{due}-{cancel}",
                status=status,
                owner=owner,
                due_at=None if due is None else NOW + timedelta(milliseconds=due),
                cancel_requested_at=cancel,
            )
            for status in Status
            for owner in (None, "other")
            for due in (None, -1, 0, 1)
            for cancel in (None, at(-5))
        ]
        await store.create(given)
        found = await store.claim("w", ["f"], limit=1000, now=NOW)
        assert {item.id for item in found} == {item.id for item in given if is_claimable(item, NOW)}

    @opened
    async def test_claim_by_ids_takes_exactly_what_is_claimable(self, store: Store) -> None:
        """With ids the same rules hold, and no other execution is taken."""
        given = [
            execution("a"),
            execution("b", due_at=at(1)),
            execution("c", owner="other", status=Status.PROCESSING),
            execution("d", function="g"),
            execution("e", status=Status.COMPLETED),
            execution("f"),
            execution("z", status=Status.WAITING, due_at=None),
        ]
        await store.create(given)
        ids = ["a", "b", "c", "d", "e", "nobody", "z", "a"]
        found = await store.claim("w", ["f"], limit=100, now=NOW, ids=ids)
        assert {item.id for item in found} == {"a", "z"}
        assert len(found) == 2

    @opened
    async def test_claim_with_no_ids_or_functions_takes_nothing(self, store: Store) -> None:
        """An empty collection is not `None`."""
        await store.create([execution("a")])
        assert list(await store.claim("w", ["f"], limit=5, now=NOW, ids=[])) == []
        assert list(await store.claim("w", [], limit=5, now=NOW)) == []
        assert list(await store.claim("w", [], limit=5, now=NOW, ids=["a"])) == []
        assert list(await store.claim("w", ["other"], limit=5, now=NOW)) == []

    @opened
    async def test_claim_keeps_the_limit(self, store: Store) -> None:
        """No more than `limit` are taken, with ids and without; the rest stays claimable."""
        ids = [f"e{number}" for number in range(10)]
        await store.create([execution(item) for item in ids])
        assert len(await store.claim("w", ["f"], limit=3, now=NOW)) == 3
        assert len(await store.claim("w", ["f"], limit=4, now=NOW, ids=ids)) == 4
        assert len(await store.claim("w", ["f"], limit=100, now=NOW)) == 3

    @opened
    async def test_claim_takes_the_oldest_due_first(self, store: Store) -> None:
        """Within one priority, what has been due longest goes first, across functions."""
        await store.create(
            [
                execution("third", due_at=at(-1), function="g"),
                execution("first", due_at=at(-9)),
                execution("later", due_at=at(-0.5)),
                execution("second", due_at=at(-5), status=Status.RETRYING),
            ]
        )
        taken = [
            item.id
            for _ in range(3)
            for item in await store.claim("w", ["f", "g"], limit=1, now=NOW)
        ]
        assert taken == ["first", "second", "third"]

    @opened
    async def test_claim_takes_higher_priority_first(self, store: Store) -> None:
        """Priority outweighs age."""
        await store.create(
            [
                execution("low", due_at=at(-9), priority=-1),
                execution("old", due_at=at(-8)),
                execution("high", due_at=at(-1), priority=5),
                execution("high, older", due_at=at(-2), priority=5),
            ]
        )
        order = [
            {item.id for item in await store.claim("w", ["f"], limit=1, now=NOW)} for _ in range(4)
        ]
        assert order == [{"high, older"}, {"high"}, {"old"}, {"low"}]

    @opened
    async def test_a_batch_holds_the_most_urgent(self, store: Store) -> None:
        """A batch is made of the first in order, whatever the order within it."""
        await store.create(
            [
                execution(f"e{number}", due_at=at(-number), priority=number % 2)
                for number in range(20)
            ]
        )
        found = await store.claim("w", ["f"], limit=12, now=NOW)
        assert {item.id for item in found} == {
            *(f"e{number}" for number in range(1, 20, 2)),
            "e18",
            "e16",
        }

    @opened
    async def test_claim_again_raises_the_fence_again(self, store: Store) -> None:
        """Each claim of an execution has a fence of its own."""
        await store.create([execution("a", owner=None)])
        (first,) = await store.claim("w1", ["f"], limit=1, now=NOW)
        assert list(await store.claim("w2", ["f"], limit=1, now=at(1))) == []
        await store.update([release(first, now=at(1))])
        (second,) = await store.claim("w2", ["f"], limit=1, now=at(2))
        assert (first.fence, second.fence) == (1, 2)
        assert (second.owner, second.claimed_at) == ("w2", at(2))

    @opened
    async def test_concurrent_claimers_never_share(self, store: Store) -> None:
        """Many claimers at once, with ids and without, each get what nobody else got."""
        ids = [f"e{number}" for number in range(120)]
        await store.create([execution(item) for item in ids])

        async def drain(name: str, by_ids: bool) -> list[Execution]:
            taken: list[Execution] = []
            while True:
                found = await store.claim(
                    name, ["f"], limit=7, now=NOW, ids=ids if by_ids else None
                )
                if not found:
                    return taken
                taken += found

        shares = await asyncio.gather(*(drain(f"w{n}", n % 2 == 0) for n in range(6)))
        taken = [item for share in shares for item in share]
        assert sorted(item.id for item in taken) == sorted(ids)
        assert {item.fence for item in taken} == {1}
        owners = {item.id: item.owner for item in taken}
        assert {item.id: item.owner for item in await store.get(ids)} == owners
