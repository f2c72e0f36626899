"""The public face keeps its types: mypy reads examples of its use, and the documentation's."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def check(*arguments: str) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "mypy", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_public_face_is_typed() -> None:
    check("--strict", "tests/typing/api.py")


def test_examples_of_the_documentation_are_typed(tmp_path: Path) -> None:
    examples = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            line = text[: match.start()].count("\n") + 1
            example = tmp_path / f"{page.stem.replace('-', '_')}_{line}.py"
            example.write_text(match[1], encoding="utf-8")
            examples.append(str(example))
    assert examples
    check("--config-file=", "--check-untyped-defs", *examples)
