"""Forks: an execution runs again from a step, as a new one, with edits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from worchflow_core import (
    Batch,
    Event,
    Execution,
    IdempotencyConflict,
    InvalidInput,
    NonRetriable,
    NotAllowed,
    NotFound,
    Rate,
    Status,
    Step,
    StoreUnavailable,
    Unique,
    Worchflow,
    control,
    function,
    sweeper,
)
from worchflow_core.forking import Fork, Forker, is_half_made
from worchflow_core.identities import step_id_of
from worchflow_core.models import StepRecord, StepStatus

from .support import application, faulty_memory, run, until, worker_of, working

SERVED = {"disabled_plugins": "dashboard,logs,redis,sample-audit,sample-panel"}
"""Settings with the plugins of all stores."""


class Shop:
    """A function of four steps whose code counts its calls."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.fails_at = ""

        @function(id="shop", retries=0, tags=["money"], priority=3)
        async def shop(event: Event[dict[str, int]], step: Step) -> list[Any]:
            price = await step.run("Price", self.code("Price", event.data["amount"] * 2))
            tax = await step.run("Tax", self.code("Tax", price + 1))
            total = await step.run("Total", self.code("Total", price + tax))
            await step.run("Receipt", self.code("Receipt", total))
            return [event.data["amount"], price, tax, total]

        self.function = shop

    def code(self, title: str, value: Any) -> Callable[[], Any]:
        def call() -> Any:
            self.ran.append(title)
            if title == self.fails_at:
                raise ValueError(f"{title} failed")
            return value

        return call


async def ended(app: Worchflow, execution_id: str) -> Execution:
    return await app.client.wait(execution_id, timeout=30)


async def original(app: Worchflow, shop: Shop) -> str:
    handle = await app.client.send(shop.function, {"amount": 5})
    await ended(app, handle.id)
    shop.ran.clear()
    return handle.id


def test_a_fork_keeps_the_steps_before_and_runs_the_rest(url: str) -> None:
    shop = Shop()

    async def main() -> None:
        async with working(shop.function, url=url, **SERVED) as app:
            first = await original(app, shop)
            before = await app.client.get(first), await app.client.steps(first)
            fork = await app.client.fork(first, from_step="Total")
            assert fork.is_new
            assert await fork.result(30) == [5, 10, 11, 21]
            assert shop.ran == ["Total", "Receipt"]
            execution = await fork.get()
            assert execution.forked_from == first
            assert (execution.tags, execution.priority) == (("money",), 3)
            assert execution.parent is None
            assert [step.title for step in await fork.steps()] == [
                "Price",
                "Tax",
                "Total",
                "Receipt",
            ]
            assert (await app.client.get(first), await app.client.steps(first)) == before

    run(main())


@pytest.mark.parametrize(
    ("options", "result", "ran"),
    [
        ({"from_step": "Price", "data": {"amount": 1}}, [1, 2, 3, 5], 4),
        ({"data": {"amount": 1}}, [1, 2, 3, 5], 4),
        ({"from_step": "Tax", "data": {"amount": 1}}, [1, 10, 11, 21], 3),
        ({"results": {"Price": 100}}, [5, 100, 101, 201], 3),
        ({"from_step": "Total", "results": {"Price": 100}}, [5, 100, 11, 111], 2),
        ({"results": {"Price": 1, "Tax": 2}}, [5, 1, 2, 3], 2),
        ({}, [5, 10, 11, 21], 4),
    ],
)
def test_a_fork_takes_edits(url: str, options: Any, result: list[int], ran: int) -> None:
    shop = Shop()

    async def main() -> None:
        async with working(shop.function, url=url, **SERVED) as app:
            fork = await app.client.fork(await original(app, shop), **options)
            assert await fork.result(30) == result
            assert len(shop.ran) == ran

    run(main())


def test_a_fork_begins_at_the_step_that_failed(url: str) -> None:
    shop = Shop()
    shop.fails_at = "Total"

    async def main() -> None:
        async with working(shop.function, url=url, **SERVED) as app:
            first = await original(app, shop)
            assert (await app.client.get(first)).status is Status.FAILED
            shop.fails_at = ""
            fork = await app.client.fork(first, from_step="Total")
            assert await fork.result(30) == [5, 10, 11, 21]
            assert shop.ran == ["Total", "Receipt"]
            assert (await app.client.get(first)).status is Status.FAILED

    run(main())


def test_repeated_steps_are_named_by_number_or_id(url: str) -> None:
    @function(id="loop")
    async def loop(event: Event[Any], step: Step) -> list[int]:
        return [await step.run("Poll", lambda number=number: number) for number in range(4)]

    async def main() -> None:
        async with working(loop, url=url, **SERVED) as app:
            first = await app.client.send(loop, None)
            await first.result(30)
            steps = await first.steps()
            for name in ("Poll#3", steps[2].step_id):
                fork = await app.client.fork(first.id, from_step=name, results={"Poll#2": 9})
                assert await fork.result(30) == [0, 9, 2, 3]
            assert await (await app.client.fork(first.id, from_step="Poll")).result(30)
            with pytest.raises(
                InvalidInput, match=r"4 steps .* are called 'Poll'; name one by its"
            ):
                await app.client.fork(first.id, results={"Poll": 1})
            with pytest.raises(InvalidInput, match="replaced twice"):
                await app.client.fork(first.id, results={"Poll#2": 1, steps[1].step_id: 2})

    run(main())


def test_what_waited_before_the_fork_is_a_fact_and_what_waits_after_it_is_not(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "IN_PLACE", timedelta(0))
    children: list[str] = []

    @function(id="child")
    async def child(event: Event[Any], step: Step) -> str:
        children.append(event.id)
        return f"child of {event.data}"

    @function(id="parent")
    async def parent(event: Event[Any], step: Step) -> list[Any]:
        await step.sleep("Nap", "10ms")
        answer = await step.wait_for_event("Wait", "go", timeout="1h")
        first = await step.invoke("First", child, "one")
        second = await step.invoke("Second", child, "two")
        return [answer and answer.data, first, second]

    async def main() -> None:
        async with working(parent, child, url=url, **SERVED) as app:
            handle = await app.client.send(parent, None)
            await app.client.signal(handle.id, "go", {"by": "ana"})
            expected = [{"by": "ana"}, "child of one", "child of two"]
            assert await handle.result(30) == expected
            assert len(children) == 2
            fork = await app.client.fork(handle.id, from_step="Second")
            assert await fork.result(30) == expected
            assert len(children) == 3  # the first is a fact, the second is the fork's own
            assert children[2] not in children[:2]
            edited = await app.client.fork(
                handle.id, results={"Wait": {"by": "bo"}, "First": "somebody"}
            )
            assert await edited.result(30) == [{"by": "bo"}, "somebody", "child of two"]
            assert len(children) == 4
            with pytest.raises(InvalidInput, match=r"'Nap' .* is a sleep, so it has no result"):
                await app.client.fork(handle.id, results={"Nap": 1})

    run(main())


def test_a_running_execution_is_forked_with_what_it_has(url: str) -> None:
    gate = asyncio.Event()
    ran: list[str] = []

    @function(id="slow")
    async def slow(event: Event[Any], step: Step) -> str:
        await step.run("One", lambda: ran.append("One"))
        side = asyncio.create_task(_wait(step))
        await step.run("Two", lambda: ran.append("Two"))
        await side
        return "done"

    async def _wait(step: Step) -> None:
        await step.run("Side", gate.wait)

    async def main() -> None:
        async with working(slow, url=url, **SERVED) as app:
            handle = await app.client.send(slow, None)
            await until(lambda: "Two" in ran)

            async def has_two() -> bool:
                return "Two" in [step.title for step in await handle.steps()]

            await until(has_two)
            assert (await handle.get()).status is Status.PROCESSING
            fork = await app.client.fork(handle.id, from_step="Two")
            gate.set()
            assert await fork.result(30) == "done"
            assert await handle.result(30) == "done"
            assert ran == ["One", "Two", "Two"]

    run(main())


def test_a_step_whose_outcome_is_unknown_is_settled_by_a_result() -> None:
    ran: list[str] = []

    @function(id="once", retries=0)
    async def once(event: Event[Any], step: Step) -> Any:
        return await step.run("Charge", lambda: ran.append("charged"), once=True, returns=Any)

    async def main() -> None:
        async with working(once, url="memory://once") as app:
            handle = await app.client.send(once, None, delay="1h")
            execution = await handle.get()
            started = StepRecord(
                execution_id=handle.id,
                step_id=step_id_of("Charge"),
                title="Charge",
                status=StepStatus.STARTED,
                seq=1,
                started_at=execution.created_at,
                execution_created_at=execution.created_at,
            )
            await app.journal.store.record([started])
            unknown = await app.client.fork(handle.id, from_step="Charge")
            await unknown.result(30)
            assert ran == ["charged"]  # it was forked from the step itself: it runs
            known = await app.client.fork(handle.id, results={"Charge": "txn_1"})
            assert await known.result(30) == "txn_1"
            assert ran == ["charged"]

    run(main())


def test_nothing_is_written_where_something_is_wrong(url: str) -> None:
    shop = Shop()
    cases: list[tuple[dict[str, Any], str]] = [
        (
            {"from_step": "Nope"},
            "has no step 'Nope'; there are: 'Price', 'Tax', 'Total', 'Receipt'",
        ),
        ({"from_step": ""}, "'' names no step"),
        ({"from_step": 3}, "3 names no step"),
        ({"results": {"Nope": 1}}, "has no step 'Nope'"),
        ({"results": {"Price": {1, 2}}}, "result of step 'Price' does not survive JSON"),
        ({"results": {"Price": "x" * 3_000_000}}, "result of step 'Price' takes 3,000,002 bytes"),
        ({"results": {"Price": float("nan")}}, "result of step 'Price'"),
        ({"results": [1]}, "results is of type list"),
        ({"from_step": "Tax", "results": {"Total": 1}}, "'Total' is not before 'Tax'"),
        ({"data": {"amount": "many"}}, "event data of shop does not fit"),
        ({"id": "no spaces please"}, "execution id"),
    ]

    async def main() -> None:
        async with working(shop.function, url=url, **SERVED) as app:
            first = await original(app, shop)
            for options, words in cases:
                with pytest.raises(InvalidInput) as caught:
                    await app.client.fork(first, **options)
                assert words in str(caught.value)
            with pytest.raises(NotFound, match="no execution 'gone'"):
                await app.client.fork("gone")
            assert [item.id for item in (await app.client.find()).items] == [first]

    run(main())


def test_an_id_makes_a_fork_once(url: str) -> None:
    shop = Shop()

    async def main() -> None:
        async with working(shop.function, url=url, **SERVED) as app:
            first = await original(app, shop)
            forks = await asyncio.gather(
                *(app.client.fork(first, from_step="Total", id="mine") for _ in range(5))
            )
            assert {fork.id for fork in forks} == {"mine"}
            assert sum(fork.is_new for fork in forks) <= 1
            assert await forks[0].result(30) == [5, 10, 11, 21]
            assert shop.ran == ["Total", "Receipt"]
            again = await app.client.fork(first, from_step="Total", id="mine")
            assert not again.is_new
            others: list[dict[str, Any]] = [
                {"from_step": "Tax"},
                {"from_step": "Total", "data": {"amount": 1}},
                {"from_step": "Total", "results": {"Tax": 1}},
            ]
            for other in others:
                with pytest.raises(IdempotencyConflict, match="'mine' exists"):
                    await app.client.fork(first, id="mine", **other)
            with pytest.raises(IdempotencyConflict):
                await app.client.fork(first, id=first)
            assert shop.ran == ["Total", "Receipt"]

    run(main())


def test_a_fork_is_no_repeated_event(url: str) -> None:
    @function(id="mail", unique=Unique(window="1h"), rate_limit=Rate(1, "1h"), debounce="10ms")
    async def mail(event: Event[Any], step: Step) -> Any:
        return await step.run("Send", lambda: event.data)

    async def main() -> None:
        async with working(mail, url=url, **SERVED) as app:
            first = await app.client.send(mail, {"to": "ana"})
            assert await first.result(30) == {"to": "ana"}
            again = await app.client.send(mail, {"to": "ana"})
            assert (again.id, again.is_new) == (first.id, False)
            other = await app.client.send(mail, {"to": "ben"})
            assert (await ended(app, other.id)).status is Status.CANCELLED
            fork = await app.client.fork(first.id)
            assert await fork.result(30) == {"to": "ana"}

    run(main())


class Killed(BaseException):
    """What ends a maker of forks in these tests."""


def dying(point: str) -> Callable[[str], None]:
    def reach(name: str) -> None:
        if name == point:
            raise Killed

    return reach


@pytest.mark.parametrize("point", ["after_insert", "after_step_insert"])
def test_a_fork_whose_maker_dies_never_runs_until_it_is_made_again(url: str, point: str) -> None:
    shop = Shop()

    async def main() -> None:
        async with working(shop.function, url=url, **SERVED) as app:
            first = await original(app, shop)
            async with application(shop.function, url=url, **SERVED) as maker:
                maker.journal.reach = dying(point)
                with pytest.raises(Killed):
                    await maker.client.fork(first, from_step="Total", id="mine")
            half = await app.client.get("mine")
            assert is_half_made(half)
            assert half.status is Status.QUEUED
            # Nothing that happens to executions lets it run: not a claim, not a cancel and retry.
            now = app.journal.clock.now()
            assert not await app.journal.store.claim("w", ["shop"], limit=9, now=now, ids=["mine"])
            with pytest.raises(NotAllowed, match="itself a fork that was not finished"):
                await app.client.fork("mine")
            fork = await app.client.fork(first, from_step="Total", id="mine")
            assert await fork.result(30) == [5, 10, 11, 21]
            assert shop.ran == ["Total", "Receipt"]

    run(main())


def test_a_cancelled_half_made_fork_cannot_be_retried(url: str) -> None:
    shop = Shop()

    async def main() -> None:
        async with working(shop.function, url=url, **SERVED) as app:
            first = await original(app, shop)
            async with application(shop.function, url=url, **SERVED) as maker:
                maker.journal.reach = dying("after_insert")
                with pytest.raises(Killed):
                    await maker.client.fork(first, from_step="Total", id="mine")
            await app.client.cancel("mine")
            with pytest.raises(NotAllowed, match="fork that was not finished"):
                await app.client.retry("mine")
            again = await app.client.fork(first, from_step="Total", id="mine")
            assert (await again.get()).status is Status.CANCELLED
            assert shop.ran == []

    run(main())


def test_a_sweep_ends_what_nobody_finishes(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop()

    async def main() -> None:
        async with application(shop.function, url=url, **SERVED) as app:
            async with worker_of(app):
                first = await original(app, shop)
            app.journal.reach = dying("after_step_insert")
            with pytest.raises(Killed):
                await app.client.fork(first, from_step="Total", id="mine")
            app.journal.reach = lambda point: None
            mending = sweeper.Sweeper(app.journal, app.registry, app.settings)
            await mending.repair()
            assert (await app.client.get("mine")).status is Status.QUEUED
            app.journal.clock.shift(timedelta(minutes=6))
            await mending.repair()
            ended = await app.client.get("mine")
            assert ended.status is Status.FAILED
            assert ended.error is not None
            assert "forking again with its id" in ended.error.message
            with pytest.raises(NotAllowed, match="fork that was not finished"):
                await app.client.retry("mine")
            app.journal.clock.shift(timedelta(minutes=-6))
            fork = await app.client.fork(first, from_step="Total", id="mine")
            async with worker_of(app):
                assert await fork.result(30) == [5, 10, 11, 21]
            assert shop.ran == ["Total", "Receipt"]

    run(main())


def test_a_finished_fork_takes_no_more_steps(url: str) -> None:
    """Two make one fork; the slower must not add steps to what runs already."""
    shop = Shop()

    async def main() -> None:
        async with application(shop.function, url=url, **SERVED) as app:
            async with worker_of(app):
                first = await original(app, shop)
                forker = Forker(app.journal, app.registry, 1_000_000)
                execution, copies = await forker.prepare(first, Fork(from_step="Total", id="mine"))
                await app.client.fork(first, from_step="Total", id="mine")
                await ended(app, "mine")
                shop.ran.clear()
                after, is_new = await forker.store(execution, copies)
            assert not is_new
            assert after.status is Status.COMPLETED
            assert shop.ran == []

    run(main())


def test_an_outage_names_the_id_to_go_on_with() -> None:
    shop = Shop()
    store, backends = faulty_memory()

    async def main() -> None:
        async with application(shop.function, **backends) as app, worker_of(app):
            first = await original(app, shop)
            store.away.add("record")
            with pytest.raises(StoreUnavailable) as caught:
                await app.client.fork(first, from_step="Total")
            store.away.clear()
            assert caught.value.execution_id is not None
            fork = await app.client.fork(first, from_step="Total", id=caught.value.execution_id)
            assert await fork.result(30) == [5, 10, 11, 21]

    run(main())


def test_a_fork_of_many_steps_is_copied_in_parts(url: str) -> None:
    ran: list[int] = []

    @function(id="many")
    async def many(event: Event[Any], step: Step) -> int:
        for number in range(1201):
            await step.run(f"Step {number}", lambda number=number: ran.append(number))
        return len(ran)

    async def main() -> None:
        async with working(many, url=url, **SERVED) as app:
            handle = await app.client.send(many, None)
            assert await handle.result(60) == 1201
            fork = await app.client.fork(handle.id, from_step="Step 1200")
            assert await fork.result(60) == 1202
            assert len(await fork.steps()) == 1201

    run(main(), limit=120)


def test_a_fork_begins_where_an_error_was_caught_and_runs_what_came_after(url: str) -> None:
    ran: list[str] = []

    @function(id="careful", retries=0)
    async def careful(event: Event[Any], step: Step) -> None:
        def fails() -> None:
            ran.append("Try")
            raise ValueError("no")

        await step.run("Before", lambda: ran.append("Before"))
        with suppress(ValueError):
            await step.run("Try", fails)
        await step.run("After", lambda: ran.append("After"))

    async def main() -> None:
        async with working(careful, url=url, **SERVED) as app:
            first = await app.client.send(careful, None)
            await first.result(30)
            ran.clear()
            fork = await app.client.fork(first.id, from_step="Try")
            await fork.result(30)
            assert ran == ["Try", "After"]

    run(main())


@pytest.mark.parametrize("name", ["Square#2", "Side[2]", "Side 2 of 3", "id"])
def test_a_step_that_failed_is_named_as_any_other(url: str, name: str) -> None:
    ran: list[Any] = []

    def square(number: int) -> int:
        ran.append(number)
        if number == 2:
            raise NonRetriable("two")
        return number * number

    @function(id="squares", retries=0)
    async def squares(event: Event[Any], step: Step) -> None:
        if name == "Side[2]" or name.startswith("Side "):
            await step.map("Side", square, [1, 2, 3])
        for number in (1, 2):
            await step.run("Square", square, number)

    async def main() -> None:
        async with working(squares, url=url, **SERVED) as app:
            first = await app.client.send(squares, None)
            await ended(app, first.id)
            ran.clear()
            chosen = step_id_of("Square#2") if name == "id" else name
            fork = await app.client.fork(first.id, from_step=chosen)
            await ended(app, fork.id)
            # Of those that ran side by side, who was called later runs again.
            assert ran == ([2, 3] if name.startswith("Side") else [2])

    run(main())


def test_the_result_of_a_step_that_can_be_undone_is_replaced(url: str) -> None:
    @function(id="trip", retries=0)
    async def trip(event: Event[Any], step: Step) -> list[str]:
        flight = await step.run("Flight", lambda: "f1", undo=lambda flight: None)
        return [flight, await step.run("Pay", lambda: f"paid {flight}")]

    async def main() -> None:
        async with working(trip, url=url, **SERVED) as app:
            first = await app.client.send(trip, None)
            await first.result(30)
            fork = await app.client.fork(first.id, results={"Flight": "f2"})
            assert await fork.result(30) == ["f2", "paid f2"]

    run(main())


def test_a_fork_that_fails_undoes_what_it_did_and_nothing_of_its_original(url: str) -> None:
    undone: list[str] = []
    fails = False

    @function(id="trip", retries=0)
    async def trip(event: Event[Any], step: Step) -> None:
        def pay() -> None:
            if fails:
                raise NonRetriable("no money")

        await step.run("Flight", lambda: "flight", undo=undone.append)
        await step.run("Hotel", lambda: "hotel", undo=undone.append)
        await step.run("Pay", pay)

    async def main() -> None:
        nonlocal fails
        async with working(trip, url=url, **SERVED) as app:
            first = await app.client.send(trip, None)
            await first.result(30)
            fails = True
            kept = await app.client.fork(first.id, from_step="Pay")
            execution = await ended(app, kept.id)
            assert execution.status is Status.FAILED
            assert execution.error is not None
            assert (execution.error.message, undone) == ("no money", [])
            grandchild = await app.client.fork(kept.id, from_step="Pay")
            assert (await ended(app, grandchild.id)).status is Status.FAILED
            assert undone == []
            partly = await app.client.fork(first.id, from_step="Hotel")
            assert (await ended(app, partly.id)).status is Status.FAILED
            assert undone == ["hotel"]

    run(main())


def test_no_fork_begins_at_an_undo(url: str) -> None:
    def cannot(_: str) -> None:
        raise ValueError("closed")

    @function(id="trip", retries=0)
    async def trip(event: Event[Any], step: Step) -> None:
        await step.run("Flight", lambda: "flight", undo=cannot)
        raise NonRetriable("no seat")

    async def main() -> None:
        async with working(trip, url=url, **SERVED) as app:
            first = await app.client.send(trip, None)
            execution = await ended(app, first.id)
            assert execution.attempts[-1].tries[-1].title == "Undo Flight"
            with pytest.raises(InvalidInput, match=r"no step 'Undo Flight'; there are: 'Flight'$"):
                await app.client.fork(first.id, from_step="Undo Flight")

    run(main())


def test_a_fork_is_a_batch_by_itself(url: str) -> None:
    @function(id="gather", batch=Batch(2, "1s"))
    async def gather(event: Event[int], step: Step) -> Any:
        found = await step.run("Load", lambda: [item.data for item in event.batch])
        return await step.run("Insert", lambda: [found, [item.data for item in event.batch]])

    async def main() -> None:
        async with working(gather, url=url, **SERVED) as app:
            handles = [await app.client.send(gather, number) for number in (1, 2)]
            both, _ = [await handle.result(30) for handle in handles]
            (leader,) = [handle for handle in handles if await handle.steps()]
            mine = (await leader.get()).data
            # What comes at the same time is in no step that the fork has kept.
            fork = await app.client.fork(leader.id, from_step="Insert")
            others = [await app.client.send(gather, number) for number in (3, 4)]
            assert await fork.result(30) == [both[0], [int(mine or "")]]
            found = await others[0].result(30)
            assert sorted(found[0]) == [3, 4]

    run(main())
