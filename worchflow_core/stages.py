"""Stages: the gates of flow control, in the order in which an execution passes them."""

from __future__ import annotations

from enum import IntEnum


class Stage(IntEnum):
    """The last gate that an execution has passed, as it is stored."""

    NONE = 0
    DEBOUNCE = 1
    RATE_LIMIT = 2
    UNIQUE = 3
    BATCH = 4
    SINGLETON = 5
    THROTTLE = 6

    DROPPING = RATE_LIMIT
    """Up to here an event may be dropped that has done no harm to be one too many."""

    @property
    def before(self) -> Stage:
        """The gate before this one."""
        return Stage(self - 1)
