from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from worchflow_core.app import Worchflow
from worchflow_core.cli import announce
from worchflow_core.cli.opening import store_file
from worchflow_core.plugins import PluginInfo


def test_the_environment_and_the_file_are_named_as_sources(
    cli: Callable[..., Any], flows: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / ".env").write_text("WORCHFLOW_STORE_URL=sqlite:///from-file.db\n", encoding="utf-8")
    from_file = cli("worker", "--burst", "-m", flows)
    assert f"{place / 'from-file.db'}   from .env" in from_file.err
    monkeypatch.setenv("WORCHFLOW_STORE_URL", "sqlite:///from-environment.db")
    from_environment = cli("worker", "--burst", "-m", flows)
    assert "from-environment.db   from WORCHFLOW_STORE_URL" in from_environment.err
    from_flag = cli("worker", "--burst", "-m", flows, "--store-url", "sqlite:///from-flag.db")
    assert "from-flag.db   from --store-url" in from_flag.err


def test_a_container_without_a_store_is_refused_where_one_is_required(
    cli: Callable[..., Any], flows: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORCHFLOW_REQUIRE_STORE", "1")
    done = cli("worker", "--burst", "-m", flows)
    assert done.code == 2
    assert "WORCHFLOW_REQUIRE_STORE is set and WORCHFLOW_STORE_URL is not" in done.err
    assert not list(place.glob("*.db"))


def test_functions_are_listed_with_the_packages_they_came_with() -> None:
    app = Worchflow(functions=(), env_file=None)
    assert announce.functions(app) == "functions   none"


def test_a_plugin_in_place_of_a_built_in_is_announced() -> None:
    info = PluginInfo(
        name="logs",
        distribution="acme-logging",
        version="2.1",
        source="acme_logging",
        hooks=(),
        is_replacement=True,
    )

    class App:
        class plugins:
            infos = (info, replace(info, name="other", is_replacement=False))

    app: Any = App()
    assert announce.notices(app) == ["plugin  logs of acme-logging 2.1 replaces the built-in logs"]


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("sqlite:///./worchflow.db", "worchflow.db"),
        ("sqlite:///worchflow.db?mode=rw", "worchflow.db"),
        ("sqlite:data/worchflow.db", "data/worchflow.db"),
        ("sqlite:///with%20space.db", "with space.db"),
    ],
)
def test_the_file_of_a_store_is_told_by_its_whole_path(place: Path, url: str, name: str) -> None:
    assert store_file(url) == place / name


def test_a_server_is_no_file() -> None:
    assert store_file("sqlite:////data/worchflow.db") == Path("/data/worchflow.db")
    assert store_file("mongodb://host/worchflow") is None
    assert store_file("memory:") is None


@pytest.mark.servers
def test_servers_are_announced_without_passwords(
    cli: Callable[..., Any], flows: str, mongodb_url: str, redis_url: str
) -> None:
    done = cli(
        *("worker", "--burst", "-m", flows, "--store-url", mongodb_url, "--queue-url", redis_url)
    )
    assert done.code == 0, done.err
    lines = done.err.splitlines()
    assert lines[0].startswith("store     mongodb")
    assert lines[0].endswith("from --store-url")
    assert lines[1].startswith("queue, step cache   redis")
    assert lines[1].endswith("from --queue-url")
    listed = cli("stats", "--json", "--store-url", mongodb_url, "--queue-url", redis_url)
    assert listed.code == 0, listed.err
