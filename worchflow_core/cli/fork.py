"""`fork`: an execution runs again from one of its steps, as a new one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from worchflow_core.cli import exits, output, selection
from worchflow_core.cli.flags import flags_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worchflow_core.app import Worchflow
    from worchflow_core.cli.flags import Flags
    from worchflow_core.handles import ExecutionHandle
    from worchflow_core.models import Execution, StepRecord


def register(app: typer.Typer) -> None:
    """Add the commands of this family."""
    app.command("fork")(fork)


def fork(
    ctx: typer.Context,
    execution_id: selection.OneId,
    from_step: Annotated[
        str | None,
        typer.Option(metavar="STEP", help="Begin with it: a title, title#2, a key or a step id."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", "-d", metavar="JSON|@FILE|-", help="Other event data; - reads it."),
    ] = None,
    results: Annotated[
        list[str] | None,
        typer.Option("--result", metavar="STEP=JSON", help="Another result of a step before."),
    ] = None,
    fork_id: Annotated[
        str | None, typer.Option("--id", help="The fork's id; forked twice, created once.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the end; print the result as JSON.")
    ] = False,
    timeout: Annotated[str | None, typer.Option(help="Wait at most this long: 30s.")] = None,
) -> None:
    """Run an execution again from one of its steps, as a new one; the original is untouched."""
    from worchflow_core.cli.opening import existing, find_execution, run_async
    from worchflow_core.cli.send import await_all, read_text, span

    flags = flags_of(ctx)
    limit = span(timeout, "--timeout")

    async def main() -> int:
        text = read_text(data, None)
        async with existing(flags) as app:
            client = app.client
            original = await find_execution(client, execution_id)
            given: dict[str, Any] = {}
            if text is not None:
                given["data"] = await _data(app, original, text)
            if results:
                given["results"] = _results(app, await client.steps(original.id), results)
            handle = await client.fork(original.id, from_step=from_step, id=fork_id, **given)
            _tell(original, handle, flags)
            if wait:
                return await await_all(app, [handle], limit, flags)
            if flags.json:
                output.document(
                    {
                        "executionId": handle.id,
                        "isNew": handle.is_new,
                        "forkedFrom": original.id,
                    }
                )
            else:
                output.data(handle.id)
        return exits.DONE

    raise typer.Exit(run_async(main()))


async def _data(app: Worchflow, original: Execution, text: str) -> Any:
    """Return other event data, checked as far as workers have described the function."""
    from worchflow_core.cli.send import check_data
    from worchflow_core.codec import parse_json

    name = original.function
    value = parse_json(text, "--data", limit=app.settings.max_payload)
    known = {info.id: info for info in await app.client.functions()}
    check_data(app, name, known.get(name), value)
    return value


def _results(
    app: Worchflow, recorded: Sequence[StepRecord], given: Sequence[str]
) -> dict[str, Any]:
    """Return results by step; a title may hold `=` where there is a step of that name."""
    from worchflow_core.codec import parse_json

    known = {name for step in recorded for name in (step.title, step.step_id)}
    found: dict[str, Any] = {}
    for item in given:
        ends = [place for place, char in enumerate(item) if char == "="]
        if not ends or not ends[0]:
            raise exits.CommandError(f"--result {item!r} is no STEP=JSON; write --result 'Quote=5'")
        end = next((place for place in reversed(ends) if item[:place] in known), ends[0])
        name = item[:end]
        if name in found:
            raise exits.CommandError(f"--result gives step {name!r} twice")
        what = f"--result of step {name!r}"
        found[name] = parse_json(item[end + 1 :], what, limit=app.settings.max_payload)
    return found


def _tell(original: Execution, handle: ExecutionHandle[Any], flags: Flags) -> None:
    from worchflow_core.words import printable

    if flags.quiet or flags.json:
        return
    name = printable(original.id)
    if handle.is_new:
        output.say(f"forked {name} as {printable(handle.id)}")
    else:
        output.say(f"{printable(handle.id)} was forked before; nothing new was created")
