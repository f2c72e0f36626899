"""The scheduler: turns the ticks of schedules into executions. Every worker runs one.

The order of writes: the tick's execution first, under an id that derives from the tick, then
`last_tick` by compare-and-set. So any number of schedulers may do this at once, and each may die
anywhere: a tick that was sent and not noted is sent again, which creates nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from worchflow_core.cron import next_tick
from worchflow_core.errors import StoreUnavailable
from worchflow_core.functions import Registry
from worchflow_core.journal import Journal
from worchflow_core.leadership import Leadership
from worchflow_core.models import CLAIMABLE, Created, Execution, Status
from worchflow_core.offset import measure
from worchflow_core.plugins import Plugins
from worchflow_core.query import Condition, Operator, Query
from worchflow_core.schedules import Overlap, due_ticks, id_prefix, tick_id
from worchflow_core.settings import Settings
from worchflow_core.timetable import ScheduleInfo, Timetable

logger = logging.getLogger("worchflow")

MAX_SKEW = timedelta(seconds=30)
"""How far this machine's clock may be from the store's; beyond, no tick is fired here."""

_LAST_TURN = 2.0
_PAGE = 1000
_UNENDED = tuple({*CLAIMABLE, Status.PROCESSING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do about one schedule.

    Attributes:
        before: the schedule as it was read.
        fire: the ticks to fire, oldest first.
        after: the schedule to write down then.
        dropped: whether missed ticks are let go.
    """

    before: ScheduleInfo
    fire: tuple[datetime, ...] = ()
    after: ScheduleInfo
    dropped: bool = False


def decide(item: ScheduleInfo, unended: Collection[str], now: datetime) -> Decision:
    """Return what to do about a schedule.

    Args:
        item: as just read.
        unended: ids of its executions that have not ended; may be empty for `allow`.
        now: the store's time.
    """
    if item.is_paused:
        return Decision(before=item, after=item)
    schedule = item.schedule
    due = due_ticks(schedule.rule, schedule.catch_up, item.last_tick, now)
    running = set(unended)
    fire: list[datetime] = []
    waiting, skipped = None, item.skipped
    held = () if item.waiting is None else (item.waiting,)
    for tick in (*held, *due.ticks):
        execution_id = tick_id(item.function, tick)
        # One that runs under this very id was sent and not noted: it is no other execution.
        if schedule.overlap is Overlap.ALLOW or not running or execution_id in running:
            fire.append(tick)
            running.add(execution_id)
        elif schedule.overlap is Overlap.QUEUE and waiting is None:
            waiting = tick
        else:
            skipped += 1
    after = replace(item, last_tick=due.upto or item.last_tick, waiting=waiting, skipped=skipped)
    return Decision(before=item, fire=tuple(fire), after=after, dropped=due.dropped)


def _minds_overlap(item: ScheduleInfo, now: datetime) -> bool:
    """Return whether it takes a look at the schedule's executions to decide about it."""
    if item.is_paused or item.schedule.overlap is Overlap.ALLOW:
        return False
    coming = next_tick(item.schedule.rule, item.last_tick)
    return item.waiting is not None or (coming is not None and coming <= now)


class Scheduler:
    """Fire the ticks of schedules until cancelled.

    Args:
        journal: where executions are written.
        registry: the functions whose schedules are registered and fired here.
        plugins: told of each tick that became an execution.
        settings: the lease.
        name: what people call this scheduler; host and process id unless set.
    """

    def __init__(
        self,
        journal: Journal,
        registry: Registry,
        plugins: Plugins,
        settings: Settings,
        *,
        name: str | None = None,
    ) -> None:
        self.timetable = Timetable(journal.store.records)
        self._journal = journal
        self._registry = registry
        self._plugins = plugins
        self._settings = settings
        span = settings.lease / 2
        self._renewal = span.total_seconds() / 3
        self._poll = min(1.0, self._renewal)  # shorter than the lease, however short that is
        self.leadership = Leadership(
            journal.store.records,
            journal.clock,
            span,
            name or f"{socket.gethostname()}:{os.getpid()}",
        )
        self._has_warned = False

    async def run(self) -> None:
        """Register the schedules, then fire their ticks until cancelled; outages are waited out."""
        await self._register()
        if not any(function.schedule for function in self._registry):
            await asyncio.Event().wait()
        try:
            while True:
                turn = asyncio.create_task(self._turn())
                try:
                    wait = await asyncio.shield(turn)
                except asyncio.CancelledError:  # what was begun is sent, noted and told
                    await asyncio.wait([turn], timeout=_LAST_TURN)
                    turn.cancel()
                    raise
                await asyncio.sleep(wait)
        finally:
            with suppress(Exception):
                async with asyncio.timeout(2):
                    await self.leadership.release()

    async def register(self) -> None:
        """Write the schedules of the registry into the store."""
        await self.timetable.register(self._registry, now=self._journal.clock.now())

    async def measure(self) -> None:
        """Find out how far this machine's clock is from the store's."""
        await measure(self._journal.store, self._journal.clock, self._settings.lease)

    # --- one pass -------------------------------------------------------------------------------

    async def tick(self) -> datetime | None:
        """Fire what is due; return when the next tick is due, None where nothing is to come.

        Leading is not asked here: whoever calls it, and however often, a tick is fired once.
        """
        if self._is_skewed():
            return None
        items = await self._read()
        now = self._journal.clock.now()
        unended = await self._unended(items, now)
        if unended:  # asking took time: a schedule that was changed meanwhile must not be fired
            items = await self._read()
        decisions = [
            decide(item, unended.get(item.function, ()), now)
            for item in items
            if item.function in unended or not _minds_overlap(item, now)
        ]
        await self._send(decisions, now)
        changed = [each.after for each in decisions if each.after != each.before]
        if changed:
            await self.timetable.note(changed)  # who is refused was overtaken, and is read again
        coming = [
            next_tick(each.after.schedule.rule, each.after.last_tick)
            for each in decisions
            if not each.after.is_paused
        ]
        return min((moment for moment in coming if moment is not None), default=None)

    async def _read(self) -> list[ScheduleInfo]:
        """Return the schedules of functions this process has; others may be gone for good."""
        return [
            item
            for item in await self.timetable.read()
            if (function := self._registry.get(item.function)) is not None and function.schedule
        ]

    async def _unended(
        self, items: Sequence[ScheduleInfo], now: datetime
    ) -> Mapping[str, Collection[str]]:
        """Return the unended executions of schedules that are due and mind an overlap."""
        asking = [item.function for item in items if _minds_overlap(item, now)]
        found = await asyncio.gather(*map(self._find_unended, asking))
        return dict(zip(asking, found, strict=True))

    async def _find_unended(self, function_id: str) -> Collection[str]:
        query = Query(
            where=(
                Condition("function", Operator.EQUAL, function_id),
                Condition("status", Operator.IN, _UNENDED),
                Condition("id", Operator.PREFIX, id_prefix(function_id)),
            ),
            limit=_PAGE,
        )
        return {item.id for item in (await self._journal.store.find(query)).items}

    async def _send(self, decisions: Sequence[Decision], now: datetime) -> None:
        has_hint = self._journal.queue.keeps_hints
        executions: list[Execution] = []
        for each in decisions:
            if each.dropped:
                logger.info(
                    "missed ticks of %s are let go (catch_up is %s)",
                    each.after.function,
                    each.after.schedule.catch_up,
                )
            for tick in each.fire:
                name = tick_id(each.after.function, tick)
                executions.append(
                    each.before.execution(name, now=now, has_hint=has_hint, tick=tick)
                )
        for start in range(0, len(executions), _PAGE):
            part = executions[start : start + _PAGE]
            created = await self._journal.create(part)
            for execution, answer in zip(part, created, strict=True):
                # Anything but NEW: another scheduler, or an earlier try, has fired this tick.
                if answer is Created.NEW and self._plugins.hears("worchflow_schedule_fired"):
                    self._plugins.notify(
                        "worchflow_schedule_fired",
                        execution=execution,
                        tick=execution.scheduled_for,
                    )
        if executions:
            self._journal.reach("after_tick_send")

    # --- the rhythm -----------------------------------------------------------------------------

    async def _turn(self) -> float:
        """Do one round; return how many seconds to wait for the next."""
        try:
            if not self.leadership.is_fresh:
                await self.measure()
                if self._is_skewed():
                    await self.leadership.release()
                    return self._renewal
                if not await self.leadership.hold():
                    return self._renewal
            coming = await self.tick()
        except (StoreUnavailable, ConnectionError) as error:
            logger.debug("the scheduler waits for the store: %s", error)
            return self._poll
        except Exception:
            logger.exception("firing schedules failed; it is tried again")
            return self._poll
        if coming is None:
            return self._poll
        left = (coming - self._journal.clock.now()).total_seconds()
        return min(max(left, 0.002), self._poll)

    async def _register(self) -> None:
        wait = 0.1
        while True:
            try:
                await self.measure()
                await self.register()
                return
            except (StoreUnavailable, ConnectionError) as error:
                logger.debug("cannot write the schedules to the store yet: %s", error)
            except Exception:
                logger.exception("registering the schedules failed; it is tried again")
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))
            wait = min(wait * 2, 2.0)

    def _is_skewed(self) -> bool:
        offset = self._journal.clock.offset
        is_skewed = abs(offset) > MAX_SKEW
        if is_skewed and not self._has_warned:
            logger.warning(
                "this machine's clock is %.0f s %s the store's; no schedule is fired here until "
                "they agree to %d s: set the clock, or run an NTP service",
                abs(offset.total_seconds()),
                "behind" if offset > timedelta(0) else "ahead of",
                MAX_SKEW.total_seconds(),
            )
        elif self._has_warned and not is_skewed:
            logger.info("this machine's clock agrees with the store's again")
        self._has_warned = is_skewed
        return is_skewed
