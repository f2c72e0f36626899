"""Cron expressions: what is a schedule and what is not."""

from __future__ import annotations

from typing import Any

import pytest

from worchflow_core import (
    FunctionError,
)
from worchflow_core.cron import parse_cron, parse_seconds


@pytest.mark.parametrize("text", ["* * * * *", "0 9 * * 1-5", "*/5 0 0 1 1 *", "@daily", "@HOURLY"])
def test_schedule_is_checked(text: str) -> None:
    assert parse_cron(text, "Europe/Paris").zone == "Europe/Paris"


@pytest.mark.parametrize(
    ("text", "zone", "word"),
    [
        ("", "UTC", "0 fields"),
        ("* * *", "UTC", "3 fields"),
        ("* * * * * * *", "UTC", "7 fields"),
        ("61 * * * *", "UTC", "61"),
        ("0 0 30 2 *", "UTC", "day-of-month"),
        ("60 * * * * *", "UTC", "bad seconds '60'"),
        ("a * * * * *", "UTC", "bad seconds 'a'"),
        ("*/0 * * * * *", "UTC", "bad seconds"),
        ("@fortnightly", "UTC", "@fortnightly"),
        (7, "UTC", "cron is 7"),
        ("* * * * *", "Nowhere/Land", "no time zone"),
        ("* * * * *", "../../etc/passwd", "no time zone"),
        ("* * * * *", "", "no time zone"),
        ("* * * * *", None, "no time zone"),
    ],
)
def test_schedule_that_cannot_be_kept_is_refused(text: Any, zone: Any, word: str) -> None:
    with pytest.raises(FunctionError) as caught:
        parse_cron(text, zone)
    assert word in str(caught.value)


def test_seconds_of_six_fields_are_listed() -> None:
    assert parse_seconds("*/20", "") == (0, 20, 40)
    assert parse_seconds("5,1-3,50/4", "") == (1, 2, 3, 5, 50, 54, 58)
