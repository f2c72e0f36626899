"""What an error looks like: `{"error": "..."}` to programs, a page to people."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from worchflow_core import (
    IdempotencyConflict,
    InvalidInput,
    NotAllowed,
    NotFound,
    StoreUnavailable,
    WorchflowError,
)
from worchflow_plugins.dashboard.actions import DataDoesNotFit
from worchflow_plugins.dashboard.security import Refusal, route_path

logger = logging.getLogger("worchflow.dashboard")

Page = Callable[[Request, int, str], Awaitable[Response]]
"""Returns the page that tells people of a status and its reason."""

_CODES: tuple[tuple[type[Exception], int], ...] = (
    (NotFound, 404),
    (NotAllowed, 409),
    (IdempotencyConflict, 409),
    (InvalidInput, 400),
    (StoreUnavailable, 503),
    (ConnectionError, 503),
    (WorchflowError, 500),
)


def add_handlers(app: FastAPI, page: Page) -> None:
    """Make every error of `app` an answer of the right kind."""

    async def answer(request: Request, status: int, text: str, **more: object) -> Response:
        if route_path(request.scope).startswith("/api/"):
            return JSONResponse({"error": text, **more}, status)
        return await page(request, status, text)

    async def known(request: Request, error: Exception) -> Response:
        status = next(code for kind, code in _CODES if isinstance(error, kind))
        if isinstance(error, DataDoesNotFit):
            found = [{"path": path, "message": message} for path, message in error.problems]
            return await answer(request, status, str(error), problems=found)
        if status == 503:
            logger.warning("the store does not answer: %s", error)
        response = await answer(request, status, str(error))
        if status == 503:
            response.headers["retry-after"] = "2"
        return response

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        response = await answer(request, error.status_code, str(error.detail))
        for name, value in (error.headers or {}).items():
            response.headers[name] = value
        return response

    async def refusal(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refusal)
        response = JSONResponse({"error": error.text}, error.status)
        response.headers["connection"] = "close"
        return response

    async def invalid(request: Request, error: Exception) -> Response:
        return await answer(request, 400, "the request cannot be taken")

    async def unknown(request: Request, error: Exception) -> Response:
        return await answer(request, 500, "the dashboard failed; its log says how")

    app.add_exception_handler(WorchflowError, known)
    app.add_exception_handler(ConnectionError, known)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Refusal, refusal)
    app.add_exception_handler(Exception, unknown)
