"""Pictures of the pages for the documentation: `make screenshots` writes docs/images/."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tests.plugins.dashboard.conftest import FLAGS, chromium
from tests.plugins.dashboard.serving import Server
from worchflow_core import Status
from worchflow_plugins.dashboard import demo

FOLDER = Path(__file__).resolve().parents[3] / "docs" / "images"
WIDE = {"width": 1280, "height": 860}
PHONE = {"width": 390, "height": 780}


def main() -> None:
    """Seed a dashboard, open its pages, write the pictures."""
    from playwright.sync_api import sync_playwright

    path = chromium()
    if path is None:
        sys.exit("no Chromium is installed: apt-get install chromium")
    FOLDER.mkdir(parents=True, exist_ok=True)
    with Server() as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        server.do(demo.seed(server.store, 4000))
        failed, steps = demo.make(Status.FAILED, age=90, seed=5)
        server.do(demo.write(server.store, [(failed, steps)]))
        for theme in ("light", "dark"):
            take(browser, server, theme, "executions", "/")
            take(browser, server, theme, "execution", f"/executions/{failed.id}", whole=True)
        running, steps = demo.make(Status.PROCESSING, age=1, seed=3)
        server.do(demo.write(server.store, [(running, steps)]))
        take(browser, server, "dark", "running", f"/executions/{running.id}")
        take(browser, server, "light", "functions", "/functions", size={**WIDE, "height": 460})
        take(browser, server, "light", "schedules", "/schedules", size={**WIDE, "height": 330})
        take(browser, server, "light", "send", "/send?fn=process-payment")
        take(browser, server, "dark", "workers", "/workers")
        take(browser, server, "dark", "phone", "/", size=PHONE)
        browser.close()


def take(
    browser: Any,
    server: Server,
    theme: str,
    name: str,
    path: str,
    *,
    size: dict[str, int] | None = None,
    whole: bool = False,
) -> None:
    """Write one picture."""
    context = browser.new_context(
        color_scheme=theme, viewport=size or WIDE, locale="en-GB", timezone_id="UTC"
    )
    page = context.new_page()
    page.goto(server.url + path)
    page.wait_for_selector("html.has-js")
    if name == "running":
        page.click("details.fall-row summary >> nth=0")
    page.screenshot(path=FOLDER / f"{name}-{theme}.png", full_page=whole)
    context.close()


if __name__ == "__main__":
    main()
