"""The flags every command takes, before or after its name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer

_KEY = "worchflow.flags"


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """What the global flags say; None or empty where they were not given."""

    module: tuple[str, ...] = ()
    store_url: str | None = None
    queue_url: str | None = None
    prefix: str | None = None
    json: bool = False
    quiet: bool = False
    verbose: bool = False
    debug: bool = False
    no_color: bool = False

    def overrides(self) -> dict[str, Any]:
        """Return the settings that flags override, by field name."""
        given: dict[str, Any] = {
            "modules": ",".join(self.module) or None,
            "store_url": self.store_url,
            "queue_url": self.queue_url,
            "prefix": self.prefix,
        }
        return {name: value for name, value in given.items() if value is not None}


def flags_of(ctx: typer.Context) -> Flags:
    """Return the global flags of this command line, wherever they stood."""
    return Flags(**ctx.meta.get(_KEY, {}))


def global_parameters() -> list[Any]:
    """Return the global flags as parameters to append to a command."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(_declare)
    return list(typer.main.get_command(app).params)


def _keep(ctx: typer.Context, param: typer.CallbackParam, value: Any) -> Any:
    if value and param.name is not None:
        kept = ctx.meta.setdefault(_KEY, {})
        if param.name == "module":
            value = (*kept.get("module", ()), *value)
        kept[param.name] = value
        # Commands of plugins hand this to `Worchflow(overrides=...)`.
        ctx.find_root().obj = Flags(**kept).overrides()
    return value


def _flag(*names: str, help: str, metavar: str | None = None) -> Any:
    return typer.Option(
        *names,
        help=help,
        metavar=metavar,
        callback=_keep,
        expose_value=False,
        show_default=False,
    )


def _declare(
    module: Annotated[
        list[str] | None,
        _flag(
            "--module", "-m", metavar="NAME", help="Add functions of a module or module:attribute."
        ),
    ] = None,
    store_url: Annotated[
        str | None, _flag("--store-url", metavar="URL", help="Where executions are kept.")
    ] = None,
    queue_url: Annotated[
        str | None, _flag("--queue-url", metavar="URL", help="Where hints are queued.")
    ] = None,
    prefix: Annotated[
        str | None,
        _flag("--prefix", metavar="TEXT", help="First part of every key in a shared server."),
    ] = None,
    json: Annotated[bool, _flag("--json", help="Print JSON on standard output.")] = False,
    quiet: Annotated[bool, _flag("--quiet", "-q", help="Print errors and data only.")] = False,
    verbose: Annotated[bool, _flag("--verbose", "-v", help="Print more of what goes on.")] = False,
    debug: Annotated[bool, _flag("--debug", help="Show tracebacks and debug logs.")] = False,
    no_color: Annotated[bool, _flag("--no-color", help="Print without colours.")] = False,
) -> None:
    """Declare the global flags."""
