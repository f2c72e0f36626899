"""The lookup: one record by its key, among neighbours whose keys begin alike."""

from __future__ import annotations

from worchflow_core.models import Record
from worchflow_core.protocols import Records


async def read_record(records: Records, kind: str, key: str) -> Record | None:
    """Return the record with this key; None where there is none.

    However many keys begin like it: the scan begins just before this key and behind its
    neighbours. Keys that are looked up are ids, so anything but printable ASCII is none.
    """
    if not key or not key.isascii() or not key.isprintable():
        return None
    before = key[:-1] + chr(ord(key[-1]) - 1) + "~" * 128  # no id holds a tilde, which sorts last
    found = await records.scan(kind, after=before, until=key + "\0", limit=10)
    return next((record for record in found if record.key == key), None)
