"""Unique keys as the store keeps them: take one, see who has it, forget those that are over."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta

from worchflow_core import uniques
from worchflow_core.clock import Clock
from worchflow_core.ledger import Ledger
from worchflow_core.models import Execution, Payload
from worchflow_core.protocols import Store
from worchflow_core.uniques import RESERVED, Held

_PAGE = 500


class UniqueKeys:
    """The unique keys of a store."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._ledger = Ledger(store.records, uniques.KIND)

    async def take(self, key: str, coming: Sequence[Execution], span: timedelta | None) -> Held:
        """Give a key to one of the executions that were claimed, unless another has it.

        Returns who has it. That one is `reserved` only where it is still to be created.

        Args:
            key: which key.
            coming: who asks, the first served first.
            span: how long it is held from when its event was sent; None until it has ended.
        """
        ids = {item.id for item in coming}
        first = coming[0]

        def wish(held: Held | None) -> Held:
            winner = next((item for item in coming if held and item.id == held.id), first)
            return Held(id=winner.id, until=_until(winner, span))

        held = await self._take(key, ids, wish)
        found = await self._store.get([held.id]) if held.id not in ids else coming
        return held if not found else Held(id=held.id, until=held.until)

    async def reserve(self, key: str, execution: Execution, span: timedelta | None) -> Held:
        """Take a key for an execution that is about to be created, unless another has it.

        Returns who has it.
        """
        reserved = self._clock.now() + RESERVED
        mine = Held(id=execution.id, until=_until(execution, span), reserved=reserved)
        return await self._take(key, {execution.id}, lambda _: mine)

    async def _take(
        self, key: str, mine: Collection[str], wish: Callable[[Held | None], Held]
    ) -> Held:
        over: Held | None = None
        while True:
            held = await self._try(key, mine, over, wish)
            if held.id in mine:
                return held
            found = await self._store.get([held.id])
            if not uniques.is_over(held, found[0] if found else None, self._clock.now()):
                return held
            over = held

    async def _try(
        self,
        key: str,
        mine: Collection[str],
        over: Held | None,
        wish: Callable[[Held | None], Held],
    ) -> Held:
        """Take a key unless another has it that is not over; return who has it."""
        answer: Held | None = None

        async def decide(body: Payload | None) -> Payload | None:
            nonlocal answer
            held = uniques.held_of(body)
            answer = wish(held) if held is None or held.id in mine or held == over else held
            return None if answer == held else uniques.body_of(answer)

        await self._ledger.change(key, decide)
        assert answer is not None
        return answer

    async def tidy(self) -> None:
        """Forget the keys that are over."""
        after = ""
        while page := await self._ledger.scan(after, limit=_PAGE):
            after = page[-1].key
            held = [(record, uniques.held_of(record.body)) for record in page]
            found = await self._store.get({item.id for _, item in held if item is not None})
            known = {item.id: item for item in found}
            now = self._clock.now()
            await self._ledger.remove(
                record
                for record, item in held
                if item is None or uniques.is_over(item, known.get(item.id), now)
            )


def _until(execution: Execution, span: timedelta | None) -> datetime | None:
    return None if span is None else execution.created_at + span
