"""`show`: one execution, its steps as bars, its error, what waits."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worchflow_core.cli import exits, output, selection
from worchflow_core.cli.flags import flags_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worchflow_core.cli.flags import Flags
    from worchflow_core.client import Client
    from worchflow_core.models import Execution, StepRecord
    from worchflow_core.notes import Notes

_INTERVAL = 0.5
_TITLE = 32
_PLAIN = ("running", "completed", "failed", "cancelled")
"""Reasons that say no more than the lines above them."""


def register(app: typer.Typer) -> None:
    """Add the commands of this family."""
    app.command("show")(show)


def show(
    ctx: typer.Context,
    execution_id: selection.OneId,
    steps: Annotated[bool, typer.Option("--steps", help="Print the steps alone.")] = False,
    step: Annotated[
        str | None, typer.Option(metavar="NAME", help="Print the result of this step alone.")
    ] = None,
    result: Annotated[bool, typer.Option("--result", help="Print the result alone.")] = False,
    data: Annotated[bool, typer.Option("--input", help="Print the event's data alone.")] = False,
    trace: Annotated[bool, typer.Option("--trace", help="Print the full traceback.")] = False,
    log: Annotated[bool, typer.Option("--log", help="Print what it logged alone.")] = False,
    watch: Annotated[
        bool,
        typer.Option("--watch", "-w", help="Go on until it ends; the exit code is its outcome."),
    ] = False,
) -> None:
    """Show one execution: status, steps, error."""
    from worchflow_core.cli.opening import existing, find_execution, run_async

    flags = flags_of(ctx)

    async def main() -> int:
        async with existing(flags) as app:
            client = app.client
            execution = await find_execution(client, execution_id)
            if watch:
                return await _watch(client, execution, flags)
            recorded = await client.steps(execution.id)
            if step is not None:
                _print_step(recorded, step, execution)
            elif result:
                _print_result(execution)
            elif data:
                output.document(_load(execution.data))
            elif trace:
                _print_trace(execution)
            elif steps:
                _print_steps(execution, recorded, flags)
            elif log:
                _print_log(await client.notes(execution.id), flags)
            elif flags.json:
                output.document(_document(execution, recorded, await client.notes(execution.id)))
            else:
                await _print_all(client, execution, recorded)
        return exits.DONE

    raise typer.Exit(run_async(main()))


def outcome_code(execution: Execution) -> int:
    """Return the exit code of a command that waited for an execution."""
    return exits.DONE if execution.status.value == "completed" else exits.EXECUTION_FAILED


async def _watch(client: Client, execution: Execution, flags: Flags) -> int:
    """Print what happens until the execution ends: drawn anew on a terminal, else as lines."""
    import asyncio

    from worchflow_core.cli import shapes
    from worchflow_core.cli.said import new_lines
    from worchflow_core.notes import Notes as Nothing

    is_drawn = output.is_terminal(sys.stdout) and not flags.json
    is_json = not is_drawn
    told: set[tuple[str, str]] = set()
    last: Any = None
    said = Nothing()
    while True:
        recorded = await client.steps(execution.id)
        execution = await client.get(execution.id)
        if is_drawn:
            output.clear()
            await _print_all(client, execution, recorded)
        else:
            for item in recorded:
                if (item.step_id, item.status.value) not in told:
                    told.add((item.step_id, item.status.value))
                    output.document({"step": shapes.step(item)}, lines=is_json)
            before, said = said, await client.notes(execution.id)
            if said.progress is not None and said.progress != before.progress:
                output.document({"progress": shapes.notes(said)["progress"]}, lines=is_json)
            for line in shapes.log(new_lines(before, said)):
                output.document({"log": line}, lines=is_json)
            state = (execution.status, execution.updated_at)
            if state != last:
                last = state
                output.document({"execution": shapes.execution(execution)}, lines=is_json)
        if execution.status.is_final:
            return outcome_code(execution)
        await asyncio.sleep(_INTERVAL)


def _document(execution: Execution, recorded: Sequence[StepRecord], notes: Notes) -> dict[str, Any]:
    from worchflow_core.cli import shapes

    return {
        "execution": shapes.execution(execution),
        "steps": [shapes.step(item) for item in recorded],
        **shapes.notes(notes),
    }


def _load(payload: str | None) -> Any:
    from worchflow_core.cli.shapes import load

    return load(payload)


def _print_result(execution: Execution) -> None:
    if execution.status.value != "completed":
        raise exits.CommandError(
            f"execution {execution.id} is {execution.status.value}; it has no result",
            code=exits.NOT_ALLOWED,
        )
    output.document(_load(execution.result))


def _print_step(recorded: Sequence[StepRecord], name: str, execution: Execution) -> None:
    from worchflow_core.words import printable

    found = [item for item in recorded if name in (item.title, item.step_id)]
    if not found:
        names = ", ".join(dict.fromkeys(printable(item.title) for item in recorded)) or "none"
        raise exits.CommandError(
            f"execution {execution.id} has recorded no step {name!r}; there are: {names}",
            code=exits.NOT_FOUND,
        )
    values = [_load(item.result) for item in found]
    output.document(values[0] if len(values) == 1 else values)


def _print_trace(execution: Execution) -> None:
    from worchflow_core.words import printable, printable_lines

    failure = execution.error
    if failure is None:
        output.say(f"execution {execution.id} has no error")
        return
    while failure is not None:
        text = failure.traceback or f"{failure.type}: {failure.message}"
        for line in printable_lines(text):
            output.data(line)
        failure = failure.cause if failure.traceback is None else None
        if failure is not None:
            output.data(f"caused by {printable(failure.type)}")


def _print_log(notes: Notes, flags: Flags) -> None:
    from worchflow_core.cli import shapes
    from worchflow_core.cli.said import log_lines

    if flags.json:
        items = shapes.log(notes.lines)
        output.document({"items": items, "total": len(items) + notes.dropped})
        return
    for line in log_lines(notes, None):
        output.data(line)


def _print_steps(execution: Execution, recorded: Sequence[StepRecord], flags: Flags) -> None:
    from worchflow_core.cli import shapes

    if flags.json:
        items = [shapes.step(item) for item in recorded]
        output.document({"items": items, "total": len(items)})
        return
    for line in step_lines(execution, recorded):
        output.data(line)


async def _print_all(client: Client, execution: Execution, recorded: Sequence[StepRecord]) -> None:
    from worchflow_core.cli.said import log_lines, progress_line
    from worchflow_core.words import printable, telling_id

    now = datetime.now(UTC)
    status = output.status(execution.status.value)
    output.data(f"{printable(execution.function)}  {printable(execution.id)}  {status}")
    for line in _wrapped(_facts(execution, now)):
        output.data(line)
    if not execution.status.is_final:
        for reason in await client.explain(execution.id):
            if reason.code not in _PLAIN:
                output.data(printable(reason.text))
    lines = step_lines(execution, recorded)
    if lines:
        output.data("")
        for line in lines:
            output.data(line)
    notes = await client.notes(execution.id)
    if notes.progress is not None and not execution.status.is_final:
        output.data(progress_line(notes.progress, output.width()))
    if notes.lines:
        output.data("")
        for line in log_lines(notes):
            output.data(line)
    for line in _error_lines(execution):
        output.data(line)
    is_undone = execution.error is not None and bool(execution.error.undone)
    if execution.status.value in ("failed", "cancelled") and not is_undone:
        output.data("")
        output.data(f"retry: worchflow retry {telling_id(execution.id)}")


def _facts(execution: Execution, now: datetime) -> list[str]:
    from worchflow_core.cli.lists import attempts_of
    from worchflow_core.words import human_age, human_duration, printable

    facts = [f"created {human_age(execution.created_at, now)}"]
    first = execution.attempts[0].started_at if execution.attempts else execution.claimed_at
    if first is not None:
        facts.append(f"waited {human_duration(first - execution.created_at)}")
        ended = execution.finished_at or now
        facts.append(f"ran {human_duration(ended - first)}")
    facts.append(f"attempts {attempts_of(execution)}")
    if execution.crashes:
        facts.append(f"lost workers {execution.crashes}")
    owner = execution.owner or (execution.attempts[-1].worker if execution.attempts else None)
    if owner:
        facts.append(f"worker {printable(owner)[:12]}")
    if execution.code_version:
        facts.append(printable(execution.code_version))
    for word, other in (("forked from", execution.forked_from), ("parent", execution.parent)):
        if other:
            facts.append(f"{word} {printable(other)}")
    if execution.tags:
        facts.append(f"tags {printable(', '.join(execution.tags))}")
    return facts


def _wrapped(facts: Sequence[str]) -> list[str]:
    """Return facts as lines, as many to a line as the terminal has space for; piped: one line."""
    space = output.width() if output.is_terminal(sys.stdout) else sys.maxsize
    lines = [""]
    for fact in facts:
        joined = f"{lines[-1]}   {fact}" if lines[-1] else fact
        if len(joined) <= space or not lines[-1]:
            lines[-1] = joined
        else:
            lines.append(fact)
    return lines


def step_lines(execution: Execution, recorded: Sequence[StepRecord]) -> list[str]:
    """Return a line per step with a bar over the time the steps took; failed tries included."""
    from worchflow_core.undos import is_lost
    from worchflow_core.words import human_duration, printable

    entries: list[tuple[datetime, datetime, str, str]] = []
    now = datetime.now(UTC)
    for item in recorded:
        is_open = item.ended_at is None
        until = (now if not execution.status.is_final else item.started_at) if is_open else None
        end = until or item.ended_at or item.started_at
        word = "processing" if is_open else "sleeping" if end > now else "ok"
        word = "problem" if is_lost(item) else word
        entries.append((item.started_at, end, item.title, word))
    done = {item.step_id for item in recorded}
    counts: dict[str, list[tuple[datetime, datetime, str]]] = {}
    for attempt in execution.attempts:
        for tried in attempt.tries:
            counts.setdefault(tried.step_id, []).append(
                (tried.started_at, tried.ended_at, tried.title)
            )
    for step_id, tries in counts.items():
        if step_id not in done:
            begin, end, title = tries[-1]
            many = f" ×{len(tries)}" if len(tries) > 1 else ""
            entries.append((begin, end, title + many, "problem"))
    if not entries:
        return []
    entries.sort(key=lambda entry: entry[0])
    first, last = entries[0][0], max(entry[1] for entry in entries)
    space = max(10, min(40, output.width() - _TITLE - 16))
    bar = "█" if (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf") else "#"
    scale = human_duration(last - first)
    head = " " * (_TITLE + 4) + "0 s" + scale.rjust(space - 3)
    return [head] + [
        f"{output.mark(word)} {printable(title, _TITLE):<{_TITLE}}  "
        f"{_bar(begin, end, first, last, space, bar)}  {human_duration(end - begin):>7}"
        for begin, end, title, word in entries
    ]


def _bar(
    begin: datetime, end: datetime, first: datetime, last: datetime, space: int, char: str
) -> str:
    whole = (last - first).total_seconds() or 1.0
    left = min(space - 1, round((begin - first).total_seconds() / whole * space))
    size = max(1, min(space - left, round((end - begin).total_seconds() / whole * space)))
    return (" " * left + char * size).ljust(space)


def _error_lines(execution: Execution) -> list[str]:
    import re

    from worchflow_core.words import printable

    failure = execution.error
    if failure is None:
        return []
    lines = ["", f"{printable(failure.type)}: {printable(failure.message)}"]
    frames = re.findall(r'File "([^"]+)", line (\d+), in (\S+)', failure.traceback or "")
    if frames:
        path, line, name = frames[-1]
        lines.append(f"  at {printable(path)}:{line} in {printable(name)}   (traceback: --trace)")
    if failure.reason not in ("error", ""):
        lines.append(f"  {failure.reason.replace('_', ' ')}")
    if failure.undone:
        lines.append(f"  {failure.undone} step{'s' * (failure.undone != 1)} undone")
    return lines
