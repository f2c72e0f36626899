"""The worker as a whole: room, stopping, cancelling, outages, death and new life."""

from __future__ import annotations

import asyncio
import logging
import threading
from datetime import timedelta
from typing import Any

import pytest

from tests.core.support import application, faulty_memory, outcome, run, until, worker_of, working
from worchflow_core import (
    BlockingStep,
    Event,
    NotAllowed,
    Status,
    Step,
    StoreUnavailable,
    Worchflow,
    WorchflowError,
    WorkerState,
    function,
)
from worchflow_core.attempt import Attempt
from worchflow_core.signals import Cancelled


@function
async def quick(event: Event[Any], step: Step) -> int:
    return await step.run("Work", lambda: 7)


# --- how much at once -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["async", "plain"])
def test_no_more_executions_run_at_once_than_the_concurrency(kind: str) -> None:
    lock = threading.Lock()
    now, most, done = 0, 0, 0

    def enter() -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)

    def leave() -> None:
        nonlocal now, done
        with lock:
            now -= 1
            done += 1

    @function(id="busy")
    async def busy(event: Event[Any], step: Step) -> None:
        enter()
        await asyncio.sleep(0.005)
        leave()

    @function(id="busy")
    def busy_plain(event: Event[Any], step: BlockingStep) -> None:
        enter()
        threading.Event().wait(0.005)
        leave()

    async def main() -> None:
        code = busy if kind == "async" else busy_plain
        async with working(code, concurrency=3) as app:
            for _ in range(30):
                await app.client.send(code, None)
            await until(lambda: done == 30)

    run(main())
    assert most == 3


# --- run, again, and bounded ----------------------------------------------------------------------


def test_burst_ends_when_nothing_is_due_and_asks_the_store_rarely_meanwhile() -> None:
    store, options = faulty_memory()

    async def main() -> None:
        gate = asyncio.Event()

        @function
        async def slow(event: Event[Any], step: Step) -> None:
            asyncio.get_running_loop().call_later(0.4, gate.set)
            await gate.wait()

        async with application(slow, quick, **options) as app:
            handles = [await app.client.send(quick, None) for _ in range(3)]
            handles.append(await app.client.send(slow, None))
            late = await app.client.send(quick, None, delay="1h")
            await app.worker.run(burst=True)
            assert {(await item.get()).status for item in handles} == {Status.COMPLETED}
            assert (await late.get()).status is Status.QUEUED
            assert store.calls["claim"] < 40

    run(main())


def test_only_runs_the_chosen_executions_and_ends_with_them() -> None:
    store, options = faulty_memory()

    async def main() -> None:
        gate = asyncio.Event()

        @function
        async def slow(event: Event[Any], step: Step) -> None:
            asyncio.get_running_loop().call_later(0.4, gate.set)
            await gate.wait()

        async with application(quick, slow, **options) as app:
            other = await app.client.send(quick, None)
            mine = await app.client.send(quick, None)
            late = await app.client.send(slow, None)
            await app.worker.run(only=[mine.id, late.id])
            assert (await mine.get()).status is Status.COMPLETED
            assert (await late.get()).status is Status.COMPLETED
            assert (await other.get()).status is Status.QUEUED
            assert store.calls["claim"] < 60

    run(main())


def test_max_executions_ends_after_so_many_attempts() -> None:
    async def main() -> None:
        async with application(quick) as app:
            handles = [await app.client.send(quick, None) for _ in range(5)]
            await app.worker.run(max_executions=2)
            ended = [item for item in handles if (await item.get()).status.is_final]
            assert len(ended) == 2
            assert app.worker.health.finished == 2

    run(main())


def test_worker_may_run_twice_in_a_row() -> None:
    async def main() -> None:
        async with application(quick) as app:
            for _ in range(2):
                async with worker_of(app) as task:
                    assert (await outcome(app, quick)).status is Status.COMPLETED
                    app.worker.stop()
                    await task
                    assert await app.client.workers() == []
                    assert app.worker.health.reason == "stopped"

    run(main())


def test_worker_that_runs_already_is_not_run_again() -> None:
    async def main() -> None:
        async with working(quick) as app:
            with pytest.raises(WorchflowError, match="runs already"):
                await app.worker.run()
            assert (await outcome(app, quick)).status is Status.COMPLETED

    run(main())


def test_two_applications_run_in_one_process() -> None:
    async def main() -> None:
        async with working(quick) as one, working(quick) as two:
            first = await outcome(one, quick)
            assert (await outcome(two, quick)).status is Status.COMPLETED
            with pytest.raises(LookupError):
                await two.client.get(first.id)

    run(main())


def test_leaving_the_application_ends_its_worker_in_good_order() -> None:
    runs: list[str] = []

    async def main() -> None:
        @function
        async def hanging(event: Event[Any], step: Step) -> None:
            runs.append("hanging")
            await asyncio.Event().wait()

        url = "memory://left-behind"
        async with application(hanging, url=url) as app:
            task = asyncio.create_task(app.worker.run())
            handle = await app.client.send(hanging, None)
            await until(lambda: runs)
        await task
        async with application(hanging, url=url) as app:
            execution = await app.client.get(handle.id)
            assert execution.status is Status.QUEUED
            assert execution.failed_attempts == 0
            assert await app.client.workers() == []

    run(main())


def test_worker_without_functions_is_refused() -> None:
    async def main() -> None:
        async with application() as app:
            with pytest.raises(WorchflowError, match="no functions to run"):
                await app.worker.run()

    run(main())


# --- stopping -------------------------------------------------------------------------------------


def test_stop_lets_a_short_execution_finish() -> None:
    async def main() -> None:
        begun, gate = asyncio.Event(), asyncio.Event()

        @function
        async def short(event: Event[Any], step: Step) -> str:
            begun.set()
            await gate.wait()
            return "done"

        async with application(short) as app:
            task = asyncio.create_task(app.worker.run())
            handle = await app.client.send(short, None)
            await begun.wait()
            app.worker.stop()
            await until(lambda: _state_is(app, WorkerState.DRAINING))
            assert not app.worker.health.is_ready
            gate.set()
            await task
            assert (await handle.get()).result == '"done"'
            assert await app.client.workers() == []

    run(main())


async def _state_is(app: Worchflow, state: WorkerState) -> bool:
    return [item.state for item in await app.client.workers()] == [state]


@pytest.mark.parametrize("kind", ["grace", "now", "both", "thread"])
def test_stop_gives_a_long_execution_back_without_counting_anything(kind: str) -> None:
    never = threading.Event()

    async def main() -> None:
        begun = threading.Event()

        @function
        async def long(event: Event[Any], step: Step) -> None:
            begun.set()
            await asyncio.Event().wait()

        @function
        def long_plain(event: Event[Any], step: BlockingStep) -> None:
            begun.set()
            never.wait(30)

        code = long_plain if kind == "thread" else long
        async with application(code, grace="100ms" if kind == "grace" else "60s") as app:
            task = asyncio.create_task(app.worker.run())
            handle = await app.client.send(code, None)
            await until(begun.is_set)
            if kind in ("grace", "both"):
                app.worker.stop()
            if kind != "grace":
                app.worker.stop(now=True)
            async with asyncio.timeout(10):
                await task
            execution = await handle.get()
            assert execution.status is Status.QUEUED
            assert (execution.failed_attempts, execution.crashes) == (0, 0)
            assert execution.due_at is not None
            assert execution.due_at <= execution.updated_at
            assert await app.client.workers() == []

    try:
        run(main())
    finally:
        never.set()


def test_attempt_whose_end_is_unanswered_does_not_hide_the_next_one_of_the_same_worker(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store, options = faulty_memory()

    async def main() -> None:
        gate, is_again = asyncio.Event(), asyncio.Event()

        @function(retries=1, retry_delay=0)
        async def twice(event: Event[Any], step: Step) -> int:
            if step.attempt == 1:
                store.deaf = {"update"}  # that it is to be retried is stored, and not answered
                raise ValueError("once")
            store.deaf = set()
            is_again.set()
            await gate.wait()
            return 7

        async with working(twice, **options) as app:
            handle = await app.client.send(twice, None)
            await asyncio.wait_for(is_again.wait(), 10)
            calls = store.calls["update"]
            await until(lambda: store.calls["update"] > calls)
            await until(lambda: _runs(app, handle.id))
            gate.set()
            assert await handle.result(timeout=10) == 7
            assert (await handle.get()).fence == 2

    run(main())
    assert "could not be settled" not in caplog.text


async def _runs(app: Worchflow, execution_id: str) -> bool:
    (worker,) = await app.client.workers()
    return [item.execution_id for item in worker.running] == [execution_id]


def test_asking_a_worker_to_drain_makes_it_leave() -> None:
    async def main() -> None:
        async with application(quick) as app:
            task = asyncio.create_task(app.worker.run())
            (worker,) = await until(app.client.workers)
            await app.client.drain([worker.id])
            await task
            assert await app.client.workers() == []

    run(main())


def test_worker_stopped_while_its_first_beat_goes_unanswered_leaves_no_record() -> None:
    store, options = faulty_memory()

    async def main() -> None:
        async with application(quick, **options) as app:
            loop, beat = asyncio.get_running_loop(), store.inner.beat

            def deaf(worker: Any, *, lease: timedelta) -> Any:
                answer = beat(worker, lease=lease)
                if worker.state is WorkerState.STARTING:
                    loop.call_soon_threadsafe(app.worker.stop)
                    raise StoreUnavailable("the answer was lost")
                return answer

            store.inner.beat = deaf
            await app.worker.run()
            assert await app.client.workers() == []

    run(main())


def test_the_next_begin_while_the_last_are_settled_but_never_more_than_twice_as_many() -> None:
    async def main() -> None:
        begun = 0

        @function
        async def counted(event: Event[Any], step: Step) -> None:
            nonlocal begun
            begun += 1

        async with application(counted, concurrency=2) as app:
            is_open = asyncio.Event()
            update = app.journal.store.update

            async def slow(changes: Any) -> Any:
                await is_open.wait()
                return await update(changes)

            app.journal.store.update = slow  # type: ignore[method-assign]
            handles = [await app.client.send(counted, None) for _ in range(9)]
            async with worker_of(app):
                await until(lambda: begun >= 4)
                for _ in range(20):
                    await asyncio.sleep(0)
                assert begun == 4
                is_open.set()
                for handle in handles:
                    assert (await app.client.wait(handle.id, timeout=10)).attempts
            assert begun == 9

    run(main())


# --- cancelling -----------------------------------------------------------------------------------


def test_a_step_that_was_called_as_the_cancel_came_keeps_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attempts: list[Attempt] = []
    attempt_run = Attempt.run

    async def kept(self: Attempt) -> Any:
        attempts.append(self)
        return await attempt_run(self)

    monkeypatch.setattr(Attempt, "run", kept)

    async def main() -> None:
        branches: list[asyncio.Task[Any]] = []

        @function
        async def branching(event: Event[Any], step: Step) -> None:
            # Next in the loop's queue: the step's call, the cancel, and this function's end. The
            # task that is to run the step's code comes after them.
            branches.append(asyncio.create_task(asyncio.wait_for(step.run("Work", int), None)))
            signal = Cancelled("somebody asked to")
            asyncio.get_running_loop().call_soon(lambda: attempts[0].stop(signal, now=True))
            await asyncio.sleep(0)

        async with application(branching) as app, worker_of(app):
            handle = await app.client.send(branching, None)
            ended = await app.client.wait(handle.id, timeout=20)
            assert ended.status is Status.CANCELLED
            await until(lambda: branches[0].done())
            assert branches[0].cancelled()

    run(main())


def test_cancel_ends_what_waits_at_once_and_what_runs_soon() -> None:
    async def main() -> None:
        begun = asyncio.Event()

        @function
        async def running(event: Event[Any], step: Step) -> None:
            begun.set()
            await asyncio.Event().wait()

        @function(retry_delay="1h")
        async def retrying(event: Event[Any], step: Step) -> None:
            raise ValueError("later")

        async with application(running, retrying, quick) as app:
            queued = await app.client.send(quick, None)
            delayed = await app.client.send(quick, None, delay="1h")
            for item in (queued, delayed):
                assert (await item.cancel()).status is Status.CANCELLED
            async with worker_of(app):
                failing = await app.client.send(retrying, None)
                await until(lambda: _is(failing, Status.RETRYING))
                assert (await failing.cancel()).status is Status.CANCELLED
                active = await app.client.send(running, None)
                await begun.wait()
                asked = await active.cancel()
                assert asked.status is Status.PROCESSING
                assert asked.cancel_requested_at is not None
                ended = await app.client.wait(active.id, timeout=10)
                assert ended.status is Status.CANCELLED
                assert (await outcome(app, quick)).status is Status.COMPLETED
            for item in (queued, delayed, failing, active):
                with pytest.raises(NotAllowed):
                    await item.cancel()

    run(main())


async def _is(handle: Any, status: Status) -> bool:
    return (await handle.get()).status is status


def test_cancel_racing_completion_ends_in_exactly_one_way() -> None:
    async def main() -> None:
        @function
        async def short(event: Event[Any], step: Step) -> int:
            await asyncio.sleep(0)
            return await step.run("Work", lambda: 1)

        async with working(short, quick, concurrency=50) as app:
            handles = [await app.client.send(short, None) for _ in range(200)]
            answers = await app.client.cancel_many([item.id for item in handles])
            ends = [await app.client.wait(item.id, timeout=20) for item in handles]
            for end in ends:
                if end.status is Status.COMPLETED:
                    assert end.result == "1"
                    assert end.cancel_requested_at is None
                else:
                    assert end.status is Status.CANCELLED
                    assert not isinstance(answers[end.id], WorchflowError)

    run(main())


# --- a store that is away -------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["record", "update", "claim", "steps", "get", "*"])
def test_outage_of_the_store_loses_nothing_and_uses_up_no_attempt(method: str) -> None:
    effects: list[int] = []
    store, options = faulty_memory()

    async def main() -> None:
        @function(retries=0)
        async def working_on(event: Event[int], step: Step) -> int:
            total = 0
            for number in range(3):
                total += await step.run("Work", work, event.data * 10 + number)
            return total

        async def work(number: int) -> int:
            effects.append(number)
            await asyncio.sleep(0)
            return number

        async with working(working_on, **options) as app:
            handles = [await app.client.send(working_on, n) for n in range(10)]
            await until(lambda: effects)
            store.away.add(method)
            before = store.calls.total()
            await until(lambda: store.calls.total() > before + 3)
            store.away.clear()
            for number, handle in enumerate(handles):
                assert await handle.result(timeout=20) == number * 30 + 3
                execution = await handle.get()
                assert (execution.failed_attempts, execution.crashes) == (0, 0)

    run(main())
    assert sorted(effects) == [n * 10 + k for n in range(10) for k in range(3)]


@pytest.mark.parametrize("method", ["record", "update", "claim"])
def test_lost_answers_of_the_store_are_recognised(method: str) -> None:
    effects: list[int] = []
    store, options = faulty_memory()

    async def main() -> None:
        @function(retries=0)
        async def working_on(event: Event[int], step: Step) -> int:
            def work() -> int:
                effects.append(event.data)
                return event.data

            return await step.run("Work", work) + await step.run("Once", lambda: 1, once=True)

        async with working(working_on, **options) as app:
            store.deaf.add(method)
            handles = [await app.client.send(working_on, n) for n in range(5)]
            before = store.calls[method]
            await until(lambda: store.calls[method] > before + 1)
            store.deaf.clear()
            for number, handle in enumerate(handles):
                assert await handle.result(timeout=20) == number + 1
                execution = await handle.get()
                assert (execution.failed_attempts, execution.crashes) == (0, 0)

    run(main())
    assert sorted(effects) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("method", ["record", "update", "claim", "steps", "*"])
def test_worker_stops_in_time_while_the_store_is_away(method: str) -> None:
    store, options = faulty_memory()

    async def main() -> None:
        gate = asyncio.Event()

        @function
        async def working_on(event: Event[Any], step: Step) -> int:
            await step.run("Work", gate.wait)
            return 1

        async with application(working_on, lease="1s", **options) as app:
            handle = await app.client.send(working_on, None)
            await app.client.send(working_on, None)
            async with worker_of(app):  # so that steps are read at the second claim
                await until(lambda: _is(handle, Status.PROCESSING))
            task = asyncio.create_task(app.worker.run())
            await until(lambda: store.calls["claim"] > 2)
            store.away.add(method)
            gate.set()
            before = store.calls.total()
            await until(lambda: store.calls.total() > before + 1)
            app.worker.stop(now=True)
            async with asyncio.timeout(15):
                await task
            await until(lambda: len(asyncio.all_tasks()) == 1)  # nothing is left behind

    run(main())


def test_worker_that_starts_before_its_store_waits_for_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store, options = faulty_memory()

    async def main() -> None:
        async with application(quick, **options) as app:
            handle = await app.client.send(quick, None)
            store.away.add("*")
            task = asyncio.create_task(app.worker.run())
            await until(lambda: store.calls["beat"] > 2)
            assert not app.worker.health.is_ready
            store.away.clear()
            assert await handle.result(timeout=20) == 7
            app.worker.stop()
            await task

    with caplog.at_level(logging.WARNING, "worchflow"):
        run(main())
    assert len(caplog.records) < 6


def test_outcome_that_the_store_will_not_take_fails_the_execution() -> None:
    store, options = faulty_memory()

    def refuse(name: str, args: tuple[Any, ...]) -> BaseException | None:
        if name == "update" and any(item.values.get("result") for item in args[0]):
            return ValueError("document too large")
        return None

    async def main() -> None:
        async with working(quick, **options) as app:
            store.refuse = refuse
            execution = await outcome(app, quick)
            assert execution.status is Status.FAILED
            assert execution.error is not None
            assert "too large" in execution.error.message

    run(main())


def test_execution_that_the_store_will_not_settle_at_all_is_given_back_later() -> None:
    store, options = faulty_memory()
    refused: list[int] = []

    def refuse(name: str, args: tuple[Any, ...]) -> BaseException | None:
        if name == "update" and any("attempts" in item.values for item in args[0]):
            refused.append(1)
            return ValueError("broken") if len(refused) < 4 else None
        return None

    async def main() -> None:
        async with working(quick, lease="1s", **options) as app:
            store.refuse = refuse
            handle = await app.client.send(quick, None)
            execution = await app.client.wait(handle.id, timeout=20)
            assert execution.status.is_final

    run(main())


# --- being declared dead --------------------------------------------------------------------------


def test_worker_declared_dead_goes_on_under_a_new_id_and_its_old_attempts_write_nothing() -> None:
    store, options = faulty_memory()
    runs: list[int] = []

    async def main() -> None:
        gates = [asyncio.Event(), asyncio.Event()]

        @function
        async def careful(event: Event[Any], step: Step) -> int:
            async def work() -> int:
                number = len(runs)
                runs.append(number)
                try:
                    await gates[number].wait()
                except asyncio.CancelledError:
                    await gates[number].wait()  # will not be stopped
                return number

            return await step.run("Work", work)

        async with working(careful, quick, **options) as app:
            handle = await app.client.send(careful, None)
            await until(lambda: runs)
            old = app.worker.id
            (worker,) = await app.client.workers()
            await store.inner.bury([worker.id], overdue=timedelta(seconds=-60))
            await until(lambda: app.worker.id != old and app.worker.health.is_ready)
            await until(lambda: len(runs) == 2)
            gates[0].set()
            gates[1].set()
            assert await handle.result(timeout=20) == 1
            assert [item.result for item in await handle.steps()] == ["1"]
            execution = await handle.get()
            assert execution.failed_attempts == 0
            assert [item.outcome for item in execution.attempts] == ["crashed", "completed"]
            assert execution.attempts[0].worker == old
            assert (await outcome(app, quick)).status is Status.COMPLETED

    run(main())


def test_executions_that_killed_workers_run_alone() -> None:
    store, options = faulty_memory()
    now: set[str] = set()
    company: list[set[str]] = []

    async def main() -> None:
        from dataclasses import replace

        @function
        async def ordinary(event: Event[Any], step: Step) -> None:
            now.add(event.id)
            await asyncio.sleep(0.02)
            now.discard(event.id)

        @function
        async def suspect(event: Event[Any], step: Step) -> None:
            now.add(event.id)
            company.append(set(now))
            await asyncio.sleep(0.02)
            company.append(set(now))
            now.discard(event.id)

        async with application(ordinary, suspect, **options) as app:
            handles = [await app.client.send(ordinary, None) for _ in range(5)]
            for _ in range(3):
                handle = await app.client.send(suspect, None)
                space = store.inner._space
                space.keep(replace(space.executions[handle.id], crashes=2))
                handles.append(handle)
            handles += [await app.client.send(ordinary, None) for _ in range(5)]
            async with worker_of(app):
                for handle in handles:
                    await handle.result(timeout=20)

    run(main())
    assert len(company) == 6
    assert all(len(seen) == 1 for seen in company)


def test_release_keeps_the_counts_of_steps_and_the_last_error() -> None:
    store, options = faulty_memory()
    runs: list[int] = []

    async def main() -> None:
        @function(retries=0)
        async def flaky(event: Event[Any], step: Step) -> None:
            def refuse() -> None:
                runs.append(1)
                raise ConnectionError("no answer")

            await step.run("Call", refuse, retries=5, retry_delay="1h")

        async with application(flaky, **options) as app:
            handle = await app.client.send(flaky, None)
            async with worker_of(app):
                await until(lambda: _is(handle, Status.RETRYING))
            before = await handle.get()
            assert list(before.step_failures.values()) == [1]
            from dataclasses import replace

            space = store.inner._space
            space.keep(replace(space.executions[handle.id], due_at=before.updated_at))
            # The claim is made and its answer lost: the worker finds it later and gives it back.
            store.deaf.add("claim")
            task = asyncio.create_task(app.worker.run())
            await until(lambda: _is(handle, Status.PROCESSING))
            store.deaf.clear()
            await until(lambda: len(runs) == 2)
            await until(lambda: _is(handle, Status.RETRYING))
            after = await handle.get()
            assert list(after.step_failures.values()) == [2]
            app.worker.stop()
            await task

    run(main())


def test_once_step_whose_worker_died_in_it_has_an_unknown_outcome() -> None:
    store, options = faulty_memory()
    runs: list[int] = []

    async def main() -> None:
        @function
        async def charging(event: Event[Any], step: Step) -> None:
            async def charge() -> None:
                runs.append(1)
                await asyncio.Event().wait()

            await step.run("Charge", charge, once=True)

        async with working(charging, **options) as app:
            handle = await app.client.send(charging, None)
            await until(lambda: runs)
            await store.inner.bury([app.worker.id], overdue=timedelta(seconds=-60))
            execution = await app.client.wait(handle.id, timeout=20)
            assert execution.status is Status.FAILED
            assert execution.error is not None
            assert execution.error.type.endswith("StepOutcomeUnknown")
            assert execution.failed_attempts == 1

    run(main())
    assert runs == [1]
