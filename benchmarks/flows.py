"""The functions that the benchmarks run."""

from __future__ import annotations

import time
from typing import Any

from worchflow_core import Event, Step, function


async def one() -> int:
    """Return at once: what is measured is the framework."""
    return 1


@function
async def no_steps(event: Event[Any], step: Step) -> int:
    """Do nothing, durably."""
    return 1


@function
async def three_steps(event: Event[Any], step: Step) -> int:
    """Record three steps."""
    total = 0
    for title in ("First", "Second", "Third"):
        total += await step.run(title, one)
    return total


@function
async def hundred_steps(event: Event[Any], step: Step) -> list[float]:
    """Record a hundred steps, one after the other; return how long each took, in seconds."""
    spans = []
    for number in range(100):
        began = time.perf_counter()
        await step.run(f"Step {number}", one)
        spans.append(time.perf_counter() - began)
    return spans


@function
async def many_steps(event: Event[int], step: Step) -> float:
    """Record as many steps as asked for, one after the other; return how long all took."""
    began = time.perf_counter()
    for number in range(event.data):
        await step.run(f"Step {number}", one)
    return time.perf_counter() - began


@function
async def started(event: Event[float], step: Step) -> float:
    """Return how long after it was sent this started, in seconds, by the system's clock."""
    return time.time() - event.data
