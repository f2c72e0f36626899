"""The table of faults in docs/reliability.md names tests that exist, and none of its rows lacks."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def rows() -> dict[str, list[str]]:
    """Return the tests, or at least the files of tests, that each row names."""
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    found = re.findall(r"^\| (F\d+) \|.*\|([^|]+)\|$", page, re.MULTILINE)
    return {number: re.findall(r"`([^`]+)`", tests) for number, tests in found}


def test_every_row_names_tests_that_name_it() -> None:
    for number, tests in rows().items():
        for name in tests:
            path, _, function = name.partition("::")
            if not function:
                assert (ROOT / "tests" / path).is_file(), name
                continue
            source = (ROOT / path).read_text(encoding="utf-8")
            _, found, body = source.partition(f"def {function}(")
            assert found, name
            assert number == "F2" or re.search(rf"\b{number}: ", source[:200] + body[:600]), name


def test_no_row_is_left_out() -> None:
    clocks = (ROOT / "tests" / "faults" / "test_clocks.py").read_text(encoding="utf-8")
    assert "faults/test_clocks.py" in rows()["F42"]
    assert "F42: " in clocks
    named = {number for number, tests in rows().items() if any("::" in name for name in tests)}
    assert named >= {f"F{number}" for number in range(12, 33)}
