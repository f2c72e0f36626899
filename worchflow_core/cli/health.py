"""A tiny HTTP server on loopback that answers health checks: /healthz and /readyz."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from worchflow_core.cli import exits

_PATIENCE = 5.0
_PHRASES = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """How a worker is: alive, ready, and why not."""

    is_alive: bool
    is_ready: bool
    reason: str = ""


@contextlib.asynccontextmanager
async def serving(port: int, vitals: Callable[[], Vitals]) -> AsyncIterator[int]:
    """Answer health checks on 127.0.0.1 while inside; yields the port, also where 0 was asked.

    Raises:
        CommandError: the port cannot be used.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, ValueError):
            async with asyncio.timeout(_PATIENCE):
                line = await reader.readline()
                while (await reader.readline()).strip():
                    pass
                writer.write(_response(line.decode("latin-1"), vitals()))
                await writer.drain()
        writer.close()

    try:
        server = await asyncio.start_server(answer, "127.0.0.1", port, limit=8192)
    except OSError as error:
        raise exits.CommandError(f"--health-port {port} cannot be used: {error}") from None
    async with server:
        yield server.sockets[0].getsockname()[1]


def _response(request_line: str, vitals: Vitals) -> bytes:
    method, _, rest = request_line.strip().partition(" ")
    path = rest.partition(" ")[0].partition("?")[0]
    good = {"/healthz": vitals.is_alive, "/readyz": vitals.is_ready}.get(path)
    if good is None:
        code, body = 404, {"error": "there are /healthz and /readyz"}
    elif method not in ("GET", "HEAD"):
        code, body = 405, {"error": "GET and HEAD are answered"}
    elif good:
        code, body = 200, {"status": "ok"}
    else:
        code, body = 503, {"status": "unavailable", "reason": vitals.reason or "not ready"}
    text = json.dumps(body).encode() + b"\n"
    head = (
        f"HTTP/1.1 {code} {_PHRASES[code]}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(text)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if method == "HEAD" else text)
