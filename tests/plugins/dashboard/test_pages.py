from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount

from tests.plugins.dashboard.support import (
    NOW,
    CountingStore,
    application,
    execution,
    run,
    served,
    step,
)
from worchflow_core import (
    Attempt,
    Batch,
    Event,
    Failure,
    Limit,
    RunningExecution,
    Status,
    Step,
    StepTry,
    StoreUnavailable,
    Trigger,
    Worchflow,
    Worker,
    WorkerState,
    function,
)
from worchflow_core.testing.contracts.samples import HOSTILE
from worchflow_plugins.dashboard import create_dashboard, demo
from worchflow_plugins.memory import MemoryStore

PAGES = (
    "/",
    "/functions",
    "/functions/process-payment",
    "/schedules",
    "/workers",
    "/send",
    "/about",
)


class Dom(HTMLParser):
    """A page as a browser would see it: tags with attributes, and the text outside of them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, *names: str) -> list[dict[str, str]]:
        return [attributes for tag, attributes in self.tags if tag in names]


def assert_inert(html: str, where: str) -> None:
    """Fail where a page holds anything that could run, or loads anything from elsewhere."""
    dom = Dom(html)
    scripts = dom.of("script")
    assert len(scripts) == 1, where
    assert scripts[0]["type"] == "module"
    assert dom.of("iframe", "object", "embed", "base", "img", "style", "foreignobject") == []
    for tag, attributes in dom.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (where, tag, name)
            if name in ("href", "src", "action", "formaction"):
                parts = urlsplit(value.strip())
                assert parts.scheme == "", (where, value)
                assert parts.netloc == "", (where, value)


# --- hostile input --------------------------------------------------------------------------------

EVIL = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "javascript:alert(1)",
    "<svg><script>alert(1)</script></svg>",
    "{{ 7*7 }}{% raw %}",
    "\x1b[31mred\x1b]0;title\x07",
    "//evil.example/x",
    "../../about?x=#y",
    *HOSTILE,
)


@pytest.mark.parametrize("text", EVIL, ids=range(len(EVIL)))
def test_hostile_text_is_inert_on_every_page(text: str) -> None:
    async def main() -> None:
        store = MemoryStore()
        async with served(store, plugins=(Echo(),)) as (client, _):
            await write_hostile(store, text)
            quoted = "".join(f"%{byte:02X}" for byte in text.encode())
            paths = [
                "/",
                "/?status=failed",
                f"/executions/{quoted}",
                f"/executions/{quoted}?attempt=1",
                f"/functions/{quoted}",
                f"/send?from={quoted}",
                f"/send?fn={quoted}",
                f"/send?data={quoted}",
                f"/?search={quoted[:60]}",
                f"/?function={quoted[:60]}",
                f"/nothing/{quoted}",
                *PAGES,
            ]
            for path in paths:
                answer = await client.get(path)
                assert answer.status_code < 500, path
                assert answer.headers["content-type"].startswith("text/html"), path
                assert_inert(answer.text, path)
                assert "\x1b" not in answer.text
                assert "\u202e" not in answer.text
            for path in ("/api/executions", f"/api/executions/{quoted}", "/api/functions"):
                answer = await client.get(path)
                assert answer.headers["content-type"] == "application/json"
                assert answer.headers["x-content-type-options"] == "nosniff"

    run(main())


async def write_hostile(store: MemoryStore, text: str) -> None:
    failure = Failure(
        type=text, message=text, traceback=text, cause=Failure(type=text, message=text)
    )
    tried = StepTry(step_id=text, title=text, started_at=NOW, ended_at=NOW, error=failure)
    attempt = Attempt(
        number=1,
        worker=text,
        started_at=NOW - timedelta(seconds=9),
        ended_at=NOW,
        outcome=text,
        error=failure,
        tries=(tried,),
    )
    item = execution(
        text,
        function=text,
        event=text,
        status=Status.FAILED,
        data=json.dumps({text: [text]}),
        result=text,
        error=failure,
        attempts=(attempt,),
        fence=1,
        finished_at=NOW,
        waits=(text,),
        tags=(text,),
        parent=text,
        forked_from=text,
        code_version=text,
        headers={text: text},
    )
    await store.create([item])
    await store.record([step(text, 1, step_id=text, title=text, result=json.dumps(text), fence=1)])
    worker = Worker(
        id=text,
        name=text,
        host=text,
        pid=1,
        version=text,
        state=WorkerState.STARTING,
        started_at=NOW,
        concurrency=1,
        functions=(text,),
        running=(RunningExecution(execution_id=text, function=text, step=text, since=NOW),),
    )
    await asyncio.to_thread(store.beat, worker, lease=timedelta(hours=1))


class Echo:
    """A plugin that shows what it is given, and does not escape it."""

    @staticmethod
    def worchflow_add_dashboard(ui: Any) -> None:
        ui.add_panel("execution", lambda item: item.function)
        ui.add_column("executions", "<b>Echo", lambda item: item.function)
        ui.add_nav("<script>x", "/x/echo")


def _mark(plugin: type) -> None:
    from worchflow_core import hookimpl

    for name, value in vars(plugin).items():
        if name.startswith("worchflow_"):
            setattr(plugin, name, staticmethod(hookimpl(value.__func__)))


_mark(Echo)


def test_terminal_codes_are_seen_not_obeyed() -> None:
    async def main() -> None:
        async with served() as (client, app):
            await app.journal.store.create([execution("a", function="x\x1b[31m\u202egnp.exe")])
            text = Dom((await client.get("/executions/a")).text).text
            assert "x\u241b[31m\\u202egnp.exe" in text

    run(main())


# --- what pages say without a script --------------------------------------------------------------


def test_every_page_reads_without_javascript() -> None:
    async def main() -> None:
        async with served() as (client, app):
            await demo.seed(app.journal.store, 200)
            made = demo.make(Status.FAILED)
            await demo.write(app.journal.store, [made])
            failed = made[0].id
            for path, words in {
                "/": ("Executions", "process-payment", "GatewayTimeout", "ago"),
                f"/executions/{failed}": ("Traceback", "Validate payment", "back-off", "4 of 4"),
                "/functions": ("every 15 minutes", "process-payment"),
                "/functions/process-payment": ("Usual steps", "customer_id", "Charge a customer"),
                "/schedules": ("every 15 minutes", "daily-cleanup", "fired by", "not fired"),
                "/workers": ("host-0", "Lost workers", "encode-video"),
                "/send?fn=process-payment": ("Minor units", "worchflow send process-payment"),
                "/about": ("Checks", "memory", "0.1.0"),
                "/executions/nope": ("Not found", "nope"),
            }.items():
                answer = await client.get(path)
                text = Dom(answer.text).text
                for word in words:
                    assert word in text, (path, word)

    run(main())


def test_empty_store_says_how_to_begin() -> None:
    async def main() -> None:
        async with served() as (client, _):
            assert "worchflow worker" in (await client.get("/")).text
            assert "worchflow worker" in (await client.get("/workers")).text

    run(main())


def test_waits_children_and_kin_are_told_and_linked() -> None:
    async def main() -> None:
        async with served() as (client, app):
            parent = execution(
                "parent",
                status=Status.WAITING,
                waits=("child:kid", "approved", "approved@parent"),
                due_at=NOW + timedelta(hours=1),
                forked_from="ancestor",
            )
            kids = [
                execution(f"kid{number or ''}", function="encode-video", parent="parent")
                for number in range(60)
            ]
            await app.journal.store.create([parent, *kids])
            page = (await client.get("/executions/parent")).text
            text = " ".join(Dom(page).text.split())
            assert "waiting for approved, child kid, at the latest in" in text
            assert "Children 50+" in text
            assert '/executions/ancestor"' in page
            assert '/executions/kid"' in page
            child = (await client.get("/executions/kid")).text
            assert '/executions/parent"' in child
            assert "Children" not in child

    run(main())


def test_title_carries_the_status() -> None:
    async def main() -> None:
        async with served() as (client, app):
            await app.journal.store.create([execution("a", status=Status.FAILED)])
            assert (
                "<title>failed · process-payment a – Worchflow"
                in (await client.get("/executions/a")).text
            )

    run(main())


def test_beginning_of_an_id_leads_to_the_execution() -> None:
    async def main() -> None:
        async with served() as (client, app):
            await app.journal.store.create([execution("abcdef-1"), execution("abcdef-2")])
            assert (await client.get("/executions/abcdef")).status_code == 404
            answer = await client.get("/executions/abcdef-")
            assert answer.status_code == 404
            await app.journal.store.create([execution("zyxwvu-1")])
            answer = await client.get("/executions/zyxwvu")
            assert answer.headers["location"] == "/executions/zyxwvu-1"

    run(main())


def test_wrong_parameters_of_pages_are_400() -> None:
    async def main() -> None:
        async with served() as (client, app):
            await app.journal.store.create([execution("a")])
            for path in (
                "/?limit=0",
                "/?status=x",
                "/?when=x",
                "/?window=x",
                "/?after=x",
                "/?nope=1",
                "/executions/a?attempt=x",
                "/executions/a?only=x",
                "/executions/a?steps=99999999",
                "/workers?x=1",
            ):
                answer = await client.get(path)
                assert answer.status_code == 400, path
                assert "That cannot be done" in answer.text

    run(main())


def test_older_and_newer_walk_the_list_and_back() -> None:
    async def main() -> None:
        async with served() as (client, app):
            await app.journal.store.create(
                [
                    execution(f"e{number:03}", created_at=NOW - timedelta(seconds=number))
                    for number in range(60)
                ]
            )

            async def page(path: str) -> tuple[list[str], dict[str, str]]:
                dom = Dom((await client.get(path)).text)
                keys = [item["data-key"] for item in dom.of("tr") if "data-href" in item]
                links = [item["href"] for item in dom.of("a") if "after=" in item.get("href", "")]
                back = [item["href"] for item in dom.of("a") if "before=" in item.get("href", "")]
                return keys, {"older": "".join(links), "newer": "".join(back)}

            first, links = await page("/")
            second, more = await page("/" + links["older"])
            third, last = await page("/" + more["older"])
            assert first + second + third == [f"e{number:03}" for number in range(60)]
            assert last["older"] == ""
            again, _ = await page("/" + last["newer"])
            assert again == second

    run(main())


# --- where it lives -------------------------------------------------------------------------------


def starlette(app: Any) -> Any:
    return Starlette(routes=[Mount("/tools/flows", app)])


def fastapi(app: Any) -> Any:
    outer = FastAPI()
    outer.mount("/tools/flows", app)
    return outer


@pytest.mark.parametrize("mounted", ["starlette", "fastapi", "prefix", "stripped"])
def test_every_link_stays_under_the_prefix(mounted: str) -> None:
    async def main() -> None:
        async with application() as app:
            await demo.seed(app.journal.store, 60)
            inside = mounted in ("prefix", "stripped")
            dashboard = create_dashboard(app, prefix="/tools/flows" if inside else "")
            outer = {"starlette": starlette, "fastapi": fastapi}.get(mounted, lambda item: item)
            transport = httpx.ASGITransport(outer(dashboard))
            async with httpx.AsyncClient(
                transport=transport, base_url="http://localhost", follow_redirects=True
            ) as client:
                start = "/" if mounted == "stripped" else "/tools/flows/"
                await walk(client, start, "/tools/flows")

    run(main())


async def walk(client: httpx.AsyncClient, start: str, prefix: str) -> None:
    """Follow every link from `start`; all must exist and lie below `prefix`."""
    seen: set[str] = set()
    todo = [start]
    while todo and len(seen) < 60:
        path = todo.pop(0)
        if path in seen:
            continue
        seen.add(path)
        answer = await client.get(path)
        assert answer.status_code == 200, path
        if not answer.headers["content-type"].startswith("text/html"):
            continue
        dom = Dom(answer.text)
        base = path if path.startswith(prefix) else prefix + path
        for item in dom.of("a", "link", "script", "form", "tr"):
            for name in ("href", "src", "action", "data-href"):
                if name in item and not item[name].startswith("#"):
                    target = urljoin(base, item[name])
                    assert target.startswith(prefix + "/"), (path, item[name])
                    if "finished_since" not in target:  # the chart's bars are many and alike
                        todo.append(target.partition("#")[0])
    assert any("/static/worchflow." in path for path in seen)
    assert any("/executions/" in path for path in seen)


def test_an_application_that_is_not_open_is_503_until_it_is() -> None:
    async def main() -> None:
        app = application()
        transport = httpx.ASGITransport(create_dashboard(app))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            assert (await client.get("/api/ready")).status_code == 503
            answer = await client.get("/")
            assert answer.status_code == 503
            assert "does not answer" in answer.text
            async with app:
                assert (await client.get("/api/ready")).status_code == 200
                assert (await client.get("/")).status_code == 200

    run(main())


def test_a_store_that_goes_away_is_503_with_a_reason_and_recovers() -> None:
    class Flaky(CountingStore):
        is_down = False

        async def stats(self) -> Any:
            if self.is_down:
                raise StoreUnavailable("mongod on 127.0.0.1 does not answer")
            return await super().stats()

    async def main() -> None:
        store = Flaky()
        async with served(store) as (client, _):
            assert (await client.get("/api/stats")).status_code == 200
            store.is_down = True
            await asyncio.sleep(1.05)  # what was read stays good for a second
            for path in ("/api/stats", "/"):
                answer = await client.get(path)
                assert answer.status_code == 503
                assert answer.headers["retry-after"] == "2"
                assert "mongod" in answer.text
            assert (await client.get("/api/ready")).status_code == 503
            assert (await client.get("/api/health")).status_code == 200
            assert "mongod" in (await client.get("/about")).text
            store.is_down = False
            assert (await client.get("/api/stats")).status_code == 200

    run(main())


# --- functions ------------------------------------------------------------------------------------


def test_send_page_starts_from_schema_or_from_an_earlier_execution() -> None:
    async def main() -> None:
        async with served() as (client, app):
            page = (await client.get("/send?fn=process-payment")).text
            assert "customer_id" in Dom(page).text
            await app.journal.store.create([execution("a", data='{"amount":7,"note":"again"}')])
            page = Dom((await client.get("/send?from=a")).text)
            assert '"note": "again"' in page.text
            page = Dom((await client.get("/send?fn=none")).text)
            assert "No worker has described" in page.text

    run(main())


def test_pages_show_events_and_who_subscribes() -> None:
    @function(triggers=["order/paid", Trigger("x*", match={"a": "<b>"})])
    async def stocks(event: Event[dict[str, int]], step: Step) -> None: ...

    async def main() -> None:
        async with served() as (client, app):
            app.registry.add(stocks)
            for path in ("/functions", "/functions/stocks"):
                html = (await client.get(path)).text
                assert "order/paid" in html
                assert "x* (a = &#34;&lt;b&gt;&#34;)" in html
            html = (await client.get("/send?fn=order/paid")).text
            assert '<option value="order/paid" selected>' in html
            assert html.count('value="order/paid"') == 1
            assert '<option value="x*"' not in html
            assert "An event, to which stocks subscribes." in Dom(html).text
            assert '<input id="opt-event" type="checkbox" checked>' in html
            html = (await client.get("/send?fn=xyz")).text
            assert "An event, to which stocks subscribes." in Dom(html).text
            html = (await client.get("/send?fn=stocks")).text
            assert '<input id="opt-event" type="checkbox">' in html
            sent = await app.client.send_event("order/paid", {"id": 1}, id="o1")
            page = Dom((await client.get(f"/executions/{sent.executions[0].id}")).text)
            assert "event order/paid" in page.text

    run(main())


def test_flow_control_is_told_and_why_an_execution_waits() -> None:
    @function(concurrency=Limit(2, key="data.<b>"), batch=Batch(10, "1m"))
    async def narrow(event: Event[Any], step: Step) -> None: ...

    async def main() -> None:
        async with served() as (client, app):
            app.registry.add(narrow)
            html = (await client.get("/functions/narrow")).text
            assert_inert(html, "/functions/narrow")
            assert "at most 2 at once for each data.<b>" in Dom(html).text
            sent = await app.client.send(narrow, {}, delay="3d")
            path = f"/executions/{sent.id}"
            page = Dom((await client.get(path)).text)
            assert "Why it is not running" in page.text
            assert "it was sent not to begin before" in page.text
            evil = "<script>alert(1)</script>"
            await app.client.pause_function("narrow", reason=evil)
            await asyncio.sleep(1.1)  # a page may be as old as a second
            html = (await client.get(path)).text
            assert_inert(html, path)
            assert evil in Dom(html).text
            await app.client.resume_function("narrow")
            await sent.cancel()
            await asyncio.sleep(1.1)
            assert "Why it is not running" not in (await client.get(path)).text

    run(main())


def test_a_function_is_paused_and_resumed() -> None:
    async def main() -> None:
        async with served() as (client, app):
            evil = "</p><script>alert(1)</script>"
            path = "/api/functions/process-payment"
            paused = await client.post(f"{path}/pause", json={"reason": evil})
            assert paused.json()["paused"]["reason"] == evil
            assert list(await app.client.paused_functions()) == ["process-payment"]
            for place in ("/functions", "/functions/process-payment"):
                page = (await client.get(place)).text
                assert_inert(page, place)
                assert "paused" in Dom(page).text
            assert 'data-function="resume"' in page
            assert (await client.get(path)).json()["paused"]["reason"] == evil
            listed = (await client.get("/api/functions")).json()["functions"]
            assert [item["id"] for item in listed if item["paused"]] == ["process-payment"]
            assert (await client.post(f"{path}/resume", json={})).json()["paused"] is None
            assert 'data-function="pause"' in (await client.get("/functions/process-payment")).text
            assert (await client.post(f"{path}/resume", json={})).status_code == 404
            unknown = await client.post("/api/functions/nope/pause", json={})
            assert unknown.status_code == 404
            long = await client.post(f"{path}/pause", json={"reason": "x" * 501})
            assert long.status_code == 400
        async with served(read_only=True) as (client, _):
            for verb in ("pause", "resume"):
                assert (await client.post(f"{path}/{verb}", json={})).status_code == 403
            page = (await client.get("/functions/process-payment")).text
            assert "data-function=" not in page

    run(main())


def test_every_trigger_of_a_function_is_told() -> None:
    @function(every="15m")
    async def often(event: Event[Any], step: Step) -> None:
        """Run often."""

    async def main() -> None:
        async with application(functions=[often]) as app:
            transport = httpx.ASGITransport(create_dashboard(app))
            async with httpx.AsyncClient(
                transport=transport, base_url="http://localhost"
            ) as client:
                for path in ("/functions", "/functions/often"):
                    assert "every 15m" in Dom((await client.get(path)).text).text

    run(main())


def test_function_without_a_type_takes_any_json() -> None:
    @function
    async def untyped(event: Event[Any], step: Step) -> None:
        """Take anything."""

    async def main() -> None:
        app: Worchflow
        async with application(functions=[untyped]) as app:
            transport = httpx.ASGITransport(create_dashboard(app))
            async with httpx.AsyncClient(
                transport=transport, base_url="http://localhost"
            ) as client:
                assert "any JSON will do" in (await client.get("/send")).text
                answer = await client.post("/api/send", json={"name": "untyped", "data": [1]})
                assert answer.status_code == 200

    run(main())


def test_what_the_original_ended_is_listed_though_it_has_no_end_on_record() -> None:
    async def main() -> None:
        async with served() as (client, app):
            store = app.journal.store
            await store.create([execution("old", status=Status.FAILED)])
            assert 'data-key="old"' in (await client.get("/?status=failed")).text
            await store.create([execution("new", status=Status.FAILED, finished_at=NOW)])
            await asyncio.sleep(1.05)  # what was read stays good for a second
            html = (await client.get("/?status=failed")).text
            assert 'data-key="new"' in html
            assert "1 more without an end on record" in html
            html = (await client.get("/?status=failed&sort=created")).text
            assert 'data-key="old"' in html
            assert 'data-key="new"' in html

    run(main())


# --- what executions say --------------------------------------------------------------------------


def test_progress_and_log_are_shown_inert_and_redacted() -> None:
    hostile = "<script>alert(1)</script>\x1b[31m"

    @function(id="talks", retries=0)
    async def talks(event: Event[Any], step: Step) -> None:
        step.progress(1500, 3000, hostile)
        step.log(hostile, token="secret", row=hostile)
        await step.run("Charge", lambda: 1, undo=lambda _: None)
        await step.sleep("Nap", "1h")

    def hide(path: Any, value: Any) -> Any:
        return "[hidden]" if "token" in path else value

    async def main() -> None:
        async with application(functions=[talks]) as app:
            handle = await app.client.send(talks, None)
            await app.worker.run(burst=True)
            transport = httpx.ASGITransport(create_dashboard(app, redact=hide))
            async with httpx.AsyncClient(
                transport=transport, base_url="http://localhost"
            ) as client:
                html = (await client.get(f"/executions/{handle.id}")).text
                told = (await client.get(f"/api/executions/{handle.id}")).json()
            assert_inert(html, "said")
            dom = Dom(html)
            assert "1,500 of 3,000" in dom.text
            assert "alert(1)" in dom.text
            assert "secret" not in html
            assert "[hidden]" in dom.text
            (bar,) = dom.of("progress")
            assert (bar["max"], bar["value"]) == ("3000", "1500")
            assert told["progress"]["done"] == 1500
            (line,) = told["log"]
            assert line["fields"] == {"token": "[hidden]", "row": hostile}

    run(main())


def test_a_page_says_what_was_undone_and_offers_no_retry() -> None:
    def give_back(room: int) -> None:
        raise OSError("<b>shut</b>")

    @function(id="books", retries=0)
    async def books(event: Event[Any], step: Step) -> None:
        await step.run("Flight", lambda: 1, undo=lambda _: None)
        await step.run("Hotel", lambda: 2, undo=give_back)
        raise ValueError("no visa")

    async def main() -> None:
        async with application(functions=[books]) as app:
            handle = await app.client.send(books, None)
            await app.worker.run(burst=True)
            transport = httpx.ASGITransport(create_dashboard(app))
            async with httpx.AsyncClient(
                transport=transport, base_url="http://localhost"
            ) as client:
                html = (await client.get(f"/executions/{handle.id}")).text
            dom = Dom(html)
            assert "1 step undone" in dom.text
            assert "completed: Undo Flight" in dom.text
            assert "failed: Undo Hotel" in dom.text
            assert "'Hotel' could not be undone: <b>shut</b>" in dom.text
            assert_inert(html, "shut")
            assert not [item for item in dom.of("button") if item.get("data-do") == "retry"]

    run(main())
