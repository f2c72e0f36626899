"""From a view to bytes: the templates' environment, the frame, and answers that know their age."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import jinja2
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from worchflow_core import __version__, to_millis
from worchflow_plugins.dashboard import view
from worchflow_plugins.dashboard.assets import Assets
from worchflow_plugins.dashboard.auth import MANAGE, SEND, User
from worchflow_plugins.dashboard.cronwords import cron_words
from worchflow_plugins.dashboard.jsontree import json_tree
from worchflow_plugins.dashboard.live import Snapshots, version_of
from worchflow_plugins.dashboard.security import route_path
from worchflow_plugins.dashboard.ui import NavItem, Ui

THEMES = ("light", "dark")
THEME_COOKIE = "worchflow_theme"
_HTML = {"cache-control": "private, no-cache", "vary": "Cookie, Authorization"}


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a page shows, before it is HTML.

    Attributes:
        template: the file.
        title: the document's title.
        data: what the template gets; its `repr` decides whether the page has changed.
        poll: how soon the browser asks again, in milliseconds; 0 never.
        status: the HTTP status.
    """

    template: str
    title: str
    data: Mapping[str, Any] = field(default_factory=dict)
    poll: int = 2000
    status: int = 200


class Frame:
    """Render views inside the frame all pages share.

    Args:
        assets: the files pages refer to.
        ui: what plugins added.
        snapshots: where rendered pages are kept for a second.
        read_only: leave out everything that changes something.
    """

    def __init__(self, assets: Assets, ui: Ui, snapshots: Snapshots, *, read_only: bool) -> None:
        self._assets = assets
        self._ui = ui
        self._snapshots = snapshots
        self._read_only = read_only
        self._environment = make_environment(ui.templates)
        built_in = [
            NavItem("Executions", "/", 10),
            NavItem("Functions", "/functions", 20),
            NavItem("Schedules", "/schedules", 30),
            NavItem("Workers", "/workers", 40),
            NavItem("Send", "/send", 50),
            NavItem("About", "/about", 60),
        ]
        self._nav = sorted([*built_in, *ui.nav], key=lambda item: item.order)

    async def live(self, request: Request, build: Callable[[], Awaitable[View]]) -> Response:
        """Answer with a view that is at most a second old, or 304 where the browser has it."""
        user = user_of(request)
        key = (
            request.scope.get("root_path", ""),
            request.url.path,
            request.url.query,
            _theme(request),
            tuple(sorted(user.rights)),
        )
        snapshot = await self._snapshots.get(("view", *key), build)
        mark = version_of((self._assets.version, snapshot.version, key))
        etag = f'W/"{mark}"'
        headers = {**_HTML, "etag": etag}
        if etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)

        async def render() -> bytes:
            return self._html(request, snapshot.value, etag).encode()

        html = await self._snapshots.get(("html", mark), render)
        return HTMLResponse(html.value, snapshot.value.status, headers=headers)

    async def still(self, request: Request, shown: View) -> Response:
        """Answer with a view that nobody asks for again."""
        headers = {**_HTML, "cache-control": "no-store"}
        return HTMLResponse(self._html(request, shown, ""), shown.status, headers=headers)

    async def render(
        self, request: Request, template: str, context: dict[str, Any], *, title: str
    ) -> Response:
        """Answer with a plugin's template."""
        shown = View(template=template, title=title, data=context)
        html = self._html(request, shown, "")
        etag = f'W/"{hashlib.blake2b(html.encode(), digest_size=8).hexdigest()}"'
        if etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers={**_HTML, "etag": etag})
        html = html.replace("data-version=''", f"data-version='{etag}'", 1)
        return HTMLResponse(html, headers={**_HTML, "etag": etag})

    def _html(self, request: Request, shown: View, etag: str) -> str:
        base = str(request.scope.get("root_path", "")).rstrip("/")
        path = route_path(request.scope)
        user = user_of(request)
        template = self._environment.get_template(shown.template)
        return template.render(
            {
                **shown.data,
                "title": shown.title,
                "poll": shown.poll,
                "etag": etag,
                "base": base,
                "static": lambda name: f"{base}/static/{self._assets.address(name)}",
                "nav": [(item, _is_active(item.path, path)) for item in self._nav],
                "theme": _theme(request),
                "now": datetime.now(UTC),
                "can_send": SEND in user.rights and not self._read_only,
                "can_manage": MANAGE in user.rights and not self._read_only,
                "read_only": self._read_only,
                "product_version": __version__,
            }
        )


def make_environment(plugin_templates: Mapping[str, str]) -> jinja2.Environment:
    """Return the environment; everything is escaped, and control characters become visible."""
    loaders: dict[str, jinja2.BaseLoader] = {
        name: jinja2.PackageLoader(package) for name, package in plugin_templates.items()
    }
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader("worchflow_plugins.dashboard"), jinja2.PrefixLoader(loaders)]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        finalize=_finalize,
    )
    environment.filters.update(
        ago=view.ago_text,
        attempts=view.attempts_text,
        cron=cron_words,
        first_line=view.first_line,
        frames=view.traceback_frames,
        json_tree=json_tree,
        millis=to_millis,
        part=view.url_part,
        short=view.short_id,
        span=view.span_text,
    )
    return environment


def _finalize(value: Any) -> Any:
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return view.clean(value)


def user_of(request: Request) -> User:
    """Return who asks, as the guard found out."""
    user = request.scope.get("state", {}).get("worchflow_user")
    return user if isinstance(user, User) else User("nobody", frozenset())


def _theme(request: Request) -> str:
    chosen = request.cookies.get(THEME_COOKIE, "")
    return chosen if chosen in THEMES else ""


def _is_active(item: str, path: str) -> bool:
    if item == "/":
        return path == "/" or path.startswith("/executions")
    return path == item or path.startswith(item + "/")
