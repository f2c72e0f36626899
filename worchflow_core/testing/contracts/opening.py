"""How a contract's tests get the backend they examine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar, TypeVar

from worchflow_core.protocols import Store

B = TypeVar("B")


class StoreOpener:
    """The root of all store contracts: a subclass says how a fresh store is opened.

    Attributes:
        has_exact_fences: whether the store looks at the execution's fence within the write of a
            step; False for a store that cannot, whose late step records are then adopted.
    """

    has_exact_fences: ClassVar[bool] = True

    def open(self) -> AbstractAsyncContextManager[Store]:
        """Return a store to enter, empty and independent of any opened before."""
        raise NotImplementedError(f"{type(self).__name__} must say how to open a fresh store")


def opened(test: Callable[[Any, B], Coroutine[Any, Any, None]]) -> Callable[[Any], None]:
    """Make a plain test of an async one: open the backend, hand it over, close it.

    The plain test takes `self` alone, so that pytest does not look for fixtures.
    """

    def run(self: Any) -> None:
        async def main() -> None:
            async with self.open() as backend:
                await test(self, backend)

        asyncio.run(main())

    run.__name__ = test.__name__
    run.__qualname__ = test.__qualname__
    run.__module__ = test.__module__
    run.__doc__ = test.__doc__
    return run


async def until(found: Callable[[], Coroutine[Any, Any, B]], *, within: float = 20.0) -> B:
    """Ask again until the answer is true, and return it; fail after `within` seconds."""
    loop = asyncio.get_running_loop()
    end = loop.time() + within
    while True:
        answer = await found()
        if answer:
            return answer
        assert loop.time() < end, f"not so within {within} s"
        await asyncio.sleep(0.005)
