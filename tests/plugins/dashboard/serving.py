"""A dashboard behind a real server on a port of its own, in a thread of its own."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Coroutine, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from tests.plugins.dashboard.support import application
from worchflow_core import Function, Worchflow
from worchflow_plugins.dashboard import create_dashboard
from worchflow_plugins.dashboard.command import Serving, make_server
from worchflow_plugins.dashboard.demo.functions import FUNCTIONS
from worchflow_plugins.memory import MemoryStore

T = TypeVar("T")


class Server:
    """Serve a dashboard over a store in memory, with or without a worker; can be restarted.

    Args:
        functions: what the application knows.
        plugins: what adds to it.
        works: also run a worker.
        options: further arguments of `create_dashboard`.
    """

    def __init__(
        self,
        functions: Sequence[Function[Any, Any]] = FUNCTIONS,
        *,
        plugins: Sequence[object] = (),
        works: bool = False,
        **options: Any,
    ) -> None:
        self.store = MemoryStore()
        self._functions = functions
        self._plugins = plugins
        self._works = works
        self._options = options
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread: threading.Thread | None = None
        self._server: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.app: Worchflow | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Begin to serve; return once it answers."""
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)
        self._thread.start()
        deadline = time.monotonic() + 20
        while not (self._server and self._server.started):
            assert time.monotonic() < deadline, "the server did not start"
            assert self._thread.is_alive(), "the server ended at once"
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop serving; return once the port is free."""
        assert self._thread is not None
        self._server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive()
        self._server = self._thread = None

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the server's loop."""
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        app = application(self.store, functions=self._functions, plugins=self._plugins)
        async with app:
            self.app = app
            working = asyncio.create_task(app.worker.run()) if self._works else None
            serving = Serving(port=self.port)
            self._server = make_server(create_dashboard(app, **self._options), serving)
            await self._server.serve()
            if working is not None:
                app.worker.stop(now=True)
                await working
