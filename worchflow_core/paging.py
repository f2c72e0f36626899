"""Page by page through all executions that meet some conditions, however many they are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from worchflow_core.models import Execution
from worchflow_core.protocols import Store
from worchflow_core.query import Condition, Query

_PAGE = 1000


async def pages(store: Store, *where: Condition) -> AsyncIterator[Sequence[Execution]]:
    """Yield pages of up to a thousand, the oldest first; the last one may be empty."""
    query = Query(where=where, descending=False, limit=_PAGE)
    while True:
        found = (await store.find(query)).items
        yield found
        if len(found) < query.limit:
            return
        query = replace(query, after=query.order_key(found[-1]))
