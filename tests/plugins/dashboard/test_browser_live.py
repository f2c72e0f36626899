"""What people do in a real browser: filter, send, watch, retry, cancel, by keys, over restarts."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.plugins.dashboard.serving import Server
from tests.plugins.dashboard.support import execution, step
from tests.plugins.dashboard.tabs import Tab, open_tab
from worchflow_core import Client, Event, Status, Step, function
from worchflow_plugins.dashboard import demo
from worchflow_plugins.dashboard.demo.functions import FUNCTIONS, Payment


class Gate:
    """Lets the steps of a function go on one by one, and fail where asked to."""

    def __init__(self) -> None:
        self.permits = asyncio.Semaphore(0)
        self.fails = False

    async def passed(self, name: str) -> str:
        await self.permits.acquire()
        if self.fails and name == "Second":
            raise ValueError("the gate is shut")
        return name


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def working(gate: Gate) -> Iterator[Server]:
    """A server with a worker, whose function waits at the gate before each step."""

    @function(id="gated", retries=0)
    async def gated(event: Event[Payment], step: Step) -> str:
        for name in ("First", "Second", "Third"):
            await step.run(name, gate.passed, name)
        return "all through"

    with Server([gated], works=True) as server:
        yield server


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as running:
        running.do(demo.seed(running.store, 200))
        yield running


def create(server: Server, *ids: str, **fields: Any) -> None:
    now = datetime.now(UTC)
    made = [execution(item, created_at=now, updated_at=now, due_at=now, **fields) for item in ids]
    server.do(server.store.create(made))


def ids_of(tab: Tab) -> list[str]:
    found = tab.page.evaluate(
        "[...document.querySelectorAll('tbody[data-hold] tr')].map((row) => row.dataset.key)"
    )
    return list(found)


# --- finding -------------------------------------------------------------------------------------


def test_filters_live_in_the_address_and_survive_back(browser: Any, server: Server) -> None:
    with open_tab(browser, server.url) as tab:
        tab.go("/")
        tab.page.click("#status-pick summary")
        with tab.page.expect_navigation():
            tab.page.check("input[name=status][value=failed]")
        assert tab.page.url.endswith("?status=failed")
        tab.page.click("#status-pick summary")
        with tab.page.expect_navigation():
            tab.page.check("input[name=status][value=retrying]")
        assert set(tab.page.locator("tbody .badge").all_inner_texts()) == {"failed", "retrying"}
        with tab.page.expect_navigation():
            tab.page.select_option("select[name=function]", "encode-video")
        names = tab.page.locator("tbody td.name a").all_inner_texts()
        assert set(names) == {"encode-video"}
        tab.page.click("tbody td.name a >> nth=0")
        tab.page.wait_for_url("**/executions/**")
        tab.page.go_back()
        assert "function=encode-video" in tab.page.url
        assert set(tab.page.locator("tbody td.name a").all_inner_texts()) == {"encode-video"}
        tab.page.click("text=Clear filters")
        assert tab.page.url == server.url + "/"


def test_search_tiles_and_bars_lead_to_executions(browser: Any, server: Server) -> None:
    with open_tab(browser, server.url) as tab:
        tab.go("/")
        wanted = ids_of(tab)[3]
        tab.page.press("body", "/")
        tab.page.keyboard.type(wanted[:8])
        with tab.page.expect_navigation():
            tab.page.keyboard.press("Enter")
        assert ids_of(tab) == [wanted]
        tab.go("/")
        with tab.page.expect_navigation():
            tab.page.click(".tile.s-failed")
        assert set(tab.page.locator("tbody .badge").all_inner_texts()) == {"failed"}
        tab.go("/?window=24h")
        # A bar with a coloured part is one in which something ended.
        href = tab.page.evaluate(
            "document.querySelector('.bars a:has(.s-completed)').getAttribute('href')"
        )
        tab.go("/" + href)
        assert "ended from" in tab.text()
        assert ids_of(tab)


def test_a_click_on_a_row_opens_it(browser: Any, server: Server) -> None:
    with open_tab(browser, server.url) as tab:
        tab.go("/")
        first = ids_of(tab)[0]
        tab.page.click("tbody tr >> nth=0 >> td.num >> nth=0")
        tab.page.wait_for_url(f"**/executions/{first}")


# --- sending, watching, changing -----------------------------------------------------------------


def write(tab: Tab, text: str) -> None:
    tab.page.fill("#data", text)


def test_send_then_watch_the_steps_appear(browser: Any, working: Server, gate: Gate) -> None:
    with open_tab(browser, working.url) as tab:
        tab.go("/send?fn=gated")
        write(tab, '{\n  "amount": 100,\n  "currency" "EUR"\n}')
        tab.page.press("#data", "Control+Enter")
        assert "line 3" in tab.text("#problem")
        write(tab, '{"amount": "much"}')
        tab.page.press("#data", "Control+Enter")
        tab.until(lambda: "customer_id is required" in tab.text("#problem"))
        assert "amount expected number" in tab.text("#problem")
        write(tab, '{"amount": 100, "customer_id": "cust_1"}')
        tab.page.press("#data", "Control+Enter")
        tab.page.wait_for_url("**/executions/**")
        tab.until(lambda: "processing" in tab.text(".title"))
        for name in ("First", "Second", "Third"):
            working.do(released(gate))
            row = tab.page.locator("details.fall-row", has_text=name).locator(".b-done")
            tab.until(row.count)
        tab.until(lambda: "completed" in tab.text(".title"))
        assert '"all through"' in tab.text("section[aria-label=Result]")
        assert tab.page.title().startswith("completed")
        assert tab.page.get_attribute("main", "data-poll") == "30000"


async def released(gate: Gate) -> None:
    gate.permits.release()


def test_retry_a_failed_execution_and_see_it_complete(
    browser: Any, working: Server, gate: Gate
) -> None:
    with open_tab(browser, working.url) as tab:
        gate.fails = True
        sent = working.do(send(working))
        working.do(released(gate))
        working.do(released(gate))
        tab.go(f"/executions/{sent}")
        tab.until(lambda: "failed" in tab.text(".title"))
        assert "the gate is shut" in tab.text("section[aria-label=Failure]")
        gate.fails = False
        tab.page.click("button:has-text('Retry')")
        for _ in range(2):
            working.do(released(gate))
        tab.until(lambda: "completed" in tab.text(".title"))
        assert tab.page.locator("section[aria-label=Failure]").count() == 0
        assert "↺ from attempt 1" in tab.text(".fall")
        tab.page.click(".segments a:has-text('1')")
        assert "failed" in tab.text(".fall")


async def send(server: Server) -> str:
    assert server.app is not None
    data = {"amount": 1, "customer_id": "c"}
    return (await server.app.client.send("gated", data)).id


def test_cancel_asks_first_and_refreshes_do_not_close_the_question(
    browser: Any, server: Server
) -> None:
    create(server, "to-cancel")
    with open_tab(browser, server.url) as tab:
        tab.go("/executions/to-cancel")
        tab.page.click("button:has-text('Cancel')")
        assert tab.page.is_visible("#confirm")
        tab.page.click("#confirm button:has-text('Back')")
        assert server.do(get(server, "to-cancel")).status is Status.QUEUED
        tab.page.click("button:has-text('Cancel')")
        create(server, "noise-while-asking")
        tab.page.wait_for_timeout(2500)  # a refresh would have come by now
        assert tab.page.is_visible("#confirm")
        tab.page.click("#confirm-yes")
        tab.until(lambda: "cancelled" in tab.text(".title"))
        assert server.do(get(server, "to-cancel")).status is Status.CANCELLED


async def get(server: Server, execution_id: str) -> Any:
    (found,) = await server.store.get([execution_id])
    return found


def test_a_refusal_is_said_aloud(browser: Any, server: Server) -> None:
    create(server, "gone-meanwhile", status=Status.FAILED)
    with open_tab(browser, server.url) as tab:
        tab.go("/executions/gone-meanwhile")
        assert server.app is not None
        server.do(server.app.client.retry("gone-meanwhile"))
        tab.page.click("button:has-text('Retry')")
        tab.until(lambda: "only a failed or cancelled one" in tab.text("#toasts"))


def test_many_are_selected_counted_and_retried(browser: Any) -> None:
    with Server() as server:
        create(server, *(f"bad-{number}" for number in range(30)), status=Status.FAILED)
        create(server, "good", status=Status.COMPLETED)
        with open_tab(browser, server.url) as tab:
            tab.go("/?status=failed")
            tab.page.click("#select-toggle")
            tab.page.check(".row-check >> nth=0")
            assert "1 selected" in tab.text("#bulk")
            tab.page.check("#bulk-all")
            tab.page.click("[data-bulk=retry]")
            tab.until(lambda: tab.page.is_visible("#confirm"))
            assert "Retry 30 executions?" in tab.text("#confirm")
            tab.page.click("#confirm-yes")
            tab.until(lambda: "30 queued again" in tab.text("#toasts"))
            tab.until(lambda: "Nothing matches" in tab.text())
        assert server.app is not None
        assert server.do(server.app.client.stats())[Status.QUEUED] == 30


def test_a_schedule_is_paused_resumed_and_run(browser: Any) -> None:
    with Server() as server:
        server.do(demo.seed(server.store, 20))
        with open_tab(browser, server.url) as tab:
            tab.go("/")
            go_by_keys(tab, "s", f"{server.url}/schedules")
            assert "in " in tab.text("td[data-label='Next run'] >> nth=0")
            tab.page.click("[data-schedule=pause] >> nth=0")
            tab.until(lambda: "paused" in tab.text("td[data-label='Next run'] >> nth=0"))
            tab.page.click("[data-schedule=resume]")
            tab.until(lambda: "in " in tab.text("td[data-label='Next run'] >> nth=0"))
            tab.page.click("[data-schedule=run] >> nth=0")
            tab.until(lambda: tab.page.is_visible("#confirm"))
            assert "Run daily-cleanup now?" in tab.text("#confirm")
            tab.page.click("#confirm-yes")
            tab.page.wait_for_url("**/executions/cron*now-*")
            assert "daily-cleanup" in tab.text("h1")


def test_a_function_is_paused_and_resumed_from_its_page(browser: Any, server: Server) -> None:
    with open_tab(browser, server.url) as tab:
        tab.go("/functions/encode-video")
        tab.page.click("[data-function=pause]")
        tab.until(lambda: tab.page.is_visible("#confirm"))
        tab.page.click("#confirm-yes")
        tab.until(lambda: "No execution begins until it is resumed" in tab.text())
        tab.page.click("[data-function=resume]")
        tab.until(lambda: "No execution begins" not in tab.text())


def test_a_fork_is_asked_for_from_a_step(browser: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Client, "fork", None, raising=False)
    with Server() as server:
        made, steps = demo.make(Status.FAILED, age=90)
        server.do(demo.write(server.store, [(made, steps)]))
        create(server, "forked")
        with open_tab(browser, server.url) as tab:
            asked: list[Any] = []

            def answer(route: Any) -> None:
                asked.append((route.request.url, route.request.post_data_json))
                route.fulfill(json={"success": True, "executionId": "forked"})

            tab.page.route("**/fork", answer)
            tab.go(f"/executions/{made.id}")
            tab.page.click("#fork-pick summary")
            failed = made.attempts[-1].tries[-1]
            assert tab.page.is_visible(f"#fork-pick [data-fork='{failed.step_id}']")
            tab.page.click(f"#fork-pick [data-fork='{steps[1].step_id}']")
            tab.until(lambda: tab.page.is_visible("#confirm"))
            assert f"Fork from the step {steps[1].title}?" in tab.text("#confirm")
            tab.page.click("#confirm-yes")
            tab.page.wait_for_url("**/executions/forked")
            url = f"{server.url}/api/executions/{made.id}/fork"
            assert asked == [(url, {"fromStep": steps[1].step_id})]


# --- keys ----------------------------------------------------------------------------------------


def go_by_keys(tab: Tab, key: str, url: str) -> None:
    """Press `g` and a key; once more where a busy machine took longer over it than people do."""

    from playwright.sync_api import TimeoutError as PlaywrightTimeout

    def is_there() -> bool:
        tab.page.keyboard.press("g")
        tab.page.keyboard.press(key)
        with suppress(PlaywrightTimeout):
            tab.page.wait_for_url(url, timeout=2000)
            return True
        return False

    tab.until(is_there, seconds=30)
    tab.page.wait_for_selector("html.has-js")


def test_everything_can_be_reached_by_keys(browser: Any, server: Server) -> None:
    create(server, "by-keys", status=Status.FAILED)
    with open_tab(browser, server.url) as tab:
        keys = tab.page.keyboard
        tab.go("/")
        keys.press("j")
        keys.press("j")
        keys.press("k")
        marked = tab.page.get_attribute("tr.at", "data-key")
        assert marked == ids_of(tab)[0] == "by-keys"
        keys.press("x")
        tab.until(lambda: "1 selected" in tab.text("#bulk"))
        keys.press("r")
        tab.until(lambda: "Queued again" in tab.text("#toasts"))
        keys.press("Enter")
        tab.page.wait_for_url("**/executions/by-keys")
        tab.page.wait_for_selector("html.has-js")
        keys.press("c")
        tab.until(lambda: tab.page.is_visible("#confirm"))
        keys.press("Escape")
        tab.until(lambda: not tab.page.is_visible("#confirm"))
        keys.press("?")
        tab.until(lambda: tab.page.is_visible("#help"))
        keys.press("Escape")
        tab.until(lambda: not tab.page.is_visible("#help"))
        for key, path in (("f", "/functions"), ("w", "/workers"), ("n", "/send"), ("e", "/")):
            go_by_keys(tab, key, server.url + path)
        keys.press("/")
        keys.type("jjj")  # typed, not obeyed
        tab.until(lambda: tab.page.input_value("#search") == "jjj")
        keys.press("Control+Enter")


def test_the_first_tab_stop_skips_to_the_content(browser: Any, server: Server) -> None:
    with open_tab(browser, server.url) as tab:
        tab.go("/")
        tab.page.keyboard.press("Tab")
        assert tab.page.evaluate("document.activeElement.className") == "skip"
        tab.page.keyboard.press("Enter")
        assert tab.page.evaluate("document.activeElement.id") == "main"


# --- refreshing ----------------------------------------------------------------------------------


def test_rows_do_not_move_under_the_pointer(browser: Any) -> None:
    with Server() as server:
        create(server, "one", "two")
        with open_tab(browser, server.url) as tab:
            tab.go("/")
            tab.page.hover("tr[data-key=one] td.mono")
            create(server, "three")
            server.do(cancelled(server, "two"))
            tab.until(lambda: "1 new" in tab.text("#held"))
            tab.until(lambda: "cancelled" in tab.text("tr[data-key=two]"))
            assert set(ids_of(tab)) == {"one", "two"}
            tab.page.click("#held-show")
            tab.until(lambda: set(ids_of(tab)) == {"one", "two", "three"})
            tab.page.hover("tr[data-key=one] td.mono")
            create(server, "four")
            tab.until(lambda: "1 new" in tab.text("#held"))
            tab.page.hover("h1")
            tab.until(lambda: "four" in ids_of(tab))
            assert not tab.page.is_visible("#held")


async def cancelled(server: Server, execution_id: str) -> None:
    assert server.app is not None
    await server.app.client.cancel(execution_id)


def test_focus_and_open_rows_are_kept_through_a_refresh(browser: Any) -> None:
    with Server() as server:
        claimed = datetime.now(UTC) - timedelta(seconds=50)
        create(server, "a", status=Status.PROCESSING, owner="w", fence=1, claimed_at=claimed)
        server.do(record(server, 1))
        with open_tab(browser, server.url) as tab:
            tab.go("/executions/a")
            tab.page.click("summary:has-text('Step 1') >> nth=0")
            tab.page.focus("a:has-text('Download result')")
            tab.page.evaluate("document.querySelector('#row-step-1').dataset.mine = 'same element'")
            server.do(record(server, 2))
            tab.until(lambda: "Step 2" in tab.text(".fall"))
            assert tab.page.is_visible("#row-step-1 .fall-body")
            assert tab.page.get_attribute("#row-step-1", "data-key") == "row-step-1"
            assert "Download" in tab.page.evaluate("document.activeElement.textContent")


async def record(server: Server, number: int) -> None:
    now = datetime.now(UTC)
    began = now - timedelta(seconds=30 - number)
    made = step("a", number, fence=1, started_at=began, ended_at=began + timedelta(seconds=1))
    assert await server.store.record([replace(made, execution_created_at=now)])


def test_what_is_typed_is_never_touched(browser: Any) -> None:
    with Server() as server:
        create(server, "one")
        with open_tab(browser, server.url) as tab:
            tab.go("/")
            tab.page.fill("#search", "half a wo")
            create(server, "two")
            tab.until(lambda: "two" in ids_of(tab))
            assert tab.page.input_value("#search") == "half a wo"
            assert tab.page.evaluate("document.activeElement.id") == "search"


def test_a_restart_of_the_server_loses_nothing_on_screen(browser: Any) -> None:
    with Server() as server:
        create(server, "one", status=Status.FAILED)
        create(server, "two")
        with open_tab(browser, server.url) as tab:
            tab.go("/?status=failed&status=queued")
            tab.page.fill("#search", "typed before")
            server.stop()
            tab.until(lambda: "reconnecting" in tab.text("#live"))
            assert ids_of(tab) == ["two", "one"]
            create_later = ["three"]
            server.start()
            create(server, *create_later)
            tab.until(lambda: "three" in ids_of(tab), seconds=30)
            assert tab.text("#live") == "live"
            assert tab.page.input_value("#search") == "typed before"
            assert "status=failed" in tab.page.url


def test_paused_pages_stand_still(browser: Any) -> None:
    with Server() as server:
        create(server, "one")
        with open_tab(browser, server.url) as tab:
            tab.go("/")
            tab.page.keyboard.press("p")
            assert tab.text("#live") == "paused"
            create(server, "two")
            tab.page.wait_for_timeout(2600)
            assert ids_of(tab) == ["one"]
            tab.page.keyboard.press("p")
            tab.until(lambda: set(ids_of(tab)) == {"one", "two"})


def test_clocks_tick_while_the_server_answers_304(browser: Any) -> None:
    with Server() as server:
        create(server, "one")
        with open_tab(browser, server.url) as tab:
            statuses: list[int] = []
            tab.page.on("response", lambda answer: statuses.append(answer.status))
            tab.go("/")
            before = tab.text("tr[data-key=one] time")
            tab.until(lambda: 304 in statuses)
            tab.until(lambda: tab.text("tr[data-key=one] time") != before)


# --- small things --------------------------------------------------------------------------------


def test_copy_as_curl_python_and_command(browser: Any, server: Server) -> None:
    with open_tab(browser, server.url, permissions=["clipboard-read", "clipboard-write"]) as tab:
        tab.go("/send?fn=hello-world")
        write(tab, """{"name": "it's \\"me\\""}""")

        def copied(kind: str) -> str:
            tab.page.click(f"[data-as={kind}]")
            return str(tab.page.evaluate("navigator.clipboard.readText()"))

        curl = shlex.split(copied("curl"))
        assert (
            curl[curl.index("-d") + 1] == '{"name":"hello-world","data":{"name":"it\'s \\"me\\""}}'
        )
        assert shlex.split(copied("cli"))[:3] == ["worchflow", "send", "hello-world"]
        code = copied("python")
        compile(code.replace("await ", ""), "<copied>", "exec")
        assert "it's" in code


def test_drafts_are_kept_per_function(browser: Any, server: Server) -> None:
    with open_tab(browser, server.url) as tab:
        tab.go("/send?fn=hello-world")
        write(tab, '{"name": "draft"}')
        with tab.page.expect_navigation():
            tab.page.select_option("#fn", "process-payment")
        assert "draft" not in tab.page.input_value("#data")
        tab.go("/send?fn=hello-world")
        assert tab.page.input_value("#data") == '{"name": "draft"}'
        tab.page.click("#reset")
        assert "draft" not in tab.page.input_value("#data")


def test_actions_work_under_a_prefix(browser: Any) -> None:
    with Server(prefix="/tools/flows") as server:
        create(server, "one", status=Status.FAILED)
        with open_tab(browser, server.url) as tab:
            tab.go("/tools/flows/")
            tab.page.click("tr[data-key=one] button")
            tab.until(lambda: "queued" in tab.text("tr[data-key=one]"))
            tab.page.keyboard.press("g")
            tab.page.keyboard.press("w")
            tab.page.wait_for_url("**/tools/flows/workers")


def test_known_functions_are_offered(browser: Any, server: Server) -> None:
    with open_tab(browser, server.url) as tab:
        tab.go("/send")
        offered = tab.page.locator("#fn option").all_inner_texts()
        assert offered == [*sorted(item.id for item in FUNCTIONS), "Another function…"]
        tab.page.select_option("#fn", "")
        tab.page.fill("#other-name", "brand-new")
        write(tab, "{}")
        tab.page.press("#data", "Control+Enter")
        tab.until(lambda: "no worker has a function" in tab.text("#problem"))
        tab.page.click("#options summary")
        tab.page.check("#opt-force")
        tab.page.click("#send-now")
        tab.page.wait_for_url("**/executions/**")
        assert "brand-new" in tab.text("h1")
