"""The gates that count starts in a span of time: what comes too fast is late, or turned away."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from worchflow_core import rates
from worchflow_core.gates import Doorman, Stage, age
from worchflow_core.limits import Rate
from worchflow_core.lookup import change
from worchflow_core.models import Execution, Payload


class Counting:
    """Allow starts, and remember them."""

    def __init__(self, doorman: Doorman) -> None:
        self._doorman = doorman

    async def _reserve(
        self, key: str, wanted: int, rate: Rate, now: datetime, *, ahead: bool
    ) -> list[datetime]:
        """Return the moments at which so many may start; only those of now unless `ahead`."""
        found: list[datetime] = []

        def decide(body: Payload | None) -> Payload | None:
            nonlocal found
            known = rates.starts_of(body)
            found = rates.reserved(known, count=rate.count, per=rate.span, now=now, wanted=wanted)
            if not ahead:
                found = [moment for moment in found if moment <= now]
            return rates.body_of([*known, *found][-rate.count :]) if found else None

        await change(self._doorman.journal.store.records, rates.KIND, key, decide)
        return found


class RateLimitGate(Counting):
    """Turn away what comes faster than a rate."""

    stage = Stage.RATE_LIMIT

    async def pass_through(self, coming: Sequence[Execution]) -> Collection[str]:
        """Give back who may not pass now, and return the ids of who may."""
        return await self._doorman.by_key(
            coming, "rate-limit", lambda flow: flow.rate_limit, self._one
        )

    async def _one(self, key: str, group: Sequence[Execution], rate: Rate) -> Collection[str]:
        group = sorted(group, key=age)
        now = self._doorman.journal.clock.now()
        starts = await self._reserve(key, len(group), rate, now, ahead=False)
        why = f"more than {rate.count:,} came within {rate.text}"
        await self._doorman.turn_away(group[len(starts) :], "RateLimited", why)
        return {item.id for item in group[: len(starts)]}


class ThrottleGate(Counting):
    """Let what comes faster than a rate start later, each at a moment of its own."""

    stage = Stage.THROTTLE

    async def pass_through(self, coming: Sequence[Execution]) -> Collection[str]:
        """Give back who may not pass now, and return the ids of who may."""
        return await self._doorman.by_key(coming, "throttle", lambda flow: flow.throttle, self._one)

    async def _one(self, key: str, group: Sequence[Execution], rate: Rate) -> Collection[str]:
        now = self._doorman.journal.clock.now()
        starts = await self._reserve(key, len(group), rate, now, ahead=True)
        turns = list(zip(group, starts, strict=True))
        # Passed already: the start it comes again for is its own.
        await self._doorman.put_off([turn for turn in turns if turn[1] > now], self.stage)
        return {item.id for item, start in turns if start <= now}
