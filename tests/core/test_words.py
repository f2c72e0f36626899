from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worchflow_core.words import (
    human_age,
    human_duration,
    printable,
    printable_lines,
    short_id,
    telling_id,
)

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("two\nlines", "two lines"),
        ("a\r\n\tb", "a b"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("bell\x07", "bell\\x07"),
        ("c1 \x9b2J", "c1 \\x9b2J"),
        ("evil\u202etxt.exe", "evil\\u202etxt.exe"),
        ("lone \ud800", "lone \\ud800"),
        ("größe ✓ 日本", "größe ✓ 日本"),
    ],
)
def test_text_is_made_safe(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text())
def test_no_text_breaks_out_of_its_line(text: str) -> None:
    shown = printable(text)
    assert len(shown.splitlines()) <= 1
    assert not any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 for char in shown)
    shown.encode("utf-8")


def test_text_is_cut_visibly() -> None:
    assert printable("abcdefgh", 5) == "abcd…"
    assert printable("abcde", 5) == "abcde"


def test_lines_keep_their_indents() -> None:
    assert printable_lines("a\n\tb\n  c\x1b") == ["a", "    b", "  c\\x1b"]


def test_ids_are_cut_to_eight_characters() -> None:
    assert short_id("91340094-c148-4954") == "91340094"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 ms"),
        (0.218, "218 ms"),
        (0.9999, "1.0 s"),
        (3.3, "3.3 s"),
        (59.94, "59.9 s"),
        (59.99, "1m"),
        (125, "2m 5s"),
        (3600, "1h"),
        (12_000, "3h 20m"),
        (90_000, "1d 1h"),
        (-5, "0 ms"),
    ],
)
def test_spans_are_said_as_people_do(seconds: float, shown: str) -> None:
    assert human_duration(timedelta(seconds=seconds)) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "now"),
        (5, "5s ago"),
        (200, "3m ago"),
        (7300, "2h ago"),
        (200_000, "2d ago"),
        (-300, "in 5m"),
        (-259_100, "in 2d 23h"),
    ],
)
def test_ages_are_said_as_people_do(seconds: float, shown: str) -> None:
    assert human_age(NOW - timedelta(seconds=seconds), NOW) == shown


@pytest.mark.parametrize(
    ("execution_id", "told"),
    [
        ("4f0c1d2e-c148-4954-83eb-4431ea9f4a9d", "4f0c1d2e"),
        ("order-000001", "order-000001"),
        ("cron:tick:2030-01-31T09:00:00Z", "cron:tick:2030-01-31T09:00:00Z"),
        ("evil\x1b[31m-id", "evil\\x1b[31m-id"),
    ],
)
def test_a_telling_id_names_one_execution(execution_id: str, told: str) -> None:
    assert telling_id(execution_id) == told
