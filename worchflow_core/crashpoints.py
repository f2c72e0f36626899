"""Crash points: named protocol writes at which a test lets the process die at once."""

from __future__ import annotations

import os

EXIT_CRASHED = 137
"""The exit code of a process that died at a crash point, as of one killed by SIGKILL."""

POINTS = (
    "after_insert",
    "after_pop",
    "after_claim",
    "after_deadline",
    "before_step_insert",
    "after_step_insert",
    "before_complete",
    "after_complete",
    "after_fail",
    "after_retry",
    "after_release",
    "after_suspend",
    "after_event_insert",
    "after_bury",
    "after_requeue",
    "after_hint_mark",
    "after_update",
    "after_tick_send",
    "after_undoing",
    "after_gate",
    "after_place_taken",
    "after_place_freed",
    "after_call",
    "after_batch_close",
    "after_batch_end",
)
"""Each is the gap between two writes of the protocol's crash table, named by what was just done.

`after_update` follows a cancel or a retry that was asked for. Gaps within one call of a store
(steps and execution of a deletion) are reached in tests through the store's own driver.
"""


def no_crash(point: str) -> None:
    """Reach a crash point when none is set: do nothing."""


class CrashAt:
    """Die, without any cleaning up, when a chosen point is reached for the `count`-th time.

    Args:
        point: the name of a crash point, or `name:count`.
    """

    def __init__(self, point: str) -> None:
        self._point, _, count = point.partition(":")
        self._left = int(count) if count else 1

    def __call__(self, point: str) -> None:
        """Count a reached point; never return from the chosen one."""
        if point == self._point:
            self._left -= 1
            if self._left == 0:
                os._exit(EXIT_CRASHED)
