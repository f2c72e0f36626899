"""What plugins add to the dashboard: pages, navigation, panels, columns, templates, files.

This is the contract of the hook `worchflow_add_dashboard(ui)`. The class names `card`, `badge`,
`tile`, `table`, `btn`, `muted` and `mono` of the style sheet stay as they are within version 1.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fastapi import APIRouter
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import Response

from worchflow_core import Execution, PluginError
from worchflow_plugins.dashboard.view import clean

logger = logging.getLogger("worchflow.dashboard")

VERSION = 1
PANEL_SECONDS = 1.0
"""How long a panel or a column may take before it is given up."""

Panel = Callable[[Execution], "str | Awaitable[str]"]
Column = Callable[[Execution], "str | Awaitable[str]"]


@dataclass(frozen=True, slots=True)
class NavItem:
    """A link of the navigation; the built-in ones have the orders 10 to 60."""

    label: str
    path: str
    order: int


class Renderer(Protocol):
    """Puts a template into the frame that all pages share."""

    async def render(
        self, request: Request, template: str, context: dict[str, Any], *, title: str
    ) -> Response:
        """Return the page."""


class Ui:
    """What a plugin gets: each method adds one thing; `render` answers its own routes."""

    def __init__(self) -> None:
        self.version = VERSION
        self.nav: list[NavItem] = []
        self.routers: list[tuple[APIRouter, str]] = []
        self.templates: dict[str, str] = {}
        self.static: dict[str, str] = {}
        self.panels: dict[str, list[Panel]] = {}
        self.columns: dict[str, list[tuple[str, Column]]] = {}
        self._renderer: Renderer | None = None

    def add_router(self, router: APIRouter, *, prefix: str) -> None:
        """Add routes below `prefix`, such as "/x/costs"; they are guarded like all others.

        Args:
            router: a FastAPI router.
            prefix: starts with "/x/", so that it never meets a built-in page.
        """
        if not re.fullmatch(r"/x/[a-z0-9][a-z0-9-]*(/[a-z0-9-]+)*", prefix):
            raise PluginError(f"the prefix {prefix!r} must look like '/x/costs'")
        self.routers.append((router, prefix))

    def add_nav(self, label: str, path: str, *, order: int = 100) -> None:
        """Add a link to the navigation; a lower order stands further left."""
        if not path.startswith("/") or path.startswith("//"):
            raise PluginError(f"the path {path!r} of {label!r} must start with one slash")
        self.nav.append(NavItem(label, path, order))

    def add_templates(self, name: str, *, package: str) -> None:
        """Make the folder `templates` of `package` known as "name/..."; extend "base.html"."""
        self.templates[_name(name)] = package

    def add_static(self, name: str, *, package: str) -> None:
        """Serve the folder `static` of `package`; `static("name/file.css")` is the address."""
        self.static[_name(name)] = package

    def add_panel(self, page: str, render: Panel) -> None:
        """Add a panel to a page; so far there is "execution".

        Args:
            page: the page.
            render: takes the execution, returns `Markup`, or text, which is escaped. May be async.
        """
        if page != "execution":
            raise PluginError(f"no page {page!r} takes panels; there is: execution")
        self.panels.setdefault(page, []).append(render)

    def add_column(self, page: str, label: str, value: Column) -> None:
        """Add a column to a list; so far there is "executions".

        Args:
            page: the list.
            label: the head of the column.
            value: takes the execution, returns what the cell shows. May be async; keep it quick.
        """
        if page != "executions":
            raise PluginError(f"no list {page!r} takes columns; there is: executions")
        self.columns.setdefault(page, []).append((label, value))

    async def render(
        self, request: Request, template: str, *, title: str, **context: Any
    ) -> Response:
        """Return a page of your own, inside the dashboard's frame."""
        if self._renderer is None:
            raise PluginError("the dashboard is still being made; render within a request")
        return await self._renderer.render(request, template, context, title=title)

    def bind(self, renderer: Renderer) -> None:
        """Give the frame to `render`; the dashboard calls it once."""
        self._renderer = renderer

    async def panels_of(self, page: str, execution: Execution) -> list[Markup]:
        """Return what the panels of a page show; one that raises shows a card that says so."""
        found = self.panels.get(page, ())
        return list(await asyncio.gather(*(_panel(render, execution) for render in found)))

    async def cells_of(self, page: str, execution: Execution) -> list[Markup]:
        """Return what the added columns show of one execution."""
        return [await _cell(value, execution) for _, value in self.columns.get(page, ())]

    def column_labels(self, page: str) -> Sequence[str]:
        """Return the heads of the added columns."""
        return [label for label, _ in self.columns.get(page, ())]


async def _panel(render: Panel, execution: Execution) -> Markup:
    try:
        return _inert(await _called(render, execution))
    except Exception as error:
        logger.exception("a dashboard panel failed: %s", _place(render))
        return Markup(
            '<section class="card card-failed"><h2>A panel failed</h2>'
            '<p><span class="mono">{}</span> raised <span class="mono">{}</span></p></section>'
        ).format(_place(render), clean(f"{type(error).__name__}: {error}"[:500]))


async def _cell(value: Column, execution: Execution) -> Markup:
    try:
        return _inert(await _called(value, execution))
    except Exception as error:
        logger.warning("a dashboard column failed: %s: %r", _place(value), error)
        return Markup('<span class="muted" title="{}">failed</span>').format(
            clean(f"{_place(value)} raised {error!r}"[:500])
        )


async def _called(render: Callable[[Execution], Any], execution: Execution) -> Any:
    answer = render(execution)
    if inspect.isawaitable(answer):
        async with asyncio.timeout(PANEL_SECONDS):
            return await answer
    return answer


def _inert(answer: Any) -> Markup:
    if isinstance(answer, Markup):
        return answer
    return escape(clean("" if answer is None else str(answer)))


def _place(render: Callable[..., Any]) -> str:
    return f"{getattr(render, '__module__', '?')}.{getattr(render, '__qualname__', repr(render))}"


def _name(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name) or name == "dashboard":
        raise PluginError(f"the name {name!r} must be lower-case letters, digits, _ and -")
    return name
