"""The worker: claims executions, runs them, settles them, and leaves in good order."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from worchflow_core.functions import Registry
from worchflow_core.journal import Journal
from worchflow_core.plugins import Plugins
from worchflow_core.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What a health check asks of a worker.

    Attributes:
        is_alive: its lease holds and its event loop turns.
        is_ready: it is alive and takes work.
        reason: why not; empty when all is well.
        running: how many executions it runs.
        finished: how many attempts it has settled.
    """

    is_alive: bool
    is_ready: bool
    reason: str
    running: int
    finished: int


class WorkerRunner:
    """Run executions until stopped; see `run`."""

    def __init__(
        self,
        journal: Journal,
        registry: Registry,
        plugins: Plugins,
        settings: Settings,
        *,
        name: str | None = None,
    ) -> None:
        self.name = name
        self.id = ""

    @property
    def health(self) -> Health:
        """How this worker is, at this moment."""
        return Health(is_alive=True, is_ready=True, reason="", running=0, finished=0)

    async def run(
        self,
        *,
        burst: bool = False,
        only: Collection[str] | None = None,
        max_executions: int | None = None,
    ) -> None:
        """Work until `stop` is called, or until what was asked for is done.

        Args:
            burst: end when no execution of its functions is due.
            only: claim just these executions, and end when all are final.
            max_executions: end after this many attempts.
        """

    def stop(self, *, now: bool = False) -> None:
        """Stop taking work; running executions stop at their next step or at the grace's end.

        Args:
            now: do not wait for the grace: give everything back within a second.
        """
