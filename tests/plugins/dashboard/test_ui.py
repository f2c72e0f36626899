from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import APIRouter, Request
from markupsafe import Markup

from tests.plugins.dashboard.support import execution, run, served
from worchflow_core import Execution, PluginError, hookimpl
from worchflow_plugins.dashboard.ui import Ui


def plugin(add: Any) -> object:
    """Return a plugin object that does `add(ui)`."""
    return SimpleNamespace(
        __name__=add.__name__, worchflow_add_dashboard=hookimpl(lambda ui: add(ui))
    )


async def page(path: str, *plugins: object) -> tuple[int, str]:
    async with served(plugins=plugins) as (client, app):
        await app.journal.store.create([execution("a")])
        answer = await client.get(path)
        return answer.status_code, answer.text


def test_panels_are_shown_and_only_markup_is_markup() -> None:
    async def cost(item: Execution) -> Markup:
        return Markup('<section class="card" id="cost">{}</section>').format(f"<{item.id}>")

    def costs(ui: Ui) -> None:
        ui.add_panel("execution", cost)
        ui.add_panel("execution", lambda item: "<b>plain</b>")

    _, html = run(page("/executions/a", plugin(costs)))
    assert '<section class="card" id="cost">&lt;a&gt;</section>' in html
    assert "&lt;b&gt;plain&lt;/b&gt;" in html


def test_a_panel_that_raises_or_hangs_is_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worchflow_plugins.dashboard.ui.PANEL_SECONDS", 0.05)

    def broken(item: Execution) -> str:
        raise ValueError("<script>no</script>")

    async def stuck(item: Execution) -> str:
        await asyncio.sleep(60)
        return ""

    def bad(ui: Ui) -> None:
        ui.add_panel("execution", broken)
        ui.add_panel("execution", stuck)
        ui.add_column("executions", "Bad", broken)

    status, html = run(page("/executions/a", plugin(bad)), limit=10)
    assert status == 200
    assert html.count("A panel failed") == 2
    assert "broken" in html
    assert "&lt;script&gt;no&lt;/script&gt;" in html
    assert "process-payment" in html
    status, html = run(page("/", plugin(bad)))
    assert status == 200
    assert ">failed</span>" in html


def test_columns_stand_in_the_list() -> None:
    def add(ui: Ui) -> None:
        ui.add_column("executions", "Cost", lambda item: f"{len(item.id)} EUR")

    _, html = run(page("/", plugin(add)))
    assert '<th scope="col">Cost</th>' in html
    assert "1 EUR" in html


def test_pages_navigation_templates_and_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "acme_costs"
    (package / "templates").mkdir(parents=True)
    (package / "static").mkdir()
    (package / "__init__.py").write_text("")
    (package / "templates" / "costs.html").write_text(
        '{% extends "base.html" %}{% block head %}<link rel="stylesheet" '
        "href=\"{{ static('costs/costs.css') }}\">{% endblock %}"
        '{% block main %}<h1 class="card">{{ words }}</h1>{% endblock %}'
    )
    (package / "static" / "costs.css").write_text("h1 { color: red }")
    (package / "static" / "link.css").symlink_to("/etc/passwd")
    monkeypatch.syspath_prepend(str(tmp_path))

    def costs(ui: Ui) -> None:
        router = APIRouter()

        @router.get("/")
        async def show(request: Request) -> Any:
            return await ui.render(request, "costs/costs.html", title="Costs", words="<dear>")

        @router.get("/broken")
        async def broken(request: Request) -> Any:
            raise RuntimeError("secret detail")

        ui.add_router(router, prefix="/x/costs")
        ui.add_nav("Costs", "/x/costs/", order=15)
        ui.add_templates("costs", package="acme_costs")
        ui.add_static("costs", package="acme_costs")

    async def main() -> None:
        async with served(plugins=[plugin(costs)]) as (client, _):
            html = (await client.get("/x/costs/")).text
            assert "&lt;dear&gt;" in html
            assert "<title>Costs – Worchflow</title>" in html
            assert html.index(">Executions<") < html.index(">Costs<") < html.index(">Functions<")
            address = html.partition('href="/static/costs/')[2].partition('"')[0]
            style = await client.get(f"/static/costs/{address}")
            assert style.text == "h1 { color: red }"
            assert "immutable" in style.headers["cache-control"]
            assert style.headers["x-content-type-options"] == "nosniff"
            answer = await client.get("/x/costs/broken")
            assert answer.status_code == 500
            assert "Something failed" in answer.text
            assert "secret detail" not in answer.text
            assert (await client.get("/")).status_code == 200
            first = await client.get("/x/costs/")
            mark = first.headers["etag"]
            again = await client.get("/x/costs/", headers={"if-none-match": mark})
            assert again.status_code == 304

    run(main())
    sys.modules.pop("acme_costs", None)


def test_a_plugin_that_fails_to_add_is_named_on_the_about_page() -> None:
    def wrong(ui: Ui) -> None:
        ui.add_router(APIRouter(), prefix="/api")

    status, html = run(page("/about", plugin(wrong)))
    assert status == 200
    assert "Plugins that failed" in html
    assert "wrong" in html
    assert "/x/costs" in html


@pytest.mark.parametrize(
    "add",
    [
        lambda ui: ui.add_router(APIRouter(), prefix="/executions"),
        lambda ui: ui.add_router(APIRouter(), prefix="/x/../api"),
        lambda ui: ui.add_nav("X", "//evil.example"),
        lambda ui: ui.add_nav("X", "javascript:alert(1)"),
        lambda ui: ui.add_panel("nowhere", str),
        lambda ui: ui.add_column("nowhere", "X", str),
        lambda ui: ui.add_static("../x", package="json"),
        lambda ui: ui.add_templates("", package="json"),
    ],
)
def test_what_cannot_be_added_is_refused(add: Any) -> None:
    with pytest.raises(PluginError):
        add(Ui())
