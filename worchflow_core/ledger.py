"""A ledger: records that many change at once, by compare-and-set until the change holds.

What is asked for in the same moment is read in one trip and written in one. What this process saw
last is tried first, without reading: a line that one worker uses alone costs one write a change.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from worchflow_core.batching import Batcher
from worchflow_core.errors import StoreUnavailable
from worchflow_core.lookup import read_record
from worchflow_core.models import Payload, Record
from worchflow_core.protocols import Records

Decision = Callable[[Payload | None], Awaitable[Payload | None]]
"""Takes a record's body, None where there is no record; returns the body to write, an empty one
to remove the record, or None to leave all as it is. It is called once per try."""

_LONGEST_PAUSE = 0.05
_REMEMBERED = 4096
_LARGEST_REMEMBERED = 64 * 1024
_PAGE = 500


@dataclass(frozen=True, slots=True)
class _Write:
    """A record to be inserted where there is none, or to be put over the version before it."""

    record: Record
    is_new: bool


class Ledger:
    """The records of one kind.

    Args:
        records: where they are kept.
        kind: which kind.
    """

    def __init__(self, records: Records, kind: str) -> None:
        self._records = records
        self._kind = kind
        self._seen: OrderedDict[str, Record | None] = OrderedDict()
        self._reads = Batcher(self._read_all, flights=2, is_outage=_is_outage)
        self._writes = Batcher(self._write_all, flights=2, is_outage=_is_outage)

    async def read(self, key: str) -> Payload | None:
        """Return a record's body as the store has it; None where there is no record."""
        record = await self._reads.submit(key)
        return None if record is None else record.body

    async def scan(self, after: str, *, limit: int = _PAGE) -> Sequence[Record]:
        """Return records in key order, from behind a key."""
        page = await self._records.scan(self._kind, after=after, limit=limit)
        for record in page:
            self._remember(record.key, record)
        return page

    async def insert(self, key: str, body: Payload) -> None:
        """Write a record that stays as it is first written."""
        await self._records.insert([Record(kind=self._kind, key=key, body=body)])

    async def delete(self, key: str) -> None:
        """Delete a record, whatever it says."""
        self._seen.pop(key, None)
        await self._records.delete(self._kind, [key])

    async def remove(self, page: Iterable[Record]) -> None:
        """Remove records that still are as they were read."""
        gone = [replace(record, body="", version=record.version + 1) for record in page]
        for record in gone:
            self._seen.pop(record.key, None)
        if gone:
            await self._records.replace(gone)

    async def change(self, key: str, decide: Decision) -> None:
        """Decide, compare-and-set, until nobody came in between.

        The first try takes what this process saw last: where that is old, the store refuses.
        """
        pause = 0.001
        known, is_fresh = self._seen.get(key), False
        while True:
            body = await decide(known.body if known is not None else None)
            if body is not None and (known is not None or body):
                if await self._writes.submit(_Write(self._over(key, known, body), known is None)):
                    return
            elif is_fresh:  # only of what stands can it be said that nothing is to be done
                return
            if is_fresh:
                await asyncio.sleep(pause * random.random())
                pause = min(pause * 2, _LONGEST_PAUSE)
            known, is_fresh = await self._reads.submit(key), True

    def _over(self, key: str, known: Record | None, body: Payload) -> Record:
        # A random first version: whoever read a namesake that is gone must not write over this.
        version = known.version + 1 if known is not None else 1 + secrets.randbits(40)
        return Record(kind=self._kind, key=key, body=body, version=version)

    # --- the trips ------------------------------------------------------------------------------

    async def _read_all(self, keys: Sequence[str]) -> Sequence[Record | None]:
        """Read records: neighbours by one scan, as far as it reaches, the others one by one."""
        wanted = sorted(set(keys))
        found: dict[str, Record | None] = {}
        if len(wanted) > 1:
            limit = min(_PAGE, 4 * len(wanted))
            page = await self._records.scan(
                self._kind, after=wanted[0][:-1], until=wanted[-1] + "\0", limit=limit
            )
            there = {record.key: record for record in page}
            end = page[-1].key if len(page) == limit else wanted[-1]
            found = {key: there.get(key) for key in wanted if key <= end}
        missing = [key for key in wanted if key not in found]
        records = await asyncio.gather(
            *(read_record(self._records, self._kind, key) for key in missing)
        )
        found.update(zip(missing, records, strict=True))
        for key, record in found.items():
            self._remember(key, record)
        return [found[key] for key in keys]

    async def _write_all(self, writes: Sequence[_Write]) -> Sequence[bool]:
        """Write each record whose key comes first here, and say which of them were taken."""
        firsts: dict[str, _Write] = {}
        for write in writes:
            firsts.setdefault(write.record.key, write)
            self._seen.pop(write.record.key, None)
        fresh = [item.record for item in firsts.values() if item.is_new]
        over = [item.record for item in firsts.values() if not item.is_new]
        taken = set(await self._records.insert(fresh)) if fresh else set()
        if over:
            taken |= {item.key for item in over} - set(await self._records.replace(over))
        for key in taken:
            record = firsts[key].record
            self._remember(key, record if record.body else None)
        return [item is firsts[item.record.key] and item.record.key in taken for item in writes]

    def _remember(self, key: str, record: Record | None) -> None:
        if record is not None and len(record.body) > _LARGEST_REMEMBERED:
            self._seen.pop(key, None)
            return
        self._seen[key] = record
        self._seen.move_to_end(key)
        while len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)


def _is_outage(error: BaseException) -> bool:
    return isinstance(error, StoreUnavailable)
