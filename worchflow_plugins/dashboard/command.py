"""`worchflow dashboard`: serve the dashboard, on this machine only unless it is guarded."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worchflow_core import ConfigurationError, FunctionError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from worchflow_core import Worchflow

HEADER_BYTES = 16 * 1024
CONNECTIONS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """How to serve.

    Attributes:
        host, port: where to listen.
        prefix: the path it lives under.
        auth: `name:password`, a token, `token` to make one, or None.
        read_only: refuse all changes.
        allowed_hosts: further names it is reached by.
        insecure: listen to others without credentials.
        opens: show it in the browser.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    prefix: str = ""
    auth: str | None = None
    read_only: bool = False
    allowed_hosts: Sequence[str] = ()
    insecure: bool = False
    opens: bool = False


def add_command(cli: typer.Typer) -> None:
    """Add `dashboard` to the command line."""

    @cli.command()
    def dashboard(
        context: typer.Context,
        host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
        port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 8765,
        prefix: Annotated[str, typer.Option(help="Path to live under, such as /worchflow.")] = "",
        auth: Annotated[
            str | None,
            typer.Option(
                help="NAME:PASSWORD, a token, or `token` to have one made.",
                envvar="WORCHFLOW_DASHBOARD_AUTH",
                show_envvar=True,
            ),
        ] = None,
        read_only: Annotated[
            bool, typer.Option("--read-only", help="Refuse everything that changes something.")
        ] = False,
        allow_host: Annotated[
            list[str] | None, typer.Option(help="A name it is reached by; may be repeated.")
        ] = None,
        insecure: Annotated[
            bool, typer.Option("--insecure", help="Listen to other machines without credentials.")
        ] = False,
        open_browser: Annotated[
            bool, typer.Option("--open", help="Show it in the browser.")
        ] = False,
        demo: Annotated[
            bool, typer.Option("--demo", help="Show made-up executions, kept in memory.")
        ] = False,
    ) -> None:
        """Serve the dashboard and its HTTP API."""
        serving = Serving(
            host=host,
            port=port,
            prefix=prefix.rstrip("/"),
            auth=auth,
            read_only=read_only,
            allowed_hosts=tuple(allow_host or ()),
            insecure=insecure,
            opens=open_browser,
        )
        asyncio.run(serve_demo(serving) if demo else serve(_overrides(context), serving))


def _overrides(context: typer.Context) -> dict[str, Any]:
    """Return the settings that the flags of all commands gave; `--prefix` is a path here."""
    given = context.meta.get("worchflow.flags", {})
    modules = ",".join(given.get("module", ())) or None
    return {
        "modules": modules,
        "store_url": given.get("store_url"),
        "queue_url": given.get("queue_url"),
    }


async def serve(overrides: dict[str, Any], serving: Serving) -> None:
    """Open the application, serve until stopped."""
    async with _application(overrides) as app:
        for name, place in app.client.describe().items():
            _say(f"  {name:10} {place}")
        await run_server(guarded(app, serving), serving)


def _application(overrides: dict[str, Any]) -> Worchflow:
    """Return the application; functions that cannot be loaded here are no reason to see nothing.

    Workers describe theirs in the store; those of this process only help where none has run yet.
    """
    from worchflow_core import Worchflow  # when it runs: help must stay quick

    try:
        return Worchflow(overrides=overrides)
    except FunctionError as error:
        _say(f"warning: functions are known from workers only: {error}")
        return Worchflow(overrides=overrides, functions=())


async def serve_demo(serving: Serving) -> None:
    """Serve made-up executions from memory until stopped."""
    from worchflow_core import Worchflow
    from worchflow_plugins.dashboard.demo import keep_alive, seed
    from worchflow_plugins.dashboard.demo.functions import FUNCTIONS

    overrides = {"store_url": "memory:"}
    async with Worchflow(overrides=overrides, functions=FUNCTIONS) as app:
        await seed(app.journal.store)
        beating = asyncio.create_task(keep_alive(app.journal.store))
        try:
            await run_server(guarded(app, serving), serving)
        finally:
            beating.cancel()


def guarded(app: Worchflow, serving: Serving) -> ASGIApp:
    """Return the dashboard with the guard these options ask for.

    Raises:
        ConfigurationError: it would listen to other machines without credentials, or the extra
            `dashboard` is not installed.
    """
    try:
        from worchflow_plugins.dashboard.app import create_dashboard
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"the dashboard needs {error.name}: pip install 'worchflow[dashboard]'"
        ) from error
    from worchflow_plugins.dashboard.auth import make_auth
    from worchflow_plugins.dashboard.security import is_loopback

    text = serving.auth
    if not is_loopback(serving.host) and not text and not serving.insecure:
        raise ConfigurationError(
            f"{serving.host} can be reached by other machines, and nobody is asked for a token; "
            "add --auth token, --auth NAME:PASSWORD, or --insecure if a proxy in front asks"
        )
    if text == "token":
        text = secrets.token_urlsafe(32)
        _say(f"  token      {text}   (any name, this as password; or Authorization: Bearer)")
    hosts = [*serving.allowed_hosts]
    if serving.host not in ("0.0.0.0", "::", ""):
        hosts.append(serving.host.strip("[]"))
    return create_dashboard(
        app,
        auth=make_auth(text) if text else None,
        allowed_hosts=hosts,
        read_only=serving.read_only,
        prefix=serving.prefix,
    )


async def run_server(app: ASGIApp, serving: Serving) -> None:
    """Serve an ASGI application with the limits of a server that strangers may reach."""
    server = make_server(app, serving)
    host = serving.host if ":" not in serving.host else f"[{serving.host}]"
    url = f"http://{host}:{serving.port}{serving.prefix}/"
    _say(f"  dashboard  {url}{'   read-only' if serving.read_only else ''}")
    if serving.opens:
        typer.launch(url)
    await server.serve()


def make_server(app: ASGIApp, serving: Serving) -> Any:
    """Return the uvicorn server, not yet serving."""
    import uvicorn

    from worchflow_plugins.dashboard.connections import PatientProtocol

    config = uvicorn.Config(
        app,
        host=serving.host,
        port=serving.port,
        http=PatientProtocol,
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=CONNECTIONS,
        h11_max_incomplete_event_size=HEADER_BYTES,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=3,
    )
    return uvicorn.Server(config)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - what a command says of itself
