"""Every cell of the crash matrix ends as its row says."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.faults.crash_matrix import Cell, cells, walk
from tests.faults.crash_table import ROWS
from worchflow_core.crashpoints import POINTS

pytestmark = pytest.mark.timeout(600)  # the first test of a backend waits for all its cells
CELLS = cells(["sqlite", "servers"])
Results = Mapping[Cell, str]


def _chosen(request: pytest.FixtureRequest, backend: str) -> list[Cell]:
    """Return the cells of a backend that this run of pytest asks for."""
    asked = [getattr(item, "callspec", None) for item in request.session.items]
    found = [spec.params["cell"] for spec in asked if spec is not None and "cell" in spec.params]
    return [cell for cell in found if cell.backend == backend]


@pytest.fixture(scope="module")
def sqlite(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What went wrong in the cells on SQLite."""
    directory = tmp_path_factory.mktemp("cells")
    return asyncio.run(walk(_chosen(request, "sqlite"), directory, {}))


@pytest.fixture(scope="module")
def servers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What went wrong in the cells on Redis and MongoDB."""
    mongo = os.environ.get("WORCHFLOW_TEST_MONGODB_URL")
    redis = os.environ.get("WORCHFLOW_TEST_REDIS_URL")
    urls = (
        mongo or request.getfixturevalue("mongo_server").url,
        redis or request.getfixturevalue("redis_server").url,
    )
    directory: Path = tmp_path_factory.mktemp("cells")
    return asyncio.run(walk(_chosen(request, "servers"), directory, {"servers": urls}))


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_a_crash_ends_as_its_row_says(cell: Cell, request: pytest.FixtureRequest) -> None:
    results: Results = request.getfixturevalue(cell.backend)
    assert not results[cell], results[cell]


ELSEWHERE = {
    "after_tick_send": "core/test_scheduler.py",
}
"""Gaps of actors that the matrix does not play, and where they are tested."""


def test_every_crash_point_has_a_row() -> None:
    walked = {row.point.partition(":")[0] for row in ROWS}
    assert set(POINTS) <= walked | ELSEWHERE.keys()
    for point, place in ELSEWHERE.items():
        assert point in (Path(__file__).parents[1] / place).read_text(encoding="utf-8")


def test_every_row_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reliability.md").read_text()
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    for row in ROWS:
        assert any(
            line.startswith(f"| {row.gap} |") and f"| {row.repaired_by} |" in line for line in lines
        ), f"docs/reliability.md has no line for {row.gap!r} that says {row.repaired_by!r}"
