from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
SOURCES = dict(re.findall(r'```python title="(\w+\.py)"\n(.*?)```', PAGE, re.S))
FUNCTIONS = """
from worchflow_core import function

@function
async def greet(event, step):
    return await step.run("Say it", lambda: f"hello {event.data['name']}")
"""


@pytest.fixture
def pages_folder(tmp_path: Path) -> Path:
    for name, text in SOURCES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def run(folder: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if "WORCHFLOW_" not in key}
    environment["PYTHONPATH"] = str(ROOT)
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_the_toy_backend_is_short() -> None:
    lines = [line for line in SOURCES["toy_backend.py"].splitlines() if line.strip()]
    assert len(lines) < 150


def test_the_toy_backend_passes_the_contract_suites(pages_folder: Path) -> None:
    done = run(pages_folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_toy_backend.py")
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 50


def test_the_toy_backend_works(pages_folder: Path) -> None:
    (pages_folder / "flows.py").write_text(FUNCTIONS, encoding="utf-8")
    done = run(
        pages_folder,
        "-m",
        "worchflow_core.cli",
        "run",
        "greet",
        '{"name": "Ana"}',
        "-m",
        "flows",
        WORCHFLOW_PLUGINS="toy_backend",
        WORCHFLOW_STORE_URL="toy:",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == '"hello Ana"'
