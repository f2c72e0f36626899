"""`run`: send, work in this process until that execution ends, print the result."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worchflow_core.cli import announce, exits, output
from worchflow_core.cli.flags import flags_of
from worchflow_core.cli.send import Data, DataOption, Fields
from worchflow_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from worchflow_core.app import Worchflow
    from worchflow_core.functions import Registry
    from worchflow_core.models import Execution


class DeliberateError(Exception):
    """What `--fail-at` raises."""


class FailAt:
    """A plugin that lets one step fail, the first time it runs."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.has_failed = False

    @hookimpl
    def worchflow_step_scope(self, title: str) -> AbstractAsyncContextManager[None] | None:
        """Raise instead of running the step."""
        if self.has_failed or title != self.title:
            return None
        self.has_failed = True
        return _raising(title)


@asynccontextmanager
async def _raising(title: str) -> AsyncIterator[None]:
    raise DeliberateError(f"--fail-at {title}")
    yield


def register(app: typer.Typer) -> None:
    """Add the commands of this family."""
    app.command("run")(run)


def run(
    ctx: typer.Context,
    function: Annotated[
        str | None, typer.Argument(metavar="FUNCTION", help="The function's id.")
    ] = None,
    data: Data = None,
    data_option: DataOption = None,
    fields: Fields = None,
    execution_id: Annotated[str | None, typer.Option("--id", help="The execution's id.")] = None,
    memory: Annotated[bool, typer.Option("--memory", help="Keep nothing: no store.")] = False,
    no_retries: Annotated[
        bool, typer.Option("--no-retries", help="Let the first error be final.")
    ] = False,
    fail_at: Annotated[
        str | None, typer.Option(metavar="STEP", help="Let this step fail the first time.")
    ] = None,
    replay: Annotated[
        str | None, typer.Option(metavar="ID", help="Take the input of this execution.")
    ] = None,
) -> None:
    """Send an event and run it here; steps are shown as they happen, the result is printed."""
    import asyncio

    from worchflow_core.cli.following import following
    from worchflow_core.cli.opening import existing, fast_loop, find_execution, load_app
    from worchflow_core.cli.send import check_data, describe, event_data, print_outcome, read_text
    from worchflow_core.cli.show import outcome_code

    flags = flags_of(ctx)
    if function is None and replay is None:
        raise exits.CommandError("name a function", hint="worchflow functions lists them")
    if replay is not None and (data or data_option):
        raise exits.CommandError("--replay takes its input from an execution; give no data")
    plugins = [FailAt(fail_at)] if fail_at else []
    app = load_app(flags, plugins=plugins, log="text")
    if memory:
        app.choice = replace(
            app.choice,
            store_url="memory:",
            store_source="--memory",
            queue_url=None,
            step_cache_url=None,
            warnings=(),
        )
    if no_retries:
        app.registry = _without_retries(app.registry)

    async def main() -> int:
        name, text = function, read_text(data, data_option)
        if replay is not None:
            async with existing(flags) as origin:
                original = await find_execution(origin.client, replay)
            name, text = name or original.function, original.data
        assert name is not None
        _require(app, name)
        async with app:
            info = await describe(app, name)
            value = event_data(text, fields, info, app, name)
            check_data(app, name, info, value)
            if not flags.quiet:
                for line in announce.backends(app):
                    output.say(line)
            handle = await app.client.send(name, value, id=execution_id)
            if not flags.quiet:
                output.say(f"queued {handle.id}")
            async with following(app.client, handle.id, flags):
                execution = await _work(app, handle.id)
            if not execution.status.is_final:
                output.say(f"interrupted; it is {execution.status.value} and goes on with a worker")
                return exits.INTERRUPTED
            # What the lifecycle lines still hold belongs before the result.
            await asyncio.to_thread(app.plugins.close)
            print_outcome(execution, is_kept=not memory)
            return outcome_code(execution)

    with asyncio.Runner(loop_factory=fast_loop()) as runner:
        raise typer.Exit(runner.run(main()))


async def _work(app: Worchflow, execution_id: str) -> Execution:
    from worchflow_core.cli.signals import stoppable

    async with stoppable() as stopper:
        stopper.listen(lambda count: app.worker.stop(now=count > 1))
        await app.worker.run(only={execution_id})
    with suppress(TimeoutError):
        return await app.client.get(execution_id)
    raise exits.CommandError("the store does not answer any more", code=exits.UNREACHABLE)


def _require(app: Worchflow, name: str) -> None:
    if app.registry.get(name) is None:
        names = ", ".join(app.registry.ids) or "none"
        raise exits.CommandError(
            f"no function {name!r} here; there are: {names}",
            hint="name its module with -m, or install its package",
        )


def _without_retries(registry: Registry) -> Registry:
    from worchflow_core.functions import Registry

    changed: list[Any] = [replace(item, retry=replace(item.retry, retries=0)) for item in registry]
    return Registry(changed)
