"""`functions` and `workers`: what can be run, and who runs it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worchflow_core.cli import exits, output
from worchflow_core.cli.flags import flags_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from worchflow_core.catalog import FunctionInfo
    from worchflow_core.cli.flags import Flags
    from worchflow_core.client import Client
    from worchflow_core.models import Worker
    from worchflow_core.pauses import Pause


def register(app: typer.Typer) -> None:
    """Add the commands of this family."""
    app.command("functions")(functions)
    app.command("workers")(workers)
    app.command("pause")(pause)
    app.command("resume")(resume)


def functions(
    ctx: typer.Context,
    schema: Annotated[
        str | None, typer.Option(metavar="NAME", help="Print the JSON schema of its event data.")
    ] = None,
    stats: Annotated[bool, typer.Option("--stats", help="Count what ended in a day.")] = False,
    installed: Annotated[
        bool, typer.Option("--installed", help="Also those of packages installed here.")
    ] = False,
    forget: Annotated[
        str | None, typer.Option(metavar="NAME", help="Forget one that no live worker has.")
    ] = None,
) -> None:
    """List the functions that workers have described to the store.

    Where none has, or with --installed or -m, those found on this machine are listed too.
    """
    from worchflow_core.cli.opening import existing, load_app, require_file, run_async

    flags = flags_of(ctx)
    is_local = installed or bool(flags.module)

    async def main() -> None:
        if forget is not None:
            async with existing(flags) as app:
                await app.client.forget_function(forget)
            output.say(f"{forget} is forgotten: events run it no longer")
            return
        try:
            require_file(load_app(flags, functions=()))
        except exits.CommandError:  # nothing was sent yet; what is installed can still be told
            await _functions(_installed(flags), None, schema, flags)
            return
        async with existing(flags) as app:
            known = {item.id: item for item in await app.client.functions()}
            if is_local or not known:
                known = {item.id: item for item in _installed(flags)} | known
            listed = [known[name] for name in sorted(known)]
            await _functions(listed, app.client, schema, flags, with_counts=stats)

    run_async(main())


def pause(
    ctx: typer.Context,
    function: Annotated[str, typer.Argument(metavar="FUNCTION", help="The function's id.")],
    reason: Annotated[str, typer.Option(help="Why, for others who wonder.")] = "",
) -> None:
    """Begin no execution of a function until it is resumed; what runs goes on."""
    from worchflow_core.cli.opening import existing, run_async
    from worchflow_core.words import printable

    flags = flags_of(ctx)

    async def main() -> None:
        async with existing(flags) as app:
            held = await app.client.pause_function(function, reason=reason)
        if flags.json:
            output.document({"function": function, "paused": _pause_document(held)})
            return
        if held.reason != reason:
            why = f" ({printable(held.reason)})" if held.reason else ""
            output.warn(f"{function} was paused before{why}, and that stands; resume it first")
        if not flags.quiet:
            output.say(f"{function} is paused; worchflow resume {function} lets it go on")

    run_async(main())


def resume(
    ctx: typer.Context,
    function: Annotated[str, typer.Argument(metavar="FUNCTION", help="The function's id.")],
) -> None:
    """Let the executions of a paused function begin again."""
    from worchflow_core.cli.opening import existing, run_async

    flags = flags_of(ctx)

    async def main() -> None:
        async with existing(flags) as app:
            paused = await app.client.paused_functions()
            if function not in paused:
                names = ", ".join(sorted(paused)) or "none"
                raise exits.CommandError(
                    f"{function} is not paused; paused are: {names}", code=exits.NOT_FOUND
                )
            await app.client.resume_function(function)
        if flags.json:
            output.document({"function": function, "paused": None})
        elif not flags.quiet:
            output.say(f"{function} is resumed")

    run_async(main())


def _installed(flags: Flags) -> list[FunctionInfo]:
    from worchflow_core.catalog import describe
    from worchflow_core.cli.opening import load_app

    return [describe(item) for item in load_app(flags).registry]


async def _functions(
    known: Sequence[FunctionInfo],
    client: Client | None,
    schema: str | None,
    flags: Flags,
    *,
    with_counts: bool = False,
) -> None:
    if schema is not None:
        info = next((item for item in known if item.id == schema), None)
        if info is None:
            names = ", ".join(item.id for item in known) or "none"
            raise exits.CommandError(
                f"no function {schema!r}; there are: {names}", code=exits.NOT_FOUND
            )
        output.document(info.schema if info.schema is not None else {})
        return
    live: dict[str, int] = {}
    counts: dict[str, dict[str, int]] = {}
    pauses: Mapping[str, Pause] = {}
    if client is not None:
        pauses = await client.paused_functions()
        from worchflow_core.liveness import live_workers_with

        workers = await client.workers()
        live = {item.id: len(live_workers_with(item.id, workers)) for item in known}
    if client is not None and with_counts:
        since = datetime.now(UTC) - timedelta(days=1)
        for tally in await client.tally(since=since, bucket=timedelta(days=1)):
            row = counts.setdefault(tally.function, {})
            row[tally.status.value] = row.get(tally.status.value, 0) + tally.count
    if flags.json:
        items = [_function_document(item, live, counts, with_counts, pauses) for item in known]
        output.document({"items": items, "total": len(items)})
    elif known:
        _function_table(known, live, counts, pauses, with_counts=with_counts)
    elif not flags.quiet:
        output.say("no functions; install a package that has some, or name a module with -m")


def _function_document(
    item: FunctionInfo,
    live: dict[str, int],
    counts: dict[str, dict[str, int]],
    counted: bool,
    pauses: Mapping[str, Pause],
) -> dict[str, Any]:
    from worchflow_core.triggers import to_wire

    document: dict[str, Any] = {
        "id": item.id,
        "description": item.description,
        "schema": item.schema,
        "cron": item.cron,
        "zone": item.zone,
        "every": item.every,
        "triggers": [to_wire(trigger) for trigger in item.triggers],
        "flow": list(item.flow),
        "paused": _pause_document(pauses.get(item.id)),
        "retries": item.retries,
        "timeout": item.timeout,
        "distribution": item.distribution,
        "version": item.version,
        "source": item.source,
        "tags": list(item.tags),
        "workers": live.get(item.id, 0),
    }
    return {**document, "ended": counts.get(item.id, {})} if counted else document


def _pause_document(pause: Pause | None) -> dict[str, Any] | None:
    from worchflow_core.clock import to_millis

    return None if pause is None else {"at": to_millis(pause.paused_at), "reason": pause.reason}


def _function_table(
    known: Sequence[FunctionInfo],
    live: dict[str, int],
    counts: dict[str, dict[str, int]],
    pauses: Mapping[str, Pause],
    *,
    with_counts: bool,
) -> None:
    from worchflow_core.cli.tables import Column, table
    from worchflow_core.words import printable

    columns = [
        Column(title="FUNCTION"),  # never cut: other commands are to be given it
        Column(title="PACKAGE", shrinks=True, drops=2),
        Column(title="SCHEDULE", drops=1),
        Column(title="EVENTS", shrinks=True, drops=1),
        Column(title="RETRIES", is_number=True, drops=3),
        Column(title="FLOW", shrinks=True, drops=1),
        Column(title="WORKERS", is_number=True),
        Column(title="STATE"),
    ]
    names = ("completed", "failed", "cancelled") if with_counts else ()
    columns += [Column(title=name.upper(), is_number=True) for name in names]
    columns.append(Column(title="DESCRIPTION", shrinks=True, drops=4))
    rows = []
    for item in known:
        package = f"{item.distribution} {item.version}" if item.distribution else item.source
        ended = counts.get(item.id, {})
        rows.append(
            [
                printable(item.id),
                printable(package, 60),
                printable(item.cron or (f"every {item.every}" if item.every else "-")),
                printable(", ".join(map(str, item.triggers)) or "-", 60),
                str(item.retries),
                printable("; ".join(item.flow) or "-", 60),
                str(live.get(item.id, 0)),
                "paused" if item.id in pauses else "open",
                *(f"{ended.get(name, 0):,}" for name in names),
                printable(item.description, 80),
            ]
        )
    for line in table(columns, rows):
        output.data(line)


def workers(
    ctx: typer.Context,
    drain: Annotated[
        str | None, typer.Option(metavar="ID", help="Ask a worker to take no more and leave.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on, once a second.")] = False,
) -> None:
    """List workers, or ask one to leave."""
    import asyncio
    import sys

    from worchflow_core.cli.opening import existing, run_async
    from worchflow_core.words import printable

    flags = flags_of(ctx)

    async def main() -> None:
        if drain is not None:
            async with existing(flags) as app:
                chosen = _worker(await app.client.workers(), drain)
                await app.client.drain([chosen.id])
                if flags.json:
                    output.document({"id": chosen.id, "name": chosen.name})
                name = printable(f"{chosen.name} ({chosen.id})")
                if not flags.quiet:
                    output.say(f"asked {name} to take no more and leave")
            return
        async with existing(flags) as app:
            is_live = output.is_terminal(sys.stdout) and not flags.json
            while True:
                if watch and is_live:
                    output.clear()
                _print_workers(await app.client.workers(), flags, lines=watch and not is_live)
                if not watch:
                    return
                await asyncio.sleep(1.0)

    run_async(main())


def _worker(known: Sequence[Worker], text: str) -> Worker:
    exact = [item for item in known if text in (item.id, item.name)]
    found = exact or [item for item in known if len(text) >= 6 and item.id.startswith(text)]
    if not found:
        names = ", ".join(f"{item.id} ({item.name})" for item in known) or "none"
        raise exits.CommandError(f"no worker {text!r}; there are: {names}", code=exits.NOT_FOUND)
    if len(found) > 1:
        raise exits.CommandError(
            f"several workers fit {text!r}", details=tuple(item.id for item in found)
        )
    return found[0]


def _print_workers(known: Sequence[Worker], flags: Flags, *, lines: bool) -> None:
    from worchflow_core.cli import shapes
    from worchflow_core.cli.tables import Column, table
    from worchflow_core.liveness import is_live
    from worchflow_core.words import human_age, printable

    now = datetime.now(UTC)
    if flags.json or lines:
        items = [shapes.worker(item, is_live=is_live(item, now)) for item in known]
        output.document({"items": items, "total": len(items)}, lines=lines)
        return
    if not known:
        if not flags.quiet:
            output.say("no workers; start one: worchflow worker")
        return
    columns = [
        Column(title="STATE"),
        Column(title="NAME", shrinks=True),
        Column(title="ID"),
        Column(title="RUNNING", is_number=True),
        Column(title="BEAT", is_number=True),
        Column(title="UP", is_number=True),
        Column(title="VERSION"),
        Column(title="FUNCTIONS", shrinks=True),
    ]
    rows = []
    for item in known:
        state = item.state.value if is_live(item, now) else "dead"
        rows.append(
            [
                output.status(state),
                printable(item.name),
                printable(item.id)[:12],
                f"{len(item.running)}/{item.concurrency}",
                human_age(item.beat_at, now) if item.beat_at else "-",
                human_age(item.started_at, now).removesuffix(" ago"),
                printable(item.version),
                printable(", ".join(item.functions)),
            ]
        )
    for line in table(columns, rows):
        output.data(line)
