"""`worker` and `dev`: taking executions and running them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worchflow_core.cli import exits, output
from worchflow_core.cli.flags import Flags, flags_of

if TYPE_CHECKING:
    from worchflow_core.cli.supervisor import Child


def register(app: typer.Typer) -> None:
    """Add the commands of this family."""
    app.command("worker")(worker)
    app.command("dev")(dev)


def worker(
    ctx: typer.Context,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", "-c", help="Executions to run at once.")
    ] = None,
    processes: Annotated[
        int, typer.Option("--processes", "-w", min=1, max=256, help="Processes to start.")
    ] = 1,
    only: Annotated[
        str | None, typer.Option(help="Functions to take, separated by commas; all if left out.")
    ] = None,
    burst: Annotated[bool, typer.Option("--burst", help="End when nothing is due.")] = False,
    reload: Annotated[
        bool, typer.Option("--reload", help="Start again when a Python file changes.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="What people call this worker.")] = None,
    grace: Annotated[
        str | None, typer.Option(help="How long to let executions finish when stopping: 25s.")
    ] = None,
    max_executions: Annotated[
        int | None, typer.Option(min=1, help="End after this many attempts.")
    ] = None,
    scheduler: Annotated[
        bool | None,
        typer.Option(
            "--scheduler/--no-scheduler",
            help="Also fire schedules; by default as WORCHFLOW_SCHEDULER says, not with --burst.",
        ),
    ] = None,
    health_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Answer /healthz and /readyz on 127.0.0.1 here."),
    ] = None,
    log_format: Annotated[
        str | None, typer.Option(help="How lifecycle lines are printed: text, json or off.")
    ] = None,
    supervised: Annotated[int | None, typer.Option(hidden=True)] = None,
    is_follower: Annotated[bool, typer.Option("--follower", hidden=True)] = False,
) -> None:
    """Take executions and run them until stopped.

    The first Ctrl-C (or SIGTERM) takes no more and lets running steps end; the second gives
    everything back at once. While the store cannot be reached, the worker waits for it.
    """
    flags = flags_of(ctx)
    settings = {"concurrency": concurrency, "grace": grace, "log": log_format}
    extra = {key: value for key, value in settings.items() if value is not None}
    if processes > 1 or reload:
        command = [*_flag_arguments(flags), "worker", *_option_arguments(extra)]
        if only:
            command += ["--only", only]
        if burst:
            command.append("--burst")
        if max_executions is not None:
            command += ["--max-executions", str(max_executions)]
        if scheduler is not None:
            command.append("--scheduler" if scheduler else "--no-scheduler")
        children = _children(command, processes, name, is_recycled=max_executions is not None)
        raise typer.Exit(
            _supervise(flags, children, extra, health_port=health_port, is_reloading=reload)
        )

    import asyncio

    from worchflow_core.cli.opening import fast_loop, load_app
    from worchflow_core.cli.worker_process import Plan, WorkerProcess

    plan = Plan(
        only=tuple(part.strip() for part in (only or "").split(",") if part.strip()),
        burst=burst,
        name=name,
        max_executions=max_executions,
        scheduler=scheduler,
        health_port=health_port,
        supervised=supervised,
        is_announced=not is_follower,
    )
    app = load_app(flags, extra=extra, log="text")
    with asyncio.Runner(loop_factory=fast_loop()) as runner:
        raise typer.Exit(runner.run(WorkerProcess(app, plan, flags).run()))


def dev(
    ctx: typer.Context,
    port: Annotated[int, typer.Option(help="Where the dashboard listens.")] = 8765,
    host: Annotated[str, typer.Option(help="The address the dashboard listens on.")] = "127.0.0.1",
    reload: Annotated[
        bool, typer.Option("--reload/--no-reload", help="Start again when a Python file changes.")
    ] = True,
    dashboard: Annotated[
        bool, typer.Option("--dashboard/--no-dashboard", help="Also serve the dashboard.")
    ] = True,
) -> None:
    """Work and watch on one machine: a worker that reloads and schedules, and the dashboard."""
    from worchflow_core.version import __version__

    flags = flags_of(ctx)
    if not flags.quiet:
        output.say(f"worchflow {__version__} dev")
    if reload and not _is_installed("watchfiles"):
        output.say('reload is off; install it with: pip install "worchflow[reload]"')
        reload = False
    shared = _flag_arguments(flags)
    children = _children([*shared, "worker"], 1, None)
    if dashboard and _has_dashboard():
        from worchflow_core.cli.supervisor import Child

        address = ["--host", host, "--port", str(port)]
        command = [*shared, "dashboard", *address]
        children.append(Child(command=command, name="the dashboard", is_worker=False))
    raise typer.Exit(_supervise(flags, children, {}, is_reloading=reload))


def _supervise(
    flags: Flags,
    children: Sequence[Child],
    extra: dict[str, Any],
    *,
    health_port: int | None = None,
    is_reloading: bool = False,
) -> int:
    import asyncio

    from worchflow_core.cli.supervisor import Supervisor
    from worchflow_core.settings import load_settings

    if is_reloading and not _is_installed("watchfiles"):
        raise exits.CommandError(
            "--reload needs watchfiles, which is not installed",
            hint='pip install "worchflow[reload]"',
        )
    settings = load_settings({**flags.overrides(), **extra})

    async def main() -> int:
        supervisor = Supervisor(
            children,
            patience=settings.grace.total_seconds() + 10,
            health_port=health_port,
            watch=["."] if is_reloading else [],
            is_quiet=flags.quiet,
        )
        return await supervisor.run()

    return asyncio.run(main())


def _children(
    command: list[str], count: int, name: str | None, *, is_recycled: bool = False
) -> list[Child]:
    from worchflow_core.cli.supervisor import Child

    children = []
    for number in range(count):
        own = list(command)
        if name:
            own += ["--name", f"{name}-{number + 1}" if count > 1 else name]
        if number:
            own.append("--follower")
        children.append(Child(command=own, is_recycled=is_recycled))
    return children


def _flag_arguments(flags: Flags) -> list[str]:
    arguments = [part for module in flags.module for part in ("--module", module)]
    for name, value in (
        ("--store-url", flags.store_url),
        ("--queue-url", flags.queue_url),
        ("--prefix", flags.prefix),
    ):
        if value is not None:
            arguments += [name, value]
    for name, is_given in (
        ("--quiet", flags.quiet),
        ("--verbose", flags.verbose),
        ("--debug", flags.debug),
        ("--no-color", flags.no_color),
    ):
        if is_given:
            arguments.append(name)
    return arguments


def _option_arguments(extra: dict[str, Any]) -> list[str]:
    names = {"concurrency": "--concurrency", "grace": "--grace", "log": "--log-format"}
    return [part for key, value in extra.items() for part in (names[key], str(value))]


def _is_installed(module: str) -> bool:
    from importlib.util import find_spec

    return find_spec(module) is not None


def _has_dashboard() -> bool:
    wanted = ("worchflow_plugins.dashboard", "fastapi", "uvicorn", "jinja2")
    return _is_installed("worchflow_plugins") and all(_is_installed(name) for name in wanted)
