"""`retry`, `cancel`, `delete`, `purge`: changing executions, one or all that match."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worchflow_core.cli import exits, output, selection
from worchflow_core.cli.flags import flags_of

if TYPE_CHECKING:
    from worchflow_core.bulk import BulkChange
    from worchflow_core.cli.flags import Flags
    from worchflow_core.client import Client
    from worchflow_core.filters import Filter
    from worchflow_core.models import Execution

_BATCH = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What is done to executions.

    Attributes:
        verb, done: such as "retry" and "queued".
        act: does it to many; returns the error for each that was not done, None where it was.
        act_on_all: does it to all that match a filter.
    """

    verb: str
    done: str
    act: Callable[[Client, Sequence[str]], Coroutine[Any, Any, Mapping[str, Any]]]
    act_on_all: Callable[..., Coroutine[Any, Any, BulkChange]]


async def _delete(client: Client, ids: Sequence[str]) -> Mapping[str, Any]:
    return {**dict.fromkeys(ids), **await client.delete_many(ids)}


RETRY = Action(
    verb="retry",
    done="queued",
    act=lambda client, ids: client.retry_many(ids),
    act_on_all=lambda client, *args, **more: client.retry_matching(*args, **more),
)
CANCEL = Action(
    verb="cancel",
    done="cancelled",
    act=lambda client, ids: client.cancel_many(ids),
    act_on_all=lambda client, *args, **more: client.cancel_matching(*args, **more),
)
DELETE = Action(
    verb="delete",
    done="deleted",
    act=_delete,
    act_on_all=lambda client, *args, **more: client.delete_matching(*args, **more),
)


def register(app: typer.Typer) -> None:
    """Add the commands of this family."""
    app.command("retry")(retry)
    app.command("cancel")(cancel)
    app.command("delete")(delete)
    app.command("purge")(purge)


def retry(
    ctx: typer.Context,
    ids: selection.Ids = None,
    everything: selection.All = False,
    status: selection.Statuses = None,
    function: selection.FunctionId = None,
    search: selection.Search = None,
    tag: selection.Tag = None,
    since: selection.Since = None,
    until: selection.Until = None,
    dry_run: selection.DryRun = False,
    yes: selection.Yes = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the end; the exit code is the outcome.")
    ] = False,
) -> None:
    """Queue failed or cancelled executions again; their recorded steps are kept."""
    filters = _filters(status, function, search, tag, since, until)
    code, done = _change(ctx, RETRY, ids, everything, filters, dry_run=dry_run, yes=yes, wait=wait)
    raise typer.Exit(code if code or not done else exits.DONE)


def cancel(
    ctx: typer.Context,
    ids: selection.Ids = None,
    everything: selection.All = False,
    status: selection.Statuses = None,
    function: selection.FunctionId = None,
    search: selection.Search = None,
    tag: selection.Tag = None,
    since: selection.Since = None,
    until: selection.Until = None,
    dry_run: selection.DryRun = False,
    yes: selection.Yes = False,
) -> None:
    """Cancel executions: at once where no worker has them, else at their next step."""
    filters = _filters(status, function, search, tag, since, until)
    raise typer.Exit(_change(ctx, CANCEL, ids, everything, filters, dry_run=dry_run, yes=yes)[0])


def delete(
    ctx: typer.Context,
    ids: selection.Ids = None,
    everything: selection.All = False,
    status: selection.Statuses = None,
    function: selection.FunctionId = None,
    search: selection.Search = None,
    tag: selection.Tag = None,
    since: selection.Since = None,
    until: selection.Until = None,
    dry_run: selection.DryRun = False,
    yes: selection.Yes = False,
) -> None:
    """Delete ended executions and their steps."""
    filters = _filters(status, function, search, tag, since, until)
    raise typer.Exit(_change(ctx, DELETE, ids, everything, filters, dry_run=dry_run, yes=yes)[0])


def purge(
    ctx: typer.Context,
    older_than: Annotated[str, typer.Option(help="Ended longer ago than this: 30d.")],
    status: selection.Statuses = None,
    function: selection.FunctionId = None,
    dry_run: selection.DryRun = False,
    yes: selection.Yes = False,
) -> None:
    """Delete executions that ended long ago, and their steps."""
    filters = {
        "status": status,
        "function": function,
        "finished_until": selection.moment(older_than, "--older-than"),
    }
    raise typer.Exit(_change(ctx, DELETE, None, True, filters, dry_run=dry_run, yes=yes)[0])


def _filters(
    status: str | None,
    function: str | None,
    search: str | None,
    tag: str | None,
    since: str | None,
    until: str | None,
) -> dict[str, Any]:
    return {
        "status": status,
        "function": function,
        "search": search,
        "tag": tag,
        "since": since,
        "until": until,
    }


def _change(
    ctx: typer.Context,
    action: Action,
    ids: list[str] | None,
    everything: bool,
    filters: dict[str, Any],
    *,
    dry_run: bool,
    yes: bool,
    wait: bool = False,
) -> tuple[int, list[str]]:
    """Do it, and return the exit code and the ids it was done to."""
    from worchflow_core.cli.opening import existing, run_async

    flags = flags_of(ctx)
    if everything and ids:
        raise exits.CommandError("give ids or --all, not both")
    for name in ("status", "function", "search", "tag"):
        if filters.get(name) == "":
            raise exits.CommandError(f"--{name} is empty; give a value, or leave it out")
    if not everything and any(filters.values()):
        raise exits.CommandError("filters need --all", hint="add --all, or give ids alone")
    named = [] if everything else selection.given_ids(ids)
    if not everything and not named:
        if ids:  # `-` with nothing on standard input
            output.say("no ids were given")
            return exits.DONE, []
        raise exits.CommandError(f"say which to {action.verb}: ids, or --all with filters")

    async def main() -> tuple[int, list[str]]:
        async with existing(flags) as app:
            client = app.client
            errors: dict[str, Exception] = {}
            if everything:
                chosen = selection.make_filter(**filters)
                if dry_run:
                    found = await selection.all_matching(client, action.verb, chosen)
                    return _print_dry_run(action, found, errors, flags)
                done = await _act_on_all(client, action, chosen, errors, yes=yes)
                if done is None:
                    return exits.FAILED, []
            else:
                found, errors = await _resolve(client, named)
                if dry_run:
                    return _print_dry_run(action, found, errors, flags)
                done = await _act(client, action, found, errors)
            _report(action, done, errors, flags)
            code = exits.DONE if everything else _worst(errors.values())
            if wait and done:
                code = await _wait(client, done) or code
            return code, done

    return run_async(main())


async def _act_on_all(
    client: Client, action: Action, chosen: Filter, errors: dict[str, Exception], *, yes: bool
) -> list[str] | None:
    """Count, ask, and do it to what was counted; None where nobody agreed."""
    counted = await action.act_on_all(client, chosen, dry_run=True, everything=True)
    if counted.edge is None:
        return []
    if not _is_agreed(action, counted, yes=yes):
        output.say("nothing was done")
        return None
    answer = await action.act_on_all(client, counted.edge)
    errors.update(answer.skipped)
    return list(answer.changed)


async def _resolve(client: Client, named: Sequence[str]) -> tuple[list[str], dict[str, Exception]]:
    """Return the whole ids, and why some cannot be told; an ambiguous one stops everything."""
    from worchflow_core.cli.opening import find_execution
    from worchflow_core.errors import NotFound

    found: list[str] = []
    errors: dict[str, Exception] = {}
    for text in named:
        try:
            found.append((await find_execution(client, text)).id)
        except NotFound as error:
            errors[text] = error
        except exits.CommandError as error:
            if error.code != exits.NOT_FOUND:
                raise
            errors[text] = error
    return list(dict.fromkeys(found)), errors


async def _act(
    client: Client, action: Action, ids: Sequence[str], errors: dict[str, Exception]
) -> list[str]:
    done = []
    for start in range(0, len(ids), _BATCH):
        answers = await action.act(client, ids[start : start + _BATCH])
        for name, answer in answers.items():
            if isinstance(answer, Exception):
                errors[name] = answer
            else:
                done.append(name)
    return done


def _is_agreed(action: Action, counted: BulkChange, *, yes: bool) -> bool:
    if yes:
        return True
    count = f"{counted.matched:,}{'+' if counted.is_capped else ''}"
    noun = "execution matches" if counted.matched == 1 else "executions match"
    if not (output.is_terminal(sys.stdin) and output.is_terminal(sys.stderr)):
        raise exits.CommandError(
            f"{count} {noun}; nothing was done",
            hint=f"add --yes to {action.verb} them, or --dry-run to see them",
        )
    sys.stderr.write(f"{count} {noun}. {action.verb.capitalize()} them? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _print_dry_run(
    action: Action, found: Sequence[str], errors: Mapping[str, Exception], flags: Flags
) -> tuple[int, list[str]]:
    from worchflow_core.words import printable

    if flags.json:
        output.document({"items": [{"id": item} for item in found], "total": len(found)})
    else:
        for item in found:
            output.data(printable(item))
    for error in errors.values():
        output.error(str(error))
    if not flags.quiet:
        output.say(f"{len(found):,} to {action.verb}; nothing was done")
    return _worst(errors.values()), []


def _report(
    action: Action, done: Sequence[str], errors: Mapping[str, Exception], flags: Flags
) -> None:
    if flags.json:
        items: list[dict[str, Any]] = [{"id": item, "done": True} for item in done]
        items += [
            {"id": name, "done": False, "error": str(error)} for name, error in errors.items()
        ]
        output.document({"items": items, "total": len(items)})
        return
    if not flags.quiet and (done or not errors):
        output.say(f"{output.mark('ok', sys.stderr)} {len(done):,} {action.done}")
    for error in list(errors.values())[:20]:
        output.error(str(error))
    if len(errors) > 20:
        output.say(f"... and {len(errors) - 20:,} more were skipped")


def _worst(errors: Any) -> int:
    codes = [exits.code_of(error) or exits.FAILED for error in errors]
    if not codes:
        return exits.DONE
    return exits.NOT_FOUND if exits.NOT_FOUND in codes else max(codes)


async def _wait(client: Client, ids: Sequence[str]) -> int:
    import asyncio

    from worchflow_core.cli.send import print_outcome
    from worchflow_core.cli.show import outcome_code

    ended: list[Execution] = await asyncio.gather(*(client.wait(item) for item in ids))
    for execution in ended:
        print_outcome(execution)
    return max(outcome_code(execution) for execution in ended)
