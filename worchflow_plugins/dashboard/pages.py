"""The pages: one method each, which collects data and names a template."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from worchflow_core import FINAL, InvalidInput, NotFound, Status, StepStatus, WorkerState
from worchflow_plugins.dashboard import view
from worchflow_plugins.dashboard.chart import sparkline
from worchflow_plugins.dashboard.checks import examine
from worchflow_plugins.dashboard.executionpage import Block, execution_view
from worchflow_plugins.dashboard.listpage import list_view
from worchflow_plugins.dashboard.parameters import Choice, check_names
from worchflow_plugins.dashboard.reader import Reader
from worchflow_plugins.dashboard.rendering import Frame, View
from worchflow_plugins.dashboard.schema import field_list, starter
from worchflow_plugins.dashboard.shapes import Shapes
from worchflow_plugins.dashboard.source import Source
from worchflow_plugins.dashboard.ui import Ui

logger = logging.getLogger("worchflow.dashboard")

_DAY = timedelta(hours=24)
_HOUR = timedelta(hours=1)


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
                lambda: execution_view(self._reader, self._shapes, self._ui, execution_id, query),
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
        template = json.dumps(starter(info.schema if info else None), indent=2, ensure_ascii=False)
        fields = field_list(info.schema) if info else []
        shown = View(
            template="send.html",
            title="Send an event",
            poll=0,
            data={
                "functions": functions,
                "name": name[:200],
                "info": info,
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
        return await self._frame.live(request, self._functions_view)

    async def _functions_view(self) -> View:
        functions, workers, (since, tallies) = await asyncio.gather(
            self._reader.functions(), self._reader.workers(), self._reader.tally(_DAY, _HOUR)
        )
        living = [item for item in workers if item.state is WorkerState.RUNNING]
        rows = []
        for info in functions:
            mine = [item for item in tallies if item.function == info.id]
            hours = [0] * 24
            for item in mine:
                hours[min(23, max(0, (item.start - since) // _HOUR))] += item.count
            count = sum(hours)
            failed = sum(item.count for item in mine if item.status is Status.FAILED)
            seconds = sum(item.total_seconds for item in mine)
            rows.append(
                {
                    "info": info,
                    "count": count,
                    "failed": failed,
                    "rate": failed / count if count else None,
                    "mean": seconds / count if count else None,
                    "line": sparkline(hours),
                    "workers": sum(info.id in worker.functions for worker in living),
                }
            )
        return View(template="functions.html", title="Functions", data={"rows": rows}, poll=5000)

    async def function(self, function_id: str, request: Request) -> Response:
        """Show one function."""
        check_names(request.query_params, ())
        return await self._frame.live(request, lambda: self._function_view(function_id))

    async def _function_view(self, function_id: str) -> View:
        info = await self._reader.function(function_id)
        choice = Choice(function=(function_id,))
        last = await self._reader.listing(choice, limit=200)
        if info is None and not last.items:
            raise NotFound(f"no function {function_id[:200]!r}")
        ended = [item for item in last.items if item.status is Status.COMPLETED]
        times = [run.seconds for item in ended if (run := view.run_time(item)).seconds is not None]
        seconds = [item for item in times if item is not None]
        return View(
            template="function.html",
            title=function_id,
            poll=5000,
            data={
                "function_id": function_id,
                "info": info,
                "fields": field_list(info.schema) if info else [],
                "schema": json.dumps(info.schema, indent=2, ensure_ascii=False)
                if info and info.schema
                else "",
                "executions": [
                    (item, view.run_time(item), view.first_line(self._shapes.failure(item.error)))
                    for item in last.items[:10]
                ],
                "sample": len(seconds),
                "p50": view.percentile(seconds, 0.5),
                "p95": view.percentile(seconds, 0.95),
                "failed": sum(item.status is Status.FAILED for item in last.items),
                "looked_at": sum(item.status in FINAL for item in last.items),
                "steps": await self._usual_steps([item.id for item in ended[:10]]),
            },
        )

    async def _usual_steps(self, ids: list[str]) -> list[tuple[str, int, float]]:
        """Return title, count and median seconds of the steps of these executions, in order."""
        seen: dict[str, list[float]] = {}
        for _, steps in await asyncio.gather(*(self._reader.execution(item) for item in ids)):
            for step in steps[:200]:
                if step.status is StepStatus.COMPLETED and step.ended_at is not None:
                    taken = (step.ended_at - step.started_at).total_seconds()
                    seen.setdefault(step.title, []).append(taken)
        found = [(title, len(taken), view.percentile(taken, 0.5)) for title, taken in seen.items()]
        return [(title, count, median or 0.0) for title, count, median in found[:50]]

    # --- workers, about ---------------------------------------------------------------------------

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
