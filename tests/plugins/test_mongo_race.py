"""Processes that claim the same executions of one replica set: each is claimed once, by one."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pymongo import MongoClient

from worchflow_core.testing.contracts.samples import NOW, at, execution
from worchflow_plugins.mongo import MongoStore

pytestmark = pytest.mark.servers

PROCESSES = 4
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

_CLAIMER = """
import asyncio, json, sys
from datetime import timedelta
from worchflow_core import CLAIMABLE, Condition, Operator, Query
from worchflow_core.testing.contracts.samples import NOW
from worchflow_plugins.mongo import MongoStore

url, name, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
ids = json.loads(sys.stdin.readline())
FREE = Query(where=(Condition("status", Operator.IN, tuple(CLAIMABLE)),), limit=1)

async def main():
    taken = []
    async with MongoStore(url) as store:

        async def claim(hints):
            limit = len(hints) if hints else size
            found = await store.claim(name, ["f", "g"], limit=limit, now=NOW, ids=hints)
            assert all(item.owner == name for item in found)
            taken.extend(item.id for item in found)

        print("ready", flush=True)
        sys.stdin.readline()
        for start in range(0, len(ids), size):
            await claim(ids[start : start + size])
        while (await store.find(FREE)).items:
            await claim(None)
    print(json.dumps(taken))

asyncio.run(main())
"""


@contextmanager
def _claimers(url: str, hints: list[str], size: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Start processes that hold at the line until they are told to go."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _CLAIMER, url, f"w{number}", str(size)],
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(PROCESSES)
    ]
    try:
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(json.dumps(hints) + "\n")
            process.stdin.flush()
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


async def _fill(url: str, count: int) -> list[str]:
    """Write executions of ours and of the original's client, in turn; return all ids."""
    ours = [
        execution(f"ours-{number:04}", function="fg"[number % 2], due_at=at(-1))
        for number in range(count // 2)
    ]
    async with MongoStore(url) as store:
        await store.create(ours)
    theirs: list[dict[str, Any]] = [
        {
            "id": f"theirs-{number:04}",
            "eventName": "fg"[number % 2],
            "eventData": "{}",
            "status": "queued",
            "attemptCount": 0,
            "createdAt": int(NOW.timestamp() * 1000) - number,
            "updatedAt": int(NOW.timestamp() * 1000) - number,
        }
        for number in range(count // 2)
    ]
    with MongoClient[Any](url) as client:
        client.get_default_database().executions.insert_many(theirs)
    pairs = zip(ours, theirs, strict=True)
    return [name for mine, foreign in pairs for name in (mine.id, foreign["id"])]


@pytest.mark.parametrize(
    ("count", "hinted", "size"), [(300, 300, 1), (2000, 2000, 500), (2000, 500, 40), (2000, 0, 40)]
)
def test_every_execution_is_claimed_by_one_process(
    mongodb_url: str, count: int, hinted: int, size: int
) -> None:
    ids = asyncio.run(_fill(mongodb_url, count))
    with _claimers(mongodb_url, ids[:hinted], size) as processes:
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        taken = [json.loads(process.communicate(timeout=240)[0]) for process in processes]
    claimed = Counter(name for names in taken for name in names)
    assert claimed == Counter(ids)
    with MongoClient[Any](mongodb_url) as client:
        database = client.get_default_database()
        standing = {item["id"]: item for item in database.executions.find()}
        client.drop_database(database.name)
    assert len(standing) == count
    for number, names in enumerate(taken):
        for name in names:
            assert standing[name]["owner"] == f"w{number}"
            assert standing[name]["fence"] == 1
            assert standing[name]["status"] == "processing"
