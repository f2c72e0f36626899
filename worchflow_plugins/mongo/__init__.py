"""The store in MongoDB: `mongodb://host:27017/worchflow` and `mongodb+srv://`.

The path names the database (default `worchflow`); one database is one namespace. `MongoStore` may
also be given an `AsyncMongoClient` or an `AsyncDatabase` that the caller made and closes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from worchflow_core import hookimpl

if TYPE_CHECKING:
    from worchflow_core import Settings, Store
    from worchflow_plugins.mongo.store import MongoStore as MongoStore

__all__ = ["MongoStore"]

_SCHEMES = ("mongodb://", "mongodb+srv://")


@hookimpl(trylast=True)
def worchflow_open_store(url: str, settings: Settings) -> Store | None:
    """Return a store for `mongodb://` and `mongodb+srv://`."""
    if not url.startswith(_SCHEMES):
        return None
    from worchflow_plugins.mongo.store import MongoStore

    return MongoStore(url, prefix=settings.prefix)


def __getattr__(name: str) -> Any:
    if name == "MongoStore":
        from worchflow_plugins.mongo.store import MongoStore

        return MongoStore
    raise AttributeError(f"worchflow_plugins.mongo has no {name!r}")
