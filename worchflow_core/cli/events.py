"""`send` of an event: to the functions that subscribe to it, and to those who wait for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from worchflow_core.cli import exits, output

if TYPE_CHECKING:
    from worchflow_core.app import Worchflow
    from worchflow_core.catalog import FunctionInfo
    from worchflow_core.cli.flags import Flags
    from worchflow_core.handles import ExecutionHandle
    from worchflow_core.sending import SentEvent


def is_event(app: Worchflow, name: str, known: Sequence[FunctionInfo]) -> bool:
    """Return whether a name is no function's, and a function subscribes to it."""
    if any(info.id == name for info in known):
        return False
    own = (trigger for function in app.registry for trigger in function.triggers)
    return typed(name, known) is not None or any(trigger.covers(name) for trigger in own)


def typed(name: str, known: Sequence[FunctionInfo]) -> FunctionInfo | None:
    """Return a function that subscribes to an event, rather one that says what data it takes."""
    found = [info for info in known if info.subscribes(name)]
    return next((info for info in found if info.schema is not None), found[0] if found else None)


def check_options(
    name: str, known: Sequence[FunctionInfo], *, delay: str | None, at: str | None, count: int
) -> None:
    """Raise `CommandError` where a function is named, or an option is given that events lack."""
    from worchflow_core.words import printable

    shown = printable(name, 128)
    if any(info.id == name for info in known):
        raise exits.CommandError(
            f"{shown} is a function", hint="leave --event out, or choose another event name"
        )
    given = {"--delay": delay is not None, "--at": at is not None, "--count": count > 1}
    for option, is_given in given.items():
        if is_given:
            raise exits.CommandError(f"{option} is for functions, and {shown} is sent as an event")


@contextmanager
def saying_the_id() -> Iterator[None]:
    """Tell, where the store does not answer, under which id it is safe to send again."""
    from worchflow_core.errors import StoreUnavailable

    try:
        yield
    except StoreUnavailable as error:
        hint = f"send it again with --id {error.execution_id}" if error.execution_id else ""
        raise exits.CommandError(str(error), code=exits.UNREACHABLE, hint=hint) from error


async def send(
    app: Worchflow, name: str, value: Any, event_id: str | None, tags: list[str], flags: Flags
) -> SentEvent[ExecutionHandle[Any]]:
    """Send an event; say first, unless told not to, where to."""
    from worchflow_core.cli import announce

    if not flags.quiet and not flags.json:
        announce.start(app, with_functions=False)
    with saying_the_id():
        return await app.client.send_event(name, value, id=event_id, tags=tags)


async def tell(
    app: Worchflow,
    sent: SentEvent[ExecutionHandle[Any]],
    value: Any,
    known: Sequence[FunctionInfo],
    flags: Flags,
    *,
    with_ids: bool,
) -> None:
    """Print the ids of an event's executions to stdout, what became of it to stderr.

    Args:
        app: the application that sent it.
        sent: the event.
        value: its data.
        known: the functions there are.
        flags: how to print.
        with_ids: False where results follow on stdout instead.
    """
    from worchflow_core.cli import announce

    if not flags.quiet and not flags.json:
        _say(sent)
    for info in known:
        if any(handle.function == info.id for handle in sent.executions):
            _warn_of_misfit(info, value)
    await announce.warn_of_missing_workers(app, [handle.function for handle in sent.executions])
    if not with_ids:
        return
    if flags.json:
        items = [
            {"executionId": item.id, "function": item.function, "isNew": item.is_new}
            for item in sent.executions
        ]
        output.document({"eventId": sent.id, "items": items, "total": len(items)})
    else:
        for handle in sent.executions:
            output.data(handle.id)


def _say(sent: SentEvent[ExecutionHandle[Any]]) -> None:
    from worchflow_core.words import printable

    new = [handle for handle in sent.executions if handle.is_new]
    if not sent.executions:
        output.say(
            f"event {sent.id}: no function subscribes to {sent.name}; "
            "it is kept for those who wait for it"
        )
    elif not new:
        output.say(f"event {sent.id} was sent before; nothing new was created")
    for handle in new:
        output.say(printable(f"queued {handle.id} for {handle.function}", 400))


def _warn_of_misfit(info: FunctionInfo, value: Any) -> None:
    from worchflow_core.words import printable

    found = [f"{path} {text}".strip() for path, text in info.problems(value)]
    if found:
        text = "; ".join(found[:5])
        output.warn(printable(f"event data does not fit {info.id}, which will fail: {text}", 1000))
