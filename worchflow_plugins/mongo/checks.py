"""What `doctor` says of a MongoDB store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from worchflow_core import Finding, StoreUnusable
from worchflow_plugins.mongo.connection import Connection
from worchflow_plugins.mongo.indexes import INDEXES, missing
from worchflow_plugins.mongo.strangers import FIELDS, WANTED, advice

_SKEW = timedelta(seconds=2)
_BAD_SKEW = timedelta(seconds=30)


async def examine(connection: Connection) -> Sequence[Finding]:
    """Return findings on server, topology, indexes and clock; changes nothing."""
    with connection.guard:
        before = datetime.now(UTC)
        hello = await connection.database.command("hello")
        after = datetime.now(UTC)
        build = await connection.database.command("buildInfo")
        indexes = await _indexes(connection)
        stranger = await connection.collection("executions").find_one(WANTED, FIELDS)
    moment: datetime = hello["localTime"]
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    version = build["version"]
    return [
        Finding(level="ok", subject="server", text=f"MongoDB {version} at {connection.place}"),
        _topology(connection, len(hello.get("hosts") or ())),
        Finding(level="ok", subject="write concern", text="majority, journaled"),
        indexes,
        _clock(moment - (before + (after - before) / 2)),
        _strangers(connection, stranger),
    ]


def _topology(connection: Connection, members: int) -> Finding:
    if connection.is_standalone:
        return Finding(
            level="warning",
            subject="topology",
            text="a standalone server: promises hold across crashes, not across loss of its disk, "
            "and a write whose answer is lost is repeated by us alone; a replica set is better",
        )
    if connection.replica_set is None:
        return Finding(level="ok", subject="topology", text="a sharded cluster")
    noun = "member" if members == 1 else "members"
    text = f"replica set {connection.replica_set}, {members} {noun}"
    return Finding(level="ok", subject="topology", text=text)


async def _indexes(connection: Connection) -> Finding:
    try:
        lacking = await missing(connection)
    except StoreUnusable as error:
        return Finding(level="problem", subject="indexes", text=str(error))
    if lacking:
        names = ", ".join(index.name for index in lacking)
        text = f"{len(lacking)} of {len(INDEXES)} are missing ({names}); a start creates them"
        return Finding(level="problem", subject="indexes", text=text)
    return Finding(level="ok", subject="indexes", text=f"all {len(INDEXES)} are there")


def _strangers(connection: Connection, found: Mapping[str, Any] | None) -> Finding:
    if found is None:
        return Finding(level="ok", subject="other systems", text="none works on this database")
    text = advice(connection.place, str(found["id"]))
    return Finding(level="problem", subject="other systems", text=text)


def _clock(offset: timedelta) -> Finding:
    seconds = offset.total_seconds()
    text = f"the server's clock is {seconds:+.3f} s from this machine's"
    size = abs(offset)
    level = "ok" if size < _SKEW else "warning" if size < _BAD_SKEW else "problem"
    return Finding(level=level, subject="clock", text=text)
