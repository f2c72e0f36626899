"""The JSON API: the original's five routes as they were, and what came since."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from worchflow_core import (
    InvalidInput,
    Status,
    StoreUnavailable,
    notes_to_wire,
    schedule_to_wire,
)
from worchflow_plugins.dashboard import openapi as o
from worchflow_plugins.dashboard.actions import Actions, Verb
from worchflow_plugins.dashboard.parameters import (
    LIMIT_MAX,
    SKIP_MAX,
    Body,
    BulkBody,
    ForkBody,
    PauseBody,
    SendBody,
    check_names,
    fit,
    parse_choice,
    parse_whole,
    read_body,
    read_object,
)
from worchflow_plugins.dashboard.reader import Reader
from worchflow_plugins.dashboard.schedulepage import schedules_document
from worchflow_plugins.dashboard.shapes import (
    Shapes,
    bulk_shape,
    function_shape,
    pause_shape,
    worker_shape,
)


class Nothing(Body):
    """A body that says nothing: `{}`, or none at all."""


class Api:
    """The routes under `/api`.

    Args:
        reader: what answers questions.
        actions: what carries out changes.
        shapes: what makes answers of records.
    """

    def __init__(self, reader: Reader, actions: Actions, shapes: Shapes) -> None:
        self._reader = reader
        self._actions = actions
        self._shapes = shapes

    def router(self) -> APIRouter:
        """Return the router with all routes; the longer paths first, since ids may hold a slash."""
        router = APIRouter(prefix="/api", default_response_class=JSONResponse)
        get, post = router.get, router.post
        one = "/executions/{execution_id:path}"
        choosing = [*o.CHOOSING, *o.PAGING, o.ORDER]
        nothing = o.bearing(o.NOTHING)
        bulk = o.bearing(o.MANY)
        steps = [*o.PAGING, o.ONLY]
        reading, changing = (400,), (408, 413, 415)
        get("/health", responses=o.answers(o.HEALTH))(self.health)
        get("/ready", responses=o.answers(o.HEALTH))(self.ready)
        get("/stats", responses=o.answers(o.STATS))(self.stats)
        get("/executions", responses=o.answers(o.EXECUTIONS), openapi_extra=o.taking(choosing))(
            self.executions
        )
        get(f"{one}/steps", responses=o.answers(o.STEPS, 404), openapi_extra=o.taking(steps))(
            self.steps
        )
        get(f"{one}/explain", responses=o.answers(o.REASONS, 404))(self.explain)
        get(one, responses=o.answers(o.DETAIL, 404, *reading))(self.execution)
        for verb in (self.retry, self.cancel):
            post(
                f"{one}/{verb.__name__}",
                responses=o.answers(o.DONE, 404, 409, *changing),
                openapi_extra=nothing,
            )(verb)
        post(
            f"{one}/fork",
            responses=o.answers(o.FORKED, 404, 409, *changing),
            openapi_extra=o.bearing(o.FORK),
        )(self.fork)
        for many in (self.retry_many, self.cancel_many):
            name = many.__name__.partition("_")[0]
            for path in (f"/executions/{name}", f"/{name}"):
                post(path, responses=o.answers(o.BULK, 409, *changing), openapi_extra=bulk)(many)
        post(
            "/send",
            responses=o.answers(o.SENT, 409, *changing),
            openapi_extra=o.bearing(o.EVENT),
        )(self.send)
        get("/functions", responses=o.answers(o.FUNCTIONS))(self.functions)
        get("/functions/{function_id:path}", responses=o.answers(o.FUNCTION, 404))(self.function)
        for name, handle, body in (
            ("pause", self.pause_function, o.bearing(o.PAUSE)),
            ("resume", self.resume_function, nothing),
        ):
            post(
                f"/functions/{{function_id:path}}/{name}",
                responses=o.answers(o.PAUSED, 404, *changing),
                openapi_extra=body,
            )(handle)
        get("/schedules", responses=o.answers(o.SCHEDULES))(self.schedules)
        for name, handle, answer in (
            ("pause", self.pause_schedule, o.SCHEDULED),
            ("resume", self.resume_schedule, o.SCHEDULED),
            ("run", self.run_schedule, o.DONE),
        ):
            post(
                f"/schedules/{{function_id:path}}/{name}",
                responses=o.answers(answer, 404, *changing),
                openapi_extra=nothing,
            )(handle)
        get("/workers", responses=o.answers(o.WORKERS))(self.workers)
        post(
            "/workers/{worker_id}/drain",
            responses=o.answers(o.DRAINED, 404, *changing),
            openapi_extra=nothing,
        )(self.drain)
        return router

    # --- reading ----------------------------------------------------------------------------------

    async def health(self) -> JSONResponse:
        """Say that this process answers."""
        return JSONResponse({"status": "ok"})

    async def ready(self) -> JSONResponse:
        """Say whether the store answers: 200, or 503."""
        try:
            await self._reader.stats()
        except StoreUnavailable:
            return JSONResponse({"error": "the store does not answer"}, 503)
        return JSONResponse({"status": "ok"})

    async def stats(self, request: Request) -> JSONResponse:
        """Return how many executions are in each status, and in all."""
        check_names(request.query_params, ())
        stats = await self._reader.stats()
        counts = {status.value: stats[status] for status in Status}
        return JSONResponse({**counts, "total": sum(counts.values())})

    async def executions(self, request: Request) -> JSONResponse:
        """Return executions that match, newest first; `total` stops counting at 10,000."""
        query = request.query_params
        choice = parse_choice(query, others=("limit", "skip", "order"))
        limit = parse_whole(query, "limit", 50, 1, LIMIT_MAX)
        skip = parse_whole(query, "skip", 0, 0, SKIP_MAX)
        order = query.get("order", "created_at")
        if order not in o.ORDERS:
            raise InvalidInput(f"order is {order[:80]!r}; give one of {', '.join(o.ORDERS)}")
        listing = await self._reader.listing(choice, limit=limit, skip=skip, order=order)
        return JSONResponse(
            {
                "executions": [
                    self._shapes.execution(item, is_listed=True) for item in listing.items
                ],
                "total": listing.total,
                "limit": limit,
                "skip": skip,
                "isTotalCapped": listing.is_capped,
                "hasMore": listing.has_more,
            }
        )

    async def execution(self, execution_id: str, request: Request) -> JSONResponse:
        """Return an execution, its steps, and the hash Redis shows of it ({} without Redis)."""
        check_names(request.query_params, ())
        execution, steps = await self._reader.execution(execution_id)
        mirrored = await self._reader.mirrored(execution_id)
        notes = notes_to_wire(self._shapes.notes(await self._reader.notes(execution_id)))
        return JSONResponse(
            {
                "execution": self._shapes.execution(execution),
                "steps": [self._shapes.step(step) for step in steps],
                "progress": notes.get("progress"),
                "log": notes["lines"],
                "redisExecution": self._shapes.mirror(dict(mirrored)),
            }
        )

    async def steps(self, execution_id: str, request: Request) -> JSONResponse:
        """Return the steps of an execution, a part at a time."""
        query = request.query_params
        check_names(query, ("limit", "skip", "only"))
        limit = parse_whole(query, "limit", LIMIT_MAX, 1, LIMIT_MAX)
        skip = parse_whole(query, "skip", 0, 0, SKIP_MAX)
        if query.get("only", "failed") != "failed":
            raise InvalidInput(f"only is {query['only'][:80]!r}; give failed, or leave it out")
        execution, steps = await self._reader.execution(execution_id)
        if "only" in query:
            failed = {item.step_id for attempt in execution.attempts for item in attempt.tries}
            steps = [step for step in steps if step.step_id in failed]
        part = [self._shapes.step(step) for step in steps[skip : skip + limit]]
        return JSONResponse({"steps": part, "total": len(steps), "limit": limit, "skip": skip})

    async def explain(self, execution_id: str, request: Request) -> JSONResponse:
        """Return why an execution is not running, or how it runs or ended."""
        check_names(request.query_params, ())
        reasons = await self._reader.reasons(execution_id)
        shapes = [self._shapes.reason(reason) for reason in reasons]
        return JSONResponse({"executionId": execution_id, "reasons": shapes})

    async def functions(self, request: Request) -> JSONResponse:
        """Return the known functions with the JSON schema of their event data."""
        check_names(request.query_params, ())
        known, paused = await self._reader.functions(), await self._reader.paused()
        shapes = [function_shape(info, paused.get(info.id)) for info in known]
        return JSONResponse({"functions": shapes, "total": len(shapes)})

    async def function(self, function_id: str) -> JSONResponse:
        """Return one function."""
        info = await self._reader.function(function_id)
        if info is None:
            return JSONResponse({"error": f"no function {function_id[:200]!r}"}, 404)
        return JSONResponse(function_shape(info, (await self._reader.paused()).get(info.id)))

    async def workers(self, request: Request) -> JSONResponse:
        """Return the workers, dead ones included."""
        check_names(request.query_params, ())
        shapes = [worker_shape(worker) for worker in await self._reader.workers()]
        return JSONResponse({"workers": shapes, "total": len(shapes)})

    async def schedules(self, request: Request) -> JSONResponse:
        """Return what runs by itself, with what became of the last twenty ticks of each."""
        check_names(request.query_params, ())
        known, workers = await self._reader.schedules(), await self._reader.workers()
        return JSONResponse(schedules_document(known, workers))

    # --- changing ---------------------------------------------------------------------------------

    async def send(self, request: Request) -> JSONResponse:
        """Send an event: `{name, data}`; the answer carries the ids of what it created."""
        given = await read_object(request)
        if not given.get("name") or given.get("data") is None:
            raise InvalidInput("Missing name or data")
        body = fit(given, SendBody)
        if await self._actions.is_event(body):
            sent = await self._actions.send_event(body)
            ids = [handle.id for handle in sent.executions]
            first = ids[0] if ids else None
            return JSONResponse(
                {"success": True, "executionId": first, "executionIds": ids, "eventId": sent.id}
            )
        execution_id = await self._actions.send(body)
        return JSONResponse({"success": True, "executionId": execution_id})

    async def retry(self, execution_id: str, request: Request) -> JSONResponse:
        """Queue a failed or cancelled execution again."""
        await read_body(request, Nothing)
        execution = await self._actions.retry(execution_id)
        return JSONResponse(
            {"success": True, "executionId": execution.id, "status": execution.status.value}
        )

    async def cancel(self, execution_id: str, request: Request) -> JSONResponse:
        """Cancel an execution: at once, or at its next step boundary."""
        await read_body(request, Nothing)
        execution = await self._actions.cancel(execution_id)
        return JSONResponse(
            {"success": True, "executionId": execution.id, "status": execution.status.value}
        )

    async def fork(self, execution_id: str, request: Request) -> JSONResponse:
        """Run an execution again from one of its steps, as a new one; with other data or results.

        With `{}` it begins at the first step.
        """
        body = await read_body(request, ForkBody)
        handle = await self._actions.fork(execution_id, body)
        return JSONResponse(
            {
                "success": True,
                "executionId": handle.id,
                "isNew": handle.is_new,
                "forkedFrom": execution_id,
            }
        )

    async def retry_many(self, request: Request) -> JSONResponse:
        """Retry executions by id or by filter, up to 500 a request; `next` says where to go on."""
        return await self._many("retry", request)

    async def cancel_many(self, request: Request) -> JSONResponse:
        """Cancel executions by id or by filter, up to 500 a request; `next` says where to go on."""
        return await self._many("cancel", request)

    async def _many(self, verb: Verb, request: Request) -> JSONResponse:
        body = await read_body(request, BulkBody)
        answer = await self._actions.many(verb, body)
        return JSONResponse({"success": True, "dryRun": body.dry_run, **bulk_shape(answer)})

    async def drain(self, worker_id: str, request: Request) -> JSONResponse:
        """Ask a worker to stop taking work and to leave once it is empty."""
        await read_body(request, Nothing)
        await self._actions.drain(worker_id)
        return JSONResponse({"success": True, "workerId": worker_id})

    async def pause_function(self, function_id: str, request: Request) -> JSONResponse:
        """Begin no execution of a function until it is resumed; what runs goes on."""
        body = await read_body(request, PauseBody)
        pause = await self._actions.pause_function(function_id, body.reason)
        shape = {"functionId": function_id, "paused": pause_shape(pause)}
        return JSONResponse({"success": True, **shape})

    async def resume_function(self, function_id: str, request: Request) -> JSONResponse:
        """Let a function's executions begin again."""
        await read_body(request, Nothing)
        await self._actions.resume_function(function_id)
        return JSONResponse({"success": True, "functionId": function_id, "paused": None})

    async def pause_schedule(self, function_id: str, request: Request) -> JSONResponse:
        """Fire no tick of a function's schedule until it is resumed."""
        return await self._change_schedule(function_id, request, pause=True)

    async def resume_schedule(self, function_id: str, request: Request) -> JSONResponse:
        """Fire the ticks of a paused schedule again, from now on."""
        return await self._change_schedule(function_id, request, pause=False)

    async def _change_schedule(
        self, function_id: str, request: Request, *, pause: bool
    ) -> JSONResponse:
        await read_body(request, Nothing)
        item = await self._actions.change_schedule(function_id, pause)
        shape = schedule_to_wire(item, now=datetime.now(UTC))
        return JSONResponse({"success": True, "schedule": shape})

    async def run_schedule(self, function_id: str, request: Request) -> JSONResponse:
        """Create an execution as the schedule would, at once, paused or not."""
        await read_body(request, Nothing)
        execution_id = await self._actions.run_schedule(function_id)
        return JSONResponse({"success": True, "executionId": execution_id})
