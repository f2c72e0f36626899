"""Cron expressions: golden transitions, a brute-force model, and what is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise, takewhile
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core import cron_model
from worchflow_core import FunctionError
from worchflow_core.cron import (
    Every,
    next_tick,
    parse_cron,
    parse_every,
    ticks_after,
    ticks_until,
)

SECOND = timedelta(seconds=1)
CASES = json.loads(cron_model.GOLDEN.read_text(encoding="utf-8"))


def name(case: dict[str, Any]) -> str:
    return f"{case['zone']} {case['from'][:10]} {case['cron']}"


def local(text: str, zone: str, begin: datetime, count: int) -> list[str]:
    """Return the next ticks on the wall clock, as `03-10 01:30 -0400`."""
    rule = parse_cron(text, zone)
    place = cron_model.ZoneInfo(zone)
    found = islice(ticks_after(rule, begin), count)
    return [f"{tick.astimezone(place):%m-%d %H:%M:%S %z}" for tick in found]


# --- golden --------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=name)
def test_golden(case: dict[str, Any]) -> None:
    rule = parse_cron(case["cron"], case["zone"])
    begin, end = cron_model.aware(case["from"]), cron_model.aware(case["until"])
    expected = [datetime.fromisoformat(text).astimezone(UTC) for text in case["ticks"]]
    assert list(takewhile(lambda tick: tick < end, ticks_after(rule, begin - SECOND))) == expected
    backwards = takewhile(lambda tick: tick >= begin, ticks_until(rule, end - SECOND))
    assert list(backwards) == expected[::-1]


def test_the_golden_file_is_what_the_model_says() -> None:
    assert cron_model.golden() == CASES


# --- by hand -------------------------------------------------------------------------------------


def test_a_skipped_fixed_time_ticks_right_after_the_gap() -> None:
    # New York, 10 March 2024: at 02:00 -0500 the clock shows 03:00 -0400.
    assert local("30 2 * * *", "America/New_York", datetime(2024, 3, 9, tzinfo=UTC), 3) == [
        "03-09 02:30:00 -0500",
        "03-10 03:00:00 -0400",
        "03-11 02:30:00 -0400",
    ]


def test_a_repeated_fixed_time_ticks_once() -> None:
    # New York, 3 November 2024: at 02:00 -0400 the clock shows 01:00 -0500.
    begin = datetime(2024, 11, 2, 12, tzinfo=UTC)
    expected = ["11-03 01:30:00 -0400", "11-04 01:30:00 -0500"]
    assert local("30 1 * * *", "America/New_York", begin, 2) == expected
    between = datetime(2024, 11, 3, 6, 10, tzinfo=UTC)  # 01:10 for the second time
    assert local("30 1 * * *", "America/New_York", between, 1) == expected[1:]


def test_intervals_follow_real_time_through_a_repeated_hour() -> None:
    # Paris, 27 October 2024: at 03:00 +0200 the clock shows 02:00 +0100.
    assert local("*/30 * * * *", "Europe/Paris", datetime(2024, 10, 26, 23, 45, tzinfo=UTC), 5) == [
        "10-27 02:00:00 +0200",
        "10-27 02:30:00 +0200",
        "10-27 02:00:00 +0100",
        "10-27 02:30:00 +0100",
        "10-27 03:00:00 +0100",
    ]


def test_lord_howe_shifts_by_half_an_hour_and_has_one_gap_of_ninety_minutes() -> None:
    # Lord Howe, 6 October 2024: at 02:00 +1030 the clock shows 02:30 +1100.
    begin = datetime(2024, 10, 5, 14, tzinfo=UTC)
    assert local("0 * * * *", "Australia/Lord_Howe", begin, 3) == [
        "10-06 01:00:00 +1030",
        "10-06 03:00:00 +1100",
        "10-06 04:00:00 +1100",
    ]
    rule = parse_cron("0 * * * *", "Australia/Lord_Howe")
    first, second = islice(ticks_after(rule, begin), 2)
    assert second - first == timedelta(minutes=90)
    assert local("30 2 * * *", "Australia/Lord_Howe", begin, 1) == ["10-06 02:30:00 +1100"]


def test_hours_after_a_half_hour_shift_are_not_missed() -> None:
    begin = datetime(2024, 10, 5, 14, tzinfo=UTC)
    assert local("*/30 5 * * *", "Australia/Lord_Howe", begin, 2) == [
        "10-06 05:00:00 +1100",
        "10-06 05:30:00 +1100",
    ]


def test_apia_had_no_thirtieth_of_december_2011() -> None:
    begin = datetime(2011, 12, 29, 12, tzinfo=UTC)
    assert local("0 9 * * *", "Pacific/Apia", begin, 3) == [
        "12-29 09:00:00 -1000",
        "12-31 00:00:00 +1400",  # the ninth hour of a day that never was
        "12-31 09:00:00 +1400",
    ]
    assert local("0 */12 * * *", "Pacific/Apia", begin, 3) == [
        "12-29 12:00:00 -1000",
        "12-31 00:00:00 +1400",
        "12-31 12:00:00 +1400",
    ]


def test_six_fields_keep_the_rule() -> None:
    begin = datetime(2024, 3, 9, 12, tzinfo=UTC)
    assert local("*/20 30 2 * * *", "America/New_York", begin, 4) == [
        "03-10 03:00:00 -0400",
        "03-10 03:00:20 -0400",
        "03-10 03:00:40 -0400",
        "03-11 02:30:00 -0400",
    ]


def test_a_leap_day_comes() -> None:
    assert next_tick(parse_cron("0 12 29 2 *"), datetime(2024, 3, 1, tzinfo=UTC)) == datetime(
        2028, 2, 29, 12, tzinfo=UTC
    )
    assert next_tick(
        parse_cron("* * 29 2 *", "Europe/Paris"), datetime(2024, 3, 1, tzinfo=UTC)
    ) == datetime(2028, 2, 28, 23, tzinfo=UTC)


# --- against the model ---------------------------------------------------------------------------

ZONES = st.sampled_from(
    [
        *cron_model.SPANS,
        "America/Santiago",  # shifts at midnight
        "Africa/Casablanca",  # shifts for Ramadan
        "Antarctica/Troll",  # shifts by two hours
        "Pacific/Chatham",  # is 12:45 ahead
        "America/Sao_Paulo",
        "Asia/Kathmandu",
    ]
)
DAYS = st.integers(0, 366 * 5).map(
    lambda days: datetime(2016, 1, 1, tzinfo=UTC) + days * timedelta(days=1)
)


def numbers(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    span = st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}")
    term = st.one_of(number.map(str), span)
    return st.one_of(term, st.lists(term, min_size=2, max_size=3).map(",".join))


def field(low: int, high: int) -> st.SearchStrategy[str]:
    steps = st.integers(2, max(2, high // 2)).map("*/{}".format)
    return st.one_of(st.just("*"), steps, numbers(low, high))


@st.composite
def expressions(draw: st.DrawFn) -> str:
    fields = [draw(field(0, 59)), draw(field(0, 23))]
    fields.append(draw(st.one_of(st.just("*"), numbers(1, 28))))
    fields.append("*")
    fields.append(draw(st.one_of(st.just("*"), numbers(0, 6))))
    if draw(st.booleans()):
        fields.insert(0, draw(numbers(0, 59)))
    return " ".join(fields)


@settings(max_examples=80, deadline=None)
@given(text=expressions(), zone=ZONES, day=DAYS)
def test_ticks_are_those_of_the_model(text: str, zone: str, day: datetime) -> None:
    check(text, zone, day)


SHIFTS = st.sampled_from(
    [
        (zone, cron_model.aware(span[0]))
        for zone, spans in cron_model.SPANS.items()
        for span in spans
    ]
)


@settings(max_examples=80, deadline=None)
@given(text=expressions(), shift=SHIFTS)
def test_ticks_around_shifts_are_those_of_the_model(text: str, shift: tuple[str, datetime]) -> None:
    zone, begin = shift
    check(text, zone, begin)


def check(text: str, zone: str, begin: datetime) -> None:
    end = begin + timedelta(days=2)
    rule = parse_cron(text, zone)
    expected = cron_model.ticks(text, zone, begin, end)
    found = list(takewhile(lambda tick: tick < end, ticks_after(rule, begin - SECOND)))
    assert found == expected
    backwards = takewhile(lambda tick: tick >= begin, ticks_until(rule, end - SECOND))
    assert list(backwards) == expected[::-1]
    for before, after in islice(pairwise(expected), 5):
        assert next_tick(rule, before) == after
        assert next(ticks_until(rule, after - SECOND)) == before


# --- intervals -----------------------------------------------------------------------------------


@given(
    seconds=st.integers(1, 10**7),
    moment=st.datetimes(datetime(1980, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
)
def test_an_interval_ticks_at_its_multiples(seconds: int, moment: datetime) -> None:
    rule = Every(span=seconds * SECOND)
    after = next_tick(rule, moment)
    before = next(ticks_until(rule, moment))
    assert after is not None
    assert before <= moment < after
    assert after - before == rule.span
    assert after.timestamp() % seconds == 0


def test_quarters_of_an_hour_are_those_of_the_clock() -> None:
    rule = parse_every("15m")
    assert rule.text == "15m"
    assert next_tick(rule, datetime(2030, 1, 31, 9, 7, tzinfo=UTC)) == datetime(
        2030, 1, 31, 9, 15, tzinfo=UTC
    )


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0 0 30 2 *", "bad day-of-month"),
        ("0 0 31 4,6,9,11 *", "bad day-of-month"),
        ("60 * * * *", "bad minute"),
        ("* * * *", "4 fields"),
        ("* * * * * * *", "7 fields"),
        ("60 * * * * *", "bad seconds '60'"),
        ("*/0 * * * * *", "bad seconds"),
        ("5-1 * * * * *", "bad seconds"),
        ("x * * * * *", "bad seconds"),
        ("@never", "1 fields"),
        (5, "give text"),
    ],
)
def test_bad_expressions_are_refused(text: Any, words: str) -> None:
    with pytest.raises(FunctionError, match=words):
        parse_cron(text)


@pytest.mark.parametrize("zone", ["", "Nowhere/Land", "../UTC", "America", None, 5])
def test_zones_that_are_none_are_refused(zone: Any) -> None:
    with pytest.raises(FunctionError, match="no time zone"):
        parse_cron("* * * * *", zone)


def test_aliases_are_spelled_out() -> None:
    assert parse_cron("@Daily").text == "0 0 * * *"
    assert parse_cron(" 0   9 * * 1-5 ").text == "0 9 * * 1-5"
