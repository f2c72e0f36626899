"""The guard in front of every request: host, origin, content type, size, identity, headers."""

from __future__ import annotations

import asyncio
import inspect
import ipaddress
import json
import logging
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from worchflow_plugins.dashboard.auth import MANAGE, SEND, VIEW, Auth, Throttle, User

logger = logging.getLogger("worchflow.dashboard")
audit = logging.getLogger("worchflow.dashboard.audit")

LOOPBACK = ("localhost", "127.0.0.1", "::1")
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
PROBES = frozenset({"/api/health", "/api/ready"})
"""Answer to anybody, under any host name: they say nothing but `ok`."""

SEND_LIMIT = 8 * 1024 * 1024
BODY_LIMIT = 64 * 1024
HEADER_LIMIT = 16 * 1024
BODY_SECONDS = 20.0

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; "
        "style-src-attr 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class Refusal(Exception):
    """A request that is not let in: the status, a sentence, and headers that go with it."""

    def __init__(self, status: int, text: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = headers


class Guard:
    """ASGI middleware: lets in what is allowed, and puts the security headers on every answer.

    Args:
        app: what it guards.
        auth: recognizes users; None lets everybody in, which is for loopback only.
        allowed_hosts: names that may stand in `Host`, beside the loopback names; `*.example.com`
            allows subdomains, `*` everything.
        read_only: refuse everything that changes something.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        auth: Auth | None = None,
        allowed_hosts: Iterable[str] = (),
        read_only: bool = False,
    ) -> None:
        self._app = app
        self._auth = auth
        self._hosts = frozenset(name.lower() for name in (*LOOPBACK, *allowed_hosts))
        self._read_only = read_only
        self._throttle = Throttle()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        path = route_path(scope)
        started = False

        async def send_guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if path.startswith("/api/"):
                    headers["cache-control"] = "no-store"
            await send(message)

        try:
            await self._check(scope, path)
            await self._app(scope, self._limited(scope, path, receive), send_guarded)
        except Refusal as refusal:
            if not started:
                await _answer(refusal, path, send_guarded)

    async def _check(self, scope: Scope, path: str) -> None:
        headers = Headers(scope=scope)
        if sum(len(name) + len(value) for name, value in scope["headers"]) > HEADER_LIMIT:
            raise Refusal(431, f"the headers take more than {HEADER_LIMIT:,} bytes")
        if path in PROBES and scope["method"] in SAFE_METHODS:
            return
        self._check_host(headers)
        if scope["method"] not in SAFE_METHODS:
            _check_origin(headers)
            _check_content(headers, path)
        user = await self._user(scope)
        scope.setdefault("state", {})["worchflow_user"] = user
        needed = _right(scope["method"], path)
        if self._read_only and needed != VIEW:
            raise Refusal(403, "this dashboard is read-only")
        if needed not in user.rights:
            raise Refusal(403, f"{user.name} lacks the right to {needed}")
        if needed != VIEW:
            audit.info(
                "%s",
                json.dumps({"by": user.name, "from": _address(scope), "do": needed, "path": path}),
            )

    def _check_host(self, headers: Headers) -> None:
        if "*" in self._hosts:
            return
        host = headers.get("host", "")
        name = _host_name(host)
        if name in self._hosts:
            return
        if any(item.startswith("*.") and name.endswith(item[1:]) for item in self._hosts):
            return
        raise Refusal(
            421,
            f"the host {host!r} is not allowed here; allow it with --allow-host, "
            "or allowed_hosts=[...] of create_dashboard",
        )

    async def _user(self, scope: Scope) -> User:
        if self._auth is None:
            return User("anybody")
        address = _address(scope)
        wait = self._throttle.wait(address)
        if wait:
            raise Refusal(429, "too many wrong credentials; wait", (("retry-after", str(wait)),))
        connection = HTTPConnection(scope)
        try:
            user = self._auth(connection)
            if inspect.isawaitable(user):
                user = await user
        except Exception:
            logger.exception("the dashboard's auth callable failed; nobody is let in")
            raise Refusal(503, "nobody can be recognized at the moment") from None
        if user is None:
            if "authorization" in connection.headers:
                self._throttle.refused(address)
            challenge = 'Basic realm="Worchflow", charset="UTF-8"'
            raise Refusal(401, "who are you?", (("www-authenticate", challenge),))
        return user

    def _limited(self, scope: Scope, path: str, receive: Receive) -> Receive:
        limit = body_limit(path)
        size = 0

        async def receive_limited() -> Message:
            nonlocal size
            if scope["method"] in SAFE_METHODS:
                return await receive()
            try:
                async with asyncio.timeout(BODY_SECONDS):
                    message = await receive()
            except TimeoutError:
                raise Refusal(408, "the body did not arrive in time") from None
            size += len(message.get("body", b""))
            if size > limit:
                raise Refusal(413, f"the body is longer than {limit:,} bytes")
            return message

        return receive_limited


def route_path(scope: Scope) -> str:
    """Return the path below the place where the dashboard is mounted."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    if root and (path == root or path.startswith(root + "/")):
        return path[len(root) :] or "/"
    return path


def body_limit(path: str) -> int:
    """Return how many bytes the body of a request to `path` may have."""
    is_large = path == "/api/send" or (path.startswith("/api/") and path.endswith("/fork"))
    return SEND_LIMIT if is_large else BODY_LIMIT


def _right(method: str, path: str) -> str:
    if method in SAFE_METHODS:
        return VIEW
    return SEND if path == "/api/send" else MANAGE


def _check_origin(headers: Headers) -> None:
    site = headers.get("sec-fetch-site")
    if site not in (None, "same-origin", "none"):
        raise Refusal(403, f"a {site} request cannot change anything here")
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
        raise Refusal(403, f"a page of {origin!r} cannot change anything here")


def _check_content(headers: Headers, path: str) -> None:
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refusal(415, "send the header Content-Type: application/json")
    if headers.get("content-encoding", "identity") != "identity":
        raise Refusal(415, "send the body without Content-Encoding")
    length = headers.get("content-length", "0")
    if length.isdigit() and int(length) > body_limit(path):
        raise Refusal(413, f"the body is longer than {body_limit(path):,} bytes")


def _host_name(host: str) -> str:
    """Return the name in a Host header without its port, in lower case."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower().rstrip(".")
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    """Return whether a server bound to `host` is reachable from this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else "unknown"


async def _answer(refusal: Refusal, path: str, send: Send) -> None:
    if path.startswith("/api/"):
        kind, body = "application/json", json.dumps({"error": refusal.text}).encode()
    else:
        kind, body = "text/plain; charset=utf-8", f"{refusal.status}: {refusal.text}\n".encode()
    headers = [("content-type", kind), ("cache-control", "no-store"), *refusal.headers]
    if refusal.status in (408, 413):
        headers.append(("connection", "close"))
    await send(
        {
            "type": "http.response.start",
            "status": refusal.status,
            "headers": [
                (b"content-length", str(len(body)).encode()),
                *((name.encode(), value.encode()) for name, value in headers),
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})
