"""Filters: what people ask for becomes conditions, or is refused."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from worchflow_core import (
    Filter,
    InvalidInput,
    Status,
)
from worchflow_core.filters import parse_statuses
from worchflow_core.query import Operator


@pytest.mark.parametrize(
    "bad",
    [
        {"limit": 0},
        {"limit": 1001},
        {"limit": True},
        {"limit": "50"},
        {"skip": -1},
        {"skip": 10**12},
        {"order": "result"},
        {"status": "done"},
        {"status": [7]},
        {"since": datetime(2026, 1, 1)},
        {"finished_until": datetime(2026, 1, 1)},
    ],
    ids=str,
)
def test_filter_out_of_range_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        Filter(**bad).query()


def test_filter_becomes_conditions() -> None:
    query = Filter(
        status="failed, cancelled",
        function=["a", "b"],
        tag="t",
        since=datetime(2026, 1, 1, tzinfo=UTC),
    ).query()
    found = {item.field: item.operator for item in query.where}
    assert found == {
        "status": Operator.IN,
        "function": Operator.IN,
        "tags": Operator.HAS,
        "created_at": Operator.SINCE,
    }
    assert parse_statuses("FAILED,failed") == (Status.FAILED,)
    assert Filter().query().where == ()
