"""Whether things stay quick when there are many: executions, waiting ones, steps of one.

    python benchmarks/scale.py stats --executions 1000000
    python benchmarks/scale.py backlog --executions 1000000
    python benchmarks/scale.py steps --steps 1000

Each prints the figure at a small size beside the figure at the large one. `--place servers`, the
default, is Redis and MongoDB started for it.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from datetime import timedelta

import flows
import uvloop
from places import PLACES, place

from worchflow_core import Execution, Send, Status, Worchflow
from worchflow_core.cli.collector import at_ease

PART = 1000
SHARES = {Status.COMPLETED: 96, Status.FAILED: 2, Status.QUEUED: 1, Status.RETRYING: 1}
"""How many of a hundred have each status."""


async def stats(app: Worchflow, chosen: argparse.Namespace) -> None:
    """Ask for the counts ten times a second, as open tabs of a dashboard do."""
    statuses = [status for status, share in SHARES.items() for _ in range(share)]
    for size in (10_000, chosen.executions):
        await _fill(app, statuses, (await _total(app)), size)
        await asyncio.sleep(2)  # what was counted before is forgotten
        spans = []
        for _ in range(100):
            began = time.perf_counter()
            counts = await app.client.stats()
            spans.append((time.perf_counter() - began) * 1000)
            await asyncio.sleep(0.1)
        spans.sort()
        print(
            f"stats of {sum(counts.values()):>9,} executions   p50 {spans[50]:.2f} ms   "
            f"p95 {spans[95]:.2f} ms   slowest {spans[-1]:.2f} ms"
        )


async def backlog(app: Worchflow, chosen: argparse.Namespace) -> None:
    """Drain a thousand of a thousand, and a thousand of a million, some times."""
    for size in (PART, chosen.executions):
        rates = []
        for number in range(chosen.rounds):
            wanted = size if number == 0 else PART
            for _ in range(0, wanted, PART):
                await app.client.send_many([Send(function=flows.no_steps) for _ in range(PART)])
            await app.journal.drain()
            rates.append(await _drain(app))
        rate, cpu = (statistics.median(column) for column in zip(*rates, strict=True))
        print(f"backlog of {size:>9,}   {rate:8,.0f} run/s   {cpu:5.0f} us CPU each")


async def steps(app: Worchflow, chosen: argparse.Namespace) -> None:
    """Run executions of ten steps and of many, one after the other."""
    runner = asyncio.create_task(app.worker.run())
    for count, rounds in ((10, 30), (chosen.steps, 3)):
        spans = []
        for _ in range(rounds):
            handle = await app.client.send(flows.many_steps, count)
            spans.append(await handle.result(timedelta(minutes=10)) / count * 1000)
        print(f"{count:>6,} steps in one execution   {statistics.median(spans):.2f} ms a step")
    runner.cancel()
    await asyncio.wait([runner])


async def _fill(app: Worchflow, statuses: list[Status], start: int, end: int) -> None:
    now = app.journal.clock.now()
    for begin in range(start, end, PART):
        part = []
        for number in range(begin, min(end, begin + PART)):
            status = statuses[number % len(statuses)]
            part.append(
                Execution(
                    id=f"scale-{number * 2_654_435_761 % 2**32:08x}-{number}",
                    function=flows.no_steps.id,
                    data="null",
                    status=status,
                    created_at=now,
                    updated_at=now,
                    due_at=None if status.is_final else now + timedelta(days=1),
                    finished_at=now if status.is_final else None,
                )
            )
        await app.journal.store.create(part)


async def _total(app: Worchflow) -> int:
    return sum((await app.client.stats()).values())


async def _drain(app: Worchflow) -> tuple[float, float]:
    """Run a thousand; return how many a second, and CPU microseconds, the edges left out."""
    marks: list[tuple[float, float]] = []

    def mark(_: Execution) -> None:
        marks.append((time.perf_counter(), time.process_time()))

    app.journal.on_settled.append(mark)
    with at_ease():  # as `worchflow worker` does
        await app.worker.run(burst=True, max_executions=PART)
    app.journal.on_settled.remove(mark)
    first, last = marks[PART // 10], marks[-1]
    count = PART - PART // 10 - 1
    return count / (last[0] - first[0]), (last[1] - first[1]) / count * 1e6


def main() -> None:
    """Answer one question."""
    questions = {"stats": stats, "backlog": backlog, "steps": steps}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("question", choices=questions)
    parser.add_argument("--place", choices=PLACES, default="servers")
    parser.add_argument("--executions", type=int, default=1_000_000)
    parser.add_argument("--steps", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--concurrency", type=int, default=100)
    chosen = parser.parse_args()

    async def answer(overrides: dict[str, str]) -> None:
        settings = {
            **overrides,
            "concurrency": chosen.concurrency,
            "disabled_plugins": "logs,sample-audit",
        }
        functions = [flows.no_steps, flows.many_steps]
        async with Worchflow(functions=functions, overrides=settings, env_file=None) as app:
            await questions[chosen.question](app, chosen)

    with (
        place(chosen.place) as overrides,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(answer(overrides))


if __name__ == "__main__":
    main()
