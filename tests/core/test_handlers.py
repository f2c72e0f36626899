"""What follows an end: children are cancelled, parents woken, handlers created once per end."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.core.support import opened, run, until, worker_of
from worchflow_core import Event, Execution, Filter, Status, Step, Worchflow, function
from worchflow_core.transitions import handlers_done

NOW = datetime.now(UTC).replace(microsecond=0)


RAN: list[str] = []


@function(id="child", retries=0)
async def child(event: Event[Any], step: Step) -> str:
    RAN.append(event.id)
    return "ran"


@pytest.fixture(autouse=True)
def _fresh() -> None:
    RAN.clear()


def queued(execution_id: str, **fields: Any) -> Execution:
    """Return an execution of `child` that is due."""
    return Execution(
        **{
            "id": execution_id,
            "function": "child",
            "created_at": NOW,
            "updated_at": NOW,
            "due_at": NOW,
            "input_hash": "hash",
            **fields,
        }
    )


async def states(app: Worchflow, *, parent: str) -> set[Status]:
    """Return in which states the children of an execution are."""
    found: set[Status] = set()
    after = None
    while True:
        query = replace(Filter(parent=parent).query(), limit=1000, after=after)
        page = await app.journal.store.find(query)
        found |= {item.status for item in page.items}
        if len(page.items) < 1000:
            return found
        after = query.order_key(page.items[-1])


# --- cancelling children -------------------------------------------------------------------------


def test_a_cancel_reaches_more_children_than_fit_on_a_page(url: str) -> None:
    async def main() -> None:
        async with opened(url) as app:
            await app.journal.store.create([queued("parent")])
            for start in range(0, 2100, 300):
                children = [queued(f"c{start + n}", parent="parent") for n in range(300)]
                await app.journal.store.create(children)
            await app.client.cancel("parent")
            assert await states(app, parent="parent") == {Status.CANCELLED}

    run(main())


def test_a_cancel_reaches_a_child_that_is_claimed_meanwhile(url: str) -> None:
    async def main() -> None:
        async with opened(url, child) as app:
            await app.journal.store.create(
                [queued("parent"), queued("c", parent="parent"), queued("d", parent="parent")]
            )
            update = app.journal.update
            claimed: list[Execution] = []

            async def claim_first(pairs: Any, **options: Any) -> Any:
                if pairs and pairs[0][0].id in "cd" and not claimed:
                    claimed.extend(await app.journal.claim("other", ["child"], limit=1, ids=["c"]))
                return await update(pairs, **options)

            app.journal.update = claim_first  # type: ignore[method-assign]
            await app.client.cancel("parent")
            assert [item.id for item in claimed] == ["c"]
            owned = await app.client.get("c")
            assert owned.cancel_requested_at is not None
            assert (await app.client.get("d")).status is Status.CANCELLED

    run(main())


@pytest.mark.parametrize("crashes", [0, 2])
def test_a_child_that_was_created_after_the_cancel_does_not_run(url: str, crashes: int) -> None:
    """Its parent was taken for dead while it was about to create it, and was cancelled then."""

    async def main() -> None:
        async with opened(url, child) as app, worker_of(app):
            await app.journal.store.create([queued("parent", due_at=NOW + YEAR)])
            await app.client.cancel("parent")
            late = queued("late", parent="parent", crashes=crashes, fence=crashes)
            await app.journal.create([late, queued("orphan", parent="deleted")])

            async def have_ended() -> bool:
                found = await app.journal.store.get(["late", "orphan"])
                return all(item.status.is_final for item in found)

            await until(have_ended)
            assert (await app.client.get("late")).status is Status.CANCELLED
            assert (await app.client.get("orphan")).status is Status.COMPLETED
            assert RAN == ["orphan"]

    run(main())


YEAR = datetime(2031, 1, 1) - datetime(2030, 1, 1)


def test_a_cancel_reaches_grandchildren_and_running_ones(url: str) -> None:
    began = asyncio.Event()

    @function(id="hangs", retries=0)
    async def hangs(event: Event[Any], step: Step) -> None:
        async def forever() -> None:
            began.set()
            await asyncio.Event().wait()

        await step.run("Forever", forever)

    @function(id="middle", retries=0)
    async def middle(event: Event[Any], step: Step) -> None:
        await step.invoke("Call", hangs, None)

    @function(id="top", retries=0)
    async def top(event: Event[Any], step: Step) -> None:
        await asyncio.gather(
            step.invoke("Left", middle, None),
            step.invoke("Right", "no-worker-has-it", None),
            step.sleep("Nap", "1h"),
        )

    async def main() -> None:
        async with opened(url, top, middle, hangs) as app, worker_of(app):
            handle = await app.client.send(top, None)
            await asyncio.wait_for(began.wait(), 20)
            await handle.cancel()

            async def all_cancelled() -> bool:
                page = await app.client.find()
                return {item.status for item in page.items} == {Status.CANCELLED}

            await until(all_cancelled)
            page = await app.client.find()
            names = sorted(item.function for item in page.items)
            assert names == ["hangs", "middle", "no-worker-has-it", "top"]

    run(main())


# --- following up once ---------------------------------------------------------------------------


def test_a_late_note_of_an_earlier_end_does_not_hide_a_later_one(url: str) -> None:
    async def main() -> None:
        async with opened(url) as app:
            first = queued("x", status=Status.FAILED, due_at=None, fence=1, handlers_due=True)
            second = replace(first, id="y")
            await app.journal.store.create([replace(first, fence=2), second])
            refused = await app.journal.store.update([handlers_done(first), handlers_done(second)])
            assert set(refused) == {"x"}
            assert (await app.client.get("x")).handlers_due

    run(main())
