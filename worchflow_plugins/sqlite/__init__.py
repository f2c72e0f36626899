"""One SQLite file as the store, and sockets beside it that wake workers: the default backends.

`sqlite:///relative.db`, `sqlite:////absolute.db` or `sqlite:path`; with `?mode=rw` a missing file
is not created. The driver is imported when a store is first opened. Steps are read from the file:
a cache would only repeat it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from worchflow_core import hookimpl

if TYPE_CHECKING:
    from worchflow_core import Queue, Settings, Store
    from worchflow_plugins.sqlite.queue import SqliteQueue
    from worchflow_plugins.sqlite.store import SqliteStore

__all__ = ["SqliteQueue", "SqliteStore"]

_SCHEME = "sqlite:"


@hookimpl(trylast=True)
def worchflow_open_store(url: str, settings: Settings) -> Store | None:
    """Return a store for URLs of the scheme `sqlite:`."""
    if not url.startswith(_SCHEME):
        return None
    from worchflow_plugins.sqlite.store import SqliteStore

    return SqliteStore(url, create="mode=rw" not in url.partition("?")[2].split("&"))


@hookimpl(trylast=True)
def worchflow_open_queue(url: str, settings: Settings) -> Queue | None:
    """Return a queue for URLs of the scheme `sqlite:`."""
    if not url.startswith(_SCHEME):
        return None
    from worchflow_plugins.sqlite.queue import SqliteQueue

    return SqliteQueue(url)


def __getattr__(name: str) -> object:
    """Import the public classes when they are first asked for."""
    if name == "SqliteStore":
        from worchflow_plugins.sqlite.store import SqliteStore

        return SqliteStore
    if name == "SqliteQueue":
        from worchflow_plugins.sqlite.queue import SqliteQueue

        return SqliteQueue
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
