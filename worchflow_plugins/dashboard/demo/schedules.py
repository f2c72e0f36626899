"""Schedules of the demonstration, with ticks that were fired, and a scheduler that leads."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta

from worchflow_core import Execution, Record, Status, StepRecord, Store, Timetable, to_millis
from worchflow_plugins.dashboard.demo.functions import FUNCTIONS
from worchflow_plugins.dashboard.demo.maker import Maker

_TICKS = 20
_MISSED = frozenset({6, 7, 15})
_FAILED = frozenset({3, 11})


async def seed_schedules(
    store: Store, maker: Maker, now: datetime
) -> list[tuple[Execution, list[StepRecord]]]:
    """Register the schedules, and return what their last ticks were fired as."""
    timetable = Timetable(store.records)
    await timetable.register(FUNCTIONS, now=now)
    made = []
    for item in await timetable.read():
        for number, (tick, execution_id) in enumerate(item.past_ticks(_TICKS)):
            if number in _MISSED:
                continue
            status = Status.FAILED if number in _FAILED else Status.COMPLETED
            execution, steps = maker.make(now - tick, status, item.function)
            execution = replace(execution, id=execution_id, scheduled_for=tick)
            made.append((execution, [replace(one, execution_id=execution_id) for one in steps]))
    until = to_millis(now + timedelta(hours=24))
    body = json.dumps({"id": "demo", "name": "host-0:4100", "until": until})
    await store.records.insert([Record(kind="meta", key="scheduler", body=body)])
    return made
