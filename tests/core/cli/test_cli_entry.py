from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from worchflow_core import errors
from worchflow_core.cli import exits

HEAVY = ("pydantic_settings", "pymongo", "redis", "apsw", "fastapi", "uvicorn", "jinja2", "rich")


def loaded(place: Path, *arguments: str) -> set[str]:
    """Return the names of all modules a command line loads in a fresh process."""
    code = (
        "import json, sys\n"
        "from worchflow_core.cli.entry import run\n"
        "run(sys.argv[1:])\n"
        "sys.stderr.write('\\n' + json.dumps(sorted(sys.modules)))\n"
    )
    root = Path(__file__).resolve().parents[3]
    answer = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(json.loads(answer.stderr.splitlines()[-1]))


@pytest.mark.parametrize("arguments", [("--help",), ("worker", "--help"), ("--version",)])
def test_help_loads_nothing_heavy(place: Path, arguments: tuple[str, ...]) -> None:
    assert not loaded(place, *arguments).intersection(HEAVY)


def test_list_loads_no_foreign_driver_and_no_rich(
    place: Path, cli: Callable[..., Any], flows: str
) -> None:
    assert cli("send", "boom", "-m", flows).code == 0
    names = loaded(place, "list")
    assert not names.intersection({"pymongo", "redis", "fastapi", "rich"})
    assert flows not in names


def test_help_names_every_command(cli: Callable[..., Any]) -> None:
    done = cli("--help")
    assert done.code == 0
    for name in (
        *("worker", "dev", "run", "send", "list", "show", "retry", "cancel", "delete", "purge"),
        *("stats", "functions", "workers", "plugins", "doctor"),
    ):
        assert f"\n  {name} " in done.out


def test_version_is_printed(cli: Callable[..., Any]) -> None:
    from worchflow_core import __version__

    assert cli("--version").out == f"worchflow {__version__}\n"


def test_no_command_shows_the_help_and_is_wrong_usage(cli: Callable[..., Any]) -> None:
    done = cli()
    assert done.code == exits.USAGE
    assert "Commands:" in done.err


@pytest.mark.parametrize(
    "arguments", [("typo",), ("list", "--nope"), ("show",), ("list", "--limit", "x")]
)
def test_wrong_usage_is_one_line_and_a_hint(
    cli: Callable[..., Any], arguments: tuple[str, ...]
) -> None:
    done = cli(*arguments)
    assert done.code == exits.USAGE
    first, hint = done.err.splitlines()
    assert first.startswith("error: ")
    assert hint.startswith("hint: worchflow")
    assert done.out == ""


def test_global_flags_are_taken_before_and_after_the_command(
    cli: Callable[..., Any], place: Path
) -> None:
    after = cli("stats", "--store-url", "memory:", "--json")
    before = cli("--store-url", "memory:", "--json", "stats")
    assert after.code == before.code == 0
    assert json.loads(after.out) == json.loads(before.out)
    assert json.loads(after.out)["total"] == 0


def test_a_wrong_setting_is_one_line_per_setting(
    cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORCHFLOW_CONCURRENCY", "many")
    monkeypatch.setenv("WORCHFLOW_LEASE", "soon")
    done = cli("list")
    assert done.code == exits.USAGE
    lines = done.err.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["error:", "WORCHFLOW_LEASE"],
        ["error:", "WORCHFLOW_CONCURRENCY"],
    ] or [line.split()[:2] for line in lines] == [
        ["error:", "WORCHFLOW_CONCURRENCY"],
        ["error:", "WORCHFLOW_LEASE"],
    ]
    assert "Traceback" not in done.err


def test_a_queue_without_a_store_is_refused(cli: Callable[..., Any]) -> None:
    done = cli("list", "--queue-url", "redis://127.0.0.1:1")
    assert done.code == exits.USAGE
    assert "WORCHFLOW_STORE_URL" in done.err


def test_a_url_nobody_opens_is_wrong_usage_and_shows_no_password(cli: Callable[..., Any]) -> None:
    done = cli("list", "--store-url", "foo://ana:secret@host/x")
    assert done.code == exits.USAGE
    assert "foo://ana:***@host/x" in done.err
    assert "secret" not in done.err


PLUGIN = '''
import typer
from worchflow_core import hookimpl

@hookimpl
def worchflow_add_commands(cli):
    @cli.command()
    def greet(ctx: typer.Context, name: str):
        """Greet somebody."""
        typer.echo(f"hello {name} {ctx.find_root().obj}")

    @cli.command("list")
    def mine():
        """Replace a built-in command."""
'''


def test_a_plugin_adds_commands_which_take_the_global_flags(
    cli: Callable[..., Any], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "greeting_plugin.py").write_text(PLUGIN, encoding="utf-8")
    monkeypatch.setenv("WORCHFLOW_PLUGINS", "greeting_plugin")
    assert "Greet somebody." in cli("--help").out
    assert cli("greet", "Ana", "--prefix", "acme").out == "hello Ana {'prefix': 'acme'}\n"
    assert cli("--prefix", "acme", "greet", "Ana").out == "hello Ana {'prefix': 'acme'}\n"
    assert "'list', which is built in" in cli("--help").err


def test_help_works_where_a_plugin_is_broken(
    cli: Callable[..., Any], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "broken_plugin.py").write_text("raise RuntimeError('no')", encoding="utf-8")
    (place / ".env").write_text("WORCHFLOW_PLUGINS=broken_plugin\n", encoding="utf-8")
    done = cli("--help")
    assert done.code == 0
    assert "commands of plugins are missing" in done.err
    failed = cli("list")
    assert failed.code == exits.USAGE
    assert failed.err.startswith("error: WORCHFLOW_PLUGINS names 'broken_plugin'")


def test_debug_shows_where_an_error_comes_from(cli: Callable[..., Any]) -> None:
    assert "Traceback" in cli("list", "--debug").err
    assert "Traceback" not in cli("list").err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.SettingsError("x"), 2),
        (errors.PluginError("x"), 2),
        (errors.FunctionError("x"), 2),
        (errors.InvalidInput("x"), 2),
        (errors.IdempotencyConflict("x"), 2),
        (errors.NotFound("x"), 3),
        (errors.NotAllowed("x"), 4),
        (errors.StoreUnavailable("x"), 5),
        (errors.StoreUnusable("x"), 1),
        (errors.ExecutionFailed("id", None), 6),
        (errors.ExecutionCancelled("id", None), 6),
        (errors.ResultTimeout("x"), 7),
        (errors.WorkerWornOut("x"), 8),
        (exits.CommandError("x", code=4), 4),
        (ValueError("x"), None),
    ],
)
def test_each_error_has_its_exit_code(error: Exception, code: int | None) -> None:
    assert exits.code_of(error) == code


def test_a_reader_that_leaves_early_is_no_traceback(
    place: Path, program: Callable[..., Any]
) -> None:
    running = program("plugins", "--hooks")
    running.process.stdout.close()
    code = running.process.wait(30)
    assert "Traceback" not in running.err
    assert code in (0, exits.FAILED)


def completed(place: Path, line: str) -> list[str]:
    root = Path(__file__).resolve().parents[3]
    answer = subprocess.run(
        [sys.executable, "-m", "worchflow_core.cli"],
        cwd=place,
        env={
            **os.environ,
            "PYTHONPATH": str(root),
            "_WORCHFLOW_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split(" ")) - 1),
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert answer.stderr == ""
    return answer.stdout.split()


def test_the_shell_completes_commands_statuses_functions_and_ids(
    place: Path, cli: Callable[..., Any], flows: str
) -> None:
    good = '{"amount": 3, "customer_id": "ana"}'
    assert completed(place, "worchflow show ") == []
    assert not list(place.glob("*.db"))
    assert cli("run", "pay", good, "-m", flows, "--id", "order-1").code == 0
    assert completed(place, "worchflow st") == ["stats"]
    assert completed(place, "worchflow list --status failed,re") == ["failed,retrying"]
    assert "pay" in completed(place, "worchflow send p")
    assert completed(place, "worchflow send until") == ["until-file"]
    assert completed(place, "worchflow show or") == ["order-1"]
