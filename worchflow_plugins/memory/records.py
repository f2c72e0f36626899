"""Records in memory."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from worchflow_core import Record
from worchflow_plugins.memory.space import Space


class MemoryRecords:
    """The small shared records of one space."""

    def __init__(self, space: Space) -> None:
        self._space = space

    async def insert(self, records: Sequence[Record]) -> Collection[str]:
        """Insert records whose (kind, key) is new; return the keys that were."""
        new = []
        with self._space.lock:
            for record in records:
                place = (record.kind, record.key)
                if place not in self._space.records:
                    self._space.records[place] = record
                    new.append(record.key)
        return new

    async def replace(self, records: Sequence[Record]) -> Collection[str]:
        """Replace each record whose stored version is `version - 1`; return the keys refused."""
        refused = []
        with self._space.lock:
            for record in records:
                standing = self._space.records.get((record.kind, record.key))
                if standing is None and not record.body:
                    continue
                if standing is None or standing.version != record.version - 1:
                    refused.append(record.key)
                elif not record.body:
                    del self._space.records[record.kind, record.key]
                else:
                    self._space.records[record.kind, record.key] = record
        return refused

    async def delete(self, kind: str, keys: Collection[str]) -> None:
        """Delete records; missing ones are no error."""
        with self._space.lock:
            for key in keys:
                self._space.records.pop((kind, key), None)

    async def scan(
        self, kind: str, *, after: str = "", until: str | None = None, limit: int = 100
    ) -> Sequence[Record]:
        """Return records of a kind in key order, keys greater than `after` and below `until`."""
        with self._space.lock:
            found = [
                record
                for (its_kind, key), record in self._space.records.items()
                if its_kind == kind and key > after and (until is None or key < until)
            ]
        return sorted(found, key=lambda record: record.key)[:limit]

    async def kinds(self) -> Collection[str]:
        """Return the kinds of which there are records."""
        with self._space.lock:
            return {kind for kind, _ in self._space.records}
