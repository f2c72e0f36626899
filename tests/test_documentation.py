"""The documentation is held to the code: names, signatures, defaults, examples, links."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import re
import sys
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import worchflow_core
from worchflow_core import (
    Event,
    Function,
    Settings,
    Status,
    Step,
    Worchflow,
    format_duration,
    function,
    hookspecs,
    load_settings,
    step,
)
from worchflow_core.cli.entry import build
from worchflow_core.cli.flags import global_parameters
from worchflow_core.testing import Harness

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md"), *ROOT.glob("sample_plugin/*.md")])


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def table_rows(text: str) -> Iterator[list[str]]:
    """Yield the cells of each row of a page's tables."""
    for line in text.splitlines():
        if line.startswith("|") and not line.startswith("| ---"):
            yield [cell.strip() for cell in line.strip().strip("|").split(" | ")]


# --- hooks ---------------------------------------------------------------------------------------


def hook_signatures() -> dict[str, str]:
    return {
        name: f"{name}{inspect.signature(spec)}".replace("'", "")
        for name, spec in vars(hookspecs).items()
        if name.startswith("worchflow_")
    }


def test_every_hook_is_documented_with_its_signature() -> None:
    headings = re.findall(r"^### `(worchflow_.*)`$", read("docs/hooks.md"), re.MULTILINE)
    assert headings == list(hook_signatures().values())


@pytest.mark.parametrize("path", PAGES, ids=short)
def test_pages_name_only_hooks_that_exist(path: Path) -> None:
    known = {*hook_signatures(), "worchflow_core", "worchflow_plugins", "worchflow_sample"}
    known.add("worchflow_harness")
    found = set(re.findall(r"\bworchflow_[a-z_]+\b", path.read_text(encoding="utf-8")))
    assert found <= known


def test_every_hook_promises_something() -> None:
    for name in hook_signatures():
        assert inspect.getdoc(getattr(hookspecs, name)), name


# --- settings ------------------------------------------------------------------------------------


def shown(default: Any) -> str:
    """Return a default as docs/settings.md writes it."""
    if default is None or default == ():
        return "unset"
    if isinstance(default, timedelta):
        return f"`{format_duration(default)}`"
    return f"`{str(default).lower()}`"


def test_every_setting_is_documented_with_its_default() -> None:
    documented = {
        row[0].strip("`"): row[1]
        for row in table_rows(read("docs/settings.md"))
        if row[0].startswith("`WORCHFLOW_")
    }
    assert documented == {
        f"WORCHFLOW_{name.upper()}": shown(field.default)
        for name, field in Settings.model_fields.items()
    }


@pytest.mark.parametrize("path", PAGES, ids=short)
def test_pages_name_only_settings_that_exist(path: Path) -> None:
    known = {f"WORCHFLOW_{name.upper()}" for name in Settings.model_fields}
    known |= {"WORCHFLOW_DASHBOARD_AUTH", "WORCHFLOW_SAMPLE_AUDIT_FILE"}  # plugins' own
    known |= {"WORCHFLOW_TEST_REDIS_URL", "WORCHFLOW_TEST_MONGODB_URL"}  # the fixtures' own
    found = set(re.findall(r"\bWORCHFLOW_[A-Z_]+[A-Z]\b", path.read_text(encoding="utf-8")))
    assert found <= known


def test_example_environment_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [key for key in os.environ if key.startswith("WORCHFLOW_")]:
        monkeypatch.delenv(name)
    settings = load_settings(env_file=ROOT / ".env.example")
    assert settings.store_url is not None
    assert settings.queue_url is not None
    assert settings.require_store
    names = set(re.findall(r"^#?(WORCHFLOW_[A-Z_]+)=", read(".env.example"), re.MULTILINE))
    assert names <= {f"WORCHFLOW_{name.upper()}" for name in Settings.model_fields}


def test_compose_file_publishes_on_the_loopback_address_only() -> None:
    published = re.findall(r'^ +- "([\d.:]+:\d+)"$', read("docker-compose.yml"), re.MULTILINE)
    assert published == ["127.0.0.1:6379:6379", "127.0.0.1:27017:27017"]


def test_settings_say_what_they_mean() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name


# --- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heading", "options"),
    [
        ("The options of `@function`", inspect.signature(function).parameters.keys() - {"code"}),
        (
            "The options of `step.run`",
            inspect.signature(step.Step.run).parameters.keys() - {"self", "title", "fn", "args"},
        ),
    ],
)
def test_every_option_is_documented(heading: str, options: set[str]) -> None:
    text = read("docs/writing-functions.md")
    section = text.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    documented = [row[0].strip("`") for row in table_rows(section) if row[0].startswith("`")]
    assert set(documented) == options


# --- commands ------------------------------------------------------------------------------------


OPTIONAL_COMMANDS = {"dashboard"}  # there if its extra is installed


def command_sections() -> dict[str, str]:
    """Return the text of docs/cli.md by command."""
    found = re.split(r"^## `worchflow ([a-z]+)[^`]*`$", read("docs/cli.md"), flags=re.MULTILINE)
    return dict(zip(found[1::2], found[2::2], strict=True))


def options_in(text: str) -> set[str]:
    """Return the options in the first cells of a section's tables."""
    cells = (row[0] for row in table_rows(text.split("\n## ", 1)[0]) if row)
    return {name for cell in cells for name in re.findall(r"`(--?[a-z-]+)`", cell)}


def test_every_command_is_documented_with_its_options() -> None:
    root = build()
    shared = {name for parameter in global_parameters() for name in parameter.opts}
    actual = {
        name: {
            option
            for parameter in root.get_command(None, name).params
            if parameter.param_type_name == "option" and not parameter.hidden
            for option in (*parameter.opts, *parameter.secondary_opts)
        }
        - shared
        for name in root.list_commands(None)
    }
    documented = {name: options_in(text) - shared for name, text in command_sections().items()}
    for name in OPTIONAL_COMMANDS - actual.keys():
        del documented[name]
    assert documented == actual


def test_options_of_all_commands_are_documented() -> None:
    section = read("docs/cli.md").split("## For all commands\n", 1)[1]
    assert options_in(section) == {
        name for parameter in global_parameters() for name in parameter.opts
    }


@pytest.mark.parametrize("path", PAGES, ids=short)
def test_pages_name_only_commands_that_exist(path: Path) -> None:
    known = {*build().list_commands(None), *OPTIONAL_COMMANDS, "--version", "--help", "COMMAND"}
    found = re.findall(r"(?:^|`|&& )worchflow ([a-zA-Z-]+)", path.read_text(encoding="utf-8"), re.M)
    assert set(found) <= known


# --- examples ------------------------------------------------------------------------------------


def examples(language: str) -> Iterator[Any]:
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        for match in re.finditer(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            line = text[: match.start()].count("\n") + 1
            yield pytest.param(match[1], id=f"{short(path)}:{line}")


def load(source: str) -> ModuleType:
    module = ModuleType("documentation_example")
    sys.modules[module.__name__] = module
    try:
        exec(compile(source, "<example>", "exec"), vars(module))
    finally:
        del sys.modules[module.__name__]
    return module


@pytest.mark.parametrize("source", list(examples("python")))
def test_python_examples_run(source: str, worchflow_harness: Harness) -> None:
    module = load(source)
    for name, value in vars(module).items():
        if name.startswith("test_"):
            value(worchflow_harness)


@pytest.mark.parametrize("source", list(examples("toml")))
def test_toml_examples_parse(source: str) -> None:
    assert tomllib.loads(inspect.cleandoc(source))


def example_with(page: str, name: str) -> Any:
    """Return what a page's example defines under a name."""
    for parameter in examples("python"):
        if str(parameter.id).startswith(f"{page}:") and re.search(
            rf"def {name}\b", str(parameter.values[0])
        ):
            return vars(load(str(parameter.values[0])))[name]
    raise AssertionError(f"{page} has no example that defines {name}")


@pytest.mark.parametrize(
    ("page", "name", "data", "result"),
    [
        ("README.md", "greet", {"name": "ada"}, "Hello, Ada!"),
        ("docs/getting-started.md", "greet", {"name": "ada"}, "Hello, Ada!"),
        ("docs/writing-functions.md", "make_thumbnails", {"name": "x"}, ["x-100", "x-200"]),
        ("docs/writing-functions.md", "crawl", ["a", "bc"], 3),
        ("docs/writing-functions.md", "summarise", [1, 2], 3),
        ("docs/writing-functions.md", "report", "select", 6),
    ],
)
def test_functions_of_the_examples_do_what_they_say(
    page: str, name: str, data: Any, result: Any
) -> None:
    example: Function[Any, Any] = example_with(page, name)
    with Harness([example]) as harness:
        assert harness.run(example, data).result == result


def test_schedule_example_runs_with_its_own_data() -> None:
    example: Function[Any, Any] = example_with("docs/schedules.md", "morning_report")
    assert example.schedule is not None
    assert (example.schedule.text, example.schedule.zone) == ("0 9 * * 1-5", "Europe/Paris")
    assert example.schedule.data is not None
    with Harness([example], now=datetime(2030, 1, 31, 8, tzinfo=UTC)) as harness:
        run = harness.run(example, json.loads(example.schedule.data))
    assert run.result == "for team, 31 January"


def test_handler_example_reads_what_a_handler_gets() -> None:
    handler = example_with("docs/writing-functions.md", "payment_failed")

    @function(id="always-fails", retries=0, on_failure=handler)
    async def always_fails(event: Event[Any], step: Step) -> None:
        raise ValueError("no money")

    with Harness([handler, always_fails]) as harness:
        harness.run(always_fails, id="one")
        (handler_run,) = harness.run_all()
    assert handler_run.ran == ("Tell somebody",)
    assert handler_run.execution.parent == "one"


def test_saga_example_gives_back_what_it_booked(capsys: pytest.CaptureFixture[str]) -> None:
    with Harness([example_with("docs/sagas.md", "book_trip")]) as harness:
        ended = harness.run("book-trip", {})
    assert ended.status is Status.FAILED
    gone = [line for line in capsys.readouterr().out.splitlines() if line.startswith("gave back")]
    assert gone == ["gave back the booking of a hotel", "gave back the booking of a flight"]


def test_progress_example_says_how_far_it_is() -> None:
    with Harness([example_with("docs/progress.md", "import_rows")]) as harness:
        ended = harness.run("import-rows", ["a", "", "c"])
        assert ended.result == 3
        said = harness.client.notes(ended.execution.id)
    assert said.progress is not None
    assert said.progress.text == "3 of 3"
    assert [(line.text, line.fields) for line in said.lines] == [("an empty row", {"number": 2})]


def test_event_example_runs_each_subscriber() -> None:
    examples = [example_with("docs/events.md", name) for name in ("keep_books", "print_label")]
    with Harness(examples) as harness:
        order = {"id": 7, "address": {"country": "FR"}}
        sent = harness.client.send_event("order/paid", order, id="o")
        assert [handle.id for handle in sent.executions] == ["o:keep-books", "o:print-label"]
        results = sorted(run.result for run in harness.run_all())
        assert results == ["label 7", "order/paid: 7"]
        elsewhere = harness.client.send_event("order/paid", {"id": 8})
        assert [handle.function for handle in elsewhere.executions] == ["keep-books"]


def test_example_that_retries_many_retries_them() -> None:
    retry_failed = example_with("docs/deploying.md", "retry_failed")

    @function(id="process-payment", retries=0)
    async def broken(event: Event[Any], step: Step) -> None:
        raise ValueError("no")

    async def main() -> None:
        overrides = {"store_url": "memory://retry-many", "log": "off"}
        async with Worchflow(functions=[broken], overrides=overrides, env_file=None) as app:
            working = asyncio.create_task(app.worker.run())
            for _ in range(3):
                handle = await app.client.send(broken, None)
                await app.client.wait(handle.id, timeout=30)
            assert await retry_failed(app.client) == 3
            app.worker.stop()
            await working

    asyncio.run(main())


def test_typed_example_returns_its_type() -> None:
    example = example_with("docs/writing-functions.md", "process_payment")
    with Harness([example]) as harness:
        run = harness.run(example, {"amount": 100, "customer_id": "cust_123"})
    assert run.result.transaction_id == "txn_cust_123"


def test_readme_shows_the_logging_example_as_it_is() -> None:
    example = read("sample_plugin/examples/acme_logging.py").split('"""', 2)[2].strip()
    assert example in read("README.md")


# --- the rest ------------------------------------------------------------------------------------


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("path", PAGES, ids=short)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        page = (path.parent / name).resolve() if name else path
        assert page.exists(), f"{short(path)} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in map(slug, headings), f"{short(path)} links to {target}"


def test_every_page_is_listed() -> None:
    index = read("docs/index.md")
    for path in DOCS.glob("*.md"):
        assert path.name == "index.md" or f"({path.name})" in index


def test_make_targets_are_in_the_readme() -> None:
    targets = re.findall(r"^([a-z-]+):.*## ", read("Makefile"), re.MULTILINE)
    for target in set(targets) - {"help", "clean"}:
        assert f"make {target}" in read("README.md")


def test_versions_agree() -> None:
    project = tomllib.loads(read("pyproject.toml"))["project"]
    assert project["version"] == worchflow_core.__version__
    assert f"## {worchflow_core.__version__}" in read("CHANGELOG.md")
