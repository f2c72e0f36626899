"""Durations: as people write them, and what is no duration."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worchflow_core import (
    format_duration,
    parse_duration,
)


@pytest.mark.parametrize(
    ("given_value", "seconds"),
    [
        ("10m", 600),
        ("1h30m", 5400),
        (" 1H30M ", 5400),
        ("1.5h", 5400),
        ("90", 90),
        ("500ms", 0.5),
        ("1w2d", 777600),
        (90, 90),
        (0.25, 0.25),
        (0, 0),
        ("0", 0),
        (timedelta(minutes=1), 60),
    ],
)
def test_duration_is_taken_as_people_write_it(given_value: Any, seconds: float) -> None:
    assert parse_duration(given_value) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "value",
    [
        *["", " ", "soon", "-1", "1x", "1h 30m", "h", "1e9", "9999999d", "9" * 5000, "inf", "nan"],
        *[-1, -0.5, math.nan, math.inf, -math.inf, 10**5000, 1e300, True, None, [], b"1"],
        *[timedelta(-1), timedelta.max],
    ],
    ids=lambda value: type(value).__name__,
)
def test_duration_that_cannot_be_taken_names_itself(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^delay is ") as caught:
        parse_duration(value, name="delay")
    assert "give" in str(caught.value)


@given(st.timedeltas(timedelta(0), timedelta(days=36500)))
def test_formatted_duration_is_read_back(span: timedelta) -> None:
    whole = timedelta(milliseconds=round(span.total_seconds() * 1000))
    assert parse_duration(format_duration(whole)) == whole
