from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.plugins.dashboard.support import execution, step
from worchflow_core import (
    Attempt,
    Failure,
    RunningExecution,
    Status,
    StepRecord,
    StepStatus,
    StepTry,
    Tally,
)
from worchflow_plugins.dashboard import view
from worchflow_plugins.dashboard.chart import WINDOWS, make_chart, sparkline
from worchflow_plugins.dashboard.cronwords import cron_words, every_words
from worchflow_plugins.dashboard.jsontree import json_tree
from worchflow_plugins.dashboard.schema import field_list
from worchflow_plugins.dashboard.waterfall import Row, make_waterfall

BEGAN = datetime(2026, 11, 23, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


def attempt(
    number: int, began: float, ended: float, outcome: str, tries: tuple[StepTry, ...] = ()
) -> Attempt:
    return Attempt(
        number=number,
        worker="w",
        started_at=at(began),
        ended_at=at(ended),
        outcome=outcome,
        tries=tries,
    )


def tried(name: str, began: float, ended: float) -> StepTry:
    error = Failure(type="E", message="no")
    return StepTry(step_id=name, title=name, started_at=at(began), ended_at=at(ended), error=error)


def done(name: str, began: float, ended: float | None, **fields: Any) -> StepRecord:
    end = None if ended is None else at(ended)
    given = {"step_id": name, "title": name, "started_at": at(began), "ended_at": end, **fields}
    return step("a", 1, **given)


def rows(*arguments: Any, **fields: Any) -> dict[str, Row]:
    fall = make_waterfall(*arguments, **{"now": at(1000), **fields})
    return {row.key: row for row in fall.rows}


# --- words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.109, "109 ms"),
        (0.9999, "1.0 s"),
        (2.72, "2.7 s"),
        (59.96, "1m"),
        (200, "3m 20s"),
        (3600, "1h"),
        (3600 * 28, "1d 4h"),
        (-1, "0 ms"),
    ],
)
def test_spans(seconds: float, text: str) -> None:
    assert view.span_text(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s ago"), (59, "59s ago"), (61, "1m ago"), (7300, "2h ago"), (-90, "in 1m 30s")],
)
def test_ages(seconds: float, text: str) -> None:
    assert view.ago_text(at(0), at(seconds)) == text


def test_ids_are_shortened_only_where_they_stay_telling() -> None:
    assert view.short_id("b404d404-c148-4954-83eb-4431ea9f4a9d") == "b404d404"
    assert view.short_id("order-17") == "order-17"
    assert view.short_id("invoice-2026-11-23-000017") == "invoice-2026-11-23-…"
    assert view.short_id("cron:sync-inventory:2026-11-27T11:30:00Z") == "cron…11-27T11:30:00Z"
    assert view.short_id("cron:a:b") == "cron:a:b"


@pytest.mark.parametrize("text", ["a/b", "..", ".", "?x", "#", "%", "é", '"', "a b", "\x00"])
def test_url_parts_stay_one_part(text: str) -> None:
    from urllib.parse import unquote, urljoin

    part = view.url_part(text)
    assert unquote(part) == text
    assert urljoin("http://h/executions/", part) == f"http://h/executions/{part}"


def test_attempts_count_as_people_do() -> None:
    assert view.attempts_text(execution("a")) == "–"
    running = execution("a", status=Status.PROCESSING, retries=3)
    assert view.attempts_text(running) == "1/4"
    failed = execution("a", status=Status.FAILED, failed_attempts=4, retries=3)
    assert view.attempts_text(failed) == "4/4"
    waiting = execution("a", status=Status.RETRYING, failed_attempts=1, retries=3)
    assert view.attempts_text(waiting) == "2/4"
    assert view.attempts_text(execution("a", status=Status.COMPLETED)) == "1"


def test_a_run_before_a_reopening_does_not_count_as_its_time() -> None:
    history = (attempt(1, 0, 2, "failed"), attempt(1, 90_000, 90_003, "completed"))
    item = execution(
        "a", status=Status.COMPLETED, attempts=history, finished_at=at(90_003), created_at=at(0)
    )
    assert view.run_time(item).seconds == 3
    assert view.run_time(execution("a")).started is None


def test_sleeps_and_crashes_belong_to_one_attempt() -> None:
    history = (
        attempt(1, 0, 1, "sleeping"),
        attempt(1, 60, 61, "crashed"),
        attempt(1, 70, 71, "retrying"),
        attempt(2, 80, 81, "failed"),
        attempt(1, 900, 901, "completed"),
    )
    groups = view.attempt_groups(history)
    assert [(item.number, len(item.claims)) for item in groups] == [(1, 3), (2, 1), (3, 1)]
    assert [item.is_before_reopen for item in groups] == [True, True, False]


def test_own_frames_stand_out_and_library_frames_are_counted() -> None:
    text = "\n".join(
        [
            "Traceback (most recent call last):",
            '  File "/venv/lib/python3.11/site-packages/httpx/a.py", line 1, in get',
            "    return x",
            '  File "/venv/lib/python3.11/asyncio/base.py", line 1, in run',
            '  File "/app/flows.py", line 9, in charge',
            "    call()",
            "    ^^^^^^",
            "app.Error: no",
        ]
    )
    parts = view.traceback_frames(text)
    assert [(part.is_own, part.count) for part in parts] == [(True, 0), (False, 2), (True, 1)]
    assert "\n".join(line for part in parts for line in part.lines) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("* * * * *", "every minute"),
        ("*/15 * * * *", "every 15 minutes"),
        ("30 6 * * *", "every day at 06:30"),
        ("0 9,17 * * 1-5", "Monday to Friday at 09:00 and 17:00"),
        ("0 9 * * MON,thu", "every Monday and Thursday at 09:00"),
        ("5 * * * *", "every hour at :05"),
        ("0 */2 * * 0", "every 2 hours, every Sunday"),
        ("0 0 1 * *", "on the first of every month at 00:00"),
        ("0 4 15 * *", "on day 15 of the month at 04:00"),
        ("*/10 * * * * *", "every 10 seconds"),
        ("0 30 6 * * *", "every day at 06:30"),
        # What words would not say better, or would say wrongly, stays as it is.
        ("0 0 1 1 *", "0 0 1 1 *"),
        ("15 30 6 * * *", "15 30 6 * * *"),
        ("0 9 1 * 1", "0 9 1 * 1"),
        ("0 9-17 * * *", "0 9-17 * * *"),
        ("0 9 L * *", "0 9 L * *"),
        ("0 9 * * 1#2", "0 9 * * 1#2"),
        ("nonsense", "nonsense"),
        (None, ""),
    ],
)
def test_cron_in_words(text: str | None, words: str) -> None:
    assert cron_words(text) == words


def test_intervals_in_words() -> None:
    assert every_words(timedelta(minutes=15)) == "every 15 minutes"
    assert every_words(timedelta(hours=1)) == "every hour"
    assert every_words(timedelta(seconds=90)) == "every 90 seconds"


# --- waterfall -----------------------------------------------------------------------------------


def test_bars_lie_where_their_time_is() -> None:
    item = execution(
        "a",
        status=Status.COMPLETED,
        created_at=at(0),
        attempts=(attempt(1, 1, 4, "completed"),),
        finished_at=at(4),
    )
    found = rows(item, [done("one", 1, 2), done("two", 2, 4)])
    assert list(found) == ["queued", "one", "two"]
    assert (found["queued"].left, found["queued"].width) == (0, 25)
    assert (found["one"].left, found["one"].width) == (25, 25)
    assert (found["two"].left, found["two"].width) == (50, 50)


def test_replayed_steps_name_the_attempt_that_ran_them() -> None:
    history = (
        attempt(1, 0, 2, "retrying", (tried("two", 1, 2),)),
        attempt(2, 5, 6, "completed"),
    )
    item = execution("a", status=Status.COMPLETED, attempts=history, created_at=at(0))
    steps = [done("one", 0, 1), done("two", 5, 6)]
    last = rows(item, steps)
    assert last["one"].mark == "replayed"
    assert last["one"].from_attempt == 1
    assert last["two"].mark == "done"
    assert last["back-off"].seconds == 3
    first = rows(item, steps, attempt=1)
    assert first["one"].mark == "done"
    assert first["two-try-0"].mark == "failed"
    assert "two" not in first


def test_a_day_of_sleep_takes_little_room() -> None:
    history = (attempt(1, 0, 1, "sleeping"), attempt(1, 86_401, 86_402, "completed"))
    item = execution("a", status=Status.COMPLETED, attempts=history, created_at=at(0))
    steps = [
        done("one", 0, 1),
        done("nap", 1, 86_401, kind="sleep"),
        done("two", 86_401, 86_402),
    ]
    fall = make_waterfall(item, steps, now=at(90_000))
    found = {row.key: row for row in fall.rows}
    assert found["nap"].mark == "sleep"
    assert found["one"].width > 20
    assert found["two"].width > 20
    ((_, left_out),) = fall.folds
    assert left_out == pytest.approx(86_400)


def test_waits_are_drawn_from_when_the_worker_let_go() -> None:
    history = (
        attempt(1, 0, 9, "waiting"),
        attempt(1, 60, 61, "waiting"),
        attempt(1, 100, 120, "completed"),
    )
    item = execution(
        "a", status=Status.COMPLETED, attempts=history, created_at=at(0), finished_at=at(120)
    )
    steps = [
        done("one", 0, 9),
        done("approval", 60, 60, kind="wait"),
        done("invoked", 100, 100, kind="invoke", result='{"child": "kid"}'),
        done("at once", 119, 119, kind="wait"),
    ]
    found = rows(item, steps)
    assert (found["approval"].mark, found["approval"].seconds) == ("sleep", 51)
    assert (found["invoked"].mark, found["invoked"].seconds) == ("sleep", 39)
    assert found["invoked"].child == "kid"
    assert found["at once"].seconds == 0
    assert found["approval"].child is None


@pytest.mark.parametrize("result", [None, "{}", "[]", "nonsense", "7"])
def test_an_invocation_that_names_no_child_has_none(result: str | None) -> None:
    item = execution("a", status=Status.COMPLETED, created_at=at(0), finished_at=at(1))
    assert rows(item, [done("one", 0, 1, kind="invoke", result=result)])["one"].child is None


def test_what_is_waited_for_is_said_with_its_end() -> None:
    digest = "0123456789abcdef01234567"
    item = execution(
        "a",
        status=Status.WAITING,
        waits=(f"approved:{digest}", f"approved@a:{digest}", "rejected", "child:kid"),
        due_at=at(3600),
        updated_at=at(9),
        attempts=(attempt(1, 0, 9, "waiting"),),
        created_at=at(0),
    )
    ahead = rows(item, [])["ahead"]
    assert ahead.ended_at == at(3600)
    assert ahead.wanted is not None
    assert ahead.wanted.events == ("approved", "rejected")
    assert ahead.wanted.has_match
    assert ahead.wanted.children == ("kid",)
    assert ahead.wanted.until == at(3600)
    for_ever = rows(replace(item, due_at=at(9) + timedelta(days=36500)), [])["ahead"]
    assert for_ever.ended_at is None
    assert for_ever.wanted is not None
    assert for_ever.wanted.until is None
    assert "ahead" not in rows(replace(item, owner="w", status=Status.PROCESSING), [])


def test_a_sleep_that_goes_on_is_one_row_and_ends_with_a_cancel() -> None:
    nap = done("nap", 1, 3600, kind="sleep")
    item = execution(
        "a",
        status=Status.SLEEPING,
        due_at=at(3600),
        updated_at=at(1),
        created_at=at(0),
        attempts=(attempt(1, 0, 1, "sleeping"),),
    )
    found = rows(item, [nap])
    assert "ahead" not in found
    assert found["nap"].wanted is not None
    assert found["nap"].wanted.until == at(3600)
    ended = replace(item, status=Status.CANCELLED, finished_at=at(60), due_at=None)
    assert rows(ended, [nap])["nap"].ended_at == at(60)


def test_what_runs_now_grows() -> None:
    item = execution(
        "a", status=Status.PROCESSING, owner="w", claimed_at=at(0), created_at=at(0), fence=1
    )
    told = [RunningExecution(execution_id="a", function="f", step="two", since=at(2))]
    fall = make_waterfall(item, [done("one", 0, 2)], now=at(10), running=told)
    found = {row.key: row for row in fall.rows}
    assert fall.is_live
    assert found["running-two"].ended_at is None
    assert found["running-two"].left + found["running-two"].width == pytest.approx(100)
    silent = rows(item, [done("one", 0, 2)])
    assert silent["running"].started_at == at(2)


def test_a_step_that_began_and_never_ended_is_shown() -> None:
    item = execution("a", status=Status.PROCESSING, owner="w", claimed_at=at(0), created_at=at(0))
    begun = done("once", 1, None, status=StepStatus.STARTED, result=None)
    assert rows(item, [begun])["once"].mark == "started"


def test_back_off_to_come_is_drawn() -> None:
    item = execution(
        "a",
        status=Status.RETRYING,
        created_at=at(0),
        updated_at=at(2),
        due_at=at(32),
        attempts=(attempt(1, 0, 2, "retrying", (tried("one", 1, 2),)),),
    )
    assert rows(item, [], now=at(5))["ahead"].seconds == 30


def test_clocks_that_disagree_break_nothing() -> None:
    item = execution(
        "a",
        status=Status.COMPLETED,
        created_at=at(50),
        attempts=(attempt(1, 0, 1, "completed"),),
        finished_at=at(1),
    )
    for row in make_waterfall(item, [done("x", 9, 3), done("y", -5, 99)], now=at(-10)).rows:
        assert 0 <= row.left <= 100
        assert 0 <= row.width <= 100


# --- chart, tree, fields -------------------------------------------------------------------------


def test_chart_stacks_what_ended_and_drops_what_lies_outside() -> None:
    span, bucket, _ = WINDOWS["1h"]
    tallies = [
        Tally(function="f", status=Status.COMPLETED, start=at(60), count=8, total_seconds=1),
        Tally(function="g", status=Status.FAILED, start=at(60), count=2, total_seconds=1),
        Tally(function="f", status=Status.FAILED, start=at(-60), count=9, total_seconds=1),
    ]
    chart = make_chart(tallies, BEGAN, span, bucket)
    assert len(chart.bars) == 60
    assert chart.highest == 10
    assert [part.status for part in chart.bars[1].parts] == ["completed", "failed"]
    assert sum(part.height for part in chart.bars[1].parts) == pytest.approx(100)
    assert chart.bars[0].parts == ()
    assert "8 completed, 2 failed" in chart.bars[1].title
    assert len(sparkline([]).split()) == 0
    assert len(sparkline([1, 2, 3]).split()) == 3


def test_tree_is_bounded_and_says_what_it_left_out() -> None:
    html = json_tree(list(range(100_000)))
    assert html.count('class="leaf"') <= 2001
    assert "99,000 more" in html
    deep: Any = 1
    for _ in range(60):
        deep = [deep]
    assert json_tree(deep).count("<details") == 60
    assert len(json_tree({"k": "x" * 1_000_000})) < 10_000
    assert "&lt;b&gt;" in json_tree({"<b>": "<b>"})


def test_tree_writes_json_words() -> None:
    value = json.loads('{"a": null, "b": true, "c": 1.5, "d": "x", "e": [], "f": {}}')
    text = json_tree(value).striptags()
    for word in ("null", "true", "1.5", '"x"', "[ ]", "{ }", "6 keys"):
        assert word in text


def test_fields_tell_path_kind_and_purpose() -> None:
    schema = {
        "$defs": {"Item": {"type": "object", "properties": {"sku": {"type": "string"}}}},
        "type": "object",
        "required": ["items"],
        "properties": {
            "items": {"type": "array", "items": {"$ref": "#/$defs/Item"}, "description": "what"},
            "kind": {"enum": ["a", "b"], "default": "a"},
            "when": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]},
        },
    }
    fields = {item.path: item for item in field_list(schema)}
    assert fields["items"].kind == "list of object"
    assert fields["items"].is_required
    assert fields["items[].sku"].kind == "string"
    assert fields["kind"].description == 'one of a, b; default "a"'
    assert fields["when"].kind == "string (date) or null"
    assert field_list({"$ref": "#/nowhere"}) == []
    loop = {"$ref": "#"}
    assert field_list(loop) == []
