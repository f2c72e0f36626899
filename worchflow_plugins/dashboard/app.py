"""The dashboard as an ASGI application: everything is put together here."""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import FastAPI, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from worchflow_core import Client, ConfigurationError, Plugins, Worchflow, __version__
from worchflow_plugins.dashboard.actions import Actions
from worchflow_plugins.dashboard.api import Api
from worchflow_plugins.dashboard.assets import Assets
from worchflow_plugins.dashboard.auth import Auth
from worchflow_plugins.dashboard.faults import add_handlers
from worchflow_plugins.dashboard.pages import Pages
from worchflow_plugins.dashboard.reader import Reader
from worchflow_plugins.dashboard.redaction import Redact
from worchflow_plugins.dashboard.rendering import Frame, View
from worchflow_plugins.dashboard.security import Guard
from worchflow_plugins.dashboard.shapes import Shapes
from worchflow_plugins.dashboard.source import Source
from worchflow_plugins.dashboard.ui import Ui


def create_dashboard(
    source: Worchflow | Client,
    *,
    plugins: Plugins | None = None,
    auth: Auth | None = None,
    allowed_hosts: Iterable[str] = (),
    read_only: bool = False,
    redact: Redact | None = None,
    prefix: str = "",
) -> ASGIApp:
    """Return the dashboard and its API as an ASGI application, to run or to mount.

    `app.mount("/worchflow", create_dashboard(worchflow))` in FastAPI and Starlette. Where nothing
    strips the path, as in Django's `asgi.py` or behind a proxy, give it as `prefix`.

    Args:
        source: an application, which may be opened later by your lifespan, or a client.
        plugins: whose `worchflow_add_dashboard` hooks are called; the application's by default.
        auth: takes the connection, returns a `User` or None; may be async. `TokenAuth` and
            `BasicAuth` are ready made. None lets everybody in who can connect.
        allowed_hosts: names under which it is reached, beside localhost; `*.example.com` allows
            subdomains, `*` every name, which gives up the protection against DNS rebinding.
        read_only: hide and refuse everything that changes something.
        redact: takes path and value of event data, results and errors; returns what is shown.
        prefix: the path it lives under.

    Raises:
        ConfigurationError: the prefix is none.
    """
    if prefix and (not prefix.startswith("/") or prefix.endswith("/") or "//" in prefix):
        raise ConfigurationError(f"prefix is {prefix!r}; write it as '/worchflow'")
    origin = Source(source, plugins)
    ui = Ui()
    errors = origin.plugins.add_to("worchflow_add_dashboard", ui) if origin.plugins else {}
    reader = Reader(origin)
    shapes = Shapes(redact)
    actions = Actions(origin, reader)
    assets = Assets(ui.static)
    frame = Frame(assets, ui, reader.snapshots, read_only=read_only)
    ui.bind(frame)
    pages = Pages(origin, reader, shapes, ui, frame, errors)

    app = FastAPI(
        title="Worchflow",
        version=__version__,
        summary="Executions, functions and workers of a Worchflow store.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
        redirect_slashes=False,
    )
    app.include_router(Api(reader, actions, shapes).router())
    app.add_route("/static/{path:path}", assets.serve, include_in_schema=False)
    app.include_router(pages.router())
    for router, place in ui.routers:
        app.include_router(router, prefix=place, include_in_schema=False)

    async def error_page(request: Request, status: int, text: str) -> Response:
        data = {"status": status, "text": text}
        shown = View(template="error.html", title=f"{status}", data=data, status=status, poll=0)
        return await frame.still(request, shown)

    add_handlers(app, error_page)
    guarded = Guard(app, auth=auth, allowed_hosts=allowed_hosts, read_only=read_only)
    return _Prefixed(guarded, prefix) if prefix else guarded


class _Prefixed:
    """Tell the application where it lives, whether or not something in front stripped the path."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app = app
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            root, path = str(scope.get("root_path", "")), str(scope["path"])
            whole = root + self._prefix
            if not root.endswith(self._prefix):
                below = path[len(root) :] if root and path.startswith(root) else path
                if below != self._prefix and not below.startswith(self._prefix + "/"):
                    below = self._prefix + below
                scope = {**scope, "root_path": whole, "path": root + below}
        await self._app(scope, receive, send)
