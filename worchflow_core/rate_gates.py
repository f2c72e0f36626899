"""The gates that count starts in a span of time: what comes too fast is late, or turned away."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from worchflow_core import rates
from worchflow_core.gates import Doorman, age
from worchflow_core.ledger import Ledger
from worchflow_core.limits import Rate
from worchflow_core.models import Execution, Payload
from worchflow_core.stages import Stage


class RateLimitGate:
    """Turn away what comes faster than a rate."""

    stage = Stage.RATE_LIMIT

    def __init__(self, doorman: Doorman) -> None:
        self._doorman = doorman
        self._starts = Ledger(doorman.journal.store.records, rates.KIND)

    async def pass_through(self, coming: Sequence[Execution]) -> Collection[str]:
        """Give back who may not pass now, and return the ids of who may."""
        return await self._doorman.by_key(
            coming, "rate-limit", lambda flow: flow.rate_limit, self._one
        )

    async def _one(self, key: str, group: Sequence[Execution], rate: Rate) -> Collection[str]:
        names = {_name(item): item for item in sorted(group, key=age)}
        now = self._doorman.journal.clock.now()
        inside: set[str] = set()

        async def decide(body: Payload | None) -> Payload | None:
            nonlocal inside
            starts = rates.starts_of(body)
            known = rates.counted(starts, per=rate.span, now=now, wanted=names)
            asking = [name for name in names if name not in known]
            starts, number = rates.allowed(
                starts, count=rate.count, per=rate.span, now=now, wanted=asking
            )
            inside = {*known, *asking[:number]}
            return rates.body_of(starts) if number else None

        await self._starts.change(key, decide)
        why = f"more than {rate.count:,} came within {rate.text}"
        over = [(item, why) for name, item in names.items() if name not in inside]
        await self._doorman.turn_away(over, "RateLimited")
        return {names[name].id for name in inside}


class ThrottleGate:
    """Let what comes faster than a rate start later, each at a moment of its own.

    Whoever comes again, at or after its moment, starts if the rate allows it then: a worker that
    was late, or away, does not start in a heap what was planned to be apart.
    """

    stage = Stage.THROTTLE

    def __init__(self, doorman: Doorman) -> None:
        self._doorman = doorman
        self._starts = Ledger(doorman.journal.store.records, rates.KIND)

    async def pass_through(self, coming: Sequence[Execution]) -> Collection[str]:
        """Give back who may not pass now, and return the ids of who may."""
        return await self._doorman.by_key(coming, "throttle", lambda flow: flow.throttle, self._one)

    async def _one(self, key: str, group: Sequence[Execution], rate: Rate) -> Collection[str]:
        # Only who was put off here has passed the gate before this one, as it is stored.
        group = sorted(group, key=lambda item: item.gates_passed < self.stage.before)
        names = {_name(item): item for item in group}
        now = self._doorman.journal.clock.now()
        moments: dict[str, datetime] = {}

        async def decide(body: Payload | None) -> Payload | None:
            nonlocal moments
            starts = rates.starts_of(body)
            known = rates.counted(starts, per=rate.span, now=now, wanted=names)
            asking = [name for name in names if name not in known]
            returning = [name for name in asking if names[name].gates_passed >= self.stage.before]
            starts, number = rates.allowed(
                starts, count=rate.count, per=rate.span, now=now, wanted=returning
            )
            starts, later = rates.planned(
                starts, count=rate.count, per=rate.span, now=now, wanted=asking[number:]
            )
            moments = dict.fromkeys((*known, *asking[:number]), now)
            moments |= zip(asking[number:], later, strict=True)
            return rates.body_of(starts)

        await self._starts.change(key, decide)
        turns = [(names[name], moment) for name, moment in moments.items()]
        await self._doorman.put_off([turn for turn in turns if turn[1] > now], self.stage.before)
        return {item.id for item, moment in turns if moment <= now}

    async def tidy(self) -> None:
        """Forget rates under which nothing has started for long."""
        after = ""
        while page := await self._starts.scan(after):
            after = page[-1].key
            now = self._doorman.journal.clock.now()
            await self._starts.remove(
                record for record in page if rates.starts_of(record.body).is_over(now)
            )


def _name(execution: Execution) -> str:
    """Return by what an execution is known that comes again before an attempt was made at it.

    After an attempt it has another: one that is retried by hand starts once more.
    """
    made = sum(attempt.outcome != "released" for attempt in execution.attempts)
    return f"{execution.id} {made}"
