"""Queue and step cache in Redis: `redis://`, `rediss://`, `unix://`, `redis+sentinel://`.

Redis carries hints, copies of steps and what outside readers see; losing all of it costs time
only. `RedisQueue` and `RedisStepCache` may also be given a `redis.asyncio.Redis` that the caller
made and closes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from worchflow_core import hookimpl

if TYPE_CHECKING:
    from worchflow_core import Queue, Settings, StepCache
    from worchflow_plugins.redis.queue import RedisQueue as RedisQueue
    from worchflow_plugins.redis.step_cache import RedisStepCache as RedisStepCache

__all__ = ["RedisQueue", "RedisStepCache"]

_SCHEMES = ("redis://", "rediss://", "unix://", "redis+sentinel://")


@hookimpl(trylast=True)
def worchflow_open_queue(url: str, settings: Settings) -> Queue | None:
    """Return a queue for the schemes of Redis."""
    if not url.startswith(_SCHEMES):
        return None
    from worchflow_plugins.redis.queue import RedisQueue

    return RedisQueue(url, prefix=settings.prefix)


@hookimpl(trylast=True)
def worchflow_open_step_cache(url: str, settings: Settings) -> StepCache | None:
    """Return a step cache for the schemes of Redis."""
    if not url.startswith(_SCHEMES):
        return None
    from worchflow_plugins.redis.step_cache import RedisStepCache

    return RedisStepCache(url, prefix=settings.prefix)


def __getattr__(name: str) -> Any:
    if name == "RedisQueue":
        from worchflow_plugins.redis.queue import RedisQueue

        return RedisQueue
    if name == "RedisStepCache":
        from worchflow_plugins.redis.step_cache import RedisStepCache

        return RedisStepCache
    raise AttributeError(f"worchflow_plugins.redis has no {name!r}")
