"""Backends in memory, for tests and for trying things out: `memory:` and `memory://name`.

All that open one name in one process see the same; `memory:` alone is the name "". Nothing
survives the process. The rules are those of the core's pure functions, so this is also the
shortest complete backend to read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from worchflow_core import hookimpl
from worchflow_plugins.memory.queue import MemoryQueue
from worchflow_plugins.memory.step_cache import MemoryStepCache
from worchflow_plugins.memory.store import MemoryStore

if TYPE_CHECKING:
    from worchflow_core import Queue, Settings, StepCache, Store

__all__ = ["MemoryQueue", "MemoryStepCache", "MemoryStore"]

_SCHEME = "memory:"


@hookimpl(trylast=True)
def worchflow_open_store(url: str, settings: Settings) -> Store | None:
    """Return a store for `memory:` and `memory://name`."""
    return MemoryStore(_name(url)) if url.startswith(_SCHEME) else None


@hookimpl(trylast=True)
def worchflow_open_queue(url: str, settings: Settings) -> Queue | None:
    """Return a queue for `memory:` and `memory://name`."""
    return MemoryQueue(_name(url)) if url.startswith(_SCHEME) else None


@hookimpl(trylast=True)
def worchflow_open_step_cache(url: str, settings: Settings) -> StepCache | None:
    """Return a step cache for `memory:` and `memory://name`."""
    return MemoryStepCache(_name(url)) if url.startswith(_SCHEME) else None


def _name(url: str) -> str:
    return url.removeprefix(_SCHEME).lstrip("/")
