"""The page of reasons is held to the code."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "explaining.md").read_text("utf-8")


def test_every_code_of_a_reason_is_documented() -> None:
    sources = [
        (ROOT / "worchflow_core" / f"{name}.py").read_text("utf-8")
        for name in ("reasons", "delays")
    ]
    actual = {"completed", "failed", "cancelled"}
    for source in sources:
        for line in re.findall(r"code=(.*)", source):
            actual |= set(re.findall(r'"([a-z_]+)"', line))
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    documented = {name for row in rows for name in re.findall(r"`([a-z_]+)`", row.split("|")[1])}
    assert documented == actual
