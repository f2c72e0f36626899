"""Reading: a few threads with connections of their own, which no writer can keep waiting."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

import apsw

from worchflow_core import StoreUnavailable
from worchflow_plugins.sqlite.connection import patiently
from worchflow_plugins.sqlite.faults import as_input_error, as_store_error, forked

P = ParamSpec("P")
T = TypeVar("T")

_THREADS = 2
"""A slow search must not keep a worker from reading the steps it has to replay."""


class Readers:
    """Run reading functions in threads, each on a connection that is in nobody else's use."""

    def __init__(self, path: str, connect: Callable[[], apsw.Connection]) -> None:
        self._path = path
        self._connect = connect
        self._pid = os.getpid()
        self._idle: SimpleQueue[apsw.Connection] = SimpleQueue()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="worchflow-sqlite-reader")

    async def read(self, work: Callable[..., T], *arguments: Any) -> T:
        """Return `work(connection, *arguments)`; it sees every write that returned before."""
        if os.getpid() != self._pid:
            raise forked(self._path, self._pid)
        loop = asyncio.get_running_loop()
        try:
            future = loop.run_in_executor(self._threads, self._run, work, arguments)
        except RuntimeError:
            raise StoreUnavailable(f"{self._path} was closed; open it before reading") from None
        return await future

    def _run(self, work: Callable[..., T], arguments: tuple[Any, ...]) -> T:
        try:
            connection = self._idle.get_nowait() if not self._idle.empty() else self._connect()
            try:
                answer = patiently(lambda: work(connection, *arguments))
            except BaseException:
                connection.close()
                raise
        except Exception as error:
            fault = as_store_error(error, self._path) or as_input_error(error)
            if fault is error:
                raise
            raise fault from error
        self._idle.put(connection)
        return answer

    def stop(self) -> None:
        """End the threads and close their connections."""
        self._threads.shutdown()
        while not self._idle.empty():
            self._idle.get_nowait().close()
