"""Commands that plugins add through `worchflow_add_commands`."""

from __future__ import annotations

import os
from collections.abc import Container
from pathlib import Path
from typing import Any

import typer

from worchflow_core.cli import output
from worchflow_core.errors import PluginError


def plugin_commands(taken: Container[str]) -> dict[str, Any]:
    """Return the commands of all plugins, by name; names in `taken` are the core's.

    A plugin that cannot be loaded is a warning here: help must work where something is broken.
    """
    from worchflow_core.plugins import Plugins

    try:
        plugins = Plugins(
            modules=_names("WORCHFLOW_PLUGINS"), disabled=_names("WORCHFLOW_DISABLED_PLUGINS")
        )
    except PluginError as error:
        output.warn(f"commands of plugins are missing: {error}")
        return {}
    app = typer.Typer(rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False)
    app.callback()(_nothing)  # makes it a group, however few commands come
    plugins.add_to("worchflow_add_commands", app)  # what goes wrong is logged there
    found: dict[str, Any] = {}
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        if name in taken:
            output.warn(f"a plugin adds the command {name!r}, which is built in; it is left out")
        else:
            found[name] = command
    return found


def _names(variable: str) -> tuple[str, ...]:
    # Settings would cost the whole start-up budget of --help.
    text = os.environ.get(variable)
    if text is None and Path(".env").is_file():
        from dotenv import dotenv_values

        text = dotenv_values(".env").get(variable)
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def _nothing() -> None:
    """Stand for the commands of plugins."""
