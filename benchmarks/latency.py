"""How long one step, one commit and one start take, and what an idle worker costs.

    python benchmarks/latency.py --place sqlite

Sequential steps are timed inside one execution. Sent to started is timed between two processes:
this one sends, a worker process runs. Idle is the CPU time of that worker while nothing is sent.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import flows
from places import PLACES, place

from worchflow_core import Worchflow

HERE = Path(__file__).resolve().parent


def quantiles(values: list[float]) -> str:
    """Return median and 99th percentile in milliseconds."""
    ordered = sorted(values)
    high = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return f"p50 {statistics.median(ordered) * 1000:6.2f} ms   p99 {high * 1000:6.2f} ms"


async def measure(overrides: dict[str, str], pid: int, sends: int) -> None:
    """Send one event after the other to the worker process, and print what came of it."""
    async with Worchflow(functions=list_functions(), overrides=overrides, env_file=None) as app:
        handle = await app.client.send(flows.hundred_steps, None)
        await handle.result(60)
        handle = await app.client.send(flows.hundred_steps, None)
        print("one step after the other   ", quantiles(await handle.result(60)))
        spans = []
        for _ in range(sends):
            await asyncio.sleep(0.02)
            handle = await app.client.send(flows.started, time.time())
            spans.append(await handle.result(60))
        print("sent to started            ", quantiles(spans))
        before, began = cpu_of(pid), time.perf_counter()
        await asyncio.sleep(10)
        share = (cpu_of(pid) - before) / (time.perf_counter() - began)
        print(f"idle worker                 {share * 100:.2f} % of a core")


def list_functions() -> list[object]:
    """Return the functions, so that results come back as their types."""
    return [flows.hundred_steps, flows.started]


def cpu_of(pid: int) -> float:
    """Return the CPU seconds a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Start a worker process, measure, stop it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--place", choices=PLACES[:2], default="sqlite")
    parser.add_argument("--sends", type=int, default=200)
    chosen = parser.parse_args()
    with place(chosen.place) as overrides:
        variables = {f"WORCHFLOW_{name.upper()}": value for name, value in overrides.items()}
        variables["WORCHFLOW_LOG"] = "off"
        worker = subprocess.Popen(
            [sys.executable, "-m", "worchflow_core.cli", "worker", "-q", "-m", "flows"],
            cwd=HERE,
            env={**os.environ, **variables},
        )
        try:
            asyncio.run(measure(overrides, worker.pid, chosen.sends))
        finally:
            worker.terminate()
            worker.wait(30)


if __name__ == "__main__":
    main()
