"""The house rules that a machine can read from the code: imports go down, rooms stay small."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# The core's rooms, from the ground up. A module imports from lower lines only, never from its own
# line or a higher one; imports under TYPE_CHECKING count. A new module needs a place here.
# One name a line, so that two new rooms seldom meet in a merge.
# fmt: off
LAYERS = (
    (
        "batching",
        "branches",
        "clock",
        "crashpoints",
        "durations",
        "events",
        "ids",
        "lifecycle",
        "models",
        "origin",
        "ownloop",
        "stages",
        "threads",
        "typeddicts",
        "unopened",
        "version",
        "words",
    ),
    (
        "making",
    ),
    (
        "errors",
        "lines",
        "polling",
        "query",
        "rates",
        "retries",
        "roundtrip",
        "signals",
        "step",
        "uniques",
        "wire",
    ),
    (
        "codec",
        "cron",
        "failures",
        "filters",
        "lease",
        "liveness",
        "matching",
        "protocols",
        "rules",
        "schemas",
        "settings",
        "transitions",
        "validation",
    ),
    (
        "annotations",
        "holding",
        "identities",
        "limits",
        "lookup",
        "offset",
        "schedules",
        "triggers",
    ),
    (
        "drift",
    ),
    (
        "asides",
        "backends",
        "gatherings",
        "handles",
        "leadership",
        "ledger",
        "notes",
        "paging",
        "pauses",
        "proof",
        "results",
        "signatures",
        "steprecords",
        "undos",
    ),
    (
        "functions",
        "keys",
        "notebook",
    ),
    (
        "speaker",
        "catalog",
        "doubles",
        "facts",
        "hookspecs",
        "timetable",
        "migration",
    ),
    (
        "plugins",
        "subscriptions",
    ),
    (
        "discovery",
        "journal",
    ),
    (
        "batches",
        "mailbox",
        "places",
    ),
    (
        "forking",
        "handlers",
        "sending",
        "stepbook",
    ),
    (
        "changing",
        "control",
        "delays",
        "explaining",
        "undoing",
        "informing",
    ),
    (
        "bulk",
        "reasons",
    ),
    (
        "client",
        "gates",
    ),
    (
        "gather_gates",
        "rate_gates",
        "single_gates",
    ),
    (
        "admission",
    ),
    (
        "heart",
        "scheduler",
        "steps",
        "sweeper",
    ),
    (
        "blocking_steps",
        "deadline",
    ),
    (
        "attempt",
    ),
    (
        "rehearsal",
        "running",
    ),
    (
        "claimer",
        "rehearsals",
    ),
    (
        "session",
    ),
    (
        "worker",
    ),
    (
        "app",
    ),
    (
        "blocking",
        "doctor",
    ),
    (
        "__init__",
    ),
    (
        "cli",
        "testing",
    ),
)
# fmt: on
PACKAGES = ("worchflow_core", "worchflow_plugins", "sample_plugin/worchflow_sample")
DRIVERS = {
    "apsw": "worchflow_plugins/sqlite",
    "bson": "worchflow_plugins/mongo",
    "fastapi": "worchflow_plugins/dashboard",
    "gridfs": "worchflow_plugins/mongo",
    "jinja2": "worchflow_plugins/dashboard",
    "opentelemetry": "worchflow_plugins/opentelemetry",
    "prometheus_client": "worchflow_plugins/prometheus",
    "pymongo": "worchflow_plugins/mongo",
    "redis": "worchflow_plugins/redis",
    "starlette": "worchflow_plugins/dashboard",
    "uvicorn": "worchflow_plugins/dashboard",
}
CORE_LIBRARIES = {
    "apsw",  # only to be found misplaced: DRIVERS says where it belongs
    "cronsim",
    "dotenv",
    "importlib_metadata",
    "pluggy",
    "pydantic",
    "pydantic_core",
    "pydantic_settings",
    "typing_extensions",
    "tzdata",
}
CLI_LIBRARIES = {"rich", "shellingham", "typer", "uvloop", "watchfiles"}
TESTING_LIBRARIES = {"pytest"}
LONGEST_FILE = 400
LONGEST_FUNCTION = 100


def files(*packages: str) -> list[Path]:
    return sorted(path for package in packages for path in (ROOT / package).rglob("*.py"))


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def module_name(path: Path) -> str:
    base = ROOT / "sample_plugin" if "sample_plugin" in path.parts else ROOT
    return ".".join(path.relative_to(base).with_suffix("").parts)


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and dotted name of everything a file imports, wherever in it."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{short(path)}:{node.lineno}: no relative imports"
            source = str(node.module)
            for alias in node.names:
                member = f"{source}.{alias.name}"
                yield node.lineno, member if is_module(member) else source


def is_module(name: str) -> bool:
    place = ROOT / name.replace(".", "/")
    sample = ROOT / "sample_plugin" / name.replace(".", "/")
    return any(item.with_suffix(".py").exists() or item.is_dir() for item in (place, sample))


def room(name: str) -> str:
    """Return the core's room that a dotted name lies in: `models`, `cli`, `__init__`."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


@pytest.mark.parametrize("path", files("worchflow_core"), ids=short)
def test_core_imports_only_from_lower_rooms(path: Path) -> None:
    here = room(module_name(path))
    assert here in LEVEL, f"worchflow_core/{here} has no place in LAYERS of {Path(__file__).name}"
    for line, name in imports(path):
        if name.split(".")[0] == "worchflow_core" and room(name) != here:
            there = room(name)
            assert LEVEL[there] < LEVEL[here], (
                f"{short(path)}:{line} imports {name}, which is not below it"
            )


def test_each_room_has_one_place() -> None:
    names = [name for layer in LAYERS for name in layer]
    assert sorted(names) == sorted(set(names))
    for name in names:
        place = ROOT / "worchflow_core" / name
        assert place.with_suffix(".py").exists() or place.is_dir(), f"there is no room {name!r}"


@pytest.mark.parametrize("package", PACKAGES)
def test_no_circles(package: str) -> None:
    graph = {
        module_name(path).removesuffix(".__init__"): {name for _, name in imports(path)}
        for path in files(package)
    }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, "a circle: " + " -> ".join([*trail[trail.index(name) :], name])
        if name not in done:
            for target in sorted(graph[name] & graph.keys()):
                # A package's __init__ re-exports its modules; a module naming its own package
                # would still be a circle, and is found as one.
                visit(target, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("path", files("worchflow_plugins"), ids=short)
def test_plugins_import_only_the_face_and_their_own_folder(path: Path) -> None:
    own = ".".join(module_name(path).split(".")[:2])
    for line, name in imports(path):
        top = name.split(".")[0]
        if top == "worchflow_core":
            assert name == "worchflow_core", (
                f"{short(path)}:{line} imports {name}; plugins use the face, worchflow_core"
            )
        if top == "worchflow_plugins":
            assert name == own or name.startswith(f"{own}."), (
                f"{short(path)}:{line} imports {name}, another plugin"
            )


@pytest.mark.parametrize("path", files("sample_plugin"), ids=short)
def test_sample_imports_only_what_a_stranger_may(path: Path) -> None:
    allowed = {"worchflow_core", "worchflow_sample"}
    if "tests" in path.parts:
        allowed.add("worchflow_core.testing")
    for line, name in imports(path):
        if name.startswith("worchflow"):
            assert name in allowed or name.startswith("worchflow_sample."), (
                f"{short(path)}:{line} imports {name}; a stranger's package uses the face"
            )


@pytest.mark.parametrize("path", files("worchflow_core"), ids=short)
def test_core_never_imports_plugins(path: Path) -> None:
    for line, name in imports(path):
        assert name.split(".")[0] not in ("worchflow_plugins", "worchflow_sample"), (
            f"{short(path)}:{line} imports {name}; the core finds plugins by entry point"
        )


@pytest.mark.parametrize("path", files(*PACKAGES), ids=short)
def test_drivers_stay_in_their_plugin(path: Path) -> None:
    for line, name in imports(path):
        home = DRIVERS.get(name.split(".")[0])
        assert home is None or short(path).startswith((f"{home}/", f"{home}.py")), (
            f"{short(path)}:{line} imports {name}, which belongs in {home}"
        )


@pytest.mark.parametrize("path", files("worchflow_core"), ids=short)
def test_core_needs_few_libraries(path: Path) -> None:
    allowed = {"worchflow_core", *CORE_LIBRARIES}
    if "cli" in path.parts:
        allowed |= CLI_LIBRARIES
    if "testing" in path.parts:
        allowed |= TESTING_LIBRARIES
    typing_only = type_checking_imports(path)
    for line, name in imports(path):
        top = name.split(".")[0]
        assert top in allowed or top in sys.stdlib_module_names or line in typing_only, (
            f"{short(path)}:{line} imports {name}; the core leans on the standard library, "
            f"{', '.join(sorted(CORE_LIBRARIES - DRIVERS.keys()))}"
        )


def type_checking_imports(path: Path) -> set[int]:
    """Return the lines of imports that only a type checker makes."""
    return {
        child.lineno
        for node in ast.walk(tree(path))
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for child in ast.walk(node)
        if isinstance(child, (ast.Import, ast.ImportFrom))
    }


@pytest.mark.parametrize("path", files(*PACKAGES), ids=short)
def test_drivers_are_loaded_when_first_opened(path: Path) -> None:
    lazily = {"apsw", "bson", "pymongo", "redis", "fastapi", "uvicorn"}
    if path.name != "__init__.py":
        return  # only a plugin's own module is imported when plugins are listed
    for node in tree(path).body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names]
            source = node.module if isinstance(node, ast.ImportFrom) else None
            for name in [source, *names]:
                assert str(name).split(".")[0] not in lazily, (
                    f"{short(path)}:{node.lineno} imports {name} when the plugin is listed"
                )


@pytest.mark.parametrize("path", files(*PACKAGES), ids=short)
def test_files_and_functions_stay_small(path: Path) -> None:
    length = len(path.read_text(encoding="utf-8").splitlines())
    assert length <= LONGEST_FILE or path.name == "__init__.py" or short(path) in LONG_FILES, (
        f"{short(path)} has {length} lines; split it by noun"
    )
    for node in ast.walk(tree(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            words = ast.get_docstring(node, clean=False) or ""  # a manual makes nothing complicated
            lines = int(node.end_lineno or 0) - node.lineno + 1 - words.count("\n")
            assert lines <= LONGEST_FUNCTION, f"{short(path)}:{node.lineno} has {lines} lines"


# Files that may be longer, each with its reason.
LONG_FILES = {
    "worchflow_core/client.py",  # the whole client, half of it docstrings and overloads
}


@pytest.mark.parametrize("path", files(*PACKAGES), ids=short)
def test_modules_say_what_they_are(path: Path) -> None:
    assert ast.get_docstring(tree(path)), f"{short(path)} has no docstring"
    future = any(
        isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree(path).body
    )
    assert future or len(tree(path).body) == 1, f"{short(path)} lacks `annotations`"
