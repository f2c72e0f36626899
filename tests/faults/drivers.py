"""Crash points inside a store: reached by what its driver is about to send."""

from __future__ import annotations

import itertools
import os
import threading
from typing import Any

import apsw
from pymongo import monitoring
from redis.asyncio.connection import AbstractConnection

from worchflow_core.crashpoints import EXIT_CRASHED

_WRITES = ("insert", "update", "delete", "findAndModify")


def die_between_deletes() -> None:
    """Let this process die when it is about to delete executions whose steps are deleted."""
    monitoring.register(_DiesBeforeDelete())
    apsw.connection_hooks.append(_watch)


class _DiesBeforeDelete(monitoring.CommandListener):
    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if event.command_name == "delete" and event.command["delete"] == "executions":
            os._exit(EXIT_CRASHED)

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """Nothing is done after a command."""

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Nothing is done after a command."""


def _watch(connection: apsw.Connection) -> None:
    def trace(cursor: apsw.Cursor, sql: str, bindings: Any) -> bool:
        if sql.startswith("DELETE FROM executions"):
            os._exit(EXIT_CRASHED)
        return True

    connection.exec_trace = trace


# --- the n-th write, whichever it is -------------------------------------------------------------


def die_at_write(number: int, *, after: bool) -> None:
    """Let this process die at its n-th write to a store or queue, beats not counted.

    Args:
        number: from 1.
        after: once the server has made the write, and not before it gets it. A transaction of
            SQLite is over with its commit: there, before the next is after this one.
    """
    count = itertools.count(1)

    def reach() -> None:
        if next(count) == number:
            os._exit(EXIT_CRASHED)

    monitoring.register(_DiesAtWrite(reach, after=after))
    if not after:
        _count_sends(reach)
        apsw.connection_hooks.append(lambda connection: _count_commits(connection, reach))


class _DiesAtWrite(monitoring.CommandListener):
    def __init__(self, reach: Any, *, after: bool) -> None:
        self._reach = reach
        self._after = after
        self._writes: set[int] = set()

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if event.command_name in _WRITES and event.command[event.command_name] != "workers":
            if self._after:
                self._writes.add(event.request_id)
            else:
                self._reach()

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        if event.request_id in self._writes:
            self._reach()

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Nothing was written."""


def _count_sends(reach: Any) -> None:
    send = AbstractConnection.send_packed_command

    async def counted(self: Any, command: Any, check_health: bool = True) -> None:
        text = b"".join(command) if isinstance(command, list) else bytes(command)
        if b"HSET" in text or b"RPUSH" in text:
            reach()
        await send(self, command, check_health)

    AbstractConnection.send_packed_command = counted  # type: ignore[method-assign]


def _count_commits(connection: apsw.Connection, reach: Any) -> None:
    def trace(cursor: apsw.Cursor, sql: str, bindings: Any) -> bool:
        if sql == "COMMIT" and threading.current_thread().name == "worchflow-sqlite":
            reach()
        return True

    connection.exec_trace = trace
