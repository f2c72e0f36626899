"""How quick the dashboard is, and what its tabs cost: `python -m benchmarks.dashboard --help`.

It fills a store, serves the dashboard in a process of its own, and asks it as browsers do.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import socket
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx

from worchflow_core import Execution, Failure, Status, Store, Worchflow, load_settings
from worchflow_plugins.dashboard import demo
from worchflow_plugins.dashboard.demo.maker import Maker

_PART = 1000
_FUNCTIONS = ("process-payment", "encode-video", "hello-world", "sync-inventory")


async def main() -> None:
    """Fill, serve, measure, print."""
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        url = options.store or f"sqlite:///{folder}/worchflow.db"
        async with Worchflow(load_settings({"store_url": url}, env_file=None)) as app:
            store = app.journal.store
            began = time.perf_counter()
            await _fill(store, options.count)
            print(
                f"filled      {options.count:,} executions in {time.perf_counter() - began:.0f} s"
            )
            await _long_one(store, options.steps)
            await _measure(store, url, options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", help="URL of an empty store; a new SQLite file by default")
    parser.add_argument("--count", type=int, default=100_000, help="executions")
    parser.add_argument("--steps", type=int, default=2_000, help="steps of the long execution")
    parser.add_argument("--tabs", type=int, default=20, help="open tabs")
    parser.add_argument("--seconds", type=float, default=30, help="how long the tabs stay open")
    parser.add_argument(
        "--rate", type=float, default=5, help="executions sent per second meanwhile"
    )
    return parser.parse_args()


async def _fill(store: Store, count: int) -> None:
    pick = random.Random(7)
    now = datetime.now(UTC)
    names, weights = [Status.COMPLETED, Status.FAILED, Status.CANCELLED], (90, 8, 2)
    for start in range(0, count, _PART):
        part = []
        for number in range(start, min(count, start + _PART)):
            created = now - timedelta(milliseconds=int(pick.random() ** 2 * 86_400_000 * 7))
            status = pick.choices(names, weights)[0]
            failed = status is Status.FAILED
            part.append(
                Execution(
                    id=f"bench-{number:08}-{pick.getrandbits(64):016x}",
                    function=pick.choice(_FUNCTIONS),
                    data='{"amount":100,"customer_id":"cust_1"}',
                    status=status,
                    created_at=created,
                    updated_at=created + timedelta(seconds=2),
                    finished_at=created + timedelta(seconds=2),
                    retries=3,
                    fence=1,
                    error=Failure(type="acme.Timeout", message="no answer") if failed else None,
                )
            )
        await store.create(part)
    await demo.seed(store, 500)


async def _long_one(store: Store, steps: int) -> None:
    made, (first, *_) = Maker(1, datetime.now(UTC)).make(
        timedelta(seconds=900), Status.COMPLETED, "process-payment"
    )
    made = replace(made, id="long")
    many = [
        replace(
            first,
            execution_id="long",
            step_id=f"{number:032x}",
            title=f"Step {number}",
            seq=number,
            started_at=first.started_at + timedelta(milliseconds=number * 10),
            ended_at=first.started_at + timedelta(milliseconds=number * 10 + 8),
        )
        for number in range(1, steps + 1)
    ]
    await demo.write(store, [(made, many)])


async def _measure(store: Store, url: str, options: argparse.Namespace) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "worchflow_core.cli", "dashboard"),
        *("--port", str(port), "--store-url", url),
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            await _until_ready(client)
            await _pages(client)
            await _tabs(client, store, server.pid, options)
    finally:
        server.terminate()
        await server.wait()


async def _until_ready(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                await client.get("/api/health")
                return
            except httpx.TransportError:
                await asyncio.sleep(0.05)


async def _pages(client: httpx.AsyncClient) -> None:
    for name, path in (
        ("first table", "/"),
        ("failed only", "/?status=failed"),
        ("one function", "/?function=process-payment"),
        ("last hour", "/?when=created:1h"),
        ("error search", "/?search=Timeout"),
        ("functions", "/functions"),
        ("long execution", "/executions/long"),
        ("all its steps", "/executions/long?steps=10000"),
    ):
        times = []
        for _ in range(3):
            await asyncio.sleep(1.1)  # what the second before had read is not to help
            began = time.perf_counter()
            answer = await client.get(path)
            times.append(time.perf_counter() - began)
            assert answer.status_code == 200, answer.text
        size = len(answer.content) / 1024
        worst = max(times) * 1000
        print(f"{name:15} first {times[0] * 1000:5.0f} ms, worst {worst:5.0f} ms, {size:5.0f} KiB")


async def _tabs(
    client: httpx.AsyncClient, store: Store, pid: int, options: argparse.Namespace
) -> None:
    statuses: list[int] = []
    # Ended by a flag: a driver in the midst of a write need not heed being cancelled.
    is_over = False

    async def tab(number: int) -> None:
        await asyncio.sleep(number / options.tabs * 2)
        mark = ""
        while not is_over:
            answer = await client.get("/", headers={"if-none-match": mark} if mark else {})
            statuses.append(answer.status_code)
            mark = answer.headers["etag"]
            await asyncio.sleep(2)

    async def sender() -> None:
        number = 0
        while options.rate and not is_over:
            number += 1
            now = datetime.now(UTC)
            sent = Execution(
                id=f"live-{number}", function="hello-world", created_at=now, updated_at=now
            )
            await store.create([sent])
            await asyncio.sleep(1 / options.rate)

    tasks = [asyncio.create_task(tab(number)) for number in range(options.tabs)]
    tasks.append(asyncio.create_task(sender()))
    await asyncio.sleep(2)
    before, began = _processor_seconds(pid), time.perf_counter()
    await asyncio.sleep(options.seconds)
    share = (_processor_seconds(pid) - before) / (time.perf_counter() - began)
    is_over = True
    await asyncio.gather(*tasks)
    unchanged = statuses.count(304)
    print(
        f"{options.tabs} open tabs    {share * 100:.1f} % of a core at {options.rate:g} new "
        f"executions a second; {len(statuses)} requests, {unchanged} of them 304"
    )


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    asyncio.run(main())
