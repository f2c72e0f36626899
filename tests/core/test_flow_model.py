"""Flow control against simple models: whatever comes, ends and dies in which order.

Two workers claim, run and settle at once; each may die before or after any write. The models know
one rule each: never more than so many at once, never more than so many in a span, one way for each
event to end; and nobody waits for ever.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.flow_world import World
from tests.core.support import application, run
from worchflow_core import (
    Batch,
    Debounce,
    Event,
    Function,
    Limit,
    Rate,
    Singleton,
    Status,
    Step,
    function,
    gatherings,
    lines,
)

MANY = settings(max_examples=40, deadline=None)

Moves = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 2)),
        st.tuples(st.just("work"), st.tuples(st.integers(0, 4), st.integers(0, 2))),
        st.tuples(st.just("work"), st.tuples(st.integers(0, 4), st.integers(0, 2))),
        st.tuples(st.just("dies"), st.tuples(st.integers(0, 1), st.integers(0, 12), st.booleans())),
        st.tuples(st.just("tend"), st.integers(0, 1)),
        st.tuples(st.just("cancel"), st.integers(0, 20)),
        st.tuples(st.just("pass"), st.integers(1, 400)),
    ),
    min_size=5,
    max_size=40,
)


def options(**flow: Any) -> Function[Any, Any]:
    @function(id="f", retries=0, **flow)
    async def limited(event: Event[Any], step: Step) -> None: ...

    return limited


async def play(world: World, moves: Sequence[tuple[str, Any]]) -> None:
    for move, value in moves:
        match move:
            case "send":
                await world.send({"key": value})
            case "work":
                many, ends = value
                ways = (Status.COMPLETED, Status.RETRYING, Status.FAILED)
                await asyncio.gather(world.claim(0, many), world.claim(1, 3))
                await asyncio.gather(world.end(0, ways[ends]), world.end(1))
            case "dies":
                number, writes, is_last_made = value
                life = world.workers[number].life
                life.left, life.is_last_made = writes, is_last_made
            case "tend":
                await world.bury()
                await world.tend(value)
            case "cancel":
                await world.cancel(value)
            case "pass":
                world.clock.moment += timedelta(milliseconds=value)


def running(world: World) -> list[Any]:
    return [
        json.loads(item.execution.data or "null")["key"]
        for worker in world.workers
        if not worker.life.is_over
        for item in worker.running.values()
    ]


Check = Callable[[World], None]


def played(
    moves: Sequence[tuple[str, Any]],
    seed: int,
    tested: Function[Any, Any],
    check: Check = lambda world: None,
    end: Check = lambda world: None,
) -> None:
    """Play moves, let the rest end, and see that nothing is left behind."""

    async def main() -> None:
        async with application(tested) as app:
            world = World(app, [tested], seed)
            world.check = lambda: check(world)
            await play(world, moves)
            await world.finish()
            end(world)
            for _ in range(6):  # of which one looks at every line
                await world.workers[0].admission.tend()
            for kind in (lines.KIND, gatherings.GATHERING, gatherings.CLOSED):
                left = await app.journal.store.records.scan(kind)
                assert not left, f"left behind: {left}"

    run(main())


@MANY
@given(Moves, st.integers(0, 1000), st.integers(1, 3))
def test_no_more_hold_a_place_than_there_are_and_nobody_waits_for_ever(
    moves: Sequence[tuple[str, Any]], seed: int, count: int
) -> None:
    def check(world: World) -> None:
        assert len(running(world)) <= count

    played(moves, seed, options(concurrency=Limit(count)), check)


@MANY
@given(Moves, st.integers(0, 1000))
def test_two_limits_hold_at_once_and_never_lock_each_other_out(
    moves: Sequence[tuple[str, Any]], seed: int
) -> None:
    def check(world: World) -> None:
        counts = Counter(running(world))
        assert counts.total() <= 2
        assert max(counts.values(), default=0) <= 1

    limits = [Limit(2, fair_by="data.key"), Limit(1, key="data.key")]
    played(moves, seed, options(concurrency=limits), check)


@MANY
@given(Moves, st.integers(0, 1000), st.sampled_from(["queue", "skip", "cancel"]))
def test_one_of_a_key_is_under_way_at_a_time(
    moves: Sequence[tuple[str, Any]], seed: int, choice: str
) -> None:
    def check(world: World) -> None:
        assert max(Counter(running(world)).values(), default=0) <= 1

    played(moves, seed, options(singleton=Singleton(choice, key="data.key")), check)


@MANY
@given(Moves, st.integers(0, 1000))
def test_a_unique_key_is_had_by_one(moves: Sequence[tuple[str, Any]], seed: int) -> None:
    def check(world: World) -> None:
        assert max(Counter(running(world)).values(), default=0) <= 1

    played(moves, seed, options(unique="data.key"), check)


@MANY
@given(Moves, st.integers(0, 1000), st.integers(1, 3), st.booleans())
def test_no_span_holds_more_starts_than_its_rate(
    moves: Sequence[tuple[str, Any]], seed: int, count: int, throttles: bool
) -> None:
    starts: list[tuple[datetime, str]] = []
    span = timedelta(milliseconds=500)

    def check(world: World) -> None:
        started = world.begun[-1]
        found = [w.running[started].execution for w in world.workers if started in w.running]
        # Whoever comes again, after its worker died or for a retry, was counted before.
        if all(not item.attempts for item in found):
            starts.append((world.clock.now(), started))
        recent = [item for item in starts if item[0] > world.clock.now() - span]
        assert len(recent) <= count

    rate = Rate(count, span)
    tested = options(throttle=rate) if throttles else options(rate_limit=rate)
    played(moves, seed, tested, check)


@MANY
@given(Moves, st.integers(0, 1000))
def test_every_event_of_a_burst_runs_or_gives_way_to_one_that_came_later(
    moves: Sequence[tuple[str, Any]], seed: int
) -> None:
    async def main() -> None:
        tested = options(debounce=Debounce("100ms", max_wait="1s", key="data.key"))
        async with application(tested) as app:
            world = World(app, [tested], seed)
            await play(world, moves)
            found = await world.finish()
            for item in found.values():
                error = item.error
                if error is not None and error.type == "Debounced":
                    winner = error.message.split()[1]
                    assert (found[winner].created_at, winner) > (item.created_at, item.id)
                    assert item.id not in world.begun

    run(main())


@MANY
@given(Moves, st.integers(0, 1000), st.integers(2, 4))
def test_every_event_of_a_batch_is_taken_exactly_once(
    moves: Sequence[tuple[str, Any]], seed: int, size: int
) -> None:
    async def main() -> None:
        tested = options(batch=Batch(size, "200ms"))
        async with application(tested) as app:
            world = World(app, [tested], seed)
            taken: dict[str, tuple[str, ...]] = {}
            done: Counter[str] = Counter()

            def check() -> None:
                for worker in world.workers:
                    for item in worker.running.values():
                        batch = tuple(member.id for member in item.batch)
                        assert len(batch) <= size
                        # Whoever takes them again, after a crash, takes the very same.
                        assert taken.setdefault(item.execution.id, batch) == batch

            world.check = check
            await play(world, moves)
            found = await world.finish()
            for leader, batch in taken.items():
                if found[leader].status is not Status.CANCELLED:
                    done.update(batch or (leader,))
            assert not [item for item, times in done.items() if times > 1]
            for item in found.values():
                assert item.status is Status.CANCELLED or done[item.id] == 1

    run(main())
