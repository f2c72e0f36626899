"""The scheduler against faults of time and of itself, on every store."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.core.support import application, opened, run, until, worker_of
from worchflow_core import (
    Event,
    Execution,
    Filter,
    FunctionError,
    NotFound,
    Status,
    Step,
    Worchflow,
    function,
    hookimpl,
)
from worchflow_core.clock import Clock
from worchflow_core.crashpoints import EXIT_CRASHED
from worchflow_core.cron import ticks_until
from worchflow_core.doctor import diagnose
from worchflow_core.functions import Function, Registry
from worchflow_core.journal import Journal
from worchflow_core.scheduler import Scheduler, decide
from worchflow_core.schedules import MOST, due_ticks, id_prefix, tick_id
from worchflow_core.timetable import Timetable

NINE = datetime(2030, 1, 31, 9, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


class SetClock(Clock):
    """A clock that a test sets; it says nothing of the store's."""

    def __init__(self, moment: datetime) -> None:
        super().__init__()
        self.moment = moment

    def now(self) -> datetime:
        return self.moment


def scheduled(name: str = "report", **options: Any) -> Function[Any, Any]:
    @function(id=name, **options)
    async def code(event: Event[Any], step: Step) -> Any:
        return event.scheduled_for.isoformat() if event.scheduled_for else None

    return code


def scheduler_of(
    app: Worchflow, clock: Clock, *functions: Function[Any, Any], name: str = "s"
) -> Scheduler:
    """Return a scheduler with its own clock and journal over the application's store."""
    journal = app.journal
    own = Journal(journal.store, journal.queue, journal.cache, app.plugins, clock)
    registry = Registry(functions) if functions else app.registry
    return Scheduler(own, registry, app.plugins, app.settings, name=name)


async def ticks_of(app: Worchflow) -> list[datetime]:
    """Return the ticks that became executions, in order."""
    page = await app.client.find(Filter(limit=1000))
    return sorted(item.scheduled_for for item in page.items if item.scheduled_for)


# --- F38: any number of schedulers ---------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 5])
def test_schedulers_that_all_lead_fire_each_tick_once(url: str, count: int) -> None:
    async def main() -> None:
        async with opened(url, scheduled(every="1m")) as app:
            clock = SetClock(NINE)
            schedulers = [scheduler_of(app, clock) for _ in range(count)]
            await asyncio.gather(*(item.register() for item in schedulers))
            for _ in range(4):
                clock.moment += MINUTE
                await asyncio.gather(*(item.tick() for item in schedulers))
            assert await ticks_of(app) == [NINE + n * MINUTE for n in range(1, 5)]
            (info,) = await app.client.schedules()
            assert info.last_tick == NINE + 4 * MINUTE

    run(main())


def test_the_hook_is_told_once_per_tick() -> None:
    told: list[tuple[str, datetime]] = []

    class Listener:
        @hookimpl
        def worchflow_schedule_fired(self, execution: Execution, tick: datetime) -> None:
            told.append((execution.id, tick))

    async def main() -> None:
        address = f"memory://{uuid.uuid4().hex}"
        async with opened(address, scheduled(every="1m"), plugins=(Listener(),)) as app:
            clock = SetClock(NINE)
            pair = [scheduler_of(app, clock) for _ in range(2)]
            await pair[0].register()
            clock.moment += MINUTE
            await asyncio.gather(*(item.tick() for item in pair))
            await until(lambda: told)
            assert told == [(tick_id("report", NINE + MINUTE), NINE + MINUTE)]

    run(main())


# --- F39: a leader that was frozen (as a process: cli/test_cli_schedules.py) ---------------------


def test_a_leader_that_slept_past_its_lease_steps_down(url: str) -> None:
    async def main() -> None:
        async with opened(url, scheduled(every="1m")) as app:
            clock = SetClock(NINE)
            old, new = (scheduler_of(app, clock, name=name) for name in ("old", "new"))
            await old.register()
            assert await old.leadership.hold()
            assert not await new.leadership.hold()
            clock.moment += MINUTE  # the old one is frozen; its lease runs out
            assert await new.leadership.hold()
            await new.tick()
            assert not await old.leadership.hold()
            await old.leadership.release()
            leader = await app.client.scheduler()
            assert leader is not None
            assert leader.name == "new"
            assert leader.until > clock.moment
            await old.tick()  # what it was about to do when it was frozen
            assert await ticks_of(app) == [NINE + MINUTE]

    run(main())


def test_a_frozen_pass_that_goes_on_moves_nothing_back(url: str) -> None:
    async def main() -> None:
        async with opened(url, scheduled(every="1m")) as app:
            clock = SetClock(NINE)
            late = scheduler_of(app, clock)
            await late.register()
            clock.moment += MINUTE
            (read,) = await late.timetable.read()
            decision = decide(read, (), clock.moment)
            clock.moment += 10 * MINUTE
            await scheduler_of(app, clock).tick()
            assert await late.timetable.note([decision.after]) == ["report"]
            (info,) = await app.client.schedules()
            assert info.last_tick == NINE + 11 * MINUTE

    run(main())


def test_a_leader_that_leaves_lets_the_next_one_lead_at_once(url: str) -> None:
    async def main() -> None:
        async with opened(url, scheduled(every="1m")) as app:
            clock = SetClock(NINE)
            first, second = (scheduler_of(app, clock, name=name) for name in ("a", "b"))
            assert await first.leadership.hold()
            await first.leadership.release()
            assert await second.leadership.hold()

    run(main())


# --- F40: killed between the send and the note ---------------------------------------------------

DYING = """
import asyncio
from datetime import UTC, datetime, timedelta
from worchflow_core import Worchflow, function

@function(id="report", every="1s")
async def report(event, step):
    return None

async def main():
    settings = {"store_url": %r, "crash_at": "after_tick_send", "disabled_plugins": "sample-audit"}
    async with Worchflow(functions=[report], overrides=settings, env_file=None) as app:
        async with asyncio.timeout(30):
            await app.scheduler.run()

asyncio.run(main())
"""


@pytest.mark.parametrize(
    "url", ["sqlite", pytest.param("mongo", marks=pytest.mark.servers)], indirect=True
)
def test_a_scheduler_killed_after_a_send_leaves_no_double_and_no_gap(url: str) -> None:
    killed = subprocess.run([sys.executable, "-c", DYING % url], timeout=60, check=False)
    assert killed.returncode == EXIT_CRASHED

    async def main() -> None:
        async with opened(url, scheduled(every="1s", catch_up="all")) as app:
            (sent,) = await ticks_of(app)
            (before,) = await app.client.schedules()
            assert before.last_tick < sent  # sent, and not noted
            clock = SetClock(sent + timedelta(seconds=5))
            following = scheduler_of(app, clock)
            await following.register()
            await following.tick()
            assert await ticks_of(app) == [sent + timedelta(seconds=n) for n in range(6)]

    run(main())


@pytest.mark.parametrize("overlap", ["skip", "queue"])
def test_a_tick_that_was_sent_and_not_noted_is_no_overlap_of_itself(overlap: str) -> None:
    item = scheduled(every="1m", overlap=overlap)
    assert item.schedule is not None

    async def main() -> None:
        async with opened(f"memory://{uuid.uuid4().hex}", item) as app:
            clock = SetClock(NINE)
            await scheduler_of(app, clock).register()
            (info,) = await app.client.schedules()
            sent = tick_id("report", NINE + MINUTE)
            decision = decide(info, {sent}, NINE + MINUTE)
            assert decision.fire == (NINE + MINUTE,)
            assert decision.after.waiting is None
            assert decision.after.skipped == 0

    run(main())


# --- F41: daylight saving is test_cron.py's; F42: clocks -----------------------------------------


@pytest.mark.parametrize("skew", [HOUR, -HOUR, timedelta(days=1), timedelta(days=-1)])
def test_a_machine_with_a_wrong_clock_fires_nothing(
    url: str, skew: timedelta, caplog: pytest.LogCaptureFixture
) -> None:
    class WrongClock(Clock):
        def local(self) -> datetime:
            return super().local() + skew

    async def main() -> None:
        async with opened(url, scheduled(every="1s")) as app:
            clock = WrongClock()
            wrong = scheduler_of(app, clock)
            await wrong.measure()
            assert abs(clock.now() - Clock().now()) < timedelta(seconds=5)
            await wrong.register()
            (info,) = await app.client.schedules()
            running = asyncio.create_task(wrong.run())
            await until(lambda: "this machine's clock is" in caplog.text)
            running.cancel()
            await asyncio.wait([running])
            assert await wrong.tick() is None
            assert await ticks_of(app) == []
            assert await app.client.scheduler() is None
            assert [info] == await app.client.schedules()

    run(main())


def test_a_clock_set_back_fires_no_tick_again(url: str) -> None:
    async def main() -> None:
        async with opened(url, scheduled(cron="0 * * * *")) as app:
            clock = SetClock(NINE)
            one = scheduler_of(app, clock)
            await one.register()
            for moment in (NINE + HOUR, NINE, NINE + HOUR, NINE - HOUR, NINE + HOUR):
                clock.moment = moment
                await one.tick()
            assert await ticks_of(app) == [NINE + HOUR]
            (info,) = await app.client.schedules()
            assert info.last_tick == NINE + HOUR

    run(main())


# --- F43: downtime -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("catch_up", "expected"),
    [("latest", [3]), ("skip", []), ("all", [1, 2, 3])],
)
def test_three_hours_of_downtime(url: str, catch_up: str, expected: list[int]) -> None:
    async def main() -> None:
        async with opened(url, scheduled(cron="0 * * * *", catch_up=catch_up)) as app:
            clock = SetClock(NINE)
            await scheduler_of(app, clock).register()
            clock.moment += 3 * HOUR + 20 * MINUTE
            restarted = scheduler_of(app, clock)
            await restarted.register()
            await restarted.tick()
            assert await ticks_of(app) == [NINE + n * HOUR for n in expected]
            clock.moment = NINE + 4 * HOUR
            await restarted.tick()
            assert (await ticks_of(app))[-1] == NINE + 4 * HOUR
            assert len(await ticks_of(app)) == len(expected) + 1

    run(main())


def test_catching_up_on_all_stops_at_a_hundred(url: str) -> None:
    async def main() -> None:
        async with opened(url, scheduled(every="1m", catch_up="all")) as app:
            clock = SetClock(NINE)
            one = scheduler_of(app, clock)
            await one.register()
            clock.moment += 5 * HOUR
            await one.tick()
            await one.tick()
            ticks = await ticks_of(app)
            assert len(ticks) == MOST == 100
            assert ticks[-1] == clock.moment
            assert ticks[0] == clock.moment - 99 * MINUTE

    run(main())


def test_a_restart_after_two_minutes_fires_no_daily_tick_again(url: str) -> None:
    async def main() -> None:
        daily = scheduled(cron="0 9 * * *")
        async with opened(url, daily) as app:
            clock = SetClock(NINE - HOUR)
            first = scheduler_of(app, clock)
            await first.register()
            clock.moment = NINE
            await first.tick()
        async with opened(url, daily) as app:
            clock.moment = NINE + 2 * MINUTE
            second = scheduler_of(app, clock)
            await second.register()
            coming = await second.tick()
            assert await ticks_of(app) == [NINE]
            assert coming == NINE + timedelta(days=1)

    run(main())


def test_the_first_registration_starts_now(url: str) -> None:
    async def main() -> None:
        async with opened(url, scheduled(cron="0 9 * * *", catch_up="all")) as app:
            clock = SetClock(NINE + timedelta(seconds=1))
            one = scheduler_of(app, clock)
            await one.register()
            await one.tick()
            assert await ticks_of(app) == []

    run(main())


def test_ticks_within_the_grace_are_all_on_time() -> None:
    item = scheduled(every="10s", catch_up="skip").schedule
    assert item is not None
    due = due_ticks(item.rule, item.catch_up, NINE, NINE + timedelta(seconds=45))
    assert due.ticks == tuple(NINE + timedelta(seconds=n) for n in (10, 20, 30, 40))
    assert not due.dropped
    due = due_ticks(item.rule, item.catch_up, NINE, NINE + HOUR)
    assert due.ticks == (NINE + HOUR,)
    assert due.dropped


# --- F44: changed and removed --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cron": "0 0 30 2 *"}, "bad day-of-month"),
        ({"cron": "0 25 * * *"}, "bad hour"),
        ({"cron": "* * *"}, "3 fields"),
        ({"cron": "61 * * * * *"}, "bad seconds"),
        ({"cron": ""}, "0 fields"),
        ({"cron": "0 9 * * *", "tz": "Mars/Olympus"}, "no time zone"),
        ({"cron": "0 9 * * *", "every": "1h"}, "give one of them"),
        ({"tz": "Europe/Paris"}, "no cron"),
        ({"every": "0s"}, "whole number of seconds"),
        ({"every": "1500ms"}, "whole number of seconds"),
        ({"every": "often"}, "such as"),
        ({"every": "1h", "overlap": "maybe"}, "allow, skip, queue"),
        ({"every": "1h", "catch_up": "none"}, "latest, skip, all"),
        ({"every": "1h", "schedule_data": {1, 2}}, "schedule_data"),
    ],
)
def test_bad_schedules_are_refused_where_they_are_declared(
    options: dict[str, Any], words: str
) -> None:
    with pytest.raises(FunctionError, match=words):
        scheduled(**options)


def test_schedule_data_must_fit_what_the_function_declares() -> None:
    async def code(event: Event[int], step: Step) -> None: ...

    with pytest.raises(FunctionError, match="schedule_data is None"):
        function(every="1h")(code)
    with pytest.raises(FunctionError, match="schedule_data is 'x'"):
        function(every="1h", schedule_data="x")(code)
    made = function(every="1h", schedule_data=7)(code)
    assert made.schedule is not None
    assert made.schedule.data == "7"


def test_a_changed_rule_starts_now_and_the_old_one_is_over(url: str) -> None:
    async def main() -> None:
        old = scheduled(cron="30 * * * *", catch_up="all")
        new = scheduled(cron="45 * * * *", catch_up="all")
        async with opened(url, old) as app:
            clock = SetClock(NINE)
            outdated = scheduler_of(app, clock, old)
            await outdated.register()
            clock.moment = NINE + 50 * MINUTE  # both rules have ticked meanwhile
            updated = scheduler_of(app, clock, new)
            await updated.register()
            await outdated.tick()
            await updated.tick()
            assert await ticks_of(app) == []
            clock.moment = NINE + HOUR + 50 * MINUTE
            await outdated.tick()  # still running the old code, it fires by the new rule
            assert await ticks_of(app) == [NINE + HOUR + 45 * MINUTE]
            (info,) = await app.client.schedules()
            assert info.revision == 2

    run(main())


def test_new_data_alone_loses_no_tick(url: str) -> None:
    async def main() -> None:
        async with opened(url) as app:
            clock = SetClock(NINE)
            old = scheduler_of(app, clock, scheduled(every="1h", schedule_data=1))
            await old.register()
            clock.moment += HOUR
            new = scheduler_of(app, clock, scheduled(every="1h", schedule_data=2))
            await new.register()
            await new.tick()
            await old.tick()
            (execution,) = (await app.client.find()).items
            assert execution.data == "2"
            assert execution.scheduled_for == NINE + HOUR

    run(main())


def test_a_schedule_changed_while_overlaps_were_looked_up_is_left_alone() -> None:
    async def main() -> None:
        item = scheduled(every="1m", overlap="skip")
        async with opened(f"memory://{uuid.uuid4().hex}", item) as app:
            clock = SetClock(NINE)
            one = scheduler_of(app, clock)
            await one.register()
            clock.moment += MINUTE
            find = one._find_unended

            async def slowly(function_id: str) -> Any:
                await app.client.pause_schedule("report")
                return await find(function_id)

            one._find_unended = slowly  # type: ignore[method-assign]
            await one.tick()
            assert await ticks_of(app) == []

    run(main())


def test_a_removed_function_stops_its_schedule(url: str) -> None:
    async def main() -> None:
        removed, kept = scheduled("removed", every="1m"), scheduled("kept", every="1m")
        async with opened(url) as app:
            clock = SetClock(NINE)
            await scheduler_of(app, clock, removed, kept).register()
            clock.moment += MINUTE
            deployed = scheduler_of(app, clock, kept)
            await deployed.register()
            await deployed.tick()
            page = await app.client.find()
            assert [item.function for item in page.items] == ["kept"]

    run(main())


def test_a_function_that_lost_its_schedule_loses_the_record(url: str) -> None:
    async def main() -> None:
        async with opened(url) as app:
            clock = SetClock(NINE)
            outdated = scheduler_of(app, clock, scheduled(every="1m"))
            await outdated.register()
            await scheduler_of(app, clock, scheduled()).register()
            assert await app.client.schedules() == []
            clock.moment += MINUTE
            await outdated.tick()
            assert await ticks_of(app) == []

    run(main())


# --- overlap -------------------------------------------------------------------------------------


def test_overlap_allow_fires_beside_a_running_one(url: str) -> None:
    assert run(fired_while_busy(url, "allow")) == [1, 2, 3]


def test_overlap_skip_lets_ticks_go_by(url: str) -> None:
    assert run(fired_while_busy(url, "skip")) == [1, 4]


def test_overlap_queue_holds_one_tick_until_the_earlier_has_ended(url: str) -> None:
    assert run(fired_while_busy(url, "queue")) == [1, 2, 4]


async def fired_while_busy(url: str, overlap: str) -> list[int]:
    """Let three minutes pass while the first execution has not ended, then a fourth."""
    async with opened(url, scheduled(every="1m", overlap=overlap)) as app:
        clock = SetClock(NINE)
        one = scheduler_of(app, clock)
        await one.register()
        for _ in range(3):
            clock.moment += MINUTE
            await one.tick()
        fired = [round((tick - NINE) / MINUTE) for tick in await ticks_of(app)]
        if overlap == "allow":
            return fired
        assert fired == [1]
        (info,) = await app.client.schedules()
        assert info.skipped == (2 if overlap == "skip" else 1)
        await app.client.cancel(tick_id("report", NINE + MINUTE))
        await one.tick()
        if overlap == "queue":
            await app.client.cancel(tick_id("report", NINE + 2 * MINUTE))
        clock.moment += MINUTE
        await one.tick()
        return [round((tick - NINE) / MINUTE) for tick in await ticks_of(app)]


def test_a_function_with_the_longest_id_finds_its_own_overlaps(url: str) -> None:
    async def main() -> None:
        name = "f" * 128
        async with opened(url, scheduled(name, every="1m", overlap="skip")) as app:
            clock = SetClock(NINE)
            one = scheduler_of(app, clock)
            await one.register()
            for _ in range(2):
                clock.moment += MINUTE
                await one.tick()
            (tick,) = await ticks_of(app)
            execution = await app.client.get(tick_id(name, tick))
            assert len(execution.id) <= 128
            assert execution.id.startswith(id_prefix(name))

    run(main())


# --- pause, resume, run now ----------------------------------------------------------------------


def test_a_paused_schedule_fires_nothing_and_resumes_from_then_on(url: str) -> None:
    async def main() -> None:
        async with opened(url, scheduled(every="1m", catch_up="all")) as app:
            clock = SetClock(app.journal.clock.now())
            one = scheduler_of(app, clock)
            await one.register()
            assert (await app.client.pause_schedule("report")).is_paused
            assert (await app.client.pause_schedule("report")).is_paused
            clock.moment += HOUR
            await one.tick()
            assert await ticks_of(app) == []
            app.journal.clock.shift(HOUR)
            assert not (await app.client.resume_schedule("report")).is_paused
            await one.tick()
            assert await ticks_of(app) == []
            clock.moment += 2 * MINUTE
            await one.tick()
            assert len(await ticks_of(app)) == 2

    run(main())


def test_run_now_creates_what_a_tick_would(url: str) -> None:
    async def main() -> None:
        item = scheduled(every="1h", schedule_data={"a": 1}, tags=["x"], priority=7, retries=1)
        async with opened(url, item) as app:
            clock = SetClock(NINE)
            await scheduler_of(app, clock).register()
            handle = await app.client.run_schedule_now("report")
            execution = await handle.get()
            assert execution.id.startswith("cron:report:now-")
            assert execution.scheduled_for is None
            assert (execution.data, execution.tags, execution.priority, execution.retries) == (
                '{"a":1}',
                ("x",),
                7,
                1,
            )
            (info,) = await app.client.schedules()
            assert info.last_tick == NINE
            await app.worker.run(only=[handle.id])
            assert await handle.result() is None

    run(main())


def test_what_has_no_schedule_is_not_found(url: str) -> None:
    async def main() -> None:
        async with opened(url, scheduled(every="1h")) as app:
            await scheduler_of(app, SetClock(NINE)).register()
            client = app.client
            for call in (client.pause_schedule, client.resume_schedule, client.run_schedule_now):
                with pytest.raises(NotFound, match="there are: report"):
                    await call("repor")

    run(main())


def test_a_schedule_that_cannot_be_read_stops_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        strange, plain = scheduled("strange", every="1m"), scheduled("plain", every="1m")
        async with opened(f"memory://{uuid.uuid4().hex}", strange, plain) as app:
            clock = SetClock(NINE)
            one = scheduler_of(app, clock)
            await one.register()
            records = app.journal.store.records
            (record,) = await records.scan("schedule", after="plain")
            body = record.body.replace('"allow"', '"later"')
            await records.replace([replace(record, body=body, version=2)])
            clock.moment += MINUTE
            await one.tick()
            await one.tick()
            page = await app.client.find()
            assert [item.function for item in page.items] == ["plain"]
            assert caplog.text.count("the schedule of 'strange' cannot be read") == 1
            assert await Timetable(records).get("strange") is None

    run(main())


def test_doctor_says_who_fires_the_schedules() -> None:
    async def main() -> None:
        async with opened(f"memory://{uuid.uuid4().hex}", scheduled(every="1h")) as app:
            assert await told(app) == []
            one = scheduler_of(app, Clock(), name="host-1:4101")
            await one.register()
            assert await told(app) == [("warning", "1 active, and nobody fires them; start")]
            await one.leadership.hold()
            assert await told(app) == [("ok", "1 active, fired by host-1:4101")]
            await app.client.pause_schedule("report")
            assert await told(app) == []

    async def told(app: Worchflow) -> list[tuple[str, str]]:
        found = [item for item in await diagnose(app) if item.subject == "schedules"]
        return [(item.level, item.text.partition(" a worker")[0]) for item in found]

    run(main())


# --- the worker ----------------------------------------------------------------------------------


def test_a_worker_schedules_by_default(url: str) -> None:
    async def main() -> None:
        async with opened(url, scheduled(cron="* * * * * *", schedule_data=5)) as app:
            async with worker_of(app):
                await until(lambda: completed(app))
            leader = await app.client.scheduler()
            assert leader is not None
            assert leader.until <= app.journal.clock.now()  # it let go when it left
            execution = (await completed(app))[0]
            assert execution.scheduled_for is not None
            assert execution.result == f'"{execution.scheduled_for.isoformat()}"'
            assert execution.id == tick_id("report", execution.scheduled_for)

    run(main())


async def completed(app: Worchflow) -> tuple[Execution, ...]:
    return (await app.client.find(Filter(status=Status.COMPLETED))).items


@pytest.mark.parametrize("options", [{"scheduler": False}, {"burst": True}, {"only": ["x"]}])
def test_a_worker_may_leave_scheduling_to_others(options: dict[str, Any]) -> None:
    async def main() -> None:
        async with opened(f"memory://{uuid.uuid4().hex}", scheduled(every="1s")) as app:
            if options.get("only"):
                await app.client.send("report", id="x")
            task = asyncio.create_task(app.worker.run(**options))
            if not options.get("burst"):
                await until(lambda: task.done() or app.worker.health.is_ready)
                app.worker.stop()
            await task
            assert await app.client.schedules() == []

    run(main())


def test_the_setting_leaves_scheduling_to_others() -> None:
    async def main() -> None:
        app = application(scheduled(every="1s"), scheduler=False)
        async with app, worker_of(app):
            assert await app.client.schedules() == []

    run(main())


# --- what became of ticks -------------------------------------------------------------------------


def test_past_ticks_are_told_with_what_they_were_fired_as(url: str) -> None:
    async def main() -> None:
        async with opened(url) as app:
            timetable = Timetable(app.journal.store.records)
            await timetable.register(
                [scheduled("hourly", every="1h"), scheduled("daily", cron="0 9 * * *")],
                now=NINE + MINUTE,
            )
            known = await app.client.schedules()
            assert [item.past_ticks(2)[0][0] for item in known] == [NINE, NINE]
            ticks = [NINE, NINE - 2 * HOUR]
            await app.journal.store.create(
                [
                    Execution(
                        id=tick_id("hourly", tick),
                        function="hourly",
                        created_at=tick,
                        updated_at=tick,
                        scheduled_for=tick,
                    )
                    for tick in ticks
                ]
            )
            runs = await app.client.schedule_runs(known, 5)
            told = [(one.tick, one.execution is not None) for one in runs["hourly"]]
            assert told == [(NINE, True), (NINE - HOUR, False), (NINE - 2 * HOUR, True)]
            assert runs["daily"] == []

    run(main())


def test_the_longest_interval_has_no_ticks_before_it_began() -> None:
    rule = scheduled("rare", every=timedelta(days=36_500))
    assert rule.schedule is not None
    assert list(ticks_until(rule.schedule.rule, NINE)) == [datetime(1970, 1, 1, tzinfo=UTC)]
