from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from worchflow_core import lines
from worchflow_core.lines import UNTIL_ENDED, Entrant, Line
from worchflow_core.models import Execution, Status

NOW = datetime(2030, 1, 31, 9, tzinfo=UTC)


def execution(name: str, **fields: Any) -> Execution:
    return Execution(id=name, function="f", created_at=NOW, updated_at=NOW, **fields)


def parked(name: str, fence: int = 1) -> Execution:
    return execution(name, fence=fence, due_at=NOW + timedelta(days=36500), waits=("f|c||",))


def test_places_are_given_until_there_are_none() -> None:
    asking = [Entrant(id=name, fence=1) for name in "abc"]
    line, inside = lines.admitted(Line(key="k"), asking, limit=2, waits=True)
    assert set(inside) == {"a", "b"}
    assert line.turns == ("",)
    assert set(line.coming) == {"c"}
    assert lines.line_of("k", lines.body_of(line)) == line


def test_who_comes_later_stands_behind_those_who_wait() -> None:
    line = Line(key="k", limit=2, holders={"a": 1}, turns=("",))
    _, inside = lines.admitted(line, [Entrant(id="z", fence=1)], limit=2, waits=True)
    assert not inside


def test_who_was_called_finds_its_place() -> None:
    line, chosen = lines.handed_on(
        Line(key="k", limit=1, turns=("",)), {"": [parked("a", fence=4)]}, is_all=[""]
    )
    assert [item.id for item in chosen] == ["a"]
    assert line.holders == {"a": 5}
    same, inside = lines.admitted(line, [Entrant(id="a", fence=5)], limit=1, waits=True)
    assert set(inside) == {"a"}
    assert same == line


def test_an_older_claim_takes_no_place_from_a_newer_one_of_its_execution() -> None:
    line = Line(key="k", limit=2, holders={"a": 4})
    late, inside = lines.admitted(line, [Entrant(id="a", fence=3)], limit=2, waits=True)
    assert not inside
    assert late.holders == {"a": 4}  # else a sweep takes it for one that is held for nothing
    # One that was deleted and sent again counts its claims anew: it waits to be called.
    assert late.turns == ("",)


def test_a_place_is_freed_only_by_the_claim_that_holds_it() -> None:
    line = Line(key="k", limit=1, holders={"a": 2})
    assert lines.left(line, [("a", 1)]) == line
    assert lines.left(line, [("a", 2)]).holders == {}


def test_turns_go_round() -> None:
    waiting = {turn: [parked(f"{turn}{number}") for number in range(3)] for turn in "abc"}
    line = Line(key="k", limit=5, turns=("a", "b", "c"), last="a")
    line, chosen = lines.handed_on(line, waiting, is_all="abc")
    assert [item.id for item in chosen] == ["b0", "c0", "a0", "b1", "c1"]
    assert line.last == "c"
    assert line.turns == ("a", "b", "c")


def test_a_turn_is_over_when_nobody_waits_or_is_about_to() -> None:
    line = Line(key="k", limit=1, turns=("a", "b"))
    asked, _ = lines.admitted(line, [Entrant(id="x", fence=1, turn="b")], limit=1, waits=True)
    rest, _ = lines.handed_on(asked, {"a": [], "b": []}, is_all="ab")
    assert rest.turns == ("b",)
    there = lines.left(rest, [], arrived=["x"])
    assert lines.handed_on(there, {"b": []}, is_all="b")[0].is_idle
    assert lines.body_of(Line(key="k")) == ""


def test_a_lowered_limit_takes_no_place_away_and_gives_none() -> None:
    line = Line(key="k", limit=1, holders={"a": 1, "b": 1}, turns=("",))
    assert line.free == 0
    _, chosen = lines.handed_on(line, {"": [parked("c")]}, is_all=[])
    assert not chosen


@pytest.mark.parametrize(
    ("fence", "holder", "is_stale"),
    [
        (3, None, True),  # deleted
        (3, execution("a", fence=3, owner="w", status=Status.PROCESSING), False),
        (3, execution("a", fence=4, owner="w", status=Status.PROCESSING), True),
        (3, execution("a", fence=3, status=Status.SLEEPING, due_at=NOW), True),
        (3, execution("a", fence=2, status=Status.QUEUED, due_at=NOW), False),  # called
        (3, execution("a", fence=3, status=Status.COMPLETED), True),
        (3, parked("a", fence=3), False),  # waits under a later limit
        (UNTIL_ENDED, execution("a", fence=9, status=Status.SLEEPING), False),
        (UNTIL_ENDED, execution("a", fence=9, status=Status.CANCELLED), True),
    ],
)
def test_a_place_is_stale_once_its_claim_runs_no_more(
    fence: int, holder: Execution | None, is_stale: bool
) -> None:
    assert lines.is_stale(("a", fence), holder) is is_stale


def test_only_who_waits_to_be_called_is_parked() -> None:
    assert lines.is_parked(parked("a"))
    assert not lines.is_parked(replace(parked("a"), due_at=NOW))
    assert not lines.is_parked(replace(parked("a"), status=Status.WAITING))
    assert lines.parted(lines.wait_key("f|c|d", "t")) == ("f|c|d", "t")
