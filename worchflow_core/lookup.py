"""Find the record of one key."""

from __future__ import annotations

from worchflow_core.models import Record
from worchflow_core.protocols import Records


async def read_record(records: Records, kind: str, key: str) -> Record | None:
    """Return the record with this very key, among any number that begin like it; None without."""
    if not key or any(0xD800 <= ord(char) <= 0xDFFF for char in key):
        return None  # no store holds a lone surrogate
    last = ord(key[-1])
    before = key[:-1]
    if last:  # behind the neighbour before it, and whatever that is the beginning of
        before += chr(0xD7FF if last == 0xE000 else last - 1) + "\U0010ffff" * 8
    found = await records.scan(kind, after=before, until=key + "\0", limit=1)
    return found[0] if found and found[0].key == key else None
