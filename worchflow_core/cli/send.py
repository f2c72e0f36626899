"""`send`: an event becomes an execution."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worchflow_core.cli import completion, exits, output
from worchflow_core.cli.flags import flags_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worchflow_core.app import Worchflow
    from worchflow_core.catalog import FunctionInfo
    from worchflow_core.cli.flags import Flags
    from worchflow_core.handles import ExecutionHandle
    from worchflow_core.models import Execution

_UNKNOWN = (
    "--event sends it to those who wait for an event of this name, --force queues it for a "
    "function that is yet to come"
)

FunctionName = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="A function's id, or an event's name.",
        autocompletion=completion.functions,
    ),
]
Data = Annotated[str | None, typer.Argument(metavar="[JSON]", help="The event's data.")]
DataOption = Annotated[
    str | None,
    typer.Option("--data", "-d", metavar="JSON|@FILE|-", help="The same; - reads it."),
]
Fields = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="One field, typed as it is declared."),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this family."""
    app.command("send")(send)


def send(
    ctx: typer.Context,
    function: FunctionName,
    data: Data = None,
    data_option: DataOption = None,
    fields: Fields = None,
    execution_id: Annotated[
        str | None, typer.Option("--id", help="The execution's id; sent twice, created once.")
    ] = None,
    delay: Annotated[str | None, typer.Option(help="Not before this long from now: 5m.")] = None,
    at: Annotated[str | None, typer.Option(help="Not before this time: 2030-01-31T12:00.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A label; may be repeated.")] = None,
    count: Annotated[int, typer.Option(min=1, max=100_000, help="Send it so many times.")] = 1,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the end; print the result as JSON.")
    ] = False,
    timeout: Annotated[str | None, typer.Option(help="Wait at most this long: 30s.")] = None,
    template: Annotated[
        bool, typer.Option("--template", help="Print a starter document and send nothing.")
    ] = False,
    event: Annotated[
        bool, typer.Option("--event", help="Send it to who subscribes to or waits for it.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Send though the function or the data is not known.")
    ] = False,
) -> None:
    """Send an event: once this ends well, its executions are stored and will be attempted."""
    from worchflow_core.cli import events
    from worchflow_core.cli.opening import load_app, run_async

    flags = flags_of(ctx)
    if execution_id is not None and count > 1:
        raise exits.CommandError("--id and --count exclude each other: an id names one execution")
    given = {"delay": span(delay, "--delay"), "at": _moment(at), "tags": tag or []}
    limit = span(timeout, "--timeout")

    async def main() -> int:
        app = load_app(flags)
        if template:
            await _print_template(app, function)
            return exits.DONE
        text = read_text(data, data_option)
        async with app:
            known = await app.client.functions()
            if event or events.is_event(app, function, known):
                events.check_options(function, known, delay=delay, at=at, count=count)
                value = event_data(text, fields, events.typed(function, known), app, function)
                sent = await events.send(app, function, value, execution_id, tag or [], flags)
                await events.tell(app, sent, value, known, flags, with_ids=not wait)
                return (
                    await await_all(app, list(sent.executions), limit, flags)
                    if wait
                    else exits.DONE
                )
            info = _named(app, function, known, force=force, hint=_UNKNOWN)
            value = event_data(text, fields, info, app, function)
            if not force:
                check_data(app, function, info, value)
            if not flags.quiet and not flags.json:
                from worchflow_core.cli import announce

                announce.start(app, with_functions=False)
            handles = await _send(app, function, value, execution_id, count, given)
            await _tell(app, function, handles, flags)
            if not wait:
                _print_handles(handles, flags)
                return exits.DONE
            return await await_all(app, handles, limit, flags)

    raise typer.Exit(run_async(main()))


async def describe(app: Worchflow, function: str, *, force: bool = False) -> FunctionInfo | None:
    """Return what is known of a function: here, else from what workers told the store.

    Raises:
        CommandError: nobody knows it; the nearest names are offered.
    """
    return _named(app, function, await app.client.functions(), force=force, hint="")


def _named(
    app: Worchflow, function: str, infos: Sequence[FunctionInfo], *, force: bool, hint: str
) -> FunctionInfo | None:
    import difflib

    from worchflow_core.words import printable

    known = {info.id: info for info in infos}
    if function in known or force:
        return known.get(function)
    events = {trigger.name for info in infos for trigger in info.triggers} if hint else set()
    near = difflib.get_close_matches(function, [*known, *events], n=3, cutoff=0.5)
    names = ", ".join(near or sorted(known)[:10])
    raise exits.CommandError(
        f"no function {printable(function, 128)!r}: none is installed here, and no worker of "
        f"{app.journal.store.describe()} has described one",
        hint=f"did you mean {names}? {hint or '--force sends it anyway'}"
        if names
        else "name its module with -m, install its package, or send it anyway with --force"
        + (f"; {hint}" if hint else ""),
    )


def read_text(data: str | None, option: str | None) -> str | None:
    """Return the JSON text that argument and `--data` give; None where neither does.

    Raises:
        CommandError: both do, or a file cannot be read.
    """
    if data is not None and option is not None:
        raise exits.CommandError("the data is given twice: as argument and by --data")
    text = data if data is not None else option
    if text == "-":
        return sys.stdin.read()
    if text is not None and text.startswith("@"):
        try:
            return Path(text[1:]).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise exits.CommandError(f"{text[1:]} cannot be read: {error}") from None
    return text


def event_data(
    text: str | None,
    fields: list[str] | None,
    info: FunctionInfo | None,
    app: Worchflow,
    function: str,
) -> Any:
    """Return the event's data from JSON text and `--set` fields.

    Raises:
        CommandError, InvalidInput: the text is not JSON, or a field does not fit its type.
    """
    from worchflow_core.codec import parse_json
    from worchflow_core.schemas import typed_value

    schema = info.schema if info is not None else None
    value = (
        None
        if text is None
        else parse_json(text, f"event data of {function}", limit=app.settings.max_payload)
    )
    for field in fields or ():
        path, equals, rest = field.partition("=")
        if not equals or not path:
            raise exits.CommandError(f"--set {field!r} has no '='; write --set amount=100")
        value = {} if value is None else value
        _put(value, path, typed_value(schema, path, rest))
    return value


def check_data(app: Worchflow, function: str, info: FunctionInfo | None, value: Any) -> None:
    """Raise `CommandError` with each path where event data does not fit."""
    from worchflow_core.errors import InvalidInput
    from worchflow_core.schemas import problems
    from worchflow_core.words import printable

    schema = info.schema if info is not None else None
    found = problems(schema, value) if schema is not None else []
    known = app.registry.get(function)
    message = ""
    if known is not None:  # the code itself has the last word; it may take more than the schema
        try:
            known.data_codec.coerce(value)
            return
        except InvalidInput as error:
            message = str(error)
    if not found and not message:
        return
    if value is None and schema is not None:
        found = problems(schema, {}) or found
    size = max((len(path) for path, _ in found), default=0)
    details = tuple(f"{printable(path):<{size}}  {printable(text)}" for path, text in found[:20])
    raise exits.CommandError(
        f"event data does not fit {function}" if details else message,
        details=details,
        hint=f"worchflow send {function} --template",
    )


async def _send(
    app: Worchflow,
    function: str,
    value: Any,
    execution_id: str | None,
    count: int,
    given: dict[str, Any],
) -> list[ExecutionHandle[Any]]:
    from worchflow_core.cli.events import saying_the_id
    from worchflow_core.sending import Send

    with saying_the_id():
        return await app.client.send_many(
            Send(function=function, data=value, id=execution_id, **given) for _ in range(count)
        )


async def _tell(
    app: Worchflow, function: str, handles: list[ExecutionHandle[Any]], flags: Flags
) -> None:
    from worchflow_core.cli import announce

    if not flags.quiet and not flags.json:
        new = [handle for handle in handles if handle.is_new]
        if len(handles) > 1:
            output.say(f"queued {len(new):,} executions")
        elif new:
            output.say(f"queued {handles[0].id}")
        else:
            output.say(f"{handles[0].id} was sent before; nothing new was created")
    await announce.warn_of_missing_workers(app, [function])


def _print_handles(handles: list[ExecutionHandle[Any]], flags: Flags) -> None:
    if flags.json and len(handles) == 1:
        output.document({"executionId": handles[0].id, "isNew": handles[0].is_new})
    elif flags.json:
        items = [{"executionId": handle.id, "isNew": handle.is_new} for handle in handles]
        output.document({"items": items, "total": len(items)})
    else:
        for handle in handles:
            output.data(handle.id)


async def await_all(
    app: Worchflow, handles: list[ExecutionHandle[Any]], limit: Any, flags: Flags
) -> int:
    """Wait for executions, print how they ended, and return the worst exit code."""
    import asyncio
    import contextlib

    from worchflow_core.cli.following import following
    from worchflow_core.cli.show import outcome_code

    async with contextlib.AsyncExitStack() as stack:
        if len(handles) == 1:  # of several nobody could tell the lines apart
            await stack.enter_async_context(following(app.client, handles[0].id, flags))
        waits = (app.client.wait(item.id, timeout=limit) for item in handles)
        ended = await asyncio.gather(*waits)
    for execution in ended:
        print_outcome(execution)
    return max((outcome_code(execution) for execution in ended), default=exits.DONE)


def print_outcome(execution: Execution, *, is_kept: bool = True) -> None:
    """Print a result to standard output, or an error to standard error.

    Args:
        execution: it has ended.
        is_kept: `worchflow show` will find it.
    """
    from worchflow_core.cli import shapes
    from worchflow_core.words import printable, telling_id

    if execution.status.value == "completed":
        output.document(shapes.load(execution.result))
        return
    failure = execution.error
    reason = f": {failure.type}: {failure.message}" if failure is not None else ""
    name = telling_id(execution.id)
    output.error(
        printable(f"execution {execution.id} {_how(execution.status.value)}{reason}", 1000),
        hint=f"worchflow show {name} --trace" if failure is not None and is_kept else "",
    )


def _how(status: str) -> str:
    return "was cancelled" if status == "cancelled" else status


async def _print_template(app: Worchflow, function: str) -> None:
    """Print a starter document; the store is asked only for what is not installed here."""
    from worchflow_core.catalog import describe as describe_function
    from worchflow_core.cli import events
    from worchflow_core.cli.opening import require_file
    from worchflow_core.schemas import template

    installed = [describe_function(item) for item in app.registry]
    info = next((item for item in installed if item.id == function), None)
    info = info or events.typed(function, installed)
    if info is None:
        require_file(app)
        async with app:
            info = events.typed(function, await app.client.functions())
            info = info or await describe(app, function)
    document = template(info.schema if info is not None else None)
    output.data(json.dumps(document, indent=2, ensure_ascii=False))


def _put(value: Any, path: str, item: Any) -> None:
    *parents, last = path.split(".")
    for part in parents:
        if not isinstance(value, dict):
            break
        value = value.setdefault(part, {})
    if not isinstance(value, dict):
        raise exits.CommandError(f"--set {path}: there is no object to set a field of")
    value[last] = item


def span(text: str | None, name: str) -> Any:
    """Return the span of an option; raise `CommandError` where it is none."""
    from worchflow_core.durations import parse_duration

    if text is None:
        return None
    try:
        return parse_duration(text, name=name)
    except ValueError as error:
        raise exits.CommandError(str(error)) from None


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone()
    except ValueError:
        raise exits.CommandError(
            f"--at is {text!r}; give a time such as 2030-01-31T12:00, or with +02:00 at its end"
        ) from None
