from __future__ import annotations

import asyncio
from datetime import timedelta
from html import unescape
from typing import Any

import pytest

from tests.plugins.dashboard.support import NOW, CountingStore, execution, run, served, step
from worchflow_core import Status
from worchflow_plugins.dashboard import demo
from worchflow_plugins.dashboard.live import Snapshots


def test_twenty_tabs_cost_one_look_at_the_store() -> None:
    async def main() -> None:
        store = CountingStore()
        async with served(store) as (client, _):
            await demo.seed(store, 200)
            store.asked.clear()
            answers = await asyncio.gather(*(client.get("/") for _ in range(20)))
            assert {answer.status_code for answer in answers} == {200}
            assert sorted(set(store.asked)) == ["find", "stats", "tally"]
            assert len(store.asked) == 3

    run(main())


def test_a_tab_that_knows_the_page_gets_304_and_no_body() -> None:
    async def main() -> None:
        async with served() as (client, app):
            await app.journal.store.create([execution("a", status=Status.COMPLETED)])
            for path in ("/", "/executions/a", "/functions", "/workers", "/about"):
                first = await client.get(path)
                known = {"if-none-match": first.headers["etag"]}
                again = await client.get(path, headers=known)
                assert again.status_code == 304, path
                assert again.content == b""
                assert first.headers["etag"] in unescape(first.text)

    run(main())


def test_a_change_is_seen_within_a_second() -> None:
    async def main() -> None:
        async with served() as (client, app):
            store = app.journal.store
            await store.create([execution("a", fence=1, status=Status.PROCESSING, owner="w")])
            first = await client.get("/executions/a")
            await store.record([step("a", 1, fence=1)])
            async with asyncio.timeout(5):
                while True:
                    known = {"if-none-match": first.headers["etag"]}
                    answer = await client.get("/executions/a", headers=known)
                    if answer.status_code == 200:
                        break
                    await asyncio.sleep(0.05)
            assert "Step 1" in answer.text

    run(main())


def test_views_differ_by_question_theme_and_rights() -> None:
    async def main() -> None:
        async with served() as (client, app):
            await app.journal.store.create([execution("a", status=Status.COMPLETED)])
            marks = {
                (await client.get(path, headers={"cookie": cookie})).headers["etag"]
                for path in ("/", "/?status=completed")
                for cookie in ("", "worchflow_theme=dark", "worchflow_theme=light")
            }
            assert len(marks) == 6
            odd = await client.get("/", headers={"cookie": 'worchflow_theme="><script>'})
            assert "data-theme" not in odd.text

    run(main())


def test_a_finished_page_asks_rarely() -> None:
    async def main() -> None:
        async with served() as (client, app):
            await app.journal.store.create(
                [execution("a", status=Status.FAILED), execution("b", status=Status.RETRYING)]
            )
            assert 'data-poll="30000"' in (await client.get("/executions/a")).text
            assert 'data-poll="2000"' in (await client.get("/executions/b")).text
            await client.post("/api/executions/a/retry", json={})
            assert 'data-poll="2000"' in (await client.get("/executions/a")).text

    run(main())


def test_two_thousand_steps_take_four_questions_and_show_two_hundred() -> None:
    async def main() -> None:
        store = CountingStore()
        async with served(store) as (client, _):
            claimed = NOW - timedelta(seconds=59.9)
            await store.create(
                [execution("a", fence=1, status=Status.PROCESSING, owner="w", claimed_at=claimed)]
            )
            await store.record([step("a", number, fence=1) for number in range(1, 2001)])
            store.asked.clear()
            html = (await client.get("/executions/a")).text
            assert sorted(store.asked) == ["find", "get", "get", "steps"]  # one is for the reasons
            assert html.count('<details class="fall-row"') == 199  # and the first row, the wait
            assert "Load more" in html
            html = (await client.get("/executions/a?steps=10000")).text
            assert html.count('<details class="fall-row"') == 2001  # one of them is still running

    run(main())


# --- snapshots ------------------------------------------------------------------------------------


def test_those_who_ask_meanwhile_wait_for_the_same_answer() -> None:
    async def main() -> None:
        calls = 0

        async def read() -> int:
            nonlocal calls
            calls += 1
            await asyncio.sleep(0.01)
            return calls

        snapshots = Snapshots()
        answers = await asyncio.gather(*(snapshots.get("k", read) for _ in range(50)))
        assert {answer.value for answer in answers} == {1}
        snapshots.forget()
        assert (await snapshots.get("k", read)).value == 2

    run(main())


def test_a_failed_read_is_told_to_all_and_forgotten() -> None:
    async def main() -> None:
        fails = True

        async def read() -> str:
            await asyncio.sleep(0)
            if fails:
                raise OSError("down")
            return "up"

        snapshots = Snapshots()
        answers = await asyncio.gather(
            *(snapshots.get("k", read) for _ in range(3)), return_exceptions=True
        )
        assert [str(answer) for answer in answers] == ["down"] * 3
        fails = False
        assert (await snapshots.get("k", read)).value == "up"

    run(main())


def test_a_read_that_began_before_a_change_is_not_kept_after_it() -> None:
    async def main() -> None:
        value = "old"
        going = asyncio.Event()

        async def read() -> str:
            seen = value
            await going.wait()
            return seen

        snapshots = Snapshots()
        early = asyncio.create_task(snapshots.get("k", read))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        value = "new"
        snapshots.forget()
        going.set()
        assert (await early).value == "old"
        assert (await snapshots.get("k", read)).value == "new"

    run(main())


def test_a_tab_that_goes_away_takes_nothing_from_the_others() -> None:
    async def main() -> None:
        going = asyncio.Event()

        async def read() -> str:
            await going.wait()
            return "there"

        snapshots = Snapshots()
        leaving = asyncio.create_task(snapshots.get("k", read))
        staying = asyncio.create_task(snapshots.get("k", read))
        await asyncio.sleep(0)
        leaving.cancel()
        going.set()
        assert (await staying).value == "there"
        with pytest.raises(asyncio.CancelledError):
            await leaving

    run(main())


def test_memory_is_bounded() -> None:
    async def main() -> None:
        snapshots = Snapshots()

        async def read() -> Any:
            return 1

        for number in range(5000):
            await snapshots.get(("page", number), read)
        assert len(snapshots._kept) <= 256

    run(main())


def test_a_slow_chart_never_holds_the_table_up() -> None:
    class Slow(CountingStore):
        def __init__(self) -> None:
            super().__init__()
            self.going = asyncio.Event()

        async def tally(self, where: Any, *, bucket: timedelta) -> Any:
            await self.going.wait()
            return await super().tally(where, bucket=bucket)

    async def main() -> None:
        store = Slow()
        async with served(store) as (client, _):
            await demo.seed(store, 100)
            html = (await client.get("/")).text
            assert "counting…" in html
            assert "process-payment" in html
            assert "counting what ended…" in (await client.get("/functions")).text
            store.going.set()
            async with asyncio.timeout(10):
                while "counting…" in html:
                    await asyncio.sleep(0.1)
                    html = (await client.get("/")).text
            assert "rect class=" in html
            assert store.asked.count("tally") <= 2  # one for each page, however often asked

    run(main())
