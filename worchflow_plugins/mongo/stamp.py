"""The stamp of a database: one database is one namespace, and says which."""

from __future__ import annotations

from pymongo.errors import DuplicateKeyError

from worchflow_core import StoreUnusable
from worchflow_plugins.mongo.connection import Connection

SCHEMA = 1
_ID = "namespace"


async def claim_namespace(connection: Connection, prefix: str) -> None:
    """Stamp a fresh database with the prefix and the schema's number.

    Raises:
        StoreUnusable: it belongs to another prefix, or a newer Worchflow wrote it.
    """
    meta = connection.collection("meta")
    with connection.guard:
        found = await meta.find_one({"_id": _ID})
        if found is None:
            try:
                await meta.insert_one({"_id": _ID, "prefix": prefix, "schema": SCHEMA})
                return
            except DuplicateKeyError:
                found = await meta.find_one({"_id": _ID}) or {}
    if found.get("prefix") != prefix:
        raise StoreUnusable(
            f"the database {connection.place} belongs to the prefix {found.get('prefix')!r} and "
            f"WORCHFLOW_PREFIX is {prefix!r}; one database is one namespace: name another in the "
            "path of WORCHFLOW_STORE_URL, or use that prefix"
        )
    if int(found.get("schema") or 0) > SCHEMA:
        raise StoreUnusable(
            f"the database {connection.place} was written by a newer Worchflow (schema "
            f"{found['schema']}, this one knows {SCHEMA}); upgrade this installation"
        )
