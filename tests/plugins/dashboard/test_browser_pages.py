"""The pages in a real browser: both themes, a phone, accessibility, hostile input, no leaks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.plugins.dashboard.serving import Server
from tests.plugins.dashboard.tabs import open_tab
from tests.plugins.dashboard.test_pages import EVIL, write_hostile
from worchflow_core import Status
from worchflow_plugins.dashboard import demo

STATES = (
    Status.FAILED,
    Status.COMPLETED,
    Status.RETRYING,
    Status.PROCESSING,
    Status.SLEEPING,
    Status.QUEUED,
    Status.CANCELLED,
)
PATHS = (
    "/",
    "/?status=failed&status=retrying&when=ended:24h",
    "/?search=nothing-has-this-name",
    "/functions",
    "/functions/process-payment",
    "/schedules",
    "/workers",
    "/send?fn=process-payment",
    "/send?fn=not-known",
    "/about",
    "/executions/unknown-execution",
    *(f"/executions/{status.value}" for status in STATES),
)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as running:
        running.do(demo.seed(running.store, 300))
        for status in STATES:
            made, steps = demo.make(status, age=400)
            renamed = [_of(step, status.value) for step in steps]
            running.do(demo.write(running.store, [(_named(made, status.value), renamed)]))
        yield running


def _named(execution: Any, execution_id: str) -> Any:
    from dataclasses import replace

    return replace(execution, id=execution_id)


def _of(step: Any, execution_id: str) -> Any:
    from dataclasses import replace

    return replace(step, execution_id=execution_id)


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_no_violation(browser: Any, server: Server, theme: str, width: int) -> None:
    from axe_playwright_python.sync_playwright import Axe

    axe = Axe()
    options: dict[str, Any] = {"viewport": {"width": width, "height": 800}}
    # Axe is put into the page as a script, which our policy forbids.
    with open_tab(browser, server.url, color_scheme=theme, bypass_csp=True, **options) as tab:
        told: list[tuple[str, ...]] = []
        # On a phone the same things stand in other places: fewer pages will do.
        for path in PATHS if width > 1000 else ("/", "/schedules", *PATHS[-9:-4]):
            tab.go(path)
            for closed in tab.page.query_selector_all("main details:not([open]):not(.pick)"):
                closed.evaluate("element => { element.open = true }")
            found = axe.run(tab.page).response["violations"]
            for item in found:
                node = item["nodes"][0]
                told.append((path, item["id"], node["html"][:200], node["failureSummary"]))
        assert told == []


def test_the_policy_is_never_broken(browser: Any, server: Server) -> None:
    with open_tab(browser, server.url) as tab:
        for path in PATHS:
            tab.go(path)
            assert tab.page.evaluate("document.querySelectorAll('script').length") == 1


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window(browser: Any, server: Server, width: int) -> None:
    with open_tab(browser, server.url, viewport={"width": width, "height": 800}) as tab:
        for path in PATHS:
            tab.go(path)
            wide = tab.page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, path


def test_pages_can_be_read_without_javascript(browser: Any, server: Server) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    try:
        page.goto(f"{server.url}/executions/failed")
        assert page.is_visible("text=Traceback")
        assert not page.is_visible("button:text('Retry')")
        page.click("summary:has-text('Validate payment') >> nth=0")
        assert page.is_visible("text=Download result")
        page.goto(f"{server.url}/")
        page.click("#status-pick summary")
        page.check("input[name=status][value=failed]")
        page.click("#status-pick button")
        assert "status=failed" in page.url
        assert set(page.locator("tbody .badge").all_inner_texts()) == {"failed"}
        page.goto(f"{server.url}/send?fn=process-payment")
        assert page.is_visible("text=needs JavaScript")
    finally:
        context.close()


def test_hostile_input_runs_nothing(browser: Any) -> None:
    with Server() as server:
        for text in EVIL:
            server.do(write_hostile(server.store, text))
        with open_tab(browser, server.url) as tab:
            for text in EVIL[:12]:
                quoted = "".join(f"%{byte:02X}" for byte in text.encode())
                for path in (
                    f"/executions/{quoted}",
                    f"/send?from={quoted}",
                    f"/send?data={quoted}&fn={quoted}",
                ):
                    tab.page.goto(server.url + path)
                    tab.page.wait_for_selector("main")
            for path in ("/", "/functions", "/workers", "/about"):
                tab.go(path)
            assert tab.page.evaluate("document.querySelectorAll('img, iframe').length") == 0


def test_theme_is_kept_over_a_reload_without_a_flash(browser: Any, server: Server) -> None:
    with open_tab(browser, server.url, color_scheme="light") as tab:
        tab.go("/")
        light = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
        tab.page.click("#theme")
        dark = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert dark != light
        tab.go("/workers")
        # The server writes it, so that the page is dark before any script runs.
        assert 'data-theme="dark"' in tab.page.request.get(f"{server.url}/workers").text()
        assert tab.page.evaluate("getComputedStyle(document.body).backgroundColor") == dark
        tab.page.click("#theme")
        assert tab.page.evaluate("getComputedStyle(document.body).backgroundColor") == light


def test_phone_has_a_menu(browser: Any, server: Server) -> None:
    with open_tab(
        browser, server.url, viewport={"width": 390, "height": 800}, has_touch=True
    ) as tab:
        tab.go("/")
        assert not tab.page.is_visible("nav[aria-label=Pages] a")
        tab.page.tap("#menu summary")
        tab.page.tap("nav[aria-label=Pages] a:text('Workers')")
        tab.page.wait_for_url("**/workers")
        assert "host-0" in tab.text()


def test_wide_window_shows_all_links_at_once(browser: Any, server: Server) -> None:
    with open_tab(browser, server.url) as tab:
        tab.go("/")
        assert tab.page.locator("nav[aria-label=Pages] a:visible").count() == 6
