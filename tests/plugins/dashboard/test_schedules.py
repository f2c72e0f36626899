"""Schedules: what the page and the API tell, what they change, what reading them costs."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from tests.plugins.dashboard.support import CountingStore, execution, run, served
from tests.plugins.dashboard.test_pages import EVIL, Dom, assert_inert
from worchflow_core import (
    Event,
    Function,
    Record,
    Status,
    Step,
    Timetable,
    Worchflow,
    Worker,
    WorkerState,
    function,
    to_millis,
)


def scheduled(name: str, **rule: Any) -> Function[Any, Any]:
    @function(id=name, **rule)
    async def code(event: Event[Any], step: Step) -> None:
        """Run by itself."""

    return code


async def register(app: Worchflow, *functions: Function[Any, Any], ago: timedelta) -> Timetable:
    """Register schedules as a scheduler did some time ago."""
    timetable = Timetable(app.journal.store.records)
    await timetable.register(functions, now=datetime.now(UTC) - ago)
    return timetable


async def lead(app: Worchflow, *, ago: timedelta = timedelta(0)) -> None:
    until = datetime.now(UTC) + timedelta(minutes=1) - ago
    body = json.dumps({"id": "x", "name": "host-7:42", "until": to_millis(until)})
    await app.journal.store.records.insert([Record(kind="meta", key="scheduler", body=body)])


def living(*functions: str) -> Worker:
    return Worker(
        id="w",
        name="w",
        host="h",
        pid=1,
        version="1",
        state=WorkerState.STARTING,
        started_at=datetime.now(UTC),
        concurrency=1,
        functions=functions,
    )


def test_a_schedule_is_told_with_its_last_ticks() -> None:
    async def main() -> None:
        async with served() as (client, app):
            timetable = await register(app, scheduled("tidy", every="1h"), ago=timedelta(0))
            (item,) = await timetable.read()
            ticks = item.past_ticks(20)
            fired = [ticks[0], ticks[1], ticks[3]]
            await app.journal.store.create(
                [
                    execution(name, function="tidy", status=status, scheduled_for=tick)
                    for (tick, name), status in zip(
                        fired, (Status.PROCESSING, Status.FAILED, Status.COMPLETED), strict=True
                    )
                ]
            )
            app.journal.store.beat(living("tidy"), lease=timedelta(minutes=5))
            worker = replace(living("tidy"), state=WorkerState.RUNNING)
            app.journal.store.beat(worker, lease=timedelta(minutes=5))
            await lead(app)
            document = (await client.get("/api/schedules")).json()
            assert document["total"] == 1
            assert document["scheduler"]["name"] == "host-7:42"
            assert document["scheduler"]["isActive"] is True
            (told,) = document["schedules"]
            assert (told["function"], told["every"], told["state"]) == ("tidy", "1h", "active")
            assert told["nextTick"] == to_millis(ticks[0][0] + timedelta(hours=1))
            assert [one["status"] for one in told["recent"]] == [
                "processing",
                "failed",
                None,  # not fired
                "completed",
            ]
            page = (await client.get("/schedules")).text
            dom = Dom(page)
            assert "every hour" in dom.text
            assert "fired by host-7:42" in " ".join(dom.text.split())
            assert "No scheduler runs" not in dom.text
            assert "no worker" not in dom.text
            assert "not fired" in dom.text
            for _, name in fired:
                assert f"/executions/{quote(name, safe='')}" in page

    run(main())


def test_nobody_who_fires_or_runs_is_said_aloud() -> None:
    async def main() -> None:
        async with served() as (client, app):
            await register(app, scheduled("tidy", every="1m"), ago=timedelta(minutes=10))
            text = Dom((await client.get("/schedules")).text).text
            assert "No scheduler runs" in text
            assert "missed since" in text
            assert "no worker" in text
            assert "never" in text
            document = (await client.get("/api/schedules")).json()
            assert document["scheduler"] is None
            assert document["schedules"][0]["recent"] == []

    run(main())


def test_pause_resume_and_run_now() -> None:
    async def main() -> None:
        async with served() as (client, app):
            await register(app, scheduled("tidy", cron="0 9 * * *"), ago=timedelta(0))
            paused = await client.post("/api/schedules/tidy/pause", json={})
            assert paused.json()["schedule"]["pausedAt"] is not None
            assert paused.json()["schedule"]["nextTick"] is None
            (item,) = await app.client.schedules()
            assert item.is_paused
            page = Dom((await client.get("/schedules")).text)
            verbs = [one["data-schedule"] for one in page.of("button") if "data-schedule" in one]
            assert verbs == ["run", "resume"]
            ran = (await client.post("/api/schedules/tidy/run", json={})).json()
            assert ran["success"] is True
            created = await app.client.get(ran["executionId"])
            assert (created.function, created.status) == ("tidy", Status.QUEUED)
            resumed = await client.post("/api/schedules/tidy/resume", json={})
            assert resumed.json()["schedule"]["pausedAt"] is None
            for verb in ("pause", "resume", "run"):
                refused = await client.post(f"/api/schedules/other/{verb}", json={})
                assert refused.status_code == 404
                assert "there are: tidy" in refused.json()["error"]
                assert (
                    await client.post(f"/api/schedules/tidy/{verb}", json={"x": 1})
                ).status_code == 400
                foreign = await client.post(
                    f"/api/schedules/tidy/{verb}",
                    json={},
                    headers={"sec-fetch-site": "cross-site"},
                )
                assert foreign.status_code == 403

    run(main())


def test_read_only_shows_schedules_and_refuses_to_change_them() -> None:
    async def main() -> None:
        async with served(read_only=True) as (client, app):
            await register(app, scheduled("tidy", cron="0 9 * * *"), ago=timedelta(0))
            page = (await client.get("/schedules")).text
            assert "every day at 09:00" in page
            assert "data-schedule" not in page
            for verb in ("pause", "resume", "run"):
                assert (
                    await client.post(f"/api/schedules/tidy/{verb}", json={})
                ).status_code == 403
            (item,) = await app.client.schedules()
            assert not item.is_paused
            assert sum((await app.client.stats()).values()) == 0

    run(main())


def test_a_hundred_schedules_cost_a_handful_of_questions() -> None:
    async def main() -> None:
        store = CountingStore()
        async with served(store) as (client, app):
            many = [scheduled(f"tidy-{number:03}", every="1m") for number in range(100)]
            await register(app, *many, ago=timedelta(0))
            store.asked.clear()
            document = (await client.get("/api/schedules")).json()
            assert document["total"] == 100
            assert store.asked.count("get") == 4  # a hundred times twenty ticks, 500 a question
            assert set(store.asked) == {"get"}
            assert (await client.get("/schedules")).status_code == 200
            assert store.asked.count("get") == 4  # the page shares what was read

    run(main())


def test_hostile_names_are_inert() -> None:
    async def main() -> None:
        for text in EVIL:
            async with served() as (client, app):
                functions = [replace(scheduled("plain", every="1h"), id=text)]
                await register(app, *functions, ago=timedelta(0))
                (item,) = await app.client.schedules()
                await app.journal.store.create(
                    [execution(name, function=text) for _, name in item.past_ticks(3)]
                )
                answer = await client.get("/schedules")
                assert answer.status_code == 200
                assert_inert(answer.text, text)
                assert "\x1b" not in answer.text
                if not (text.isascii() and text.isprintable()):
                    continue  # no function can be called so; a record may say what it likes
                path = "".join(f"%{byte:02X}" for byte in text.encode())
                paused = await client.post(f"/api/schedules/{path}/pause", json={})
                assert paused.status_code == 200, text
                (item,) = await app.client.schedules()
                assert item.is_paused

    run(main())


def test_without_schedules_the_page_says_how_to_make_one() -> None:
    async def main() -> None:
        async with served() as (client, _):
            assert "cron=" in Dom((await client.get("/schedules")).text).text
            assert (await client.get("/schedules?x=1")).status_code == 400

    run(main())
