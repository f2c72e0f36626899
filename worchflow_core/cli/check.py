"""`check`: what today's code makes of the newest executions."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from worchflow_core.cli import completion, exits, output
from worchflow_core.cli.flags import flags_of

if TYPE_CHECKING:
    from worchflow_core.rehearsals import FunctionReport

_SHOWN = 20


def register(app: typer.Typer) -> None:
    """Add the commands of this family."""
    app.command("check")(check)


def check(
    ctx: typer.Context,
    functions: Annotated[
        list[str] | None,
        typer.Option(
            "--function",
            "-f",
            help="Of this function alone; may be repeated.",
            autocompletion=completion.functions,
        ),
    ] = None,
    last: Annotated[
        int, typer.Option(min=1, max=10_000, help="How many of the newest of each function.")
    ] = 200,
    limit: Annotated[
        str, typer.Option(help="How long the code of one execution may take: 5s.")
    ] = "5s",
) -> None:
    """Replay the newest executions against the code that is installed here; write nothing.

    The exit code is 1 where the code would break an execution that has not ended.
    """
    from worchflow_core.cli.opening import load_app, require_file, run_async
    from worchflow_core.rehearsals import report_to_wire

    flags = flags_of(ctx)

    async def main() -> int:
        # Modules may print when they are imported, and the code between the steps.
        with contextlib.redirect_stdout(sys.stderr):
            app = load_app(flags)
            require_file(app)
            if not len(app.registry):
                raise exits.CommandError(
                    "there are no functions here to check",
                    hint="name their module with -m, or install their package",
                )
            async with app:
                reports = await app.rehearse(functions or None, last=last, limit=limit)
        broken = sum(len(report.breaks_live) for report in reports)
        if flags.json:
            items = [report_to_wire(report) for report in reports]
            output.document({"items": items, "total": len(items), "breaksLive": broken})
        else:
            for report in reports:
                _print(report)
            noun = "execution" if broken == 1 else "executions"
            word = "problem" if broken else "ok"
            end = f"{broken:,} unfinished {noun} would break" if broken else "nothing would break"
            output.say(f"{output.mark(word, sys.stderr)} {end}")
        return exits.FAILED if broken else exits.DONE

    raise typer.Exit(run_async(main()))


def _print(report: FunctionReport) -> None:
    from worchflow_core.rehearsal import Verdict
    from worchflow_core.words import printable, telling_id

    counts = [
        f"{report.counts[verdict]:,} {verdict.value}"
        for verdict in Verdict
        if report.counts.get(verdict)
    ]
    word = "problem" if report.breaks_live else "warning" if report.troubles else "ok"
    found = ", ".join(counts) or "no executions"
    output.data(f"{output.mark(word)} {printable(report.function)}  {found}")
    for title, count in list(report.new_steps.items())[:_SHOWN]:
        output.data(f"    step {printable(title)!r} is new to {count:,} that completed")
    for title, count in list(report.unreached.items())[:_SHOWN]:
        output.data(f"    step {printable(title)!r} is recorded of {count:,} and not reached")
    for item in report.troubles[:_SHOWN]:
        text = f"{telling_id(item.execution_id)} {item.status.value}: {printable(item.why, 500)}"
        sign = output.mark("problem" if item in report.breaks_live else "warning")
        output.data(f"    {sign} {text}")
    if len(report.troubles) > _SHOWN:
        output.data(f"    ... and {len(report.troubles) - _SHOWN:,} more")
    if report.live_checked < report.live:
        output.data(
            f"    {report.live_checked:,} of {report.live:,} unfinished were checked; --last takes "
            "more"
        )
