"""The contract of `stats`, `tally` and `delete`."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from worchflow_core.clock import from_millis, to_millis
from worchflow_core.models import Execution, Status
from worchflow_core.protocols import Store
from worchflow_core.query import Condition, Operator, Query
from worchflow_core.testing.contracts.opening import StoreOpener, opened, until
from worchflow_core.testing.contracts.samples import NOW, at, execution, step
from worchflow_core.transitions import Outcome, settle

_MINUTE = timedelta(minutes=1)


def _ended(execution_id: str, second: float, status: Status, function: str = "f") -> Execution:
    return execution(
        execution_id,
        function=function,
        status=status,
        created_at=at(second - 2.5),
        finished_at=at(second),
    )


async def _counts(store: Store) -> dict[Status, int]:
    return {status: count for status, count in (await store.stats()).items() if count}


class SummingContract(StoreOpener):
    """Counting is right, and deleting leaves nothing behind."""

    @opened
    async def test_stats_count_by_status(self, store: Store) -> None:
        """Counts follow inserts, claims, changes and deletes, within a second or so."""
        assert await _counts(store) == {}
        await store.create([execution(f"e{number}") for number in range(6)])
        await store.create([execution("x", status=Status.WAITING)])

        async def become(expected: dict[Status, int]) -> None:
            async def are_equal() -> bool:
                return await _counts(store) == expected

            await until(are_equal)

        await become({Status.QUEUED: 6, Status.WAITING: 1})
        taken = await store.claim("w", ["f"], limit=4, now=NOW, ids=[f"e{n}" for n in range(6)])
        await become({Status.QUEUED: 2, Status.PROCESSING: 4, Status.WAITING: 1})
        await store.update(
            [
                settle(taken[0], Outcome(status=Status.COMPLETED), now=at(1)),
                settle(taken[1], Outcome(status=Status.COMPLETED), now=at(1)),
                settle(taken[2], Outcome(status=Status.FAILED), now=at(1)),
            ]
        )
        await become(
            {
                Status.QUEUED: 2,
                Status.PROCESSING: 1,
                Status.WAITING: 1,
                Status.COMPLETED: 2,
                Status.FAILED: 1,
            }
        )
        await store.delete([taken[0].id, taken[2].id])
        await become(
            {Status.QUEUED: 2, Status.PROCESSING: 1, Status.WAITING: 1, Status.COMPLETED: 1}
        )

    @opened
    async def test_tally_counts_what_ended(self, store: Store) -> None:
        """By function, status and bucket since the epoch, with the time from sent to ended."""
        await store.create(
            [
                _ended("a", 1, Status.COMPLETED),
                _ended("b", 2, Status.COMPLETED),
                _ended("c", 3, Status.FAILED),
                _ended("d", 61, Status.COMPLETED),
                _ended("e", 2, Status.COMPLETED, function="g"),
                _ended("early", -600, Status.COMPLETED),
                execution("open"),
                execution("reopened", finished_at=at(1)),
            ]
        )
        since = Condition("finished_at", Operator.SINCE, at(-60))
        found = {
            (item.function, item.status, item.start): (item.count, round(item.total_seconds, 3))
            for item in await store.tally([since], bucket=_MINUTE)
            if item.status.is_final
        }
        assert found == {
            ("f", Status.COMPLETED, _minute(1)): (2, 5.0),
            ("f", Status.FAILED, _minute(1)): (1, 2.5),
            ("f", Status.COMPLETED, _minute(61)): (1, 2.5),
            ("g", Status.COMPLETED, _minute(1)): (1, 2.5),
        }

    @opened
    async def test_tally_narrows(self, store: Store) -> None:
        """`SINCE` is inclusive, `BEFORE` exclusive, and a function can be chosen."""
        await store.create(
            [
                *(_ended(f"e{second}", second, Status.COMPLETED) for second in range(5)),
                _ended("g", 2, Status.COMPLETED, function="g"),
            ]
        )
        since = Condition("finished_at", Operator.SINCE, at(1))
        before = Condition("finished_at", Operator.BEFORE, at(4))
        only = Condition("function", Operator.EQUAL, "f")
        for where, count in (
            ([since], 5),
            ([since, before], 4),
            ([since, before, only], 3),
            ([since, only], 4),
        ):
            found = await store.tally(where, bucket=timedelta(days=1))
            assert sum(item.count for item in found) == count

    @opened
    async def test_delete_takes_only_what_ended(self, store: Store) -> None:
        """Final executions go, with steps, waits and tags; others stay, with theirs."""
        await store.create(
            [execution(status.value, status=status, waits=("k",), tags=("t",)) for status in Status]
        )
        ids = [status.value for status in Status]
        await store.record([step(item, fence=0) for item in ids])
        final = {status.value for status in Status if status.is_final}
        assert set(await store.delete([*ids, "nobody"])) - {"nobody"} == final
        assert {item.id for item in await store.get(ids)} == set(ids) - final
        found = await store.steps(ids)
        assert {key for key, items in found.items() if items} == set(ids) - final
        for name, value in (("waits", "k"), ("tags", "t")):
            page = await store.find(Query(where=(Condition(name, Operator.HAS, (value,)),)))
            assert {item.id for item in page.items} == set(ids) - final

    @opened
    async def test_a_namesake_starts_anew(self, store: Store) -> None:
        """After a delete the id is free, and no step of the old one is left."""
        await store.create([execution("a", input_hash="1", status=Status.COMPLETED)])
        await store.record([step("a", fence=0)])
        await store.delete(["a"])
        again = execution("a", input_hash="2", created_at=at(60))
        await store.create([again])
        assert list(await store.get(["a"])) == [again]
        assert not (await store.steps(["a"])).get("a")

    @opened
    async def test_a_deleted_execution_takes_no_step(self, store: Store) -> None:
        """A late step of a deleted execution is refused."""
        await store.create([execution("a", status=Status.COMPLETED)])
        await store.delete(["a"])
        assert list(await store.record([step("a", fence=0)])) == [None]

    @opened
    async def test_racing_deletes(self, store: Store) -> None:
        """Deleting the same executions many times at once is no error."""
        ids = [f"e{number}" for number in range(20)]
        await store.create([execution(item, status=Status.FAILED) for item in ids])
        answers = await asyncio.gather(*(store.delete(ids) for _ in range(5)))
        assert {key for answer in answers for key in answer} == set(ids)
        assert list(await store.get(ids)) == []


def _minute(second: float) -> object:
    millis = to_millis(at(second))
    return from_millis(millis - millis % 60_000)
