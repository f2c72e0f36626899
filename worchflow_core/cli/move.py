"""`migrate`: moving everything from one store to another."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import typer

from worchflow_core.cli import exits, output
from worchflow_core.cli.flags import flags_of

if TYPE_CHECKING:
    from worchflow_core.cli.flags import Flags
    from worchflow_core.migration import Moved, Plan
    from worchflow_core.proof import Proof

_TOLD_EVERY = 1000


def register(app: typer.Typer) -> None:
    """Add the commands of this family."""
    app.command("migrate")(migrate)


def migrate(
    ctx: typer.Context,
    source: Annotated[
        str, typer.Option("--from", metavar="URL", help="The store to move from; it stays.")
    ],
    target: Annotated[
        str, typer.Option("--to", metavar="URL", help="The store to move to; it must be empty.")
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be moved.")
    ] = False,
) -> None:
    """Move all executions, their steps and records to another store, while nothing runs.

    It may be interrupted and run again. Both sides are proved equal at the end.
    """
    from worchflow_core.cli.opening import run_async

    flags = flags_of(ctx)
    answer = run_async(_migrate(flags, source, target, dry_run=dry_run))
    if flags.json:
        output.document(answer)


async def _migrate(flags: Flags, source: str, target: str, *, dry_run: bool) -> dict[str, Any]:
    from worchflow_core.cli.opening import store_file
    from worchflow_core.migration import Migration
    from worchflow_core.plugins import Plugins
    from worchflow_core.settings import load_settings

    settings = load_settings(flags.overrides())
    plugins = Plugins(modules=settings.plugins, disabled=settings.disabled_plugins)
    plugins.configure(settings)
    path = store_file(source)
    if path is not None and not path.exists():
        raise exits.CommandError(
            f"there is nothing to move: no database {path}",
            code=exits.NOT_FOUND,
            hint="name the store after --from as WORCHFLOW_STORE_URL names it",
        )
    place = store_file(target)
    if dry_run and place is not None and not place.exists():
        target = f"memory://{uuid4().hex}"  # what would be created is as empty, and leaves no file
    async with AsyncExitStack() as stack:
        stack.callback(plugins.close)
        left = await stack.enter_async_context(plugins.open_store(_kept(source), settings))
        right = await stack.enter_async_context(plugins.open_store(target, settings))
        if not flags.quiet:
            output.say(f"from  {left.describe()}")
            output.say(f"to    {right.describe() if place is None else place}")
        migration = Migration(left, right, tell=_teller(flags))
        if dry_run:
            return _planned(await migration.plan(), flags)
        return _done(await migration.run(), flags)


def _kept(url: str) -> str:
    """Return a URL with which no file is created."""
    if not url.startswith("sqlite:") or "mode=" in url:
        return url
    return f"{url}{'&' if '?' in url else '?'}mode=rw"


def _teller(flags: Flags) -> Any:
    told = 0

    def tell(count: int) -> None:
        nonlocal told
        if count - told >= _TOLD_EVERY and not flags.quiet:
            told = count
            output.say(f"moved {count:,} executions")

    return tell


def _planned(plan: Plan, flags: Flags) -> dict[str, Any]:
    if not flags.json:
        output.data(
            f"would move {plan.executions:,} executions and {plan.records:,} records; "
            f"{plan.present:,} executions are there already"
        )
    return {"executions": plan.executions, "records": plan.records, "present": plan.present}


def _done(done: Moved, flags: Flags) -> dict[str, Any]:
    if not flags.json:
        output.data(f"moved {done.executions:,} executions and {done.records:,} records")
        for name, proof in (("source", done.source), ("target", done.target)):
            output.data(
                f"{name}  {proof.executions:,} executions  {proof.steps:,} steps  "
                f"checksum {proof.checksum}"
            )
        output.data("both hold the same")
    return {
        "executions": done.executions,
        "records": done.records,
        "source": _document(done.source),
        "target": _document(done.target),
    }


def _document(proof: Proof) -> dict[str, Any]:
    return {
        "executions": proof.executions,
        "steps": proof.steps,
        "checksum": proof.checksum,
    }
