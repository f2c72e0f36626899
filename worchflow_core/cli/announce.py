"""What a command says beside its data: backends, functions, settings, and what is missing."""

from __future__ import annotations

import difflib
from collections import defaultdict
from typing import TYPE_CHECKING

from worchflow_core.cli import output
from worchflow_core.cli.opening import source_words, store_file
from worchflow_core.words import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worchflow_core.app import Worchflow


def backends(app: Worchflow) -> list[str]:
    """Return a line per opened backend: what, where, and which setting said so."""
    choice, journal = app.choice, app.journal
    source = source_words(choice.store_source, "--store-url", "WORCHFLOW_STORE_URL")
    lines = [_line("store", journal.store.describe(), source)]
    queue_source = ""
    if choice.queue_url is not None:
        queue_source = source_words(choice.queue_source, "--queue-url", "WORCHFLOW_QUEUE_URL")
    cache = journal.cache
    if cache is not None and choice.step_cache_url is None:
        lines.append(_line("queue, step cache", journal.queue.describe(), queue_source))
        return lines
    lines.append(_line("queue", journal.queue.describe(), queue_source))
    if cache is not None:
        cache_source = source_words(choice.step_cache_source, "", "WORCHFLOW_STEP_CACHE_URL")
        lines.append(_line("step cache", cache.describe(), cache_source))
    return lines


def planned_store(app: Worchflow) -> str:
    """Return the store's line from its URL alone, for when it does not answer yet."""
    from worchflow_core.settings import mask_url

    choice = app.choice
    source = source_words(choice.store_source, "--store-url", "WORCHFLOW_STORE_URL")
    path = store_file(choice.store_url)
    return _line("store", str(path) if path else mask_url(choice.store_url), source)


def functions(app: Worchflow) -> str:
    """Return the line that names all functions and the packages they came with."""
    origins: dict[str, list[str]] = defaultdict(list)
    for item in app.registry:
        schedule = " (cron)" if item.cron else " (every)" if item.schedule else ""
        origins[item.code_version or item.origin].append(f"{item.id}{schedule}")
    parts = [f"{', '.join(names)} ({origin})" for origin, names in origins.items()]
    return _line("functions", "; ".join(parts) or "none", "")


def notices(app: Worchflow) -> list[str]:
    """Return a line for each plugin that took a built-in's place."""
    return [
        f"plugin  {info.name} of {info.distribution} {info.version} replaces the built-in "
        f"{info.name}"
        for info in app.plugins.infos
        if info.is_replacement
    ]


def warnings(app: Worchflow) -> list[str]:
    """Return what should be warned of at start."""
    from worchflow_core.settings import PREFIX, Settings, unknown_variables

    found = list(app.choice.warnings)
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    for name in unknown_variables():
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
        remedy = f"did you mean {near[0]}?" if near else "a plugin may read it"
        found.append(f"{name} is no setting of Worchflow itself; {remedy}")
    return found


def start(app: Worchflow, *, with_functions: bool = True) -> None:
    """Print the start-up lines of an open application to standard error."""
    for line in backends(app):
        output.say(line)
    if with_functions:
        output.say(functions(app))
    for line in notices(app):
        output.say(printable(line))
    for text in warnings(app):
        output.warn(text)


def _line(what: str, where: str, source: str) -> str:
    return "   ".join(part for part in (f"{what:<7}", printable(where), source) if part)


async def warn_of_missing_workers(app: Worchflow, functions: Sequence[str]) -> None:
    """Warn of each function that no live worker has, naming the store that was asked."""
    from worchflow_core.liveness import live_workers_with, no_worker

    workers = await app.client.workers() if functions else ()
    for function in functions:
        if not live_workers_with(function, workers):
            path = store_file(app.choice.store_url)
            place = str(path) if path else app.journal.store.describe()
            output.warn(f"{no_worker(function)} on {place}; start one there: worchflow worker")
