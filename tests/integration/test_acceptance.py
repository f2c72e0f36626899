"""The first ten minutes of a new user: wheels, an empty environment, two terminals, kill -9.

Everything is run as a user runs it: the installed `worchflow`, in a directory of its own whose
path has a space, with no variable set but those a test is about.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.combinations import Combination

ROOT = Path(__file__).resolve().parent.parent.parent
PAYMENT = '{"amount": 100, "customer_id": "cust_123"}'
QUICK = {
    "WORCHFLOW_LEASE": "2s",
    "WORCHFLOW_HEARTBEAT": "300ms",
    "WORCHFLOW_SWEEP_INTERVAL": "300ms",
}
T = TypeVar("T")

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]


def eventually(look: Callable[[], T], *, seconds: float = 60) -> T:
    """Return what `look` returns once that is true."""
    deadline = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)
    return seen


@dataclass
class Worker:
    """A worker process, with its log in a file."""

    process: subprocess.Popen[bytes]
    log_file: Path

    @property
    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(40)


@dataclass
class Place:
    """A user's machine: an environment with packages, and a current directory."""

    environment: Path
    folder: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    def environ(self) -> dict[str, str]:
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith("WORCHFLOW_")
        }
        kept.pop("PYTHONPATH", None)
        bins = self.environment / "bin"
        return {**kept, "PATH": f"{bins}{os.pathsep}{kept['PATH']}", **self.variables}

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environ(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def ok(self, *command: str) -> str:
        """Run a command that must succeed; return its stdout."""
        answer = self.run(*command)
        assert answer.returncode == 0, f"{command}\n{answer.stdout}\n{answer.stderr}"
        return answer.stdout

    def install(self, *what: str) -> None:
        pip = (str(self.environment / "bin" / "python"), "-m", "pip", "install", "--quiet")
        self.ok(*pip, "--disable-pip-version-check", *what)

    @contextmanager
    def worker(self, *arguments: str, says: str = " started") -> Iterator[Worker]:
        """Run a worker in the background, from when it says that it takes work."""
        log_file = self.folder / f"worker-{time.monotonic_ns()}.log"
        with log_file.open("wb") as log:
            process = subprocess.Popen(
                ["worchflow", "worker", *arguments],
                executable=self.environment / "bin" / "worchflow",
                cwd=self.folder,
                env=self.environ(),
                stderr=log,
            )
        worker = Worker(process, log_file)
        try:
            eventually(lambda: says in worker.log or process.poll() is not None)
            assert process.poll() is None, worker.log
            yield worker
        finally:
            if process.poll() is None:
                worker.kill()


def build_wheel(source: Path, target: Path) -> Path:
    """Build a wheel with the tools of the running environment; return the wheel."""
    before = set(target.glob("*.whl"))
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target)]
    answer = subprocess.run(
        [*build, str(source)], capture_output=True, text=True, timeout=120, check=False
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    (wheel,) = set(target.glob("*.whl")) - before
    return wheel


def write_package(folder: Path, name: str, group: str, entry: str, module: str, code: str) -> Path:
    """Write a package of one module with one entry point; return its folder."""
    folder.mkdir()
    (folder / f"{module}.py").write_text(code, encoding="utf-8")
    (folder / "pyproject.toml").write_text(
        f"""
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{name}"
version = "1.2.3"
dependencies = ["worchflow"]

[project.entry-points."{group}"]
{entry} = "{module}"

[tool.hatch.build.targets.wheel]
include = ["{module}.py"]
""",
        encoding="utf-8",
    )
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with nothing but the two wheels and what they depend on."""
    base = tmp_path_factory.mktemp("a new user")
    environment = base / "environment"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True, timeout=120)
    wheels = [build_wheel(ROOT, base), build_wheel(ROOT / "sample_plugin", base)]
    Place(environment, base).install(*map(str, wheels))
    return environment


@pytest.fixture
def place(environment: Path, tmp_path: Path) -> Place:
    folder = tmp_path / "my work"
    folder.mkdir()
    return Place(environment, folder)


def with_variables(place: Place, **variables: str) -> Place:
    return Place(place.environment, place.folder, {**place.variables, **variables})


def test_packages_come_from_the_environment_alone(place: Place) -> None:
    code = "import worchflow_core, worchflow_sample; print(worchflow_core.__file__)"
    where = place.ok("python", "-c", code).strip()
    assert Path(where).is_relative_to(place.environment)


def test_worker_and_send_with_nothing_set(place: Place) -> None:
    with place.worker() as worker:
        answer = place.run("worchflow", "send", "process-payment", PAYMENT, "--wait")
        assert answer.returncode == 0, answer.stderr
        assert json.loads(answer.stdout)["customer_id"] == "cust_123"
        assert worker.stop() == 0
    store = str(place.folder / "worchflow.db")
    assert store in worker.log
    assert store in answer.stderr
    for word in ("process-payment", "encode-video", "daily-cleanup", "worchflow-sample 0.1.0"):
        assert word in worker.log
    for step in ("Validate payment", "Charge payment provider", "Send receipt"):
        assert worker.log.count(step) == 1
    assert "Traceback" not in worker.log


def test_stranger_package_is_discovered(place: Place, tmp_path: Path) -> None:
    code = """
from worchflow_core import Event, Step, function

@function
async def greet(event: Event[dict[str, str]], step: Step) -> str:
    name = await step.run("Look up the name", str.title, event.data["name"])
    return await step.run("Write the greeting", lambda: f"Hello, {name}!")
"""
    source = write_package(
        tmp_path / "acme", "acme-flows", "worchflow.functions", "acme", "acme_flows", code
    )
    place.install("--no-deps", str(build_wheel(source, tmp_path)))
    with place.worker() as worker:
        sent = place.ok("worchflow", "send", "greet", '{"name": "ada"}', "--wait")
        assert json.loads(sent) == "Hello, Ada!"
        assert "acme-flows 1.2.3" in worker.log
        assert "greet" in place.ok("worchflow", "functions")


def test_module_in_the_current_directory_runs(place: Place) -> None:
    (place.folder / "flows.py").write_text(
        "from worchflow_core import BlockingStep, Event, function\n\n\n"
        "@function\n"
        "def double(event: Event[int], step: BlockingStep) -> int:\n"
        "    return step.run('Double', lambda: event.data * 2)\n",
        encoding="utf-8",
    )
    with place.worker("-m", "flows"):
        assert place.ok("worchflow", "send", "double", "21", "--wait").strip() == "42"


# --- the three ways to switch on a logging module ------------------------------------------------


def logging_module() -> str:
    return (ROOT / "sample_plugin" / "examples" / "acme_logging.py").read_text(encoding="utf-8")


def assert_logs_are_replaced(log: str) -> None:
    assert " acme process-payment " in log
    assert "did 'Charge payment provider'" in log
    assert "✓" not in log, "the built-in plugin still prints"


def test_logging_by_settings(place: Place) -> None:
    (place.folder / "acme_logging.py").write_text(logging_module(), encoding="utf-8")
    chosen = with_variables(
        place, WORCHFLOW_PLUGINS="acme_logging", WORCHFLOW_DISABLED_PLUGINS="logs"
    )
    with chosen.worker(says="functions") as worker:
        chosen.ok("worchflow", "send", "process-payment", PAYMENT, "--wait")
        assert worker.stop() == 0
    assert_logs_are_replaced(worker.log)


def test_logging_by_an_entry_point_named_logs(place: Place, tmp_path: Path) -> None:
    source = write_package(
        tmp_path / "acme",
        "acme-logging",
        "worchflow.plugins",
        "logs",
        "acme_logging",
        logging_module(),
    )
    place.install("--no-deps", str(build_wheel(source, tmp_path)))
    try:
        with place.worker(says="functions") as worker:
            place.ok("worchflow", "send", "process-payment", PAYMENT, "--wait")
            assert worker.stop() == 0
        assert_logs_are_replaced(worker.log)
        assert "acme-logging" in place.ok("worchflow", "plugins")
    finally:
        place.ok("python", "-m", "pip", "uninstall", "--quiet", "--yes", "acme-logging")


def test_logging_in_code(place: Place) -> None:
    (place.folder / "acme_logging.py").write_text(logging_module(), encoding="utf-8")
    (place.folder / "main.py").write_text(
        """
import asyncio

import acme_logging
from worchflow_core import Worchflow


async def main():
    async with Worchflow(plugins=[acme_logging]) as app:
        await app.client.send("process-payment", {"amount": 100, "customer_id": "cust_123"})
        await app.worker.run(burst=True)


asyncio.run(main())
""",
        encoding="utf-8",
    )
    answer = place.run("python", "main.py")
    assert answer.returncode == 0, answer.stderr
    assert_logs_are_replaced(answer.stderr)


# --- kill -9 -------------------------------------------------------------------------------------


def stored_steps(place: Place, execution_id: str) -> Sequence[Any]:
    return list(json.loads(place.ok("worchflow", "show", execution_id, "--json"))["steps"])


def test_killed_worker_repeats_no_finished_step(place: Place, combination: Combination) -> None:
    audit = place.folder / "audit.jsonl"
    where = {**QUICK, **combination.environment}
    quick = with_variables(place, **where, WORCHFLOW_SAMPLE_AUDIT_FILE=str(audit))
    data = {"minutes": 1, "pieces_per_minute": 6, "seconds_per_piece": 1}
    with quick.worker() as first:
        execution_id = quick.ok("worchflow", "send", "encode-video", json.dumps(data)).strip()
        eventually(lambda: len(stored_steps(quick, execution_id)) >= 2)
        first.kill()
    before = stored_steps(quick, execution_id)
    assert 2 <= len(before) < 7
    with quick.worker() as second:
        quick.ok("worchflow", "show", execution_id, "--watch")
        assert second.stop() == 0
    after = stored_steps(quick, execution_id)
    assert [step["name"] for step in after] == ["Encode piece"] * 6 + ["Join pieces"]
    assert after[: len(before)] == before, "a finished step was stored anew"
    facts = [json.loads(line) for line in audit.read_text(encoding="utf-8").splitlines()]
    by_second = [item for item in facts if item["process"] == second.process.pid]
    replayed = [item["number"] for item in by_second if item["fact"] == "step replayed"]
    ran = [item["number"] for item in by_second if item["fact"] == "step completed"]
    assert replayed == [step["seq"] for step in before]
    assert ran == [step["seq"] for step in after[len(before) :]]
    result = json.loads(quick.ok("worchflow", "show", execution_id, "--result"))
    assert result == {"pieces": 6, "processes": [first.process.pid, second.process.pid]}
