"""Checking a change of the code against what is stored."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar

import pytest

from worchflow_core import (
    Batch,
    BlockingStep,
    Event,
    FunctionError,
    InvalidInput,
    Resource,
    Status,
    Step,
    Worchflow,
    control,
    function,
    rehearsal,
    rehearsals,
)
from worchflow_core.query import Page, Query
from worchflow_core.rehearsal import Verdict
from worchflow_core.rehearsals import FunctionReport, report_to_wire

from .support import application, run, until, worker_of

SERVED = {"disabled_plugins": "dashboard,logs,redis,sample-audit,sample-panel"}
"""Settings with the plugins of all stores."""


def code(name: str, **options: Any) -> Any:
    """Return the decorator of one version of a function."""
    return function(id=name, **{"retries": 0, **options})


@code("order")
async def order(event: Event[dict[str, int]], step: Step) -> Any:
    price = await step.run("Price", lambda: 5, returns=int)
    await step.sleep("Nap", "1ms")
    if event.data.get("waits"):
        await step.wait_for_event("Paid", "paid")
    total = await step.run("Total", lambda: price + 1, returns=int)
    return total


async def stored(app: Worchflow, count: int = 3) -> list[str]:
    """Store executions that completed, and one that waits; return their ids, that one last."""
    done = [await app.client.send("order", {}) for _ in range(count)]
    waiting = await app.client.send("order", {"waits": 1})
    for handle in done:
        await handle.result(30)

    async def is_waiting() -> bool:
        return (await waiting.get()).status is Status.WAITING

    await until(is_waiting)
    return [*(handle.id for handle in done), waiting.id]


def checked(
    url: str, changed: Any, *others: Any, old: Any = order, **options: Any
) -> tuple[FunctionReport, list[str]]:
    """Run the old code, then check the changed one; see that nothing was written."""

    async def main() -> tuple[FunctionReport, list[str]]:
        async with application(old, url=url, **SERVED) as app, worker_of(app):
            ids = await stored(app)
        async with application(changed, *others, url=url, **SERVED) as app:
            before = [(await app.client.get(item), await app.client.steps(item)) for item in ids]
            (report,) = await app.rehearse([changed.id], **options)
            after = [(await app.client.get(item), await app.client.steps(item)) for item in ids]
            assert after == before
            assert len((await app.client.find()).items) == len(ids)
            return report, ids

    return run(main())


@pytest.fixture(autouse=True)
def pauses_are_real(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "IN_PLACE", timedelta(0))


def test_the_same_code_is_fine(url: str) -> None:
    report, _ = checked(url, order)
    assert report.counts == {Verdict.FINE: 4}
    assert (report.checked, report.live, report.live_checked) == (4, 1, 1)
    assert report.troubles == ()


def test_no_step_runs(url: str) -> None:
    ran: list[str] = []

    @code("order")
    async def changed(event: Event[Any], step: Step) -> Any:
        await step.run("Price", lambda: ran.append("Price"))
        await step.run("New", lambda: ran.append("New"))
        await step.send_event("Send", "somebody", {})
        await step.invoke("Call", "somebody")
        await step.run("Total", lambda: ran.append("Total"), once=True, undo=ran.append)
        raise ValueError("never reached")

    report, _ = checked(url, changed)
    assert ran == []
    assert report.counts == {Verdict.CHANGED: 4}
    assert report.new_steps == {"New": 3}
    assert report.unreached == {"Nap": 4, "Total": 3}
    assert report.troubles == ()


def test_every_kind_of_new_step_stops_the_replay(url: str) -> None:
    @code("order")
    async def changed(event: Event[Any], step: Step) -> Any:
        await step.run("Price", lambda: 5)
        found = await asyncio.gather(
            step.sleep("S", "1h"),
            step.wait_for_event("W", "paid", timeout="1h"),
            step.send_event("E", "somebody", {}),
            step.invoke("I", "order", {}),
            step.run("R", lambda: 1, retries=3),
            step.map("M", lambda item: item, [1, 2]),
            step.run("Total", lambda: 2),
        )
        raise ValueError(found)

    report, _ = checked(url, changed)
    assert report.counts == {Verdict.CHANGED: 4}
    assert set(report.new_steps) == {"S", "W", "E", "I", "R", "M 1 of 2", "M 2 of 2"}
    assert report.unreached == {"Nap": 4}


def test_plain_functions_are_rehearsed_too(url: str) -> None:
    @code("order")
    def changed(event: Event[Any], step: BlockingStep) -> Any:
        price = step.run("Price", lambda: 5)
        step.run("New", lambda: price)
        raise ValueError("never reached")

    report, _ = checked(url, changed)
    assert report.counts == {Verdict.CHANGED: 4}
    assert report.new_steps == {"New": 3}


@pytest.mark.parametrize("what", ["kind", "type"])
def test_a_step_that_no_longer_fits_breaks(url: str, what: str) -> None:
    @code("order")
    async def changed(event: Event[Any], step: Step) -> Any:
        if what == "kind":
            await step.sleep("Price", 1)
        else:
            await step.run("Price", lambda: [1], returns=list[int])

    report, ids = checked(url, changed)
    assert report.counts == {Verdict.BREAKS: 4}
    (live,) = report.breaks_live
    assert (live.execution_id, live.status) == (ids[-1], Status.WAITING)
    assert "'Price'" in live.why
    wire = report_to_wire(report)
    assert wire["breaks"] == 4
    assert [item["isLive"] for item in wire["troubles"]].count(True) == 1


@pytest.mark.parametrize(("word", "verdict"), [("warn", "changed"), ("adopt", "fine")])
def test_what_the_function_wants_is_taken_into_account(
    url: str, word: str, verdict: str, caplog: pytest.LogCaptureFixture
) -> None:
    @code("order", on_change=word)
    async def changed(event: Event[Any], step: Step) -> Any:
        await step.run("Price", lambda: "x", returns=str)
        await step.sleep("Nap", 1)
        if event.data.get("waits"):
            await step.wait_for_event("Paid", "paid")
        await step.run("Total", lambda: 1)

    report, _ = checked(url, changed)
    assert report.counts == {Verdict(verdict): 4}
    assert not [item for item in caplog.records if "run anew" in item.message]


def test_data_that_no_longer_fits_breaks(url: str) -> None:
    @code("order")
    async def changed(event: Event[list[int]], step: Step) -> None: ...

    report, _ = checked(url, changed)
    assert report.counts == {Verdict.BREAKS: 4}
    assert "event data of order does not fit" in report.breaks_live[0].why


def test_code_that_raises_between_the_steps_is_told(url: str) -> None:
    @code("order", retries=5)
    async def changed(event: Event[Any], step: Step) -> Any:
        price = await step.run("Price", lambda: 5)
        return {}[price]

    report, _ = checked(url, changed)
    assert report.counts == {Verdict.RAISES: 4}
    assert report.breaks_live[0].why == "its code raises KeyError: 5"


def test_what_failed_fails_as_it_did(url: str) -> None:
    @code("order")
    async def failing(event: Event[Any], step: Step) -> Any:
        await step.run("Price", lambda: 5)
        if event.data.get("waits"):
            await step.wait_for_event("Paid", "paid")
        raise KeyError("price")

    async def main() -> FunctionReport:
        async with application(failing, url=url, **SERVED) as app, worker_of(app):
            handle = await app.client.send(failing, {})
            await app.client.wait(handle.id, timeout=30)
            (report,) = await app.rehearse()
            return report

    assert run(main()).counts == {Verdict.FINE: 1}


@pytest.mark.parametrize("kind", ["async", "blocked", "plain", "swallows"])
def test_code_that_never_returns_hangs_nobody(url: str, kind: str) -> None:
    @code("order")
    async def asleep(event: Event[Any], step: Step) -> Any:
        await asyncio.sleep(3600)

    @code("order")
    async def blocked(event: Event[Any], step: Step) -> Any:
        time.sleep(5)  # noqa: ASYNC251 - this is what is tested

    @code("order")
    def plain(event: Event[Any], step: BlockingStep) -> Any:
        time.sleep(5)

    @code("order")
    async def swallows(event: Event[Any], step: Step) -> Any:
        while True:
            try:
                await step.run("New", lambda: 1)
            except BaseException:
                await asyncio.sleep(0)

    changed = {"async": asleep, "blocked": blocked, "plain": plain, "swallows": swallows}[kind]
    began = time.monotonic()
    report, _ = checked(url, changed, limit=0.2)
    assert report.counts == {Verdict.UNKNOWN: 4}
    assert "longer than 0.2 s" in report.troubles[0].why
    assert report.breaks_live == ()
    assert time.monotonic() - began < 60
    while any(thread.name.startswith("worchflow-rehears") for thread in threading.enumerate()):
        assert time.monotonic() - began < 60, "what nobody waits for goes on"
        time.sleep(0.05)


@asynccontextmanager
async def open_pool() -> AsyncIterator[str]:
    raise AssertionError("no resource is opened")
    yield ""


def test_resources_are_not_opened(url: str) -> None:
    @code("order")
    async def passes(event: Event[Any], step: Step, *, pool: Any = Resource(open_pool)) -> Any:
        await step.run("Price", lambda used: used, pool, returns=int)
        await step.sleep("Nap", 1)
        if event.data.get("waits"):
            await step.wait_for_event("Paid", "paid")
        return await step.run("Total", lambda: 1)

    assert checked(url, passes)[0].counts == {Verdict.FINE: 4}

    @code("order")
    async def uses(event: Event[Any], step: Step, *, pool: Any = Resource(open_pool)) -> Any:
        async with pool.acquire():
            return 1

    async def main() -> FunctionReport:
        async with application(uses, url=url, **SERVED) as app:
            (report,) = await app.rehearse()
            return report

    report = run(main())
    assert report.counts == {Verdict.UNKNOWN: 4}
    assert "uses 'pool' between the steps" in report.troubles[0].why


def test_steps_may_be_given_what_a_resource_has(url: str) -> None:
    @code("order")
    async def passes(event: Event[Any], step: Step, *, pool: Any = Resource(open_pool)) -> Any:
        await step.run("Price", pool.fetch, "select")
        await step.sleep("Nap", 1)
        if event.data.get("waits"):
            await step.wait_for_event("Paid", "paid")
        return await step.run("Total", pool.rows.count)

    report, _ = checked(url, passes)
    assert report.counts == {Verdict.FINE: 4}


@pytest.mark.parametrize("what", ["await", "iterate", "length", "truth", "text", "compare", "set"])
def test_no_use_of_a_resource_between_the_steps_is_taken_for_an_error(what: str) -> None:
    @code("order")
    async def uses(event: Event[Any], step: Step, *, pool: Any = Resource(open_pool)) -> Any:
        match what:
            case "await":
                await pool
            case "iterate":
                async for _ in pool.rows:
                    pass
            case "length":
                len(pool)
            case "truth":
                assert pool.is_open
            case "text":
                await step.run(f"{pool.name}", lambda: 1)
            case "compare":
                assert pool.size > 3
            case "set":
                pool["x"] = 1

    report, _ = checked(f"memory://resource-{what}", uses)
    assert report.counts == {Verdict.UNKNOWN: 4}
    assert "uses 'pool' between the steps" in report.troubles[0].why


def test_a_resource_whose_refusal_was_caught_leaves_nobody_sure() -> None:
    @code("order")
    async def uses(event: Event[Any], step: Step, *, pool: Any = Resource(open_pool)) -> Any:
        try:
            found = pool.get("x")
        except Exception:
            found = None
        if found is None:
            await step.run("Other", lambda: 1)

    assert checked("memory://caught", uses)[0].counts == {Verdict.UNKNOWN: 4}

    @code("order")
    async def loads(event: Event[Any], step: Step, *, pool: Any = Resource(open_pool)) -> Any:
        price = await step.run("Price", pool.fetch)
        return price.amount

    (report, _) = checked("memory://unknown-type", loads)
    assert report.counts == {Verdict.UNKNOWN: 4}
    assert "its code uses 'pool'" in report.troubles[0].why


@pytest.mark.parametrize("error", [SystemExit(0), KeyboardInterrupt()])
@pytest.mark.parametrize("is_task", [True, False])
def test_code_cannot_end_who_checks_it(error: BaseException, is_task: bool) -> None:
    @code("order")
    async def leaves(event: Event[Any], step: Step) -> Any:
        async def leave() -> None:
            raise error

        await (asyncio.create_task(leave()) if is_task else leave())

    report, _ = checked(f"memory://leaves-{is_task}-{type(error).__name__}", leaves)
    assert report.counts == {Verdict.RAISES: 4}
    assert f"its code raises {type(error).__name__}" in report.breaks_live[0].why


@dataclass
class Choosy:
    """Data whose checking is code that may do anything."""

    waits: int = 0

    def __post_init__(self) -> None:
        Choosy.gate.wait()
        raise LookupError("no such order")

    gate: ClassVar[threading.Event] = threading.Event()


@pytest.mark.parametrize(("hangs", "verdict"), [(False, "raises"), (True, "unknown")])
def test_checking_the_data_is_code_too(hangs: bool, verdict: str) -> None:
    @code("order")
    async def choosy(event: Event[Choosy], step: Step) -> None: ...

    if hangs:
        Choosy.gate.clear()
    else:
        Choosy.gate.set()
    try:
        report, _ = checked(f"memory://choosy-{verdict}", choosy, limit=0.5)
    finally:
        Choosy.gate.set()
    assert report.counts == {Verdict(verdict): 4}


def test_threads_of_the_loop_hold_up_neither_the_check_nor_its_exit() -> None:
    gate = threading.Event()

    @code("order")
    async def changed(event: Event[Any], step: Step) -> Any:
        asyncio.get_running_loop().run_in_executor(None, gate.wait)
        assert await asyncio.to_thread(lambda: 7) == 7
        with pytest.raises(KeyError):
            await asyncio.to_thread(lambda: {}[1])
        await step.run("Price", lambda: 5)
        await step.sleep("Nap", 1)
        if event.data.get("waits"):
            await step.wait_for_event("Paid", "paid")
        return await step.run("Total", lambda: 1)

    try:
        report, _ = checked("memory://threads", changed)
        assert report.counts == {Verdict.FINE: 4}
        left = [item for item in threading.enumerate() if item.name == "worchflow-rehearsed"]
        assert len(left) == 4
        assert all(item.daemon for item in left)
    finally:
        gate.set()


def test_code_that_hangs_again_and_again_is_not_begun_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rehearsal, "_LEFT_BEHIND", 2)
    gate = threading.Event()

    @code("order")
    async def blocks(event: Event[Any], step: Step) -> None:
        gate.wait()

    try:
        report, _ = checked("memory://hangs", blocks, limit=0.1)
    finally:
        gate.set()
    assert report.counts == {Verdict.UNKNOWN: 4}
    whys = [item.why for item in report.troubles]
    assert [why for why in whys if "that of 2 others has not returned" in why] == whys[2:]


def test_only_what_is_being_looked_at_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsals, "_PAGE", 2)
    asked: list[int] = []

    async def main() -> FunctionReport:
        async with application(order) as app, worker_of(app):
            await stored(app, count=5)
            find = app.journal.store.find

            async def watched(query: Query) -> Page:
                asked.append(query.limit)
                return await find(query)

            monkeypatch.setattr(app.journal.store, "find", watched)
            (report,) = await app.rehearse(last=5)
            return report

    report = run(main())
    assert report.checked in (5, 6)  # the newest five, and the unfinished one
    assert report.live_checked == 1
    assert max(asked) == 2


def test_what_ran_for_a_batch_is_replayed_for_itself(url: str) -> None:
    @code("order", batch=Batch(10, "10ms"))
    async def sums(event: Event[Any], step: Step) -> Any:
        await step.run("Price", lambda: 5)
        return [item.data for item in event.batch]

    @code("order", batch=Batch(10, "10ms"))
    async def raises(event: Event[Any], step: Step) -> Any:
        await step.run("Price", lambda: 5)
        return event.batch[1].data

    async def main() -> None:
        async with application(sums, url=url, **SERVED) as app, worker_of(app):
            handles = [await app.client.send(sums, {"n": n}) for n in range(2)]
            for handle in handles:
                await handle.result(30)
            (report,) = await app.rehearse(last=10)
            assert Verdict.RAISES not in report.counts
            assert Verdict.BREAKS not in report.counts
        async with application(raises, url=url, **SERVED) as app:
            (report,) = await app.rehearse(last=10)
            assert report.counts[Verdict.UNKNOWN] >= 1
            assert "replayed for itself alone" in report.troubles[0].why

    run(main())


def test_the_newest_and_the_unfinished_are_looked_at(url: str) -> None:
    async def main() -> None:
        async with application(order, url=url, **SERVED) as app, worker_of(app):
            early = await app.client.send(order, {"waits": 1})

            async def is_waiting() -> bool:
                return (await early.get()).status is Status.WAITING

            await until(is_waiting)
            await stored(app, count=4)
            (report,) = await app.rehearse(last=2)
            assert (report.live, report.live_checked) == (2, 2)
            assert report.checked in (3, 4)
            (report,) = await app.rehearse(last=1)
            assert (report.live, report.live_checked) == (2, 1)

    run(main())


def killed(point: str) -> None:
    raise KeyboardInterrupt


def test_an_execution_that_was_undone_and_a_half_made_fork_are_no_trouble(url: str) -> None:
    undone: list[str] = []

    @code("order")
    async def undoes(event: Event[Any], step: Step) -> Any:
        await step.run("Price", lambda: 5, undo=lambda price: undone.append("Price"))
        if not event.data.get("waits"):
            raise ValueError("no")
        await step.wait_for_event("Paid", "paid")

    async def main() -> None:
        async with application(undoes, url=url, **SERVED) as app, worker_of(app):
            handle = await app.client.send(undoes, {})
            await app.client.wait(handle.id, timeout=30)
            assert undone == ["Price"]
            reach, app.journal.reach = app.journal.reach, killed
            with pytest.raises(KeyboardInterrupt):
                await app.client.fork(handle.id, id="half-made")
            app.journal.reach = reach
            (report,) = await app.rehearse()
            assert report.counts == {Verdict.FINE: 1}
            assert (report.live, report.live_checked) == (0, 0)
            assert undone == ["Price"]

    run(main())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"functions": ["nope"]}, FunctionError, "no function 'nope'; there are: order"),
        ({"last": 0}, InvalidInput, "last is 0; give a whole number, 1 to 10,000"),
        ({"last": True}, InvalidInput, "last is True"),
        ({"limit": "0s"}, InvalidInput, "limit is 0"),
        ({"limit": "soon"}, InvalidInput, "limit"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    async def main() -> None:
        async with application(order) as app:
            with pytest.raises(error, match=message):
                await app.rehearse(**options)

    run(main())
