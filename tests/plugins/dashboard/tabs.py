"""A tab of a browser that watches itself: what it loads, what it complains of."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Tab:
    """One page in a context of its own.

    Attributes:
        page: Playwright's page.
        complaints: errors the page wrote to its console, or threw.
        foreign: addresses it asked for outside of its origin.
        dialogs: texts of alerts, which nothing here may open.
    """

    def __init__(self, page: Any, origin: str) -> None:
        self.page = page
        self.origin = origin
        self.complaints: list[str] = []
        self.foreign: list[str] = []
        self.dialogs: list[str] = []
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self._watch)
        page.on("dialog", self._close)

    def go(self, path: str) -> None:
        """Open a page and wait for its script."""
        self.page.goto(self.origin + path)
        self.page.wait_for_selector("html.has-js")

    def until(self, condition: Callable[[], Any], *, seconds: float = 15) -> Any:
        """Return the first true answer; fail where it does not come in time."""
        deadline = time.monotonic() + seconds
        while not (answer := condition()):
            assert time.monotonic() < deadline, "it never came true"
            self.page.wait_for_timeout(25)
        return answer

    def text(self, selector: str = "main") -> str:
        """Return what can be read of an element."""
        return str(self.page.inner_text(selector))

    def _hear(self, message: Any) -> None:
        # What a server that is down does to a request is written by the browser itself.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)

    def _watch(self, request: Any) -> None:
        if not request.url.startswith((self.origin + "/", "data:")):
            self.foreign.append(request.url)

    def _close(self, dialog: Any) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()


@contextmanager
def open_tab(browser: Any, origin: str, **options: Any) -> Iterator[Tab]:
    """Yield a tab; fail afterwards where it complained or left its origin."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    context.set_default_timeout(10_000)
    tab = Tab(context.new_page(), origin)
    try:
        yield tab
        assert tab.complaints == []
        assert tab.foreign == []
        assert tab.dialogs == []
    finally:
        context.close()
