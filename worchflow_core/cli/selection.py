"""Which executions: the filter flags that `list`, `retry`, `cancel`, `delete` share."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worchflow_core.cli import completion, exits

if TYPE_CHECKING:
    from worchflow_core.client import Client
    from worchflow_core.filters import Filter

Statuses = Annotated[
    str | None,
    typer.Option(
        "--status",
        help="One status or several: failed,retrying.",
        autocompletion=completion.statuses,
    ),
]
FunctionId = Annotated[
    str | None,
    typer.Option("--function", "-f", help="Of this function.", autocompletion=completion.functions),
]
Search = Annotated[
    str | None, typer.Option("--search", help="Id or function starts with this, or error type.")
]
Tag = Annotated[str | None, typer.Option("--tag", help="Labelled with this.")]
Since = Annotated[
    str | None, typer.Option("--since", help="Created since: 1h ago as 1h, or 2030-01-31T12:00.")
]
Until = Annotated[str | None, typer.Option("--until", help="Created before; as --since.")]
OneId = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="An id, or 6 and more characters of one.",
        autocompletion=completion.executions,
    ),
]
Ids = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[ID]...",
        help="Ids, or 6 and more characters of one; - reads them.",
        autocompletion=completion.executions,
    ),
]
All = Annotated[bool, typer.Option("--all", help="All that match the filters.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say which these would be.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

_PAGE = 1000


def moment(text: str | None, name: str) -> datetime | None:
    """Return a moment given as an age ("1h", "30m") or as ISO text, local time unless it says.

    Raises:
        CommandError: it is neither.
    """
    from worchflow_core.durations import parse_duration

    if text is None:
        return None
    try:
        return datetime.now(UTC) - parse_duration(text)
    except (ValueError, OverflowError):
        pass
    try:
        found = datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text))
    except ValueError:
        raise exits.CommandError(
            f"{name} is {text!r}; give an age such as 1h or 2d, or a time such as 2030-01-31T12:00"
        ) from None
    return found.astimezone(UTC)


def make_filter(**given: Any) -> Filter:
    """Return the filter of flags; what is None does not restrict."""
    from worchflow_core.filters import Filter

    for name in ("since", "until"):
        if isinstance(given.get(name), str):
            given[name] = moment(given[name], f"--{name}")
    function = given.get("function")
    if isinstance(function, str):
        given["function"] = [part.strip() for part in function.split(",") if part.strip()]
    return Filter(**{name: value for name, value in given.items() if value is not None})


async def all_matching(client: Client, verb: str, given: Filter) -> list[str]:
    """Return the ids of all that match and that `verb` can be done to, page after page."""
    from dataclasses import replace

    from worchflow_core.bulk import Verb, choose

    chosen = replace(choose(Verb(verb), given, everything=True), limit=_PAGE)
    found: list[str] = []
    while True:
        page = await client.find(chosen)
        found += [item.id for item in page.items]
        if len(page.items) < _PAGE:
            return found
        last = page.items[-1]
        chosen = replace(chosen, after=(getattr(last, chosen.order), last.id))


def given_ids(ids: list[str] | None) -> list[str]:
    """Return the ids named on the command line; `-` stands for those on standard input."""
    named: list[str] = []
    for item in ids or ():
        named += sys.stdin.read().split() if item == "-" else [item]
    return list(dict.fromkeys(named))
