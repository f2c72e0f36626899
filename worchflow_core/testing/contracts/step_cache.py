"""The contract of `StepCache`: what it returns is right; what it forgets costs only time."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from worchflow_core.protocols import StepCache
from worchflow_core.testing.contracts.opening import opened
from worchflow_core.testing.contracts.samples import HOSTILE, at, execution, step


class StepCacheContract:
    """Subclass it, define `open`, and every promise of `StepCache` is tested."""

    def open(self) -> AbstractAsyncContextManager[StepCache]:
        """Return a step cache to enter, empty and independent of any opened before."""
        raise NotImplementedError(f"{type(self).__name__} must say how to open a fresh cache")

    @opened
    async def test_describe_and_check(self, cache: StepCache) -> None:
        """A cache says where it is, and a fresh one has no problem."""
        assert cache.describe().strip()
        assert "\n" not in cache.describe()
        for finding in await cache.check():
            assert finding.level in {"ok", "warning"}, finding

    @opened
    async def test_what_is_put_is_returned(self, cache: StepCache) -> None:
        """Steps come back equal, by execution; of others nothing is said."""
        given = [step("a", "s1", seq=1), step("a", "s2", seq=2), step("b", "s1", result="[]")]
        await cache.put(given)
        found = await cache.get_all([execution("a"), execution("b"), execution("c")])
        assert sorted(found["a"], key=lambda item: item.seq) == given[:2]
        assert list(found["b"]) == given[2:]
        assert "c" not in found

    @opened
    async def test_nothing_in_nothing_out(self, cache: StepCache) -> None:
        """Empty batches are legal."""
        await cache.put([])
        await cache.drop([])
        assert dict(await cache.get_all([])) == {}
        assert dict(await cache.get_all([execution("a")])) == {}

    @opened
    async def test_put_again_adds_and_replaces(self, cache: StepCache) -> None:
        """Steps gather over several puts; the same step is kept once, as put last."""
        await cache.put([step("a", "s1", result="1")])
        await cache.put([step("a", "s2", seq=2)])
        await cache.put([step("a", "s1", result="2")])
        found = (await cache.get_all([execution("a")]))["a"]
        assert sorted(found, key=lambda item: item.seq) == [
            step("a", "s1", result="2"),
            step("a", "s2", seq=2),
        ]

    @opened
    async def test_a_namesake_is_not_served(self, cache: StepCache) -> None:
        """Steps of an execution that was deleted are not those of a later one of its id."""
        await cache.put([step("a", "s1")])
        later = execution("a", created_at=at(60))
        assert not (await cache.get_all([later])).get("a")
        await cache.put([step("a", "s2", execution_created_at=at(60))])
        found = (await cache.get_all([later]))["a"]
        assert [item.step_id for item in found] == ["s2"]

    @opened
    async def test_drop_leaves_others(self, cache: StepCache) -> None:
        """Dropping one execution, or one nobody knows, leaves the others."""
        await cache.put([step("a"), step("b")])
        await cache.drop(["a", "nobody"])
        assert list((await cache.get_all([execution("b")]))["b"]) == [step("b")]

    @opened
    async def test_hostile_and_large_steps(self, cache: StepCache) -> None:
        """Texts are kept literally, up to a megabyte."""
        texts = [*HOSTILE, "x" * 2**20]
        given = [
            step("a", f"{number}{text[:200]}", title=text, kind=text[:200], result=text, seq=number)
            for number, text in enumerate(texts)
        ]
        await cache.put(given)
        found = (await cache.get_all([execution("a")]))["a"]
        assert sorted(found, key=lambda item: item.seq) == given
