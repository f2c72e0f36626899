"""Records by their exact key: a scan alone asks for ranges."""

from __future__ import annotations

from worchflow_core.models import Record
from worchflow_core.protocols import Records


async def read_record(records: Records, kind: str, key: str) -> Record | None:
    """Return the record with this key; None where there is none."""
    # Just before this key and after its neighbour: no key holds so many tildes, which sort last.
    after = key[:-1] + chr(ord(key[-1]) - 1) + "~" * 128
    found = await records.scan(kind, after=after, until=key + "\0", limit=10)
    return next((record for record in found if record.key == key), None)
