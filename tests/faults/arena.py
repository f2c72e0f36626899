"""The arena of a fault test: one store, workers in processes, and what is expected of each send."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.faults.flows import TRACE, Trace, read_traces
from tests.faults.processes import WorkerProcess, until
from tests.faults.worker_process import Order
from worchflow_core import Client, Execution, Status, Store, Worchflow, Worker, WorkerState
from worchflow_core.settings import load_settings

SHORT = {"lease": "1s", "heartbeat": "0.2s", "sweep_interval": "0.2s", "grace": "5s"}
"""Settings that let a test see in a second what takes half a minute by default."""
LEASE = 1.0
PATIENCE = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one test's work is kept.

    Attributes:
        directory: for files of the test's own.
        store_url, queue_url: as in the settings.
        prefix: the namespace in shared servers.
    """

    directory: Path
    store_url: str
    queue_url: str | None = None
    prefix: str = "worchflow"

    @property
    def has_servers(self) -> bool:
        """Whether the work is kept by servers rather than in a file."""
        return not self.store_url.startswith("sqlite:")

    def settings(self, **others: object) -> dict[str, Any]:
        """Return settings by field name."""
        urls = {"store_url": self.store_url, "queue_url": self.queue_url, "prefix": self.prefix}
        return {**SHORT, **urls, **others}


@dataclass(slots=True)
class Arena:
    """What one fault test works in; leaving it ends every process by its id.

    Attributes:
        place: where the work is kept.
        expected: how each acknowledged execution has to end.
        finals: executions that were seen ended, as they were then.
        reopened: executions that somebody asked to try again.
        workers: every process that was started.
        is_excused: tells which log lines this test brings about on purpose.
    """

    place: Place
    expected: dict[str, Status] = field(default_factory=dict)
    finals: dict[str, Execution] = field(default_factory=dict)
    reopened: set[str] = field(default_factory=set)
    workers: list[WorkerProcess] = field(default_factory=list)
    is_excused: Callable[[str], bool] = lambda line: False
    _app: Worchflow | None = None

    async def __aenter__(self) -> Self:
        self.place.directory.mkdir(parents=True, exist_ok=True)
        settings = load_settings(self.place.settings(), env_file=None)
        self._app = await Worchflow(settings, functions=[], env_file=None).__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            for worker in self.workers:
                worker.end()
        finally:
            if self._app is not None:
                await self._app.__aexit__(exc_type, exc, traceback)

    @property
    def client(self) -> Client:
        """A client of the test's own."""
        assert self._app is not None
        return self._app.client

    @property
    def store(self) -> Store:
        """The store, to look behind the client."""
        assert self._app is not None
        return self._app.journal.store

    # --- processes ------------------------------------------------------------------------------

    def start(self, name: str, **settings: object) -> WorkerProcess:
        """Start a worker, as if on a machine of its own; settings by field name."""
        return self._launch(name, settings, machine=f"machine {len(self.workers)}")

    def start_here(self, name: str, **settings: object) -> WorkerProcess:
        """Start a worker of this machine: others see at once when its process is gone."""
        return self._launch(name, settings)

    def start_client(
        self, method: str, *, settings: Mapping[str, object], **arguments: object
    ) -> WorkerProcess:
        """Start a process that asks one thing of the client and leaves."""
        return self._launch("client", settings, asks=(method, arguments))

    def start_deleter(self, name: str, **settings: object) -> WorkerProcess:
        """Start a worker that dies between deleting steps and their executions."""
        machine = f"machine {len(self.workers)}"
        return self._launch(name, settings, machine=machine, dies_between_deletes=True)

    def _launch(self, name: str, settings: Mapping[str, object], **orders: Any) -> WorkerProcess:
        values = self.place.settings(**settings)
        environment = {
            f"WORCHFLOW_{key.upper()}": str(value)
            for key, value in values.items()
            if value is not None
        }
        environment[TRACE] = str(self.place.directory / "traces")
        log = self.place.directory / f"{name}-{len(self.workers)}.log"
        worker = WorkerProcess(name, Order(environment=environment, log=str(log), **orders))
        self.workers.append(worker)
        return worker

    def start_doomed(self, name: str, write: int, *, after: bool) -> WorkerProcess:
        """Start a worker that dies at its n-th write: before it leaves, or after it was made."""
        machine = f"machine {len(self.workers)}"
        return self._launch(name, {}, machine=machine, dies_at_write=write, dies_after=after)

    async def ready(self, worker: WorkerProcess) -> Worker:
        """Return a worker's record once it takes work."""

        async def record() -> Worker | None:
            for item in await self.store.workers():
                if item.pid == worker.pid and item.state is WorkerState.RUNNING:
                    return item
            return None

        return await self.until(record, f"{worker.name} to take work")

    async def registered(self, worker: WorkerProcess) -> None:
        """Return once a worker is known to the store, or has ended."""

        async def is_known() -> bool:
            known = {item.pid for item in await self.store.workers()}
            return worker.pid in known or not worker.is_running

        await self.until(is_known, f"{worker.name} to register")

    def logs(self) -> str:
        """Return what all processes have printed, for the message of a failure."""
        return "\n".join(f"--- {item.name}\n{item.log()[-3000:]}" for item in self.workers)

    # --- work -----------------------------------------------------------------------------------

    async def send(
        self,
        *steps: dict[str, object],
        function: str = "play",
        expect: Status = Status.COMPLETED,
        execution_id: str | None = None,
        **options: Any,
    ) -> str:
        """Send an execution, and note how it has to end."""
        handle = await self.client.send(function, {"steps": steps}, id=execution_id, **options)
        self.expected[handle.id] = expect
        return handle.id

    async def ended(self, *ids: str, within: float = PATIENCE) -> list[Execution]:
        """Return executions once all of them have ended."""
        if not ids:
            return []

        async def finals() -> list[Execution] | None:
            found = await self.store.get(ids)
            is_over = len(found) == len(ids) and all(item.status.is_final for item in found)
            return list(found) if is_over else None

        found = await self.until(finals, f"{len(ids)} executions to end", within)
        by_id = {item.id: item for item in found}
        for item in found:
            self.finals.setdefault(item.id, item)
        return [by_id[execution_id] for execution_id in ids]

    async def ended_one(self, execution_id: str, within: float = PATIENCE) -> Execution:
        """Return an execution once it has ended."""
        return (await self.ended(execution_id, within=within))[0]

    def gate(self, name: str = "gate") -> dict[str, object]:
        """Return a step that holds until `open_gate`."""
        return {"do": "hold", "gate": str(self.place.directory / name)}

    def open_gate(self, name: str = "gate") -> None:
        """Let the steps that hold at this gate go on."""
        (self.place.directory / name).touch()

    # --- what happened --------------------------------------------------------------------------

    def traces(self) -> list[Trace]:
        """Return the traces of all processes."""
        return read_traces(self.place.directory / "traces")

    def runs(self, execution_id: str) -> Counter[str]:
        """Return how often each step's code began to run."""
        return Counter(
            item.step
            for item in self.traces()
            if item.word == "ran" and item.execution == execution_id
        )

    async def running(self, execution_id: str, step: str, times: int = 1) -> None:
        """Return once a step's code began to run for the `times`-th time."""
        what = f"step {step} to run {times} times"
        await until(lambda: self.runs(execution_id)[step] >= times, PATIENCE, what, self.logs)

    async def until(
        self,
        ask: Callable[[], Coroutine[Any, Any, Any]],
        what: str,
        within: float = PATIENCE,
    ) -> Any:
        """Ask again until the answer is true, and return it."""
        deadline = time.monotonic() + within
        while not (answer := await ask()):
            if time.monotonic() > deadline:
                known = await self.store.get(list(self.expected))
                states = "\n".join(f"{item.id} {item.status} {item.owner}" for item in known)
                raise AssertionError(f"waited {within:g} s for {what}\n{states}\n{self.logs()}")
            await asyncio.sleep(0.02)
        return answer
