from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from worchflow_core.cli import exits

GOOD = '{"amount": 3, "customer_id": "ana"}'


def test_run_prints_the_result_alone_and_the_steps_beside_it(
    cli: Callable[..., Any], flows: str
) -> None:
    done = cli("run", "pay", GOOD, "-m", flows)
    assert done.code == 0
    assert json.loads(done.out) == {"charged": 3.0, "id": "ch_1"}
    for text in ("store ", "worchflow.db", "default: one machine", "Validate", "Charge"):
        assert text in done.err
    assert cli("list", "--json").code == 0


def test_run_in_memory_keeps_nothing(cli: Callable[..., Any], flows: str, place: Path) -> None:
    done = cli("run", "pay", GOOD, "-m", flows, "--memory")
    assert done.code == 0
    assert "from --memory" in done.err
    assert not list(place.glob("*.db*"))


def test_run_says_when_the_execution_failed(cli: Callable[..., Any], flows: str) -> None:
    done = cli("run", "boom", "-m", flows)
    assert done.code == exits.EXECUTION_FAILED
    assert done.out == ""
    assert "error: execution" in done.err
    assert "ValueError: evil" in done.err
    assert "\x1b" not in done.err
    assert "\nsecond line" not in done.err


def test_a_step_fails_once_where_it_is_told_to(cli: Callable[..., Any], flows: str) -> None:
    once = cli("run", "pay", GOOD, "-m", flows, "--fail-at", "Charge")
    assert once.code == 0
    assert "attempt 1 failed: DeliberateError" in once.err
    assert "replayed" in once.err
    final = cli("run", "pay", GOOD, "-m", flows, "--fail-at", "Charge", "--no-retries")
    assert final.code == exits.EXECUTION_FAILED


def test_replay_takes_the_input_of_an_execution(cli: Callable[..., Any], flows: str) -> None:
    cli("run", "pay", GOOD, "-m", flows, "--id", "first-one", "-q")
    again = cli("run", "--replay", "first-", "-m", flows, "-q")
    assert json.loads(again.out) == {"charged": 3.0, "id": "ch_1"}
    changed = cli("run", "--replay", "first-one", "--set", "amount=8", "-m", flows, "--memory")
    assert json.loads(changed.out)["charged"] == 8.0


def test_quiet_prints_data_only(cli: Callable[..., Any], flows: str) -> None:
    done = cli("run", "pay", GOOD, "-m", flows, "-q")
    assert done.err == ""


def test_send_prints_the_id_and_warns_when_no_worker_has_it(
    cli: Callable[..., Any], flows: str, place: Path
) -> None:
    done = cli("send", "pay", GOOD, "-m", flows, "--id", "order-1")
    assert done.code == 0
    assert done.out == "order-1\n"
    assert f"no live worker has pay on {place / 'worchflow.db'}" in done.err
    again = cli("send", "pay", GOOD, "-m", flows, "--id", "order-1")
    assert again.code == 0
    assert "was sent before" in again.err
    conflict = cli("send", "pay", GOOD.replace("3", "4"), "-m", flows, "--id", "order-1")
    assert conflict.code == exits.USAGE
    assert conflict.err.splitlines()[-1].startswith("error: execution 'order-1' exists")


def test_send_says_json_when_asked(cli: Callable[..., Any], flows: str) -> None:
    one = json.loads(cli("send", "pay", GOOD, "-m", flows, "--id", "order-1", "--json").out)
    assert one == {"executionId": "order-1", "isNew": True}
    many = json.loads(cli("send", "pay", GOOD, "-m", flows, "--count", "3", "--json").out)
    assert many["total"] == len({item["executionId"] for item in many["items"]}) == 3


def test_data_comes_from_a_file_or_standard_input(
    cli: Callable[..., Any], flows: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "event.json").write_text(GOOD, encoding="utf-8")
    assert cli("send", "pay", "-d", "@event.json", "-m", flows, "--id", "from-file").code == 0
    monkeypatch.setattr(sys, "stdin", io.StringIO(GOOD))
    assert cli("send", "pay", "-", "-m", flows, "--id", "from-input").code == 0
    for name in ("from-file", "from-input"):
        assert json.loads(cli("show", name, "--input", "-q").out)["customer_id"] == "ana"


def test_fields_are_typed_as_they_are_declared(cli: Callable[..., Any], flows: str) -> None:
    arguments = ("--set", "amount=100", "--set", "customer_id=123", "--set", "note=true")
    assert cli("send", "pay", *arguments, "-m", flows, "--id", "typed-1").code == 0
    assert json.loads(cli("show", "typed-1", "--input", "-q").out) == {
        "amount": 100.0,
        "customer_id": "123",
        "note": "true",
    }
    wrong = cli("send", "pay", "--set", "amount=much", "-m", flows)
    assert wrong.code == exits.USAGE
    assert "amount is 'much'; amount is declared as number" in wrong.err


def test_data_that_does_not_fit_lists_each_path(cli: Callable[..., Any], flows: str) -> None:
    done = cli("send", "pay", '{"amount": "x"}', "-m", flows)
    assert done.code == exits.USAGE
    lines = done.err.splitlines()
    assert lines[0] == "error: event data does not fit pay"
    assert sorted(lines[1:3]) == [
        "  amount       expected number, got string",
        "  customer_id  is required",
    ]
    assert lines[3] == "hint: worchflow send pay --template"


@pytest.mark.parametrize("text", ["{", "NaN", '{"a": 1, }'])
def test_data_that_is_not_json_is_one_line(cli: Callable[..., Any], flows: str, text: str) -> None:
    done = cli("send", "pay", text, "-m", flows)
    assert done.code == exits.USAGE
    assert len(done.err.splitlines()) == 1
    assert "JSON" in done.err


def test_template_is_a_starter_document_and_sends_nothing(
    cli: Callable[..., Any], flows: str, place: Path
) -> None:
    done = cli("send", "pay", "--template", "-m", flows)
    assert json.loads(done.out) == {"amount": 0, "customer_id": ""}
    assert not list(place.glob("*.db"))


def test_an_unknown_function_is_refused_with_the_nearest_names(
    cli: Callable[..., Any], flows: str
) -> None:
    done = cli("send", "payy", GOOD, "-m", flows)
    assert done.code == exits.USAGE
    assert "did you mean pay" in done.err
    forced = cli("send", "payy", GOOD, "-m", flows, "--force")
    assert forced.code == 0


def test_what_a_worker_described_can_be_sent_without_its_code(
    cli: Callable[..., Any], flows: str
) -> None:
    assert cli("run", "pay", GOOD, "-m", flows, "-q").code == 0
    assert cli("send", "pay", GOOD).code == 0
    assert cli("send", "pay", "{}").code == exits.USAGE
    assert json.loads(cli("send", "pay", "--template").out) == {"amount": 0, "customer_id": ""}


def test_waiting_too_long_says_so(cli: Callable[..., Any], flows: str) -> None:
    done = cli("send", "pay", GOOD, "-m", flows, "--wait", "--timeout", "50ms")
    assert done.code == exits.TIMED_OUT
    assert "it goes on" in done.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("--delay", "soon"),
        ("--at", "noon"),
        ("--at", "2030-01-01T00:00", "--delay", "5m"),
        ("--id", "a b"),
        ("--id", "x1", "--count", "2"),
        ("--set", "amount"),
        ("-d", "{}"),
        ("-d", "@nowhere.json"),
    ],
)
def test_wrong_options_of_send_are_wrong_usage(
    cli: Callable[..., Any], flows: str, arguments: tuple[str, ...]
) -> None:
    done = cli("send", "pay", GOOD, "-m", flows, *arguments)
    if arguments == ("-d", "@nowhere.json"):
        done = cli("send", "pay", "-m", flows, *arguments)
    assert done.code == exits.USAGE, done.err
    assert "error: " in done.err
    assert "Traceback" not in done.err


def test_a_delayed_execution_waits(cli: Callable[..., Any], flows: str) -> None:
    cli("send", "pay", GOOD, "-m", flows, "--delay", "1h", "--id", "later-1")
    assert "it was sent not to begin before " in cli("show", "later-1").out
    assert cli("worker", "-m", flows, "--burst").code == 0
    assert json.loads(cli("show", "later-1", "--json").out)["execution"]["status"] == "queued"


def test_a_module_that_is_not_there_is_wrong_usage(cli: Callable[..., Any]) -> None:
    for command in (("worker",), ("run", "x"), ("send", "x")):
        done = cli(*command, "-m", "nowhere_at_all")
        assert done.code == exits.USAGE
        assert done.err.startswith("error: no module 'nowhere_at_all'")
