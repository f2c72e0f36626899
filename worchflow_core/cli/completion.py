"""What the shell offers after Tab: statuses, functions, ids. Silent where something fails."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import typer

from worchflow_core.cli.flags import flags_of

if TYPE_CHECKING:
    from worchflow_core.client import Client

_PATIENCE = 1.0
_RECENT = 50


def statuses(incomplete: str) -> list[str]:
    """Offer statuses, also the next one of several."""
    from worchflow_core.models import Status

    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{item.value}" for item in Status if item.value.startswith(last)]


def functions(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the functions that workers have described."""

    async def ask(client: Client) -> list[str]:
        return [item.id for item in await client.functions()]

    return _asked(ctx, incomplete, ask)


def executions(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the ids of recent executions."""
    from worchflow_core.filters import Filter

    async def ask(client: Client) -> list[str]:
        chosen = Filter(id_prefix=incomplete or None, limit=_RECENT)
        return [item.id for item in (await client.find(chosen)).items]

    return _asked(ctx, incomplete, ask)


def _asked(
    ctx: typer.Context, incomplete: str, ask: Callable[[Client], Awaitable[list[str]]]
) -> list[str]:
    import asyncio

    from worchflow_core.cli.opening import load_app, require_file

    async def main() -> list[str]:
        app = load_app(flags_of(ctx), functions=())
        require_file(app)
        async with asyncio.timeout(_PATIENCE), app:
            return await ask(app.client)

    logging.disable(logging.CRITICAL)
    try:
        return [name for name in asyncio.run(main()) if name.startswith(incomplete)]
    except Exception:  # a shell that waits for completions is no place for errors
        return []
    finally:
        logging.disable(logging.NOTSET)
