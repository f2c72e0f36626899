"""The schedules as the store keeps them: one record per function, changed by compare-and-set.

A record says all that firing a tick takes, so that whoever fires it needs no code of the user's,
and an old scheduler fires by the newest rule.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache, partial
from itertools import islice
from typing import Any

from worchflow_core.clock import from_millis, to_millis
from worchflow_core.codec import hash_input
from worchflow_core.cron import Cron, Rule, parse_cron, parse_every, ticks_until
from worchflow_core.functions import Function
from worchflow_core.lookup import read_record
from worchflow_core.models import Execution, Record
from worchflow_core.protocols import Records
from worchflow_core.schedules import CatchUp, Overlap, Schedule, next_ticks, tick_id

logger = logging.getLogger("worchflow")

KIND = "schedule"

_PART = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleInfo:
    """A schedule as the store keeps it.

    Attributes:
        function: the id of the function that it runs.
        schedule: its rule, data, overlap and catch-up.
        tags, priority, retries: what its executions are created with.
        revision: raised when `schedule` changes.
        last_tick: the newest tick that was dealt with; ticks up to here are never fired again.
        paused_at: when somebody paused it; None while it runs.
        waiting: a tick that waits for an earlier execution to end (`overlap="queue"`).
        skipped: how many ticks were let go by because an earlier execution had not ended.
        version: the record's version.
    """

    function: str
    schedule: Schedule
    tags: tuple[str, ...] = ()
    priority: int = 0
    retries: int = 0
    revision: int = 1
    last_tick: datetime
    paused_at: datetime | None = None
    waiting: datetime | None = None
    skipped: int = 0
    version: int = 1

    @property
    def is_paused(self) -> bool:
        """Whether somebody paused it."""
        return self.paused_at is not None

    def next_ticks(self, after: datetime, count: int = 5) -> list[datetime]:
        """Return its next ticks after a moment, as if it were not paused."""
        return next_ticks(self.schedule.rule, max(after, self.last_tick), count)

    def past_ticks(self, count: int = 20) -> list[tuple[datetime, str]]:
        """Return the ticks its rule had up to the last one dealt with, the newest first.

        Each with the id its execution has, where it was fired: a tick that was missed, skipped,
        or lies before the schedule was known has none.
        """
        ticks = _ticks_before(self.schedule.rule, self.last_tick, count)
        return [(tick, tick_id(self.function, tick)) for tick in ticks]

    def execution(
        self, execution_id: str, *, now: datetime, has_hint: bool, tick: datetime | None
    ) -> Execution:
        """Return the execution to create for a tick, or for none when it is run by hand."""
        data = self.schedule.data
        return Execution(
            id=execution_id,
            function=self.function,
            data=data,
            created_at=now,
            updated_at=now,
            due_at=now,
            hinted_at=now if has_hint else None,
            retries=self.retries,
            input_hash=hash_input(self.function, data),
            scheduled_for=tick,
            priority=self.priority,
            tags=self.tags,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleRun:
    """What became of one tick.

    Attributes:
        tick: the moment.
        execution: what it was fired as; None where it was missed, skipped, or is deleted.
    """

    tick: datetime
    execution: Execution | None


async def read_runs(
    schedules: Sequence[ScheduleInfo],
    get: Callable[[Sequence[str]], Awaitable[Sequence[Execution]]],
    count: int,
) -> Mapping[str, Sequence[ScheduleRun]]:
    """Return the last ticks of each schedule, newest first, in a query per 500 of them.

    What lies before the oldest that was fired is left out: nobody may have known the rule then.
    """
    past = {item.function: item.past_ticks(count) for item in schedules}
    ids = [name for ticks in past.values() for _, name in ticks]
    found: dict[str, Execution] = {}
    for start in range(0, len(ids), _PART):
        found.update((item.id, item) for item in await get(ids[start : start + _PART]))
    runs: dict[str, Sequence[ScheduleRun]] = {}
    for function, ticks in past.items():
        told = [ScheduleRun(tick=tick, execution=found.get(name)) for tick, name in ticks]
        while told and told[-1].execution is None:
            told.pop()
        runs[function] = told
    return runs


class Timetable:
    """Read and change the schedules of a store."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._unreadable: set[tuple[str, int]] = set()

    async def read(self) -> list[ScheduleInfo]:
        """Return all schedules, by function."""
        found: list[ScheduleInfo] = []
        after = ""
        while page := await self._records.scan(KIND, after=after, limit=500):
            found += [item for record in page if (item := self._parsed(record)) is not None]
            after = page[-1].key
        return found

    async def get(self, function_id: str) -> ScheduleInfo | None:
        """Return the schedule of a function; None where it has none."""
        record = await read_record(self._records, KIND, function_id)
        return None if record is None else self._parsed(record)

    async def register(self, functions: Iterable[Function[Any, Any]], *, now: datetime) -> None:
        """Write down the schedules of these functions, the newest writer winning.

        What is new, or has a new rule, starts now: a rule never reaches back before it was known.
        A function without a schedule loses the one it had.
        """
        known = {item.function: item for item in await self.read()}
        gone = []
        for function in functions:
            if function.schedule is None:
                if function.id in known:
                    gone.append(function.id)
                continue
            fresh = _first(function, function.schedule, now)
            if function.id in known or not await self._records.insert([_to_record(fresh)]):
                await self.change(function.id, partial(_renewed, fresh))
        if gone:
            await self._records.delete(KIND, gone)

    async def change(
        self, function_id: str, decide: Callable[[ScheduleInfo], ScheduleInfo]
    ) -> ScheduleInfo | None:
        """Read, decide, compare-and-set, until it holds; None where there is no schedule."""
        while (item := await self.get(function_id)) is not None:
            wanted = decide(item)
            if wanted == item:
                return item
            if not await self.note([wanted]):
                return replace(wanted, version=item.version + 1)
        return None

    async def note(self, items: Sequence[ScheduleInfo]) -> Sequence[str]:
        """Write changed schedules over the versions they were read as; return who was refused."""
        records = [_to_record(replace(item, version=item.version + 1)) for item in items]
        return list(await self._records.replace(records))

    def _parsed(self, record: Record) -> ScheduleInfo | None:
        """Return a record's schedule; one from a newer Worchflow must not stop the others."""
        try:
            return _from_record(record)
        except (KeyError, TypeError, ValueError) as error:
            if (record.key, record.version) not in self._unreadable:
                self._unreadable.add((record.key, record.version))
                logger.warning("the schedule of %r cannot be read: %s", record.key, error)
            return None


def schedule_to_wire(
    item: ScheduleInfo, *, now: datetime, runs: Sequence[ScheduleRun] | None = None
) -> dict[str, Any]:
    """Return a schedule as commands and the HTTP API tell it; moments in epoch milliseconds.

    With `runs`, what became of its last ticks is told as `recent`.
    """
    schedule = item.schedule
    is_cron = isinstance(schedule.rule, Cron)
    coming = [] if item.is_paused else item.next_ticks(now, 1)
    return {
        "function": item.function,
        "cron": schedule.rule.text if is_cron else None,
        "every": None if is_cron else schedule.rule.text,
        "zone": schedule.zone,
        "overlap": schedule.overlap.value,
        "catchUp": schedule.catch_up.value,
        "revision": item.revision,
        "lastTick": to_millis(item.last_tick),
        "nextTick": to_millis(coming[0]) if coming else None,
        "pausedAt": to_millis(item.paused_at) if item.paused_at else None,
        "waiting": to_millis(item.waiting) if item.waiting else None,
        "skipped": item.skipped,
        **({} if runs is None else {"recent": [_run_to_wire(run) for run in runs]}),
    }


def _run_to_wire(run: ScheduleRun) -> dict[str, Any]:
    return {
        "tick": to_millis(run.tick),
        "executionId": run.execution.id if run.execution else None,
        "status": run.execution.status.value if run.execution else None,
    }


@lru_cache(maxsize=1024)
def _ticks_before(rule: Rule, until: datetime, count: int) -> tuple[datetime, ...]:
    """Remembered, because a page asks for the same again and again."""
    return tuple(islice(ticks_until(rule, until), count))


def _first(function: Function[Any, Any], schedule: Schedule, now: datetime) -> ScheduleInfo:
    return ScheduleInfo(
        function=function.id,
        schedule=schedule,
        tags=function.tags,
        priority=function.priority,
        retries=function.retry.retries,
        last_tick=now,
    )


def _renewed(fresh: ScheduleInfo, item: ScheduleInfo) -> ScheduleInfo:
    """Return a known schedule as its function now describes it."""
    renewed = replace(
        item,
        schedule=fresh.schedule,
        tags=fresh.tags,
        priority=fresh.priority,
        retries=fresh.retries,
        revision=item.revision + (item.schedule != fresh.schedule),
    )
    if item.schedule.rule == fresh.schedule.rule:
        return renewed
    return replace(renewed, last_tick=max(item.last_tick, fresh.last_tick), waiting=None)


def _to_record(item: ScheduleInfo) -> Record:
    schedule = item.schedule
    is_cron = isinstance(schedule.rule, Cron)
    body = {
        "cron": schedule.rule.text if is_cron else None,
        "zone": schedule.zone,
        "every": None if is_cron else schedule.rule.text,
        "data": schedule.data,
        "overlap": schedule.overlap.value,
        "catchUp": schedule.catch_up.value,
        "tags": list(item.tags),
        "priority": item.priority,
        "retries": item.retries,
        "revision": item.revision,
        "lastTick": to_millis(item.last_tick),
        "pausedAt": None if item.paused_at is None else to_millis(item.paused_at),
        "waiting": None if item.waiting is None else to_millis(item.waiting),
        "skipped": item.skipped,
    }
    return Record(
        kind=KIND, key=item.function, body=json.dumps(body, sort_keys=True), version=item.version
    )


def _from_record(record: Record) -> ScheduleInfo:
    body = json.loads(record.body)
    return ScheduleInfo(
        function=record.key,
        schedule=Schedule(
            rule=_rule(body["cron"], body["zone"], body["every"]),
            data=body["data"],
            overlap=Overlap(body["overlap"]),
            catch_up=CatchUp(body["catchUp"]),
        ),
        tags=tuple(body["tags"]),
        priority=body["priority"],
        retries=body["retries"],
        revision=body["revision"],
        last_tick=from_millis(body["lastTick"]),
        paused_at=_moment(body["pausedAt"]),
        waiting=_moment(body["waiting"]),
        skipped=body["skipped"],
        version=record.version,
    )


@lru_cache(maxsize=4096)
def _rule(cron: str | None, zone: str, every: str) -> Rule:
    return parse_every(every) if cron is None else parse_cron(cron, zone)


def _moment(millis: int | None) -> datetime | None:
    return None if millis is None else from_millis(millis)
