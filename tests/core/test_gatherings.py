from __future__ import annotations

from datetime import UTC, datetime, timedelta

from worchflow_core import Batch, Debounce, gatherings, rates
from worchflow_core.gatherings import Debounced
from worchflow_core.models import Execution

START = datetime(2030, 1, 31, 9, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def sent(name: str, seconds: float) -> Execution:
    return Execution(id=name, function="f", created_at=at(seconds), updated_at=at(seconds))


def test_the_last_of_a_burst_runs_once_it_is_over() -> None:
    option = Debounce(10)
    first, second = sent("a", 0), sent("b", 5)
    burst, found = gatherings.debounced(None, [first], option, at(0))
    assert found["a"] == Debounced(until=at(10))
    burst, found = gatherings.debounced(burst, [second], option, at(5))
    assert found["b"] == Debounced(until=at(15))
    burst, found = gatherings.debounced(burst, [first], option, at(10))
    assert found["a"] == Debounced(gives_way_to="b")
    over, found = gatherings.debounced(burst, [second], option, at(15))
    assert found["b"] == Debounced()
    # Whoever comes late, because a worker was away, belongs to the same burst.
    _, found = gatherings.debounced(over, [first], option, at(99))
    assert found["a"] == Debounced(gives_way_to="b")
    assert gatherings.burst_of(gatherings.burst_body(over)) == over


def test_of_many_that_come_at_once_all_but_the_last_give_way() -> None:
    coming = [sent(name, number) for number, name in enumerate("abc")]
    _, found = gatherings.debounced(None, coming, Debounce(10), at(3))
    assert found["a"].gives_way_to == "b"
    assert found["b"].gives_way_to == "c"
    assert found["c"] == Debounced(until=at(12))


def test_an_event_that_is_claimed_behind_a_later_one_belongs_to_the_same_burst() -> None:
    quick = Debounce(2, max_wait=3)
    burst, _ = gatherings.debounced(None, [sent("b", 1)], quick, at(1))
    burst, answers = gatherings.debounced(burst, [sent("a", 0)], quick, at(1))
    assert answers["a"].gives_way_to == "b"
    # Who comes next is put off no longer than what came first may be.
    _, answers = gatherings.debounced(burst, [sent("c", 2)], quick, at(2))
    assert answers["c"].until == at(3)
    # A burst of its own, or one that is over, takes nobody's place.
    for item, now in ((sent("a", -2), at(1)), (sent("a", 0), at(3))):
        burst, _ = gatherings.debounced(None, [sent("b", 1)], quick, at(1))
        assert gatherings.debounced(burst, [item], quick, now)[1]["a"].gives_way_to is None


def test_a_burst_that_goes_on_is_cut_at_its_longest() -> None:
    option = Debounce(10, max_wait=15)
    burst, _ = gatherings.debounced(None, [sent("a", 0)], option, at(0))
    burst, found = gatherings.debounced(burst, [sent("b", 9)], option, at(9))
    assert found["b"] == Debounced(until=at(15))
    _, found = gatherings.debounced(burst, [sent("c", 16)], option, at(16))
    assert found["c"] == Debounced(until=at(26))


def test_seats_are_filled_one_gathering_after_the_other() -> None:
    coming = [sent(name, 0) for name in "abcde"]
    found = gatherings.joined([], coming, Batch(2, 10), at(0))
    assert [item.members for item in found] == [("a", "b"), ("c", "d"), ("e",)]
    assert [item.is_closed for item in found] == [True, True, False]
    assert gatherings.joined(found, coming, Batch(2, 10), at(1)) == found
    assert gatherings.gatherings_of(gatherings.gatherings_body(found)) == found
    assert gatherings.gatherings_body([]) == ""


def test_nobody_joins_a_gathering_that_is_closed() -> None:
    found = gatherings.closed(gatherings.joined([], [sent("a", 0)], Batch(9, 10), at(0)), ["a"])
    later = gatherings.joined(found, [sent("b", 1)], Batch(9, 10), at(1))
    assert [item.members for item in later] == [("a",), ("b",)]


def test_what_has_waited_too_long_still_gathers_a_little() -> None:
    (item,) = gatherings.joined([], [sent("a", 0)], Batch(9, 10), at(3600))
    assert at(3600) < item.closes_at < at(3601)


def test_a_sender_whose_clock_is_ahead_holds_up_nobody() -> None:
    (item,) = gatherings.joined([], [sent("a", 86400)], Batch(9, 10), at(0))
    assert item.closes_at == at(10)


def test_no_span_holds_more_starts_than_allowed() -> None:
    per = timedelta(seconds=10)
    starts, number = rates.allowed(rates.Starts(), count=2, per=per, now=at(0), wanted="abc")
    assert number == 2
    assert rates.allowed(starts, count=2, per=per, now=at(9), wanted="a")[1] == 0
    assert rates.allowed(starts, count=2, per=per, now=at(10), wanted="abc")[1] == 2
    assert rates.starts_of(rates.body_of(starts)) == starts
    assert not starts.is_over(at(9))
    assert starts.is_over(at(10))


def test_who_started_last_is_known_by_name_as_long_as_it_counts() -> None:
    per = timedelta(seconds=10)
    names = [f"x{number}" for number in range(300)]
    starts, _ = rates.allowed(rates.Starts(), count=1000, per=per, now=at(0), wanted=names)
    starts = rates.starts_of(rates.body_of(starts))
    assert rates.counted(starts, per=per, now=at(9), wanted=names) == set(names[-100:])
    assert not rates.counted(starts, per=per, now=at(10), wanted=names)
    later, _ = rates.allowed(starts, count=1000, per=per, now=at(10), wanted=["y"])
    assert [name for name, _ in later.names] == ["y"]
    assert rates.starts_of("[[],[],0]") == rates.Starts()  # written before there were names


def test_starts_are_planned_apart() -> None:
    per = timedelta(seconds=10)
    starts, moments = rates.planned(rates.Starts(), count=2, per=per, now=at(0), wanted="abcde")
    assert moments == [at(0), at(0), at(10), at(10), at(20)]
    _, moments = rates.planned(starts, count=2, per=per, now=at(1), wanted="ab")
    assert moments == [at(20), at(30)]


def test_a_clock_that_was_set_back_stops_nothing_for_long() -> None:
    per = timedelta(seconds=10)
    starts, _ = rates.allowed(rates.Starts(), count=1, per=per, now=at(3600), wanted="a")
    assert rates.allowed(starts, count=1, per=per, now=at(0), wanted="a")[1] == 1
    near, _ = rates.allowed(rates.Starts(), count=1, per=per, now=at(5), wanted="a")
    assert rates.allowed(near, count=1, per=per, now=at(4), wanted="a")[1] == 0
