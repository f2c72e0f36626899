"""The pages: one method each, which collects data and names a template."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from worchflow_core import FunctionInfo, InvalidInput, NotFound, WorkerState
from worchflow_plugins.dashboard import view
from worchflow_plugins.dashboard.checks import examine
from worchflow_plugins.dashboard.executionpage import Block, execution_view
from worchflow_plugins.dashboard.functionpages import function_view, functions_view
from worchflow_plugins.dashboard.listpage import list_view
from worchflow_plugins.dashboard.parameters import Choice, check_names
from worchflow_plugins.dashboard.reader import Reader
from worchflow_plugins.dashboard.rendering import Frame, View
from worchflow_plugins.dashboard.schedulepage import schedules_view
from worchflow_plugins.dashboard.schema import field_list
from worchflow_plugins.dashboard.shapes import Shapes
from worchflow_plugins.dashboard.source import Source
from worchflow_plugins.dashboard.ui import Ui

logger = logging.getLogger("worchflow.dashboard")


class Pages:
    """The pages of one dashboard.

    Args:
        source: the application or client.
        reader: what answers questions.
        shapes: what redacts.
        ui: what plugins added.
        frame: what renders.
        errors: plugins whose dashboard hook raised, with the error.
    """

    def __init__(
        self,
        source: Source,
        reader: Reader,
        shapes: Shapes,
        ui: Ui,
        frame: Frame,
        errors: Mapping[str, Exception],
    ) -> None:
        self._source = source
        self._reader = reader
        self._shapes = shapes
        self._ui = ui
        self._frame = frame
        self._errors = errors

    def router(self) -> APIRouter:
        """Return the router with all pages; the longer paths first, since ids may hold a slash."""
        router = APIRouter(include_in_schema=False)
        get = router.get
        get("/")(self.executions)
        get("/executions")(self.executions)
        get("/executions/{execution_id:path}/steps/{step_id}.json")(self.step_file)
        get("/executions/{execution_id:path}/data.json")(self.data_file)
        get("/executions/{execution_id:path}/result.json")(self.result_file)
        get("/executions/{execution_id:path}")(self.execution)
        get("/send")(self.send)
        get("/functions")(self.functions)
        get("/functions/{function_id:path}")(self.function)
        get("/schedules")(self.schedules)
        get("/workers")(self.workers)
        get("/about")(self.about)
        return router

    # --- executions -------------------------------------------------------------------------------

    async def executions(self, request: Request) -> Response:
        """Show the list."""
        query = request.query_params
        return await self._frame.live(
            request, lambda: list_view(self._reader, self._shapes, self._ui, query)
        )

    async def execution(self, execution_id: str, request: Request) -> Response:
        """Show one execution; the beginning of an id leads to it, where it is the only one."""
        query = request.query_params
        try:
            return await self._frame.live(
                request,
                lambda: execution_view(
                    self._reader,
                    self._shapes,
                    self._ui,
                    execution_id,
                    query,
                ),
            )
        except NotFound:
            if len(execution_id) < 6:
                raise
            page = await self._reader.listing(Choice(search=execution_id[:128]), limit=2)
            same = [item for item in page.items if item.id.startswith(execution_id)]
            if len(same) != 1:
                raise
            base = str(request.scope.get("root_path", "")).rstrip("/")
            return RedirectResponse(f"{base}/executions/{view.url_part(same[0].id)}", 307)

    async def data_file(self, execution_id: str) -> Response:
        """Hand out the event data as a file."""
        execution, _ = await self._reader.execution(execution_id)
        return _file(self._shapes.data(execution), "data")

    async def result_file(self, execution_id: str) -> Response:
        """Hand out the result as a file."""
        execution, _ = await self._reader.execution(execution_id)
        return _file(self._shapes.result(execution), "result")

    async def step_file(self, execution_id: str, step_id: str) -> Response:
        """Hand out a step's result as a file."""
        _, steps = await self._reader.execution(execution_id)
        for step in steps:
            if step.step_id == step_id:
                return _file(self._shapes.step_result(step), "step")
        raise NotFound(f"no step {step_id[:200]!r}")

    # --- send -------------------------------------------------------------------------------------

    async def send(self, request: Request) -> Response:
        """Show the form that sends an event."""
        query = request.query_params
        check_names(query, ("fn", "data", "from"))
        functions = await self._reader.functions()
        name, text = query.get("fn", ""), query.get("data")
        is_redacted = False
        if query.get("from"):
            execution, _ = await self._reader.execution(query["from"])
            name = name or execution.function
            text = Block(execution.data, "data", self._shapes).pretty()
            is_redacted = self._shapes.redact is not None
        name = name or (functions[0].id if functions else "")
        info = next((item for item in functions if item.id == name), None)
        subscribers = [] if info else [item for item in functions if item.subscribes(name)]
        info = info or next((item for item in subscribers if item.schema), None)
        template = json.dumps(info.template() if info else {}, indent=2, ensure_ascii=False)
        fields = field_list(info.schema) if info else []
        shown = View(
            template="send.html",
            title="Send an event",
            poll=0,
            data={
                "functions": functions,
                "name": name[:200],
                "info": info,
                "events": _event_names(functions),
                "subscribers": [item.id for item in subscribers],
                "fields": fields,
                "document": template if text is None else text,
                "starter": template,
                "origin": query.get("from", ""),
                "is_redacted": is_redacted,
                "schema": json.dumps(info.schema, indent=2, ensure_ascii=False)
                if info and info.schema
                else "",
            },
        )
        return await self._frame.still(request, shown)

    # --- functions --------------------------------------------------------------------------------

    async def functions(self, request: Request) -> Response:
        """Show all functions with what they did in the last day."""
        check_names(request.query_params, ())
        return await self._frame.live(request, lambda: functions_view(self._reader))

    async def function(self, function_id: str, request: Request) -> Response:
        """Show one function."""
        check_names(request.query_params, ())
        return await self._frame.live(
            request, lambda: function_view(self._reader, self._shapes, function_id)
        )

    # --- schedules, workers, about ----------------------------------------------------------------

    async def schedules(self, request: Request) -> Response:
        """Show what runs by itself."""
        check_names(request.query_params, ())
        return await self._frame.live(request, lambda: schedules_view(self._reader))

    async def workers(self, request: Request) -> Response:
        """Show the workers, what they are doing, and those that were lost."""
        check_names(request.query_params, ())
        return await self._frame.live(request, self._workers_view)

    async def _workers_view(self) -> View:
        workers = await self._reader.workers()
        now = datetime.now(UTC)
        settings = self._source.settings
        beat = (settings.heartbeat if settings else timedelta(seconds=5)).total_seconds()
        lost = [
            worker
            for worker in workers
            if worker.state is WorkerState.DEAD
            or view.is_lost(worker.beat_at, worker.lease_until, now)
        ]
        data: dict[str, Any] = {
            "living": [worker for worker in workers if worker not in lost],
            "lost": lost,
            "late_after": 2 * beat,
        }
        return View(template="workers.html", title="Workers", data=data)

    async def about(self, request: Request) -> Response:
        """Show versions, backends, checks and plugins."""
        check_names(request.query_params, ())
        return await self._frame.live(request, self._about_view)

    async def _about_view(self) -> View:
        report = await self._reader.snapshots.get(
            ("about",), lambda: examine(self._source), seconds=5.0
        )
        plugins = self._source.plugins
        return View(
            template="about.html",
            title="About",
            poll=10_000,
            data={
                "report": report.value,
                "backends": list(self._source.client.describe().items()),
                "plugins": plugins.infos if plugins else [],
                "errors": {name: f"{error!r}"[:500] for name, error in self._errors.items()},
                "python": sys.version.split()[0],
            },
        )


def _event_names(functions: Sequence[FunctionInfo]) -> list[str]:
    """Return the names of events that functions subscribe to, those with a wildcard left out."""
    names = {trigger.name for item in functions for trigger in item.triggers}
    return sorted(name for name in names - {item.id for item in functions} if "*" not in name)


def _file(value: Any, name: str) -> Response:
    if value is None:
        raise InvalidInput(f"there is no {name}")
    return Response(
        json.dumps(value, indent=2, ensure_ascii=False),
        media_type="application/json",
        headers={
            "content-disposition": f'attachment; filename="{name}.json"',
            "cache-control": "no-store",
        },
    )
