from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from worchflow_core import (
    BlockingStep,
    Event,
    EventTimeout,
    ExecutionCancelled,
    ExecutionFailed,
    Filter,
    InvalidInput,
    NotAllowed,
    Status,
    Step,
    Watch,
    Worchflow,
    control,
    function,
    running,
)

from .support import run, until


@pytest.fixture(autouse=True)
def pauses_are_real(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let short sleeps suspend too, so that the tests need not sleep long."""
    monkeypatch.setattr(control, "IN_PLACE", timedelta(0))


class Working:
    """An open application whose worker runs until the block ends."""

    def __init__(self, url: str, *functions: Any) -> None:
        overrides = {"store_url": url, "sweep_interval": "0.1s", "log": "off"}
        self.app = Worchflow(functions=functions, overrides=overrides, env_file=None)

    async def __aenter__(self) -> Worchflow:
        await self.app.__aenter__()
        self._task = asyncio.create_task(self.app.worker.run())
        await asyncio.sleep(0)  # it must have begun before it can be stopped
        return self.app

    async def __aexit__(self, *_: object) -> None:
        self.app.worker.stop(now=True)
        await self._task
        await self.app.__aexit__(None, None, None)


async def status_of(app: Worchflow, execution_id: str, *wanted: Status) -> bool:
    return (await app.client.get(execution_id)).status in wanted


def test_sleep_frees_the_slot_and_goes_on(url: str) -> None:
    began: list[float] = []

    @function
    async def naps(event: Event[Any], step: Step) -> float:
        began.append(time.monotonic())
        await step.sleep("Nap", "0.3s")
        return await step.run("Wake", time.monotonic)

    async def main() -> None:
        async with Working(url, naps) as app:
            handle = await app.client.send(naps, None)
            await until(lambda: status_of(app, handle.id, Status.SLEEPING))
            execution = await handle.get()
            assert execution.owner is None
            assert execution.due_at is not None
            assert app.worker.health.running == 0
            assert await handle.result(30) - began[0] >= 0.29
            assert len(began) == 2
            (nap, _) = await handle.steps()
            assert nap.kind == "sleep"

    run(main())


def test_a_sleep_is_fixed_by_the_first_attempt(url: str) -> None:
    attempts: list[int] = []

    @function(retry_delay=0)
    async def naps(event: Event[Any], step: Step) -> str:
        attempts.append(step.attempt)
        await step.sleep("Nap", "0.2s" if len(attempts) == 1 else "10h")
        if step.attempt == 1:
            raise ValueError("once")
        return "awake"

    async def main() -> None:
        async with Working(url, naps) as app:
            handle = await app.client.send(naps, None)
            assert await handle.result(30) == "awake"
            assert attempts[-1] == 2

    run(main())


def test_past_moments_and_blinks_do_not_pause(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "IN_PLACE", timedelta(seconds=1))

    @function
    async def late(event: Event[Any], step: Step) -> str:
        await step.sleep_until("Then", event.timestamp - timedelta(days=1))
        await step.sleep("Blink", 0.05)
        return "on"

    async def main() -> None:
        async with Working(url, late) as app:
            handle = await app.client.send(late, None)
            assert await handle.result(30) == "on"
            assert (await handle.get()).fence == 1

    run(main())


def test_a_naive_moment_fails_for_good(url: str) -> None:
    @function
    async def naive(event: Event[Any], step: Step) -> None:
        await step.sleep_until("Then", datetime(2030, 1, 1))

    async def main() -> None:
        async with Working(url, naive) as app:
            with pytest.raises(ExecutionFailed, match="no moment with a time zone"):
                await (await app.client.send(naive, None)).result(30)

    run(main())


def test_plain_functions_sleep_wait_and_map_too(url: str) -> None:
    @function
    def plain(event: Event[Any], step: BlockingStep) -> list[int]:
        step.sleep("Nap", "0.2s")
        answer = step.wait_for_event("Wait", "go", match={"of": event.id})
        assert answer is not None
        return step.map("Double", lambda item: int(item) * 2, answer.data["items"])

    async def main() -> None:
        async with Working(url, plain) as app:
            handle = await app.client.send(plain, None)
            await app.client.send_event("go", {"of": handle.id, "items": [1, 2]})
            assert await handle.result(30) == [2, 4]

    run(main())


@pytest.mark.parametrize("moment", ["before", "during"])
def test_an_event_is_received_whenever_it_was_sent(url: str, moment: str) -> None:
    @function
    async def waits(event: Event[Any], step: Step) -> Any:
        await step.sleep("First", "0.2s")
        answer = await step.wait_for_event("Paid", "order/paid".replace("/", "."), timeout="1h")
        return answer.data if answer else None

    async def main() -> None:
        async with Working(url, waits) as app:
            handle = await app.client.send(waits, None)
            if moment == "during":
                await until(lambda: status_of(app, handle.id, Status.WAITING))
            await app.client.send_event("order.paid", {"total": 5})
            assert await handle.result(30) == {"total": 5}

    run(main())


def test_match_tells_waiters_apart(url: str) -> None:
    @function
    async def waits(event: Event[Any], step: Step) -> Any:
        match = {"order.id": event.data, "kind": "paid"}
        answer = await step.wait_for_event("Paid", "orders", match=match)
        assert answer is not None
        return answer.data["order"]["id"]

    async def main() -> None:
        async with Working(url, waits) as app:
            handles = [await app.client.send(waits, number) for number in range(5)]
            for handle in handles:
                await until(lambda item=handle.id: status_of(app, item, Status.WAITING))
            for number in (3, 1):
                await app.client.send_event("orders", {"order": {"id": number}, "kind": "paid"})
            await app.client.send_event("orders", {"order": {"id": 2}, "kind": "other"})
            assert await handles[3].result(30) == 3
            assert await handles[1].result(30) == 1
            for number in (0, 2, 4):
                assert await status_of(app, handles[number].id, Status.WAITING)

    run(main())


def test_each_event_is_received_once_by_one_execution(url: str) -> None:
    @function
    async def twice(event: Event[Any], step: Step) -> list[Any]:
        answers = await asyncio.gather(
            step.wait_for_event("One", "tick"), step.wait_for_event("Two", "tick")
        )
        third = await step.wait_for_event("Three", "tick", timeout="0.2s")
        return [*(item.data for item in answers if item), third]

    async def main() -> None:
        async with Working(url, twice) as app:
            handle = await app.client.send(twice, None)
            await app.client.send_event("tick", 1, id="t1")
            await app.client.send_event("tick", 1, id="t1")
            await app.client.send_event("tick", 2)
            result = await handle.result(30)
            assert sorted(result[:2]) == [1, 2]
            assert result[2] is None

    run(main())


def test_a_timeout_returns_none_or_raises(url: str) -> None:
    @function
    async def waits(event: Event[Any], step: Step) -> str:
        assert await step.wait_for_event("A", "never", timeout="0.1s") is None
        try:
            await step.wait_for_event("B", "never", timeout="0.1s", on_timeout="raise")
        except EventTimeout:
            return "raised"
        return "no"

    async def main() -> None:
        async with Working(url, waits) as app:
            assert await (await app.client.send(waits, None)).result(30) == "raised"

    run(main())


def test_the_first_of_several_events_wins(url: str) -> None:
    @function
    async def waits(event: Event[Any], step: Step) -> str:
        answer = await step.wait_for_any("Either", Watch(name="yes"), Watch(name="no"))
        assert answer is not None
        return answer.name

    async def main() -> None:
        async with Working(url, waits) as app:
            handle = await app.client.send(waits, None)
            await until(lambda: status_of(app, handle.id, Status.WAITING))
            await app.client.send_event("no")
            assert await handle.result(30) == "no"

    run(main())


def test_a_signal_reaches_one_execution(url: str) -> None:
    @function
    async def waits(event: Event[Any], step: Step) -> Any:
        answer = await step.wait_for_event("Word", "word")
        return answer.data if answer else None

    async def main() -> None:
        async with Working(url, waits) as app:
            first = await app.client.send(waits, None)
            second = await app.client.send(waits, None)
            await app.client.signal(second.id, "word", "for you")
            assert await second.result(30) == "for you"
            assert not (await first.get()).status.is_final
            with pytest.raises(NotAllowed, match="completed already"):
                await app.client.signal(second.id, "word")

    run(main())


def test_racing_signals_are_neither_lost_nor_received_twice(url: str) -> None:
    @function
    async def collects(event: Event[Any], step: Step) -> list[int]:
        found = []
        for _ in range(40):
            answer = await step.wait_for_event("Number", "number")
            assert answer is not None
            found.append(answer.data)
        return found

    async def main() -> None:
        async with Working(url, collects) as app:
            handle = await app.client.send(collects, None)
            sends = [app.client.signal(handle.id, "number", number) for number in range(40)]
            await asyncio.gather(*sends)
            assert sorted(await handle.result(60)) == list(range(40))

    run(main())


def test_an_event_sent_by_a_step_is_sent_once(url: str) -> None:
    @function(retry_delay=0)
    async def sends(event: Event[Any], step: Step) -> str:
        sent = await step.send_event("Tell", "news", {"n": 1})
        if step.attempt == 1:
            raise ValueError("once")
        return sent

    @function
    async def counts(event: Event[Any], step: Step) -> int:
        number = 0
        while await step.wait_for_event("News", "news", timeout="0.3s"):
            number += 1
        return number

    async def main() -> None:
        async with Working(url, sends, counts) as app:
            counting = await app.client.send(counts, None)
            assert await (await app.client.send(sends, None)).result(30)
            assert await counting.result(30) == 1

    run(main())


def test_invoke_returns_the_childs_result_and_makes_one_child(url: str) -> None:
    @function
    async def child(event: Event[int], step: Step) -> int:
        await step.sleep("Nap", "0.2s")
        return event.data * 2

    @function(retry_delay=0)
    async def parent(event: Event[Any], step: Step) -> int:
        doubled = await step.invoke("Double", child, 21)
        if step.attempt == 1:
            raise ValueError("after the child")
        return int(doubled)

    async def main() -> None:
        async with Working(url, child, parent) as app:
            handle = await app.client.send(parent, None)
            assert await handle.result(30) == 42
            page = await app.client.find()
            children = [item for item in page.items if item.function == "child"]
            assert [item.parent for item in children] == [handle.id]

    run(main())


def test_a_childs_failure_arrives_as_an_error(url: str) -> None:
    @function(retries=0)
    async def child(event: Event[Any], step: Step) -> None:
        raise ValueError("broken child")

    @function
    async def parent(event: Event[Any], step: Step) -> list[str]:
        try:
            await step.invoke("Call", child, None)
        except ExecutionFailed as error:
            if (told := error.failure) is not None:
                return [told.type, told.message, told.reason, str(error).split(": ", 1)[1]]
        return []

    async def main() -> None:
        async with Working(url, child, parent) as app:
            told = await (await app.client.send(parent, None)).result(30)
            assert told == ["ValueError", "broken child", "error", "ValueError: broken child"]

    run(main())


def test_a_child_that_was_cancelled_arrives_as_an_error(url: str) -> None:
    @function(id="child")
    async def child(event: Event[Any], step: Step) -> None:
        await step.wait_for_event("Forever", "never")

    @function
    async def parent(event: Event[Any], step: Step) -> str:
        try:
            await step.invoke("Call", child, None)
        except ExecutionCancelled as error:
            return str(error)
        return "no error"

    async def main() -> None:
        async with Working(url, child, parent) as app:
            handle = await app.client.send(parent, None)
            await until(lambda: status_of(app, handle.id, Status.WAITING))
            child_id = await child_of(app, handle.id)
            await until(lambda: status_of(app, child_id, Status.WAITING))
            await app.client.cancel(child_id)
            assert await handle.result(30) == f"execution {child_id}: was cancelled"

    run(main())


async def child_of(app: Worchflow, execution_id: str) -> str:
    page = await app.client.find(Filter(parent=execution_id))
    (found,) = page.items
    return found.id


def test_a_child_nobody_can_run_times_out_and_goes_on(url: str) -> None:
    @function(retry_delay=0)
    async def parent(event: Event[Any], step: Step) -> str:
        try:
            await step.invoke("Call", "elsewhere", {"n": 1}, timeout="0.3s")
        except EventTimeout as error:
            if step.attempt == 1:
                raise ValueError("once more") from error
        answer = await step.wait_for_event("Word", "word")
        return answer.data if answer else "nothing"

    @function(id="elsewhere")
    async def elsewhere(event: Event[Any], step: Step) -> int:
        return int(event.data["n"])

    async def main() -> None:
        async with Working(url, parent) as app:
            handle = await app.client.send(parent, None)
            await until(lambda: status_of(app, handle.id, Status.WAITING))
            child_id = await child_of(app, handle.id)
            await until(lambda: _is_second(app, handle.id))
            assert await status_of(app, child_id, Status.QUEUED)
            if not url.startswith("memory"):  # it ends late, on a worker that has its function
                async with Working(url, elsewhere):
                    await until(lambda: status_of(app, child_id, Status.COMPLETED))
            await app.client.signal(handle.id, "word", "late")
            assert await handle.result(30) == "late"
            assert await child_of(app, handle.id) == child_id

    run(main())


async def _is_second(app: Worchflow, execution_id: str) -> bool:
    execution = await app.client.get(execution_id)
    return execution.failed_attempts == 1 and execution.status is Status.WAITING


def test_a_parent_that_is_retried_is_woken_by_the_child_it_has(url: str) -> None:
    @function(id="child")
    async def child(event: Event[Any], step: Step) -> str:
        answer = await step.wait_for_event("Word", "word")
        return answer.data if answer else ""

    @function(retries=0)
    async def parent(event: Event[Any], step: Step) -> str:
        call = step.invoke("Call", child, None)
        if await step.run("Attempt", lambda: 1) and not reopened:
            call.close()  # type: ignore[attr-defined]
            raise ValueError("at first")
        return str(await call)

    reopened: list[int] = []

    async def main() -> None:
        async with Working(url, child, parent) as app:
            handle = await app.client.send(parent, None)
            await until(lambda: status_of(app, handle.id, Status.FAILED))
            reopened.append(1)
            await handle.retry()
            await until(lambda: status_of(app, handle.id, Status.WAITING))
            child_id = await child_of(app, handle.id)
            await app.client.signal(child_id, "word", "done")
            assert await handle.result(30) == "done"

    run(main())


def test_an_event_is_told_by_the_name_it_was_sent_as(url: str) -> None:
    @function
    async def waits(event: Event[Any], step: Step) -> list[str]:
        first = await step.wait_for_event("First", "user:example")
        second = await step.wait_for_event("Second", "user:example")
        assert first is not None
        assert second is not None
        return [first.name, second.name]

    async def main() -> None:
        async with Working(url, waits) as app:
            handle = await app.client.send(waits, None)
            await app.client.send_event("user:example")
            await app.client.signal(handle.id, "user:example")
            assert await handle.result(30) == ["user:example"] * 2

    run(main())


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), 10**5000, b"x", [1], {"a": 1}],
    ids=["nan", "inf", "digits", "bytes", "list", "object"],
)
def test_a_match_that_no_event_can_fit_fails_for_good(value: Any) -> None:
    @function
    async def waits(event: Event[Any], step: Step) -> None:
        await step.wait_for_event("Wait", "name", match={"field": value})

    async def main() -> None:
        async with Working("memory://no-match", waits) as app:
            with pytest.raises(ExecutionFailed, match="match 'field'"):
                await (await app.client.send(waits, None)).result(30)

    run(main())


def test_what_is_claimed_again_before_its_second_look_is_over_can_be_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    began, gate = asyncio.Event(), asyncio.Event()

    async def slowly(*args: Any) -> None:
        await gate.wait()
        await control.look_again(*args)

    monkeypatch.setattr(running, "look_again", slowly)

    @function
    async def waits(event: Event[Any], step: Step) -> None:
        async def hang() -> None:
            began.set()
            await asyncio.Event().wait()

        await step.wait_for_event("Wait", "word")
        await step.run("Hang", hang)

    async def main() -> None:
        async with Working("memory://claimed-again", waits) as app:
            handle = await app.client.send(waits, None)
            await until(lambda: status_of(app, handle.id, Status.WAITING))
            await app.client.signal(handle.id, "word")
            await asyncio.wait_for(began.wait(), 20)
            assert app.worker.health.running == 2
            gate.set()
            await until(lambda: app.worker.health.running == 1)
            await handle.cancel()
            await until(lambda: status_of(app, handle.id, Status.CANCELLED))

    run(main())


def test_a_sibling_that_runs_for_long_is_recorded_before_the_pause(url: str) -> None:
    runs: list[str] = []

    @function
    async def both(event: Event[Any], step: Step) -> str:
        async def long() -> str:
            runs.append("long")
            await asyncio.sleep(0.5)
            return "long"

        _, answer = await asyncio.gather(
            step.wait_for_event("Wait", "word"), step.run("Long", long)
        )
        return answer

    async def main() -> None:
        async with Working(url, both) as app:
            handle = await app.client.send(both, None)
            await until(lambda: status_of(app, handle.id, Status.WAITING))
            assert [item.title for item in await handle.steps()] == ["Long"]
            await app.client.signal(handle.id, "word")
            assert await handle.result(30) == "long"
            assert runs == ["long"]

    run(main())


def test_cancel_cascades_to_children(url: str) -> None:
    @function
    async def child(event: Event[Any], step: Step) -> None:
        await step.wait_for_event("Forever", "never")

    @function
    async def parent(event: Event[Any], step: Step) -> None:
        await step.invoke("Call", child, None)

    async def main() -> None:
        async with Working(url, child, parent) as app:
            handle = await app.client.send(parent, None)
            await until(lambda: status_of(app, handle.id, Status.WAITING))
            page = await app.client.find()
            (child_id,) = [item.id for item in page.items if item.parent == handle.id]
            await until(lambda: status_of(app, child_id, Status.WAITING))
            await handle.cancel()
            await until(lambda: status_of(app, child_id, Status.CANCELLED))
            with pytest.raises(ExecutionCancelled):
                await handle.result(5)

    run(main())


def test_map_runs_a_step_per_item_in_order(url: str) -> None:
    running = most = 0

    async def double(item: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return item * 2

    @function
    async def maps(event: Event[Any], step: Step) -> list[int]:
        return await step.map("Double", double, range(7), concurrency=2)

    async def main() -> None:
        async with Working(url, maps) as app:
            handle = await app.client.send(maps, None)
            assert await handle.result(30) == [0, 2, 4, 6, 8, 10, 12]
            assert most == 2
            assert len(await handle.steps()) == 7

    run(main())


@pytest.mark.parametrize("shape", ["gather", "group", "suppress", "finally"])
def test_suspending_unwinds_through_user_code(url: str, shape: str) -> None:
    ran: list[str] = []

    async def work() -> str:
        await asyncio.sleep(0.05)
        ran.append("work")
        return "done"

    @function
    async def pauses(event: Event[Any], step: Step) -> str:
        if shape == "gather":
            _, answer = await asyncio.gather(step.sleep("Nap", "1s"), step.run("Work", work))
            return answer
        if shape == "group":
            async with asyncio.TaskGroup() as group:
                group.create_task(step.sleep("Nap", "1s"))
                task = group.create_task(step.run("Work", work))
            return task.result()
        if shape == "suppress":
            with suppress(BaseException):
                await step.sleep("Nap", "1s")
            return await step.run("Work", work)
        try:
            await step.sleep("Nap", "1s")
        finally:
            ran.append("finally")
        return await step.run("Work", work)

    async def main() -> None:
        async with Working(url, pauses) as app:
            handle = await app.client.send(pauses, None)
            await until(lambda: status_of(app, handle.id, Status.SLEEPING, Status.COMPLETED))
            assert await handle.result(30) == "done"
            assert ran.count("work") == 1
            execution = await handle.get()
            assert [item.outcome for item in execution.attempts] == ["sleeping", "completed"]

    run(main())


def test_a_function_name_is_no_event(url: str) -> None:
    @function
    async def known(event: Event[Any], step: Step) -> None: ...

    async def main() -> None:
        async with Working(url, known) as app:
            with pytest.raises(InvalidInput, match="is a function"):
                await app.client.send_event("known")

    run(main())


def test_many_sleepers_wake_spread_over_slots(url: str) -> None:
    wake_at = datetime.now(UTC) + timedelta(seconds=0.8)

    @function
    async def sleeper(event: Event[Any], step: Step) -> int:
        await step.sleep_until("Together", wake_at)
        return 1

    async def main() -> None:
        async with Working(url, sleeper) as app:
            handles = [await app.client.send(sleeper, None) for _ in range(60)]
            assert sum([await item.result(60) for item in handles]) == 60

    run(main())


def test_an_event_whose_delivery_is_cut_short_is_delivered_by_the_sweep(url: str) -> None:
    @function
    async def waits(event: Event[Any], step: Step) -> Any:
        answer = await step.wait_for_event("Word", "word")
        return answer.data if answer else None

    async def main() -> None:
        async with Working(url, waits) as app:
            handle = await app.client.send(waits, None)
            await until(lambda: status_of(app, handle.id, Status.WAITING))
            reached: list[str] = []

            def die_once(point: str) -> None:
                reached.append(point)
                if point == "after_event_insert" and reached.count(point) == 1:
                    raise RuntimeError("the sender died here")

            app.journal.reach = die_once
            with pytest.raises(RuntimeError, match="died here"):
                await app.client.send_event("word", "late")
            assert await handle.result(30) == "late"

    run(main())
