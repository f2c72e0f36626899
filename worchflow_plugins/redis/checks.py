"""What `doctor` says of a Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from worchflow_core import Finding
from worchflow_plugins.redis.keys import Keys
from worchflow_plugins.redis.link import ANSWER_WITHIN, Link

_OLDEST = (6, 2)


async def examine(link: Link, keys: Keys) -> Sequence[Finding]:
    """Return findings on version, memory, persistence and queue; changes nothing."""
    try:
        with link.translated():
            async with asyncio.timeout(ANSWER_WITHIN):
                facts: Mapping[str, Any] = await link.client.info()
                length = await link.client.llen(keys.queue)
                lock = await link.client.exists(keys.foreign_leader)
    except ConnectionError as error:
        return [Finding(level="problem", subject="server", text=str(error))]
    return [
        _version(link.place, str(facts.get("redis_version", "?"))),
        _role(str(facts.get("role", "?"))),
        _memory(facts),
        _persistence(facts),
        Finding(level="ok", subject="queue", text=f"{length} hints in {keys.queue}"),
        _schedulers(link.place, keys, is_locked=bool(lock)),
    ]


def scheduler_advice(place: str, keys: Keys) -> str:
    """Return what is wrong when the original's scheduler leads here, and how it is mended."""
    return (
        f"the key {keys.foreign_leader} in Redis at {place} says that a scheduler of the original "
        "TypeScript system runs: with ours beside it every schedule would fire twice. Stop it; its "
        "key is gone a minute later, or give Worchflow another WORCHFLOW_PREFIX and database"
    )


def policy_advice(policy: str, size: str) -> str | None:
    """Return what is wrong with a memory policy; None where it keeps hints."""
    if not policy.startswith("allkeys"):
        return None
    return (
        f"maxmemory-policy {policy} ({size}) may throw hints away when memory is short: "
        "nothing is lost, work starts later; noeviction or volatile-lru is better"
    )


def _schedulers(place: str, keys: Keys, *, is_locked: bool) -> Finding:
    if is_locked:
        text = scheduler_advice(place, keys)
        return Finding(level="problem", subject="other systems", text=text)
    return Finding(level="ok", subject="other systems", text="no foreign scheduler leads here")


def _version(place: str, version: str) -> Finding:
    text = f"Redis {version} at {place}"
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers and numbers < _OLDEST:
        return Finding(level="problem", subject="server", text=f"{text}; 6.2 is the oldest served")
    return Finding(level="ok", subject="server", text=text)


def _role(role: str) -> Finding:
    if role == "master":
        return Finding(level="ok", subject="role", text="a primary")
    text = f"its role is {role}: it takes no writes; point the URL at the primary"
    return Finding(level="problem", subject="role", text=text)


def _memory(facts: Mapping[str, Any]) -> Finding:
    policy, limit = str(facts.get("maxmemory_policy", "?")), int(facts.get("maxmemory", 0))
    size = f"{limit // 1024 // 1024} MiB" if limit else "no limit"
    advice = policy_advice(policy, size)
    if advice is not None:
        return Finding(level="warning", subject="memory", text=advice)
    if limit and int(facts.get("used_memory", 0)) > 0.9 * limit:
        text = f"more than nine tenths of maxmemory ({size}) are in use; raise it"
        return Finding(level="warning", subject="memory", text=text)
    return Finding(level="ok", subject="memory", text=f"maxmemory-policy {policy}, {size}")


def _persistence(facts: Mapping[str, Any]) -> Finding:
    kind = "append-only file" if facts.get("aof_enabled") else "none or snapshots"
    text = f"{kind}; what a restart loses is hinted again from the store"
    if str(facts.get("rdb_last_bgsave_status", "ok")) != "ok":
        text = "its last snapshot failed, it may refuse writes; look at its disk and its log"
        return Finding(level="warning", subject="persistence", text=text)
    return Finding(level="ok", subject="persistence", text=text)
