"""Where a process runs, told so exactly that a neighbour can see for certain that it is gone.

A worker that was killed and is started again on the same machine need not wait for its old lease
to run out: the new one looks whether the old process still exists.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=1)
def _place() -> str | None:
    """Return this boot and process namespace; None where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def own_origin() -> str:
    """Return the origin of this process, or text that is empty where none can be told."""
    place = _place()
    started = _started(os.getpid())
    return f"{place}/{os.getpid()}/{started}" if place and started else ""


def is_gone(origin: str) -> bool:
    """Return whether the process of an origin has certainly ended.

    False for processes of other machines, boots and containers: nobody can tell from here.
    """
    place, _, rest = origin.rpartition("/")
    place, _, pid = place.rpartition("/")
    if not place or place != _place() or not pid.isdecimal():
        return False
    return _started(int(pid)) != rest


def _started(pid: int) -> str | None:
    """Return when a process was started, in the kernel's ticks; None when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name before it may hold anything
    # A zombie has ended: it waits for its parent only.
    return None if fields[0] in "ZX" else fields[19]
