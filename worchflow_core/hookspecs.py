"""Every hook, in the order of an execution's life. A docstring here is a promise to plugin authors.

A plugin is a module or object whose functions are marked `@hookimpl`; an implementation names only
the arguments it wants. Three verbs: `open` (the first answer that is not None wins), `add`
(answers are joined), and a noun with a past participle (told after the fact was stored; returns
nothing; may be `def` or `async def`). The last kind runs beside the event loop, one ordered and
bounded queue per plugin, each call at most once; one that raises or hangs is logged under the
plugin's name and harms neither the execution nor another plugin.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from datetime import datetime

    import typer

    from worchflow_core.functions import Function
    from worchflow_core.models import Execution, Failure, StepRecord, StepTry, Worker
    from worchflow_core.protocols import Queue, StepCache, Store
    from worchflow_core.settings import Settings

hookspec = pluggy.HookspecMarker("worchflow")
hookimpl = pluggy.HookimplMarker("worchflow")

# --- open: who keeps what ------------------------------------------------------------------------


@hookspec(firstresult=True)
def worchflow_open_store(url: str, settings: Settings) -> Store | None:
    """Return a store for `url` if its scheme is yours, else None.

    Called when an application starts; the store is entered afterwards, so only remember here what
    is needed to connect. Import your driver inside, so that listing plugins stays quick.

    Args:
        url: the value of WORCHFLOW_STORE_URL, such as `mongodb://127.0.0.1/worchflow`.
        settings: all settings; read yours from them or from the environment.
    """


@hookspec(firstresult=True)
def worchflow_open_queue(url: str, settings: Settings) -> Queue | None:
    """Return a queue for `url` if its scheme is yours, else None.

    `url` is WORCHFLOW_QUEUE_URL, or the store's URL when that is unset; when nobody answers for
    the store's URL, the store is polled.
    """


@hookspec(firstresult=True)
def worchflow_open_step_cache(url: str, settings: Settings) -> StepCache | None:
    """Return a step cache for `url` if its scheme is yours, else None.

    `url` is WORCHFLOW_STEP_CACHE_URL, or the queue's URL when that is unset; when nobody answers
    for the queue's URL, steps are read from the store.
    """


# --- add: what there is --------------------------------------------------------------------------


@hookspec
def worchflow_add_plugins(settings: Settings) -> Iterable[object]:  # type: ignore[empty-body]
    """Return further plugin objects, made for this application and its settings.

    Called once when an application is built, before anything is opened. A plugin that does
    nothing under some settings returns nothing here, and then costs nothing; one that keeps
    something per application keeps it in the object it returns.
    """


@hookspec
def worchflow_add_functions() -> Iterable[Function[Any, Any]]:  # type: ignore[empty-body]
    """Return functions to run, beside those found through `worchflow.functions` entry points.

    Called once when a worker starts. Two functions with one id are refused, naming both sources.
    """


@hookspec
def worchflow_add_commands(cli: typer.Typer) -> None:
    """Add commands to the `worchflow` command line; import what they need inside them.

    Called when help is shown or a command is run that the core does not have; keep it quick.
    Each command also gets the global flags. A command that takes `ctx: typer.Context` finds the
    settings they override in `ctx.find_root().obj`, for `Worchflow(overrides=...)`.
    """


@hookspec
def worchflow_add_dashboard(ui: Any) -> None:
    """Add pages, navigation, panels and columns to the dashboard.

    Called once when the dashboard is created. `ui` has the methods `add_router`, `add_nav`,
    `add_templates`, `add_static`, `add_panel` and `add_column`.
    """


# --- the life of a worker ------------------------------------------------------------------------


@hookspec
def worchflow_worker_started(worker: Worker) -> None:
    """Be told that a worker registered and is about to take work."""


@hookspec
def worchflow_worker_stopped(worker: Worker) -> None:
    """Be told that a worker gave back all it had and is about to leave."""


# --- the life of an execution --------------------------------------------------------------------


@hookspec
def worchflow_schedule_fired(execution: Execution, tick: datetime) -> None:
    """Be told that a tick of a schedule became an execution."""


@hookspec
def worchflow_execution_queued(execution: Execution) -> None:
    """Be told, in the process that sent it, that a new execution was stored."""


@hookspec
def worchflow_execution_started(execution: Execution) -> None:
    """Be told that an attempt at an execution begins; `execution.failed_attempts` tells which."""


@hookspec
def worchflow_step_completed(execution: Execution, step: StepRecord) -> None:
    """Be told that a step ran and its result is stored."""


@hookspec
def worchflow_step_replayed(execution: Execution, step: StepRecord) -> None:
    """Be told that a stored step was handed on without running it again."""


@hookspec
def worchflow_step_failed(execution: Execution, step: StepTry) -> None:
    """Be told that a step raised; the attempt may still catch it."""


@hookspec
def worchflow_execution_suspended(execution: Execution) -> None:
    """Be told that an execution sleeps or waits, without a slot; `execution.due_at` wakes it."""


@hookspec
def worchflow_execution_retrying(execution: Execution, failure: Failure) -> None:
    """Be told that an attempt failed and another will be made at `execution.due_at`."""


@hookspec
def worchflow_execution_completed(execution: Execution) -> None:
    """Be told that an execution completed; `execution.result` is JSON text."""


@hookspec
def worchflow_execution_failed(execution: Execution, failure: Failure) -> None:
    """Be told that an execution failed for good."""


@hookspec
def worchflow_execution_cancelled(execution: Execution) -> None:
    """Be told that an execution was cancelled."""


@hookspec
def worchflow_execution_superseded(execution: Execution) -> None:
    """Be told that this worker lost an execution to a newer claim and wrote nothing."""


# --- wrap: around user code ----------------------------------------------------------------------


@hookspec
def worchflow_execution_scope(execution: Execution) -> AbstractAsyncContextManager[None] | None:
    """Return an async context manager to enter around each attempt's user code, or None.

    For tracing spans and database sessions. It runs inside the attempt: an error in it fails the
    attempt as an error of the function would.
    """


@hookspec
def worchflow_step_scope(
    execution: Execution, title: str
) -> AbstractAsyncContextManager[None] | None:
    """Return an async context manager to enter around each step's user code, or None."""
