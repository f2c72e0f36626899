"""How many executions a second one worker process drains from a backlog.

    python benchmarks/throughput.py --place sqlite --executions 10000 --rounds 3

Prints one line per round and a median: sends, drains, and the worker's CPU time per execution.
Nothing is weakened: `synchronous=FULL`, or majority and journal; fences and write-once steps on.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time

import flows
import uvloop
from places import PLACES, place

from worchflow_core import Send, Worchflow
from worchflow_core.cli.collector import at_ease

FUNCTIONS = {
    "none": flows.no_steps,
    "three": flows.three_steps,
    "limited": flows.limited,
    "limited-by-key": flows.limited_by_key,
}


async def drain(overrides: dict[str, str], name: str, count: int, concurrency: int) -> list[float]:
    """Send `count` events, drain them; return sends, drains a second and CPU microseconds."""
    function = FUNCTIONS[name]
    settings = {**overrides, "concurrency": concurrency, "disabled_plugins": "logs,sample-audit"}
    async with Worchflow(functions=[function], overrides=settings, env_file=None) as app:
        began = time.perf_counter()
        for start in range(0, count, 1000):
            part = min(1000, count - start)
            await app.client.send_many(
                [Send(function=function, data={"tenant": number % 1000}) for number in range(part)]
            )
        await app.journal.drain()  # the hints as well
        sent = time.perf_counter()
        with at_ease():  # as `worchflow worker` does
            started = time.perf_counter()
            cpu = time.process_time()
            await app.worker.run(burst=True)
            ended = time.perf_counter()
            cpu = time.process_time() - cpu
        counts = await app.client.stats()
        assert sum(counts.values()) == counts["completed"], counts
    return [count / (sent - began), count / (ended - started), cpu / count * 1e6]


def main() -> None:
    """Run the rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--place", choices=PLACES, default="sqlite")
    parser.add_argument("--steps", choices=[*FUNCTIONS], action="append")
    parser.add_argument("--executions", type=int, default=10_000)
    parser.add_argument("--concurrency", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    for steps in chosen.steps or ("none", "three"):
        rows = []
        for _ in range(chosen.rounds):
            with (
                place(chosen.place) as overrides,
                asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
            ):
                rows.append(
                    runner.run(drain(overrides, steps, chosen.executions, chosen.concurrency))
                )
                print(_line(chosen.place, steps, rows[-1]))
        print(
            _line(chosen.place, steps, [statistics.median(row) for row in zip(*rows, strict=True)]),
            "median",
        )


def _line(where: str, steps: str, row: list[float]) -> str:
    sends, drains, cpu = row
    return (
        f"{where:8} {steps:14} steps  {sends:8,.0f} sent/s  {drains:8,.0f} run/s  "
        f"{cpu:5.0f} us CPU each"
    )


if __name__ == "__main__":
    main()
