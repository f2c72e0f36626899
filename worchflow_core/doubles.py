"""Doubles: events of functions that take each key only once, told before anything is created."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from worchflow_core.clock import Clock
from worchflow_core.functions import Registry
from worchflow_core.keys import UniqueKeys
from worchflow_core.limits import Unique, key_of
from worchflow_core.models import Execution
from worchflow_core.protocols import Store

_FIRST_WAIT = 0.01
_LAST_WAIT = 0.5


class Doubles:
    """Take unique keys for executions that are about to be created.

    Args:
        store: where keys and executions are kept.
        clock: the store's time.
        registry: the functions this process knows; of others, admission tells doubles.
    """

    def __init__(self, store: Store, clock: Clock, registry: Registry) -> None:
        self._store = store
        self._keys = UniqueKeys(store, clock)
        self._registry = registry

    async def find(self, executions: Sequence[Execution]) -> Mapping[str, Execution]:
        """Return by the id of each execution that is a double the one that has its key.

        Two that are sent together may be doubles of each other: the first of them has the key.
        Where another sender has the key, and its execution does not come within a moment, this
        one is told to be no double: admission decides.
        """
        if not self._registry.has_flow:
            return {}
        asking = [(item, unique) for item in executions if (unique := self._option(item))]
        if not asking:
            return {}
        holders: dict[str, str] = {}
        firsts: dict[str, Execution] = {}
        for item, unique in asking:
            first = firsts.setdefault(key_of(item, "unique", unique.key), item)
            holders[item.id] = first.id
        options = {item.id: unique for item, unique in asking}
        held = await asyncio.gather(
            *(self._keys.reserve(key, item, options[item.id].span) for key, item in firsts.items())
        )
        taken_by = {item.id: by.id for item, by in zip(firsts.values(), held, strict=True)}
        holders = {key: taken_by[first] for key, first in holders.items()}
        doubles = {key: holder for key, holder in holders.items() if key != holder}
        known = {item.id: item for item in executions}
        wait = _FIRST_WAIT
        while (missing := set(doubles.values()) - known.keys()) and wait < _LAST_WAIT:
            if wait > _FIRST_WAIT:
                await asyncio.sleep(wait)
            known |= {item.id: item for item in await self._store.get(missing)}
            wait *= 2
        return {key: known[holder] for key, holder in doubles.items() if holder in known}

    def _option(self, execution: Execution) -> Unique | None:
        function = self._registry.get(execution.function)
        return None if function is None or function.flow is None else function.flow.unique
