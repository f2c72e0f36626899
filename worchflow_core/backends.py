"""Which backends are used, and which setting said so: chosen aloud, never guessed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worchflow_core.errors import SettingsError
from worchflow_core.settings import DEFAULT_STORE, Settings, setting_source


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendChoice:
    """The URLs in force.

    Attributes:
        store_url: where executions are kept.
        store_source: `flag`, `environment`, `.env` or `default`.
        queue_url: where hints go; None: the store's plugin is asked, else the store is polled.
        queue_source: as `store_source`.
        step_cache_url: where copies of steps go; None: the queue's plugin is asked, else none.
        step_cache_source: as `store_source`.
        warnings: sentences to show at start.
    """

    store_url: str
    store_source: str
    queue_url: str | None
    queue_source: str
    step_cache_url: str | None
    step_cache_source: str
    warnings: tuple[str, ...] = ()


def choose_backends(
    settings: Settings,
    overrides: Mapping[str, Any] | None = None,
    *,
    env_file: str | Path | None = ".env",
) -> BackendChoice:
    """Return the URLs to use; ports are never probed and nothing is fallen back to.

    Raises:
        SettingsError: a queue without a store, or no store where one is required.
    """

    def source(name: str) -> str:
        return setting_source(name, overrides, env_file=env_file)

    warnings: list[str] = []
    if settings.store_url is None:
        if settings.queue_url is not None:
            raise SettingsError(
                "WORCHFLOW_QUEUE_URL is set and WORCHFLOW_STORE_URL is not: each machine would "
                "keep its executions in a file of its own; set WORCHFLOW_STORE_URL too, or unset "
                "the queue"
            )
        if settings.require_store:
            raise SettingsError(
                "WORCHFLOW_REQUIRE_STORE is set and WORCHFLOW_STORE_URL is not; set it to where "
                "executions are kept, such as mongodb://host:27017/worchflow"
            )
        if _is_container():
            warnings.append(
                "this is a container and WORCHFLOW_STORE_URL is not set: executions are kept in a "
                "file that goes with it; set WORCHFLOW_STORE_URL, or WORCHFLOW_REQUIRE_STORE=1"
            )
    return BackendChoice(
        store_url=settings.store_url or DEFAULT_STORE,
        store_source=source("store_url"),
        queue_url=settings.queue_url,
        queue_source=source("queue_url"),
        step_cache_url=settings.step_cache_url,
        step_cache_source=source("step_cache_url"),
        warnings=tuple(warnings),
    )


def _is_container() -> bool:
    return (
        Path("/.dockerenv").exists()
        or Path("/run/.containerenv").exists()
        or "KUBERNETES_SERVICE_HOST" in os.environ
    )
