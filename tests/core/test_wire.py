from __future__ import annotations

import json

import pytest

from worchflow_core import execution_from_wire, execution_to_wire
from worchflow_core.testing.contracts.samples import HOSTILE, execution, full_execution
from worchflow_core.wire import fields_to_wire


@pytest.mark.parametrize("text", HOSTILE)
def test_a_full_execution_survives_the_wire(text: str) -> None:
    given = full_execution("a", text)
    document = json.loads(json.dumps(execution_to_wire(given)))
    assert execution_from_wire(document) == given


@pytest.mark.parametrize("name", ["retries", "steps_recorded"])
@pytest.mark.parametrize("value", [None, 0, 1])
def test_none_and_zero_differ_where_none_means_unknown(name: str, value: int | None) -> None:
    given = execution("a", **{name: value})
    assert execution_from_wire(execution_to_wire(given)) == given


def test_what_says_nothing_is_left_out() -> None:
    assert set(execution_to_wire(execution("a"))) == {
        "attemptCount",
        "createdAt",
        "dueAt",
        "eventName",
        "id",
        "status",
        "updatedAt",
    }
    to_set, to_remove = fields_to_wire({"crashes": 0, "tags": (), "handlers_due": False})
    assert to_set == {}
    assert to_remove == ["crashes", "tags", "handlersDue"]
