"""Crash points inside a store: reached by what its driver is about to send."""

from __future__ import annotations

import os
from typing import Any

import apsw
from pymongo import monitoring

from worchflow_core.crashpoints import EXIT_CRASHED


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
