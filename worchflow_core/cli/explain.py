"""`explain`: why an execution is not running."""

from __future__ import annotations

import typer

from worchflow_core.cli import exits, output, selection
from worchflow_core.cli.flags import flags_of


def register(app: typer.Typer) -> None:
    """Add the commands of this family."""
    app.command("explain")(explain)


def explain(
    ctx: typer.Context,
    execution_id: selection.OneId,
) -> None:
    """Say why an execution is not running: all reasons, what holds it now first."""
    from worchflow_core.cli.opening import existing, find_execution, run_async
    from worchflow_core.explaining import reason_to_wire
    from worchflow_core.words import printable

    flags = flags_of(ctx)

    async def main() -> int:
        async with existing(flags) as app:
            execution = await find_execution(app.client, execution_id)
            reasons = await app.client.explain(execution.id)
        if flags.json:
            items = [reason_to_wire(reason) for reason in reasons]
            output.document({"executionId": execution.id, "reasons": items})
            return exits.DONE
        status = output.status(execution.status.value)
        output.data(f"{printable(execution.function)}  {printable(execution.id)}  {status}")
        for reason in reasons:
            output.data(f"  {printable(reason.text)}")
        return exits.DONE

    raise typer.Exit(run_async(main()))
