"""`scheduler` and `schedules`: firing ticks, and looking after what ticks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worchflow_core.cli import exits, output
from worchflow_core.cli.flags import Flags, flags_of

if TYPE_CHECKING:
    from worchflow_core.client import Client
    from worchflow_core.models import Worker
    from worchflow_core.timetable import ScheduleInfo, ScheduleRun

ACTIONS = ("list", "run", "pause", "resume", "next")


def register(app: typer.Typer) -> None:
    """Add the commands of this family."""
    app.command("scheduler")(scheduler)
    app.command("schedules")(schedules)


def scheduler(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Option(help="What people call this scheduler.")] = None,
    log_format: Annotated[
        str | None, typer.Option(help="How lifecycle lines are printed: text, json or off.")
    ] = None,
) -> None:
    """Turn the ticks of schedules into executions until stopped; runs none of them.

    Workers do this too unless WORCHFLOW_SCHEDULER or --no-scheduler says otherwise. Any number
    may run: one of them works, and a tick is fired once.
    """
    import asyncio

    from worchflow_core.cli.opening import load_app
    from worchflow_core.cli.worker_process import Plan, WorkerProcess

    flags = flags_of(ctx)
    app = load_app(flags, extra={"log": log_format} if log_format else {}, log="text")
    if len(app.registry) and not any(item.schedule for item in app.registry):
        raise exits.CommandError(
            "no function has a schedule", hint='give one cron="0 9 * * *" or every="15m"'
        )
    plan = Plan(name=name, only_schedules=True)
    raise typer.Exit(asyncio.run(WorkerProcess(app, plan, flags).run()))


def schedules(
    ctx: typer.Context,
    action: Annotated[
        str, typer.Argument(help="list, run, pause, resume or next.", show_default=True)
    ] = "list",
    function: Annotated[
        str | None, typer.Argument(help="The id of the function; needed but for list.")
    ] = None,
    count: Annotated[
        int, typer.Option("--count", "-n", min=1, max=1000, help="How many ticks next shows.")
    ] = 5,
) -> None:
    """List schedules; run one now, pause it, resume it, or show its next ticks."""
    from worchflow_core.cli.opening import existing, run_async

    flags = flags_of(ctx)
    if action not in ACTIONS:
        raise exits.CommandError(f"no action {action!r}; there are: {', '.join(ACTIONS)}")
    if action == "list" and function is not None:
        raise exits.CommandError(f"list takes no function, and {function!r} is given")
    if action != "list" and function is None:
        raise exits.CommandError(f"say of which function: worchflow schedules {action} FUNCTION")

    async def main() -> None:
        async with existing(flags) as app:
            client = app.client
            if function is None:
                known = await client.schedules()
                runs = await client.schedule_runs(known)
                _print(known, runs, await client.workers(), flags)
            elif action == "next":
                _print_next(await _one(client, function), count, flags)
            elif action == "run":
                handle = await client.run_schedule_now(function)
                output.document({"id": handle.id}) if flags.json else output.data(handle.id)
            else:
                await _toggle(client, action, function, flags)

    run_async(main())


async def _toggle(client: Client, action: str, function: str, flags: Flags) -> None:
    if action == "pause":
        item = await client.pause_schedule(function)
    else:
        item = await client.resume_schedule(function)
    if flags.json:
        output.document(_document(item, await client.workers(), datetime.now(UTC)))
    elif not flags.quiet:
        done = "paused" if item.is_paused else "resumed"
        output.say(f"{output.mark('ok')} {item.function} is {done}")


async def _one(client: Client, function: str) -> ScheduleInfo:
    known = await client.schedules()
    found = next((item for item in known if item.function == function), None)
    if found is None:
        names = ", ".join(item.function for item in known) or "none"
        raise exits.CommandError(
            f"no schedule of a function {function!r}; there are: {names}", code=exits.NOT_FOUND
        )
    return found


def _print_next(item: ScheduleInfo, count: int, flags: Flags) -> None:
    from zoneinfo import ZoneInfo

    from worchflow_core.clock import to_millis
    from worchflow_core.words import human_age

    now = datetime.now(UTC)
    ticks = item.next_ticks(now, count)
    if flags.json:
        output.document({"items": [to_millis(tick) for tick in ticks], "total": len(ticks)})
        return
    zone = ZoneInfo(item.schedule.zone)
    for tick in ticks:
        output.data(f"{tick.astimezone(zone).isoformat()}  {human_age(tick, now)}")
    if item.is_paused and not flags.quiet:
        output.say("it is paused; these are the ticks it would have")


def _print(
    known: Sequence[ScheduleInfo],
    runs: Mapping[str, Sequence[ScheduleRun]],
    workers: Sequence[Worker],
    flags: Flags,
) -> None:
    now = datetime.now(UTC)
    if flags.json:
        items = [_document(item, workers, now, runs[item.function]) for item in known]
        output.document({"items": items, "total": len(items)})
        return
    if not known:
        if not flags.quiet:
            output.say('no schedules; give a function cron="0 9 * * *" and start a worker')
        return
    from worchflow_core.cli.tables import Column, table
    from worchflow_core.words import human_age, printable

    columns = [
        Column(title="FUNCTION", shrinks=True),
        Column(title="SCHEDULE"),
        Column(title="ZONE", shrinks=True),
        Column(title="LAST", is_number=True),
        Column(title="OUTCOME"),
        Column(title="NEXT", is_number=True),
        Column(title="STATE"),
        Column(title="SKIPPED", is_number=True),
    ]
    rows = []
    for item in known:
        coming = [] if item.is_paused else item.next_ticks(now, 1)
        rows.append(
            [
                printable(item.function),
                printable(item.schedule.text),
                printable(item.schedule.zone),
                human_age(item.last_tick, now),
                _outcome(runs[item.function]),
                human_age(coming[0], now) if coming else "-",
                _state(item, workers, now),
                f"{item.skipped:,}",
            ]
        )
    for line in table(columns, rows):
        output.data(line)


def _outcome(runs: Sequence[ScheduleRun]) -> str:
    """Return the status of the newest tick that was fired."""
    fired = next((run.execution for run in runs if run.execution is not None), None)
    return output.status(fired.status.value) if fired else "-"


def _state(item: ScheduleInfo, workers: Sequence[Worker], now: datetime) -> str:
    from worchflow_core.liveness import live_workers_with

    if item.is_paused:
        return "paused"
    return "active" if live_workers_with(item.function, workers, now) else "no worker"


def _document(
    item: ScheduleInfo,
    workers: Sequence[Worker],
    now: datetime,
    runs: Sequence[ScheduleRun] | None = None,
) -> dict[str, Any]:
    from worchflow_core.timetable import schedule_to_wire

    return {**schedule_to_wire(item, now=now, runs=runs), "state": _state(item, workers, now)}
