"""The dashboard and its HTTP API: `worchflow dashboard`, or an ASGI app to mount in your own.

Importing this plugin is quick; FastAPI, Jinja2 and uvicorn are imported when a dashboard is made.
They come with `pip install worchflow[dashboard]`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from worchflow_core import hookimpl

if TYPE_CHECKING:
    import typer

    from worchflow_plugins.dashboard.app import create_dashboard as create_dashboard
    from worchflow_plugins.dashboard.auth import BasicAuth as BasicAuth
    from worchflow_plugins.dashboard.auth import TokenAuth as TokenAuth
    from worchflow_plugins.dashboard.auth import User as User
    from worchflow_plugins.dashboard.redaction import redact_keys as redact_keys

_HOMES = {
    "BasicAuth": "auth",
    "TokenAuth": "auth",
    "User": "auth",
    "create_dashboard": "app",
    "redact_keys": "redaction",
}

__all__ = sorted([*_HOMES, "worchflow_add_commands"])


@hookimpl
def worchflow_add_commands(cli: typer.Typer) -> None:
    """Add `worchflow dashboard`."""
    from worchflow_plugins.dashboard.command import add_command

    add_command(cli)


def __getattr__(name: str) -> Any:
    import importlib

    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"worchflow_plugins.dashboard has no {name!r}")
    try:
        module = importlib.import_module(f"worchflow_plugins.dashboard.{home}")
    except ModuleNotFoundError as error:
        if error.name in ("fastapi", "starlette", "jinja2", "markupsafe", "uvicorn"):
            raise ModuleNotFoundError(
                f"the dashboard needs {error.name}: pip install 'worchflow[dashboard]'",
                name=error.name,
            ) from error
        raise
    return getattr(module, name)
