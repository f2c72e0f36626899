"""Opening the application for a command: settings, backends, and the files that must exist."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote

from worchflow_core.cli import exits, output
from worchflow_core.cli.flags import Flags
from worchflow_core.words import printable

if TYPE_CHECKING:
    from worchflow_core.app import Worchflow
    from worchflow_core.client import Client
    from worchflow_core.models import Execution

T = TypeVar("T")

MIN_PREFIX = 6
"""How many characters of an id must be given at least."""


def run_async(main: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine; Ctrl-C cancels it."""
    return asyncio.run(main)


def fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's factory where it is installed, else None for the standard loop."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def load_app(
    flags: Flags,
    *,
    functions: Sequence[Any] | None = None,
    plugins: Sequence[object] = (),
    extra: Mapping[str, Any] | None = None,
    log: str = "off",
) -> Worchflow:
    """Return the application that flags, environment and `.env` describe, not yet open.

    Args:
        flags: the global flags.
        functions: as for `Worchflow`; `()` imports no user code.
        plugins: as for `Worchflow`.
        extra: further settings that flags of the command override.
        log: how lifecycle lines are printed where WORCHFLOW_LOG does not say.
    """
    from worchflow_core.app import Worchflow
    from worchflow_core.settings import setting_source

    overrides = {**flags.overrides(), **(extra or {})}
    if flags.quiet:
        overrides["log"] = "off"
    elif "log" not in overrides and setting_source("log") == "default":
        overrides["log"] = log
    return Worchflow(functions=functions, plugins=plugins, overrides=overrides)


@asynccontextmanager
async def existing(flags: Flags) -> AsyncIterator[Worchflow]:
    """Open the application for what is there: no user code is imported, no file is created."""
    app = load_app(flags, functions=())
    require_file(app)
    async with app:
        _say_where(app, flags)
        yield app


def store_file(url: str) -> Path | None:
    """Return the absolute path of the file a store's URL names; None for a server or memory."""
    if not url.startswith("sqlite:"):
        return None
    path = url.removeprefix("sqlite:").partition("?")[0]
    path = path.removeprefix("///") if path.startswith("///") else path.removeprefix("//")
    return Path(unquote(path)).expanduser().absolute() if path else None


def require_file(app: Worchflow) -> None:
    """See to it that no file is created, now or when the application is opened.

    Raises:
        CommandError: the store would be a file that is not there yet.
    """
    url = app.choice.store_url
    path = store_file(url)
    if path is None:
        return
    if not path.exists():
        raise exits.CommandError(
            f"nothing was ever sent: there is no database {path}",
            code=exits.NOT_FOUND,
            hint="send something first, or name the store with --store-url or WORCHFLOW_STORE_URL",
        )
    if "mode=" not in url:
        joint = "&" if "?" in url else "?"
        app.choice = replace(app.choice, store_url=f"{url}{joint}mode=rw")


async def find_execution(client: Client, text: str) -> Execution:
    """Return the execution with this id, or with an id that starts with it.

    Raises:
        CommandError: several ids start with it (the candidates are listed), or it is too short.
        NotFound: there is none.
    """
    from worchflow_core.errors import NotFound
    from worchflow_core.filters import Filter
    from worchflow_core.words import human_age

    try:
        return await client.get(text)
    except NotFound:
        if len(text) < MIN_PREFIX:
            raise exits.CommandError(
                f"no execution {printable(text, 80)!r}",
                code=exits.NOT_FOUND,
                hint=f"an id may be cut, to {MIN_PREFIX} characters or more",
            ) from None
        page = await client.find(Filter(id_prefix=text, limit=11))
        if not page.items:
            raise
    if len(page.items) == 1:
        return page.items[0]
    from datetime import UTC, datetime

    now = datetime.now(UTC)
    details = tuple(
        f"{printable(item.id)}  {item.status.value}  {printable(item.function)}  "
        f"{human_age(item.created_at, now)}"
        for item in page.items[:10]
    )
    more = ("... and more",) if len(page.items) > 10 else ()
    raise exits.CommandError(
        f"several ids start with {printable(text, 80)!r}; give more of it", details=details + more
    )


def source_words(source: str, flag: str, variable: str) -> str:
    """Return which setting said so, in words; a source that is itself a flag is named as it is."""
    if source.startswith("--"):
        return f"from {source}"
    return {
        "flag": f"from {flag}",
        "environment": f"from {variable}",
        ".env": "from .env",
    }.get(source, f"default: one machine, no server; {variable} changes it")


def _say_where(app: Worchflow, flags: Flags) -> None:
    if flags.quiet or flags.json:
        return
    choice = app.choice
    source = (
        "default"
        if choice.store_source == "default"
        else source_words(choice.store_source, "--store-url", "WORCHFLOW_STORE_URL")
    )
    text = f"store   {app.journal.store.describe()}   {source}"
    output.say(output.paint(printable(text), "2", sys.stderr))
