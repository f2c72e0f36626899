"""A circuit breaker: while a server is away, callers are told at once instead of waiting."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from worchflow_plugins.redis.faults import is_silence

T = TypeVar("T")

_SHORTEST = 0.5
_LONGEST = 2.0


class Breaker:
    """Let calls pass; after a failure refuse them, and let one through now and then to see.

    Args:
        tell: called with a sentence when the first call fails, again when a server that was
            silent says why it refuses, and with None when a call succeeds again.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        tell: Callable[[str | None], None] = lambda _: None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tell = tell
        self._clock = clock
        self._reason: str | None = None
        self._told = ""
        self._retry_at = 0.0
        self._pause = _SHORTEST
        self._is_probing = False

    @property
    def is_open(self) -> bool:
        """Whether the last call failed."""
        return self._reason is not None

    async def call(self, make: Callable[[], Awaitable[T]]) -> T:
        """Await what `make` returns, unless the breaker is open.

        Raises:
            ConnectionError: the call failed, or an earlier one did and it is too soon to try.
        """
        is_probe = self._enter()
        try:
            answer = await make()
        except ConnectionError as error:
            self._fail(str(error), is_probe=is_probe)
            raise
        finally:
            if is_probe:
                self._is_probing = False
        self._succeed()
        return answer

    def _enter(self) -> bool:
        if self._reason is None:
            return False
        if self._is_probing or self._clock() < self._retry_at:
            raise ConnectionError(self._reason)
        self._is_probing = True
        return True

    def _fail(self, reason: str, *, is_probe: bool) -> None:
        if self._reason is None:
            self._pause = _SHORTEST
        elif is_probe:
            self._pause = min(self._pause * 2, _LONGEST)
        if self._reason is None or (is_silence(self._told) and not is_silence(reason)):
            self._told = reason
            self._tell(reason)
        self._reason = reason
        # Spread over a quarter, so that many workers do not come back in the same instant.
        self._retry_at = self._clock() + self._pause * random.uniform(0.75, 1.0)

    def _succeed(self) -> None:
        if self._reason is not None:
            self._reason = None
            self._tell(None)
