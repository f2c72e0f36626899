"""`list`, `stats`, `functions`, `workers`: reading what is in the store."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worchflow_core.cli import exits, output, selection
from worchflow_core.cli.flags import flags_of

if TYPE_CHECKING:
    from worchflow_core.cli.flags import Flags
    from worchflow_core.client import Client
    from worchflow_core.filters import Filter
    from worchflow_core.models import Execution
    from worchflow_core.query import Page

_SECOND = 1.0


def register(app: typer.Typer) -> None:
    """Add the commands of this family."""
    app.command("list")(list_executions)
    app.command("stats")(stats)


def list_executions(
    ctx: typer.Context,
    status: selection.Statuses = None,
    function: selection.FunctionId = None,
    search: selection.Search = None,
    tag: selection.Tag = None,
    since: selection.Since = None,
    until: selection.Until = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many.")] = 20,
    skip: Annotated[int, typer.Option(min=0, help="How many to leave out first.")] = 0,
    sort: Annotated[str, typer.Option(help="created, updated or finished.")] = "created",
    reverse: Annotated[bool, typer.Option("--reverse", help="Oldest first.")] = False,
    ids: Annotated[bool, typer.Option("--ids", help="Print ids only, one per line.")] = False,
    wide: Annotated[bool, typer.Option("--wide", help="Print whole ids, errors and tags.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Go on; JSON lines when piped or with --json.")
    ] = False,
) -> None:
    """List executions, newest first."""
    from worchflow_core.cli.opening import existing, run_async
    from worchflow_core.words import printable

    flags = flags_of(ctx)
    if sort not in ("created", "updated", "finished"):
        raise exits.CommandError(f"--sort is {sort!r}; give created, updated or finished")
    chosen = selection.make_filter(
        status=status,
        function=function,
        search=search,
        tag=tag,
        since=since,
        until=until,
        limit=limit,
        skip=skip,
        order=f"{sort}_at",
        descending=not reverse,
        counted=True,
    )

    async def main() -> None:
        async with existing(flags) as app:
            if watch:
                await _watch(app.client, chosen, flags, wide=wide)
                return
            page = await app.client.find(chosen)
            if ids:
                for item in page.items:
                    output.data(printable(item.id))
                return
            _print(page, chosen, flags, wide=wide)

    run_async(main())


def stats(
    ctx: typer.Context,
    since: Annotated[
        str | None, typer.Option(help="Also count what ended since: 1h, or 2030-01-31T12:00.")
    ] = None,
    by: Annotated[str | None, typer.Option(help="`function`: count each by itself.")] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on, once a second.")] = False,
) -> None:
    """Count executions by status."""
    import asyncio

    from worchflow_core.cli.opening import existing, run_async

    flags = flags_of(ctx)
    if by not in (None, "function"):
        raise exits.CommandError(f"--by is {by!r}; there is: function")
    begin = selection.moment(since, "--since")
    if by and begin is None:
        begin = datetime.now(UTC) - timedelta(days=1)

    async def main() -> None:
        async with existing(flags) as app:
            while True:
                await _print_stats(app.client, begin, flags, is_watching=watch)
                if not watch:
                    return
                await asyncio.sleep(_SECOND)

    run_async(main())


async def _print_stats(
    client: Client, begin: datetime | None, flags: Flags, *, is_watching: bool
) -> None:
    from worchflow_core.cli.tables import Column, table
    from worchflow_core.words import printable

    counts = await client.stats()
    total = sum(counts.values())
    ended: dict[str, dict[str, int]] = {}
    if begin is not None:
        for item in await client.tally(since=begin, bucket=timedelta(days=1)):
            row = ended.setdefault(item.function, {})
            row[item.status.value] = row.get(item.status.value, 0) + item.count
    if flags.json or (is_watching and not output.is_terminal(sys.stdout)):
        facts: dict[str, Any] = {name.value: count for name, count in counts.items()}
        facts["total"] = total
        if begin is not None:
            facts["ended"] = ended
        output.document(facts, lines=is_watching)
        return
    if is_watching:
        output.clear()
    rows = [[output.status(name.value), f"{count:,}"] for name, count in counts.items()]
    columns = [Column(title="STATUS"), Column(title="COUNT", is_number=True)]
    for line in table(columns, [*rows, ["total", f"{total:,}"]]):
        output.data(line)
    if ended:
        output.data("")
        names = ("completed", "failed", "cancelled")
        heads = [Column(title="FUNCTION", shrinks=True)]
        heads += [Column(title=name.upper(), is_number=True) for name in names]
        cells = [
            [printable(function), *(f"{row.get(name, 0):,}" for name in names)]
            for function, row in sorted(ended.items())
        ]
        for line in table(heads, cells):
            output.data(line)


async def _watch(client: Client, chosen: Filter, flags: Flags, *, wide: bool) -> None:
    """Show the list again and again on a terminal; piped, print what changed as JSON lines."""
    import asyncio

    from worchflow_core.cli import shapes

    is_live = output.is_terminal(sys.stdout) and not flags.json
    seen: dict[str, datetime] = {}
    while True:
        page = await client.find(chosen)
        if is_live:
            output.clear()
            _print(page, chosen, flags, wide=wide)
        else:
            for item in reversed(page.items):
                if seen.get(item.id) != item.updated_at:
                    output.document(shapes.execution(item), lines=True)
            seen = {item.id: item.updated_at for item in page.items}
        await asyncio.sleep(_SECOND)


def _print(page: Page, chosen: Filter, flags: Flags, *, wide: bool) -> None:
    from worchflow_core.cli import shapes

    if flags.json:
        items = [shapes.execution(item) for item in page.items]
        output.document({"items": items, "total": page.total})
        return
    if page.items:
        for line in _lines(page.items, wide=wide):
            output.data(line)
    _say_rest(page, chosen, flags)


def _lines(items: tuple[Execution, ...], *, wide: bool) -> list[str]:
    from worchflow_core.cli.tables import Column, table
    from worchflow_core.words import human_age, printable, short_id

    now = datetime.now(UTC)
    columns = [
        Column(title="STATUS"),
        Column(title="ID"),
        Column(title="FUNCTION", shrinks=True),
        Column(title="CREATED", is_number=True),
        Column(title="DURATION", is_number=True),
        Column(title="STEPS", is_number=True),
        Column(title="ATTEMPTS", is_number=True),
        Column(title="ERROR", shrinks=True),
    ]
    rows = [
        [
            output.status(item.status.value),
            printable(item.id) if wide else short_id(item.id),
            printable(item.function, 128),
            human_age(item.created_at, now),
            _duration(item, now),
            "-" if item.steps_recorded is None else str(item.steps_recorded),
            attempts_of(item),
            _error(item, None if wide else 60),
        ]
        for item in items
    ]
    if wide:
        columns.append(Column(title="TAGS"))
        rows = [
            [*row, printable(",".join(item.tags))] for row, item in zip(rows, items, strict=True)
        ]
    if not any(item.error for item in items):
        columns.pop(7)
        for row in rows:
            row.pop(7)
    return table(columns, rows)


def attempts_of(item: Execution) -> str:
    """Return attempts made and allowed, such as `1/4`."""
    made = min(len(item.attempts), item.failed_attempts) if item.status.is_final else None
    number = item.failed_attempts + (item.status.value != "failed" and item.fence > 0)
    number = max(number, made or 0)
    return f"{number}/{item.retries + 1}" if item.retries is not None else str(number)


def _duration(item: Execution, now: datetime) -> str:
    from worchflow_core.words import human_duration

    first = item.attempts[0].started_at if item.attempts else item.claimed_at
    if first is None:
        return "-"
    if item.finished_at is not None:
        return human_duration(item.finished_at - first)
    return f"{human_duration(now - first)}…"


def _error(item: Execution, limit: int | None) -> str:
    from worchflow_core.words import printable

    if item.error is None:
        return ""
    kind = item.error.type.rpartition(".")[2]
    return printable(f"{kind}: {item.error.message}", limit)


def _say_rest(page: Page, chosen: Filter, flags: Flags) -> None:
    from worchflow_core.query import COUNT_CAP

    if flags.quiet:
        return
    total = page.total if page.total is not None else len(page.items)
    shown = f"{COUNT_CAP - 1:,}+" if total >= COUNT_CAP else f"{total:,}"
    if not total:
        output.say("no executions match")
    elif chosen.skip + len(page.items) < total:
        following = chosen.skip + len(page.items)
        output.say(f"{len(page.items)} of {shown}; next page: --skip {following}")
    else:
        output.say(f"{len(page.items)} of {shown}")
