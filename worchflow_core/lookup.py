"""Find the record of one key, and change it by compare-and-set until the change holds."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable

from worchflow_core.models import Payload, Record
from worchflow_core.protocols import Records

_LONGEST_PAUSE = 0.05


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


async def change(
    records: Records, kind: str, key: str, decide: Callable[[Payload | None], Payload | None]
) -> None:
    """Read a record's body, decide, compare-and-set, until nobody came in between.

    Args:
        records: where the record is kept.
        kind: the family of the record.
        key: which one.
        decide: takes the body, None where there is no record; returns the body to write, an empty
            one to remove the record, or None to leave all as it is. It is called once per try.
    """
    pause = 0.001
    while True:
        known = await read_record(records, kind, key)
        body = decide(known.body if known is not None else None)
        if body is None or (known is None and not body):
            return
        if known is None:
            # A random version: whoever read a namesake that is gone must not write over this one.
            fresh = Record(kind=kind, key=key, body=body, version=1 + secrets.randbits(40))
            is_done = bool(await records.insert([fresh]))
        else:
            changed = Record(kind=kind, key=key, body=body, version=known.version + 1)
            is_done = not await records.replace([changed])
        if is_done:
            return
        await asyncio.sleep(pause * random.random())
        pause = min(pause * 2, _LONGEST_PAUSE)
