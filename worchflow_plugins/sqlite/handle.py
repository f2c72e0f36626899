"""A client's handle on the file: closed at first, then open until it is left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from worchflow_core import StoreUnavailable, StoreUnusable
from worchflow_plugins.sqlite.database import Database, acquire, release
from worchflow_plugins.sqlite.writer import Kind

T = TypeVar("T")


class Handle:
    """What a store and its records share: where the file is, and how it is read and written."""

    def __init__(self, path: str, *, create: bool, is_reader: bool = False) -> None:
        self.path = path
        self.create = create
        self.is_reader = is_reader
        self._database: Database | None = None

    async def open(self) -> None:
        """Open the file, creating what is missing if that is allowed."""
        if self._database is None:
            self._database = await asyncio.to_thread(acquire, self.path, create=self.create)

    async def close(self) -> None:
        """Commit what waits and close the file."""
        database, self._database = self._database, None
        if database is not None:
            await asyncio.to_thread(release, database)

    @property
    def database(self) -> Database:
        """The open database."""
        if self._database is None:
            raise StoreUnavailable(f"{self.path} is not open; use it within `async with`")
        return self._database

    async def write(self, kind: Kind, member: Any, *, weight: int = 1) -> Any:
        """Return the answer to one write once it is durable."""
        if self.is_reader:
            raise StoreUnusable(f"{self.path} was opened with mode=ro, for reading only")
        return await self.database.writer.write(kind, member, weight=weight)

    async def read(self, work: Callable[..., T], *arguments: Any) -> T:
        """Return `work(connection, *arguments)`, run in a reading thread."""
        return await self.database.readers.read(work, *arguments)
