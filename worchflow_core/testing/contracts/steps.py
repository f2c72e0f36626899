"""The contract of `record` and `steps`."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from worchflow_core.models import StepStatus
from worchflow_core.protocols import Store
from worchflow_core.testing.contracts.opening import StoreOpener, opened
from worchflow_core.testing.contracts.samples import HOSTILE, NOW, at, execution, release, step


async def _claim(store: Store, *ids: str) -> None:
    """Create executions and claim them, which leaves their fence at 1."""
    await store.create([execution(item) for item in ids])
    assert len(await store.claim("w", ["f"], limit=100, now=NOW, ids=ids)) == len(ids)


async def _claim_anew(store: Store, execution_id: str) -> None:
    """Release an execution and claim it again, which raises its fence by one."""
    (item,) = await store.get([execution_id])
    assert list(await store.update([release(item, now=NOW)])) == []
    assert len(await store.claim("w2", ["f"], limit=1, now=NOW, ids=[execution_id])) == 1


class StepsContract(StoreOpener):
    """Steps are written once, and the first result is everyone's."""

    @opened
    async def test_record_answers_with_what_stands(self, store: Store) -> None:
        """New steps are stored as given and come back in order of `seq`, then start."""
        await _claim(store, "a", "b")
        given = [
            step("a", "third", seq=3),
            step("a", "first", seq=1),
            step("b", "only", kind="sleep", title="t", attempt=4),
            step("a", "second, later", seq=2, started_at=at(5), ended_at=at(6)),
            step("a", "second", seq=2, started_at=at(4), ended_at=at(6)),
        ]
        assert list(await store.record(given)) == given
        found = await store.steps(["a", "b", "nobody"])
        assert [item.step_id for item in found["a"]] == [
            "first",
            "second",
            "second, later",
            "third",
        ]
        assert list(found["b"]) == [given[2]]
        assert list(found.get("nobody", ())) == []

    @opened
    async def test_record_is_write_once(self, store: Store) -> None:
        """A second record of a step changes nothing and is answered with the first."""
        await _claim(store, "a")
        first = step("a", result='"first"')
        again = step("a", result='"second"', title="other", seq=9, attempt=2)
        assert list(await store.record([first])) == [first]
        assert list(await store.record([again])) == [first]
        assert list((await store.steps(["a"]))["a"]) == [first]

    @opened
    async def test_a_standing_step_is_adopted_by_later_claims(self, store: Store) -> None:
        """What an older claim recorded stands for every later one, and the reverse."""
        await _claim(store, "a")
        old = step("a", result='"old"')
        await store.record([old])
        await _claim_anew(store, "a")
        assert list(await store.record([step("a", result='"new"', fence=2)])) == [old]
        newer = step("a", "s2", fence=2)
        await store.record([newer])
        assert list(await store.record([step("a", "s2", result='"late"')])) == [newer]

    @opened
    async def test_record_twice_in_one_batch(self, store: Store) -> None:
        """One batch may name a step twice: the first stands."""
        await _claim(store, "a")
        first, second = step("a", result="1"), step("a", result="2")
        assert list(await store.record([first, second])) == [first, first]

    @opened
    async def test_record_mixed_batch(self, store: Store) -> None:
        """Known, new and refused steps in one batch are answered each by itself, in order."""
        await _claim(store, "a", "b")
        known = step("a", "known")
        await store.record([known])
        new, other = step("a", "new"), step("b", "known", result="3")
        answers = await store.record(
            [new, step("nobody"), replace(known, result="2"), other, step("nobody", "x")]
        )
        assert list(answers) == [new, None, known, other, None]

    @opened
    async def test_record_of_an_unknown_execution_is_refused(self, store: Store) -> None:
        """No step is kept for an execution that is gone."""
        assert list(await store.record([step("nobody")])) == [None]
        assert list((await store.steps(["nobody"])).get("nobody", ())) == []

    @opened
    async def test_started_gives_way_to_completed_of_the_same_fence(self, store: Store) -> None:
        """A step that must not begin twice is written twice: when it starts, when it is done."""
        await _claim(store, "a")
        started = step("a", status=StepStatus.STARTED, result=None, ended_at=None)
        done = step("a", result='"done"')
        assert list(await store.record([started])) == [started]
        assert list(await store.record([replace(started, attempt=2)])) == [started]
        assert list(await store.record([done])) == [done]
        assert list(await store.record([started])) == [done]
        assert list(await store.record([replace(done, result="2")])) == [done]
        assert list((await store.steps(["a"]))["a"]) == [done]

    @opened
    async def test_started_and_completed_in_one_batch(self, store: Store) -> None:
        """The order within a batch is the order of the writes."""
        await _claim(store, "a")
        started = step("a", status=StepStatus.STARTED, result=None, ended_at=None)
        done = step("a", result='"done"')
        assert list(await store.record([started, done])) == [started, done]
        assert list((await store.steps(["a"]))["a"]) == [done]

    @opened
    async def test_started_stays_for_later_claims(self, store: Store) -> None:
        """A later claim can neither restart nor complete what an earlier one began."""
        await _claim(store, "a")
        started = step("a", status=StepStatus.STARTED, result=None, ended_at=None)
        await store.record([started])
        await _claim_anew(store, "a")
        assert list(await store.record([replace(started, fence=2)])) == [started]
        assert list(await store.record([step("a", fence=2)])) == [started]
        assert list((await store.steps(["a"]))["a"]) == [started]

    @opened
    async def test_a_stale_fence_is_refused(self, store: Store) -> None:
        """Where the store can tell, a claim that was superseded records nothing new."""
        await _claim(store, "a")
        await _claim_anew(store, "a")
        stale, fresh = step("a", "s1", fence=1), step("a", "s2", fence=2)
        answers = await store.record([stale, fresh])
        assert answers[1] == fresh
        if self.has_exact_fences:
            assert answers[0] is None
            assert [item.step_id for item in (await store.steps(["a"]))["a"]] == ["s2"]
        else:
            assert answers[0] in (None, stale)

    @opened
    async def test_steps_recorded_before_any_claim_are_kept(self, store: Store) -> None:
        """An execution that was forked gets its steps before its first claim: both fences are 0."""
        await store.create([execution("a")])
        given = step("a", fence=0)
        assert list(await store.record([given])) == [given]
        await store.claim("w", ["f"], limit=1, now=NOW)
        assert list((await store.steps(["a"]))["a"]) == [given]

    @opened
    async def test_racing_records_agree(self, store: Store) -> None:
        """Of many concurrent records of one step, one stands, and all are told which."""
        await _claim(store, "a")
        given = [step("a", result=str(number)) for number in range(30)]
        answers = await asyncio.gather(*(store.record([item]) for item in given))
        assert len({item for (item,) in answers}) == 1
        assert [answers[0][0]] == list((await store.steps(["a"]))["a"])
        assert answers[0][0] in given

    @opened
    async def test_hostile_texts_in_steps(self, store: Store) -> None:
        """Ids, titles, kinds and results are kept literally."""
        await _claim(store, "a")
        given = [
            step("a", f"{number}{text[:200]}", title=text, kind=text[:200], result=text, seq=number)
            for number, text in enumerate(HOSTILE)
        ]
        assert list(await store.record(given)) == given
        assert list((await store.steps(["a"]))["a"]) == given

    @opened
    async def test_many_and_large_steps(self, store: Store) -> None:
        """Hundreds of steps in one batch and results of a megabyte come back unchanged."""
        await _claim(store, "a", "b")
        many = [step("a", f"s{number}", seq=number) for number in range(700)]
        large = [step("b", f"s{number}", seq=number, result="x" * 2**20) for number in range(3)]
        assert list(await store.record(many)) == many
        assert list(await store.record(large)) == large
        found = await store.steps(["b", "a"])
        assert list(found["a"]) == many
        assert list(found["b"]) == large
