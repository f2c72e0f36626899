"""The link to a Redis: who opened it, what it raises, many commands in one trip."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from redis.exceptions import RedisError, ResponseError

from worchflow_plugins.redis.address import Client, connect, like, place_of
from worchflow_plugins.redis.faults import diagnosis
from worchflow_plugins.redis.packing import Command, packed

ANSWER_WITHIN = 2.0
"""Seconds a command may take before the server counts as away."""
LONGEST_WAIT = 2.0
"""Seconds one blocking pop waits at most."""
_MARGIN = 3.0


class Link:
    """Open clients from a URL, or use the caller's own; ours are closed, the caller's is not.

    Attributes:
        place: host, port and database, for people.
    """

    def __init__(self, source: str | Client) -> None:
        self._source = source
        self.place = place_of(source)
        self._own: list[Any] = []
        self._client: Client | None = None
        self._waiting: Client | None = None
        self._pid = os.getpid()

    @property
    def client(self) -> Client:
        """The client for commands that answer at once."""
        return self._opened(self._client)

    @property
    def waiting(self) -> Client:
        """The client for blocking pops: its connections wait longer for an answer."""
        return self._opened(self._waiting)

    async def open(self) -> None:
        """Make clients; connections are made when first used, so a server may be away."""
        self._pid = os.getpid()
        patience = LONGEST_WAIT + _MARGIN
        if isinstance(self._source, str):
            self._client = self._keep(*connect(self._source, answer_within=None))
            self._waiting = self._keep(*connect(self._source, answer_within=patience))
            return
        self._client = self._source
        waiting = like(self._source, answer_within=patience)
        self._waiting = self._source if waiting is None else self._keep(waiting, None)

    async def close(self) -> None:
        """Close what we made."""
        self._client = self._waiting = None
        own, self._own = self._own, []
        for client in own:
            await client.aclose(close_connection_pool=True)

    async def run(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands in one trip and return their answers.

        Raises:
            ConnectionError: the server is away, or refused one of them.
        """
        with self.translated():
            async with asyncio.timeout(ANSWER_WITHIN):
                return await self._run(packed(commands), len(commands))

    async def _run(self, request: bytes, count: int) -> list[Any]:
        # Not the driver's pipeline: packing and reading as it does cost four times as much.
        pool = self.client.connection_pool
        connection = await pool.get_connection()  # type: ignore[no-untyped-call]
        try:
            await connection.send_packed_command(request)
            answers: list[Any] = []
            refusal: ResponseError | None = None
            for _ in range(count):
                try:
                    answers.append(await connection.read_response())
                except ResponseError as error:
                    refusal = refusal or error
        except BaseException:
            # Answers may be left unread: nobody else must get them.
            await connection.disconnect(nowait=True)
            raise
        finally:
            await pool.release(connection)
        if refusal is not None:
            raise refusal
        return answers

    def translated(self) -> Translated:
        """Return a `with` block in which the driver's errors become `ConnectionError`."""
        if os.getpid() != self._pid:
            raise ConnectionError(
                f"the connection to Redis at {self.place} was opened in process {self._pid} and is "
                f"used in its forked child {os.getpid()}; open one in the child, after the fork"
            )
        return Translated(self.place)

    def _keep(self, client: Client, sentinel: Any) -> Client:
        self._own.append(client)
        if sentinel is not None:
            self._own += sentinel.sentinels
        return client

    def _opened(self, client: Client | None) -> Client:
        if client is None:
            raise RuntimeError(f"the link to Redis at {self.place} is not open; use `async with`")
        return client


class Translated:
    """A `with` block around calls of the driver."""

    __slots__ = ("_place",)

    def __init__(self, place: str) -> None:
        self._place = place

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(exc, (RedisError, OSError, asyncio.TimeoutError, EOFError)):
            raise ConnectionError(diagnosis(exc, self._place)) from exc
