from __future__ import annotations

import asyncio
import base64
import gzip
import logging
from typing import Any

import pytest

from tests.plugins.dashboard.support import execution, run, served
from worchflow_core import ConfigurationError, Status
from worchflow_plugins.dashboard import BasicAuth, TokenAuth, User
from worchflow_plugins.dashboard.command import Serving, guarded
from worchflow_plugins.dashboard.security import HEADERS, SEND_LIMIT, is_loopback

TOKEN = "correct-horse-battery-staple"
EVENT = {"name": "hello-world", "data": {}}


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


# --- cross-site -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "multipart/form-data; boundary=x"}, 415),
        ({"content-type": ""}, 415),
        ({"content-type": "application/json", "content-encoding": "gzip"}, 415),
        ({"content-type": "application/json", "origin": "https://evil.example"}, 403),
        ({"content-type": "application/json", "origin": "null"}, 403),
        ({"content-type": "application/json", "origin": "http://localhost:9999"}, 403),
        ({"content-type": "application/json", "sec-fetch-site": "cross-site"}, 403),
        ({"content-type": "application/json", "sec-fetch-site": "same-site"}, 403),
        ({"content-type": "application/json", "sec-fetch-site": "odd"}, 403),
        ({"content-type": "application/json", "host": "evil.example"}, 421),
        ({"content-type": "application/json", "host": "localhost.evil.example"}, 421),
        ({"content-type": "application/json", "host": ""}, 421),
        ({"content-type": "application/json", "host": "127.0.0.1@evil.example"}, 421),
        ({"content-type": "application/json", "host": "[::1"}, 421),
    ],
)
@pytest.mark.parametrize("path", ["/api/send", "/api/executions/a/retry", "/api/cancel"])
def test_what_another_site_could_send_writes_nothing(
    path: str, headers: dict[str, str], status: int
) -> None:
    async def main() -> None:
        async with served() as (client, app):
            await app.journal.store.create([execution("a", status=Status.FAILED)])
            before = await app.client.stats()
            body = b'{"name":"hello-world","data":{},"filter":{}}'
            answer = await client.post(path, content=body, headers=headers)
            assert answer.status_code == status
            assert answer.json()["error"]
            assert await app.client.stats() == before

    run(main())


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://localhost:8765"},
        {"sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none"},
        {"host": "127.0.0.1:8765"},
        {"host": "[::1]:8765"},
        {"host": "LOCALHOST"},
        {"content-type": "application/json; charset=utf-8"},
    ],
)
def test_what_our_own_page_or_a_program_sends_is_taken(headers: dict[str, str]) -> None:
    async def main() -> None:
        async with served() as (client, _):
            assert (await client.post("/api/send", json=EVENT, headers=headers)).status_code == 200

    run(main())


def test_nothing_is_changed_by_get() -> None:
    async def main() -> None:
        async with served() as (client, app):
            await app.journal.store.create([execution("a", status=Status.FAILED)])
            for path in ("/api/executions/a/retry", "/api/send", "/api/retry", "/api/cancel"):
                assert (await client.get(path)).status_code in (404, 405), path
            assert (await app.client.get("a")).status is Status.FAILED

    run(main())


def test_no_answer_allows_other_origins() -> None:
    async def main() -> None:
        async with served() as (client, _):
            for method in ("GET", "OPTIONS", "POST"):
                answer = await client.request(
                    method, "/api/stats", headers={"origin": "https://evil.example"}
                )
                assert not [name for name in answer.headers if name.startswith("access-control")]

    run(main())


@pytest.mark.parametrize(
    "path", ["/", "/send", "/about", "/nope", "/api/stats", "/api/nope", "/api/openapi.json"]
)
def test_every_answer_carries_the_headers(path: str) -> None:
    async def main() -> None:
        async with served() as (client, _):
            answer = await client.get(path)
            for name, value in HEADERS.items():
                assert answer.headers[name] == value
            if path.startswith("/api/"):
                assert answer.headers["cache-control"] == "no-store"

    run(main())


def test_policy_allows_no_inline_script_and_nothing_from_elsewhere() -> None:
    policy = HEADERS["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "style-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe-eval" not in policy
    assert "http" not in policy


# --- identity -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401),
        (f"Bearer {TOKEN}", 200),
        (f"bearer {TOKEN}", 200),
        (basic("anybody", TOKEN), 200),
        (f"Bearer {TOKEN}x", 401),
        (f"Bearer {TOKEN[:-1]}", 401),
        ("Bearer", 401),
        ("Basic !!!", 401),
        (basic(TOKEN, ""), 401),
        (TOKEN, 401),
        ("Digest " + TOKEN, 401),
    ],
)
def test_token_is_asked_for(header: str | None, status: int) -> None:
    async def main() -> None:
        async with served(auth=TokenAuth(TOKEN)) as (client, _):
            headers = {"authorization": header} if header else {}
            for path in ("/", "/api/stats", "/static/x", "/api/openapi.json"):
                answer = await client.get(path, headers=headers)
                assert (answer.status_code == 401) is (status == 401), path
            if status == 401:
                assert answer.headers["www-authenticate"].startswith("Basic ")

    run(main())


def test_token_in_the_address_counts_for_nothing() -> None:
    async def main() -> None:
        async with served(auth=TokenAuth(TOKEN)) as (client, _):
            for name in ("token", "auth", "access_token"):
                assert (await client.get(f"/api/stats?{name}={TOKEN}")).status_code == 401

    run(main())


def test_name_and_password() -> None:
    async def main() -> None:
        async with served(auth=BasicAuth("ana", "long enough")) as (client, _):
            for name, password, status in (
                ("ana", "long enough", 200),
                ("ana", "long enougH", 401),
                ("bob", "long enough", 401),
                ("", "", 401),
            ):
                headers = {"authorization": basic(name, password)}
                assert (await client.get("/api/stats", headers=headers)).status_code == status

    run(main())


def test_guessing_is_slowed_down_and_never_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def main() -> None:
        async with served(auth=TokenAuth(TOKEN)) as (client, _):
            codes = []
            for number in range(1000):
                headers = {"authorization": f"Bearer guess-{number}"}
                codes.append((await client.get("/api/stats", headers=headers)).status_code)
            assert codes.count(401) == 10
            assert set(codes[10:]) == {429}
            answer = await client.get("/api/stats", headers={"authorization": "Bearer x"})
            assert int(answer.headers["retry-after"]) > 0

    run(main())
    ours = [record for record in caplog.records if record.name.startswith("worchflow")]
    assert not [record for record in ours if "guess" in record.getMessage()]


def test_probes_answer_without_credentials_and_say_nothing_else() -> None:
    async def main() -> None:
        async with served(auth=TokenAuth(TOKEN)) as (client, _):
            for path in ("/api/health", "/api/ready"):
                answer = await client.get(path, headers={"host": "10.1.2.3:8765"})
                assert (answer.status_code, answer.json()) == (200, {"status": "ok"})

    run(main())


@pytest.mark.parametrize(
    ("rights", "sends", "manages"),
    [({"view"}, 403, 403), ({"view", "send"}, 200, 403), ({"view", "manage"}, 403, 200)],
)
def test_rights_are_separate(rights: set[str], sends: int, manages: int) -> None:
    async def somebody(connection: Any) -> User:
        return User("ana", frozenset(rights))

    async def main() -> None:
        async with served(auth=somebody) as (client, app):
            await app.journal.store.create([execution("a")])
            assert (await client.post("/api/send", json=EVENT)).status_code == sends
            assert (await client.post("/api/executions/a/cancel", json={})).status_code == manages
            page = (await client.get("/executions/a")).text
            assert ("Send again" in page) is (sends == 200)

    run(main())


def test_user_callable_that_knows_nobody_or_fails_lets_nobody_in() -> None:
    def broken(connection: Any) -> User:
        raise RuntimeError("the directory is down")

    async def main() -> None:
        async with served(auth=lambda connection: None) as (client, _):
            assert (await client.get("/")).status_code == 401
        async with served(auth=broken) as (client, _):
            answer = await client.get("/")
            assert answer.status_code == 503
            assert "directory" not in answer.text

    run(main())


def test_changes_leave_an_audit_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "worchflow.dashboard.audit")

    async def main() -> None:
        async with served(auth=BasicAuth("ana", "long enough")) as (client, _):
            headers = {"authorization": basic("ana", "long enough")}
            await client.post("/api/send", json=EVENT, headers=headers)
            await client.post("/api/executions/x%0Ay/cancel", json={}, headers=headers)
            await client.get("/", headers=headers)

    run(main())
    lines = [record.getMessage() for record in caplog.records if record.name.endswith("audit")]
    assert len(lines) == 2
    assert all('"ana"' in line and "\n" not in line for line in lines)


@pytest.mark.parametrize("token", ["", "short", "x" * 21])
def test_short_tokens_are_refused(token: str) -> None:
    with pytest.raises(ConfigurationError, match="22"):
        TokenAuth(token)


# --- read-only ------------------------------------------------------------------------------------


def test_read_only_hides_and_refuses_every_command() -> None:
    async def main() -> None:
        async with served(read_only=True) as (client, app):
            await app.journal.store.create([execution("a", status=Status.FAILED)])
            for path in ("/api/send", "/api/executions/a/retry", "/api/retry", "/api/cancel"):
                assert (await client.post(path, json={"filter": {}})).status_code == 403
            assert (await app.client.get("a")).status is Status.FAILED
            for path in ("/", "/executions/a", "/workers"):
                page = (await client.get(path)).text
                assert "data-do=" not in page
                assert "data-bulk=" not in page
                assert "Send again" not in page

    run(main())


# --- where it listens -----------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com"])
def test_other_addresses_need_credentials(host: str) -> None:
    async def main() -> None:
        async with served() as (_, app):
            with pytest.raises(ConfigurationError, match="--auth"):
                guarded(app, Serving(host=host))
            guarded(app, Serving(host=host, auth=TOKEN))
            guarded(app, Serving(host=host, insecure=True))

    run(main())


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
    ],
)
def test_loopback_is_known(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("allowed", "host", "status"),
    [
        (["flows.example.com"], "flows.example.com", 200),
        (["flows.example.com"], "flows.example.com:443", 200),
        (["flows.example.com"], "other.example.com", 421),
        (["*.example.com"], "a.example.com", 200),
        (["*.example.com"], "example.com", 421),
        (["*.example.com"], "evilexample.com", 421),
        (["*"], "anything", 200),
    ],
)
def test_host_names_are_allowed_one_by_one(allowed: list[str], host: str, status: int) -> None:
    async def main() -> None:
        async with served(allowed_hosts=allowed) as (client, _):
            assert (await client.get("/api/stats", headers={"host": host})).status_code == status

    run(main())


# --- sizes ----------------------------------------------------------------------------------------


def test_bodies_have_a_limit_told_or_not() -> None:
    async def pieces() -> Any:
        for _ in range(200):
            yield b"x" * 1024

    async def main() -> None:
        async with served() as (client, _):
            kind = {"content-type": "application/json"}
            answer = await client.post("/api/retry", content=b"x" * 70_000, headers=kind)
            assert answer.status_code == 413
            answer = await client.post("/api/retry", content=pieces(), headers=kind)
            assert answer.status_code == 413
            told = {**kind, "content-length": str(SEND_LIMIT + 1)}
            answer = await client.post("/api/send", content=b"{}", headers=told)
            assert answer.status_code == 413
            bomb = gzip.compress(b" " * 10_000_000)
            packed = {**kind, "content-encoding": "gzip"}
            assert (await client.post("/api/send", content=bomb, headers=packed)).status_code == 415

    run(main())


def test_headers_have_a_limit() -> None:
    async def main() -> None:
        async with served() as (client, _):
            many = {f"x-{number}": "y" * 100 for number in range(200)}
            assert (await client.get("/", headers=many)).status_code == 431

    run(main())


def test_a_body_that_never_comes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worchflow_plugins.dashboard.security.BODY_SECONDS", 0.05)

    async def stuck() -> Any:
        yield b"{"
        await asyncio.sleep(30)
        yield b"}"

    async def main() -> None:
        async with served() as (client, _):
            answer = await client.post(
                "/api/send", content=stuck(), headers={"content-type": "application/json"}
            )
            assert answer.status_code == 408

    run(main(), limit=10)


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/static/%2e%2e%2fapp.py",
        "/static/..%5capp.py",
        "/static/%00",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/worchflow.css",
        "/static/....//app.py",
    ],
)
def test_only_the_listed_files_are_served(path: str) -> None:
    async def main() -> None:
        async with served() as (client, _):
            assert (await client.get(path)).status_code == 404

    run(main())
