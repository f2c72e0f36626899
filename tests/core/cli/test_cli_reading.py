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


@pytest.fixture
def three(cli: Callable[..., Any], flows: str) -> str:
    """One execution that completed, one that failed, one that waits; the module's name."""
    assert cli("run", "pay", GOOD, "-m", flows, "-q", "--id", "done-0001").code == 0
    assert cli("run", "boom", "-m", flows, "-q", "--id", "fail-0001").code == 6
    assert (
        cli("send", "pay", GOOD, "-m", flows, "-q", "--id", "wait-0001", "--tag", "vip").code == 0
    )
    return flows


READING = [
    ("list",),
    ("show", "abcdef12"),
    ("explain", "abcdef12"),
    ("fork", "abcdef12"),
    ("stats",),
    ("workers",),
    ("functions",),
    ("retry", "abcdef12"),
    ("cancel", "abcdef12"),
    ("delete", "abcdef12"),
    ("retry", "--all", "--yes"),
    ("purge", "--older-than", "1d", "--yes"),
    ("workers", "--drain", "x"),
    ("doctor",),
    ("plugins",),
]


@pytest.mark.parametrize("arguments", READING, ids=" ".join)
def test_reading_creates_no_database(
    cli: Callable[..., Any], place: Path, arguments: tuple[str, ...]
) -> None:
    done = cli(*arguments)
    assert not list(place.iterdir())
    if arguments[0] not in ("functions", "doctor", "plugins"):
        assert done.code == exits.NOT_FOUND
        assert f"nothing was ever sent: there is no database {place / 'worchflow.db'}" in done.err


@pytest.mark.parametrize("arguments", [*READING[:7], ("doctor",)], ids=" ".join)
def test_reading_imports_no_user_code(
    cli: Callable[..., Any], three: str, arguments: tuple[str, ...]
) -> None:
    sys.modules.pop(three)
    cli(*arguments)
    assert three not in sys.modules


def test_list_as_json_is_one_document(cli: Callable[..., Any], three: str) -> None:
    document = json.loads(cli("list", "--json").out)
    assert document["total"] == 3
    assert [item["id"] for item in document["items"]] == ["wait-0001", "fail-0001", "done-0001"]
    newest = document["items"][0]
    assert newest["eventName"] == "pay"
    assert json.loads(newest["eventData"])["customer_id"] == "ana"
    assert isinstance(newest["createdAt"], int)
    assert document["items"][2]["result"] == {"charged": 3.0, "id": "ch_1"}


def test_list_piped_is_aligned_and_has_no_escapes(cli: Callable[..., Any], three: str) -> None:
    done = cli("list")
    lines = done.out.splitlines()
    assert lines[0].split()[:3] == ["STATUS", "ID", "FUNCTION"]
    assert len(lines) == 4
    assert "\x1b" not in done.out
    assert lines[2].index("fail-000") == lines[1].index("wait-000")
    assert "3 of 3" in done.err


def test_nothing_stored_can_steer_a_terminal(cli: Callable[..., Any], flows: str) -> None:
    evil = "c1 \x9b2J bell \x07 turn \u202e end"
    data = json.dumps({"amount": 1, "customer_id": evil, "note": evil})
    assert cli("send", "pay", data, "-m", flows, "--id", "evil-0001").code == 0
    for arguments in (("--json",), ("--input",)):
        done = cli("show", "evil-0001", *arguments)
        assert not any(char in done.out for char in "\x9b\x07\u202e")
        document = json.loads(done.out)
    assert document["note"] == evil


def test_list_filters_pages_and_prints_ids(cli: Callable[..., Any], three: str) -> None:
    assert cli("list", "--status", "failed,completed", "--ids").out.split() == [
        "fail-0001",
        "done-0001",
    ]
    assert cli("list", "--tag", "vip", "--ids").out == "wait-0001\n"
    assert cli("list", "--function", "boom", "--ids").out == "fail-0001\n"
    assert cli("list", "--search", "done", "--ids").out == "done-0001\n"
    assert cli("list", "--since", "1h", "--until", "30m", "--ids").out == ""
    assert cli("list", "--reverse", "-n", "1", "--ids").out == "done-0001\n"
    assert "next page: --skip 2" in cli("list", "--limit", "2").err
    assert cli("list", "--skip", "2", "--ids").out == "done-0001\n"


@pytest.mark.parametrize(
    "arguments",
    [("--status", "broken"), ("--since", "yesterday"), ("--sort", "size"), ("--limit", "0")],
)
def test_a_wrong_filter_is_wrong_usage(
    cli: Callable[..., Any], three: str, arguments: tuple[str, ...]
) -> None:
    done = cli("list", *arguments)
    assert done.code == exits.USAGE
    assert "error: " in done.err


def test_show_tells_the_whole_story(cli: Callable[..., Any], three: str) -> None:
    done = cli("show", "done-0001")
    for text in ("pay", "done-0001", "completed", "attempts 1/3", "Validate", "Charge"):
        assert text in done.out
    failed = cli("show", "fail-0001")
    assert "ValueError: evil \\x1b[31mred second line" in failed.out
    assert "retry: worchflow retry fail-0001" in failed.out
    assert "\x1b" not in failed.out
    trace = cli("show", "fail-0001", "--trace")
    assert "Traceback" in trace.out
    assert "\x1b" not in trace.out
    assert "no live worker has pay" in cli("show", "wait-0001").out


def test_show_as_json_and_in_parts(cli: Callable[..., Any], three: str) -> None:
    document = json.loads(cli("show", "done-0001", "--json").out)
    assert document["execution"]["status"] == "completed"
    assert [step["name"] for step in document["steps"]] == ["Validate", "Charge"]
    assert document["steps"][1]["result"] == {"id": "ch_1"}
    assert json.loads(cli("show", "done-0001", "--steps", "--json").out)["total"] == 2
    assert json.loads(cli("show", "done-0001", "--step", "Charge").out) == {"id": "ch_1"}
    assert json.loads(cli("show", "done-0001", "--result").out)["charged"] == 3.0
    assert cli("show", "done-0001", "--step", "Nope").code == exits.NOT_FOUND
    assert cli("show", "wait-0001", "--result").code == exits.NOT_ALLOWED


def test_ids_may_be_cut_to_six_characters(cli: Callable[..., Any], three: str) -> None:
    assert cli("show", "done-0").code == 0
    short = cli("show", "done-")
    assert short.code == exits.NOT_FOUND
    assert "6 characters or more" in short.err
    assert cli("show", "nothing-like-it").code == exits.NOT_FOUND


def test_an_ambiguous_id_lists_the_candidates(cli: Callable[..., Any], three: str) -> None:
    cli("send", "pay", GOOD, "-m", three, "-q", "--id", "done-0002")
    done = cli("show", "done-000")
    assert done.code == exits.USAGE
    assert "done-0001  completed  pay" in done.err
    assert "done-0002  queued  pay" in done.err
    assert cli("retry", "done-000").code == exits.USAGE


def test_watching_ends_with_the_execution(cli: Callable[..., Any], three: str) -> None:
    done = cli("show", "done-0001", "--watch")
    assert done.code == 0
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert [line["step"]["name"] for line in lines[:-1]] == ["Validate", "Charge"]
    assert lines[-1]["execution"]["status"] == "completed"
    assert cli("show", "fail-0001", "--watch").code == exits.EXECUTION_FAILED


def test_stats_counts_every_status(cli: Callable[..., Any], three: str) -> None:
    document = json.loads(cli("stats", "--json").out)
    assert (document["completed"], document["failed"], document["queued"]) == (1, 1, 1)
    assert document["total"] == 3
    by_function = json.loads(cli("stats", "--by", "function", "--json").out)["ended"]
    assert by_function == {"pay": {"completed": 1}, "boom": {"failed": 1}}
    assert "completed" in cli("stats").out


def test_functions_come_from_the_catalog(cli: Callable[..., Any], three: str) -> None:
    document = json.loads(cli("functions", "--json", "--stats").out)
    known = {item["id"]: item for item in document["items"]}
    assert {"boom", "pay", "until-file"} <= known.keys()
    assert document["total"] == len(known)
    pay = known["pay"]
    assert pay["description"] == "Take a payment."
    assert pay["ended"] == {"completed": 1}
    schema = json.loads(cli("functions", "--schema", "pay").out)
    assert set(schema["properties"]) == {"amount", "customer_id", "note"}
    assert cli("functions", "--schema", "nope").code == exits.NOT_FOUND


def test_functions_of_a_module_are_listed_before_anything_was_sent(
    cli: Callable[..., Any], flows: str, place: Path
) -> None:
    done = cli("functions", "-m", flows)
    assert "Take a payment." in done.out
    assert not list(place.glob("*.db"))


def test_retry_cancel_delete_and_what_the_status_forbids(
    cli: Callable[..., Any], three: str
) -> None:
    retried = cli("retry", "fail-0001")
    assert retried.code == 0
    assert "1 queued" in retried.err
    again = cli("retry", "fail-0001", "done-0001")
    assert again.code == exits.NOT_ALLOWED
    assert "only a failed or cancelled one can be retried" in again.err
    assert cli("delete", "wait-0001").code == exits.NOT_ALLOWED
    assert cli("cancel", "wait-0001").code == 0
    assert cli("cancel", "wait-0001").code == exits.NOT_ALLOWED
    assert cli("delete", "wait-0001").code == 0
    assert cli("delete", "wait-0001").code == exits.NOT_FOUND
    mixed = json.loads(cli("retry", "done-0001", "gone-00001", "--json").out)
    assert mixed["total"] == 2
    assert all(not item["done"] for item in mixed["items"])


def test_bulk_commands_ask_where_nobody_can_answer(cli: Callable[..., Any], three: str) -> None:
    asked = cli("retry", "--all", "--status", "failed")
    assert asked.code == exits.USAGE
    assert "1 execution matches" in asked.err
    assert "--yes" in asked.err
    dry = cli("retry", "--all", "--dry-run")
    assert dry.out == "fail-0001\n"
    assert "nothing was done" in dry.err
    assert cli("retry", "--all", "--function", "boom", "--yes").code == 0
    assert json.loads(cli("show", "fail-0001", "--json").out)["execution"]["status"] == "queued"


def test_bulk_commands_say_when_the_status_forbids_it_or_nothing_matches(
    cli: Callable[..., Any], three: str
) -> None:
    refused = cli("retry", "--all", "--status", "completed", "--yes")
    assert refused.code == exits.NOT_ALLOWED
    assert "retry is for failed, cancelled" in refused.err
    nothing = cli("cancel", "--all", "--function", "no-such-one")
    assert nothing.code == 0
    assert "0 cancelled" in nothing.err
    for flag in ("--status", "--function", "--search", "--tag"):
        empty = cli("cancel", "--all", flag, "", "--yes")  # such as an unset variable of a shell
        assert (empty.code, f"{flag} is empty" in empty.err) == (exits.USAGE, True)
    assert json.loads(cli("show", "wait-0001", "--json").out)["execution"]["status"] == "queued"


def test_bulk_flags_are_not_guessed(cli: Callable[..., Any], three: str) -> None:
    for arguments in ((), ("--status", "failed"), ("fail-0001", "--all")):
        assert cli("cancel", *arguments).code == exits.USAGE


def test_ids_are_read_from_standard_input(
    cli: Callable[..., Any], three: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("done-0001\nfail-0001\n"))
    done = cli("delete", "-")
    assert done.code == 0
    assert "2 deleted" in done.err
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert cli("delete", "-").code == 0


def test_purge_deletes_what_ended_long_ago(cli: Callable[..., Any], three: str) -> None:
    assert cli("purge", "--older-than", "1d", "--dry-run").out == ""
    assert cli("purge", "--older-than", "0s", "--dry-run").out.split() == ["fail-0001", "done-0001"]
    assert cli("purge", "--older-than", "0s", "--status", "failed", "--yes").code == 0
    assert cli("list", "--ids").out.split() == ["wait-0001", "done-0001"]


def test_plugins_are_listed_with_their_hooks(cli: Callable[..., Any]) -> None:
    names = {item["name"] for item in json.loads(cli("plugins", "--json").out)["items"]}
    assert {"logs", "sqlite", "memory"} <= names
    assert "worchflow_execution_completed" in cli("plugins", "--hooks").out
    assert cli("plugins", "--errors").code == 0


def test_a_plugin_that_cannot_be_loaded_is_told(
    cli: Callable[..., Any], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "broken_one.py").write_text("import nowhere_at_all", encoding="utf-8")
    monkeypatch.setenv("WORCHFLOW_PLUGINS", "broken_one")
    done = cli("plugins", "--errors")
    assert done.code == exits.FAILED
    assert "nowhere_at_all" in done.out
    assert cli("plugins").code == exits.USAGE


def test_doctor_finds_what_waits_in_vain(
    cli: Callable[..., Any], three: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORCHFLOW_CONCURENCY", "3")
    done = cli("doctor", "--json")
    assert done.code == exits.FAILED
    document = json.loads(done.out)
    assert not document["healthy"]
    texts = {item["text"]: item["level"] for item in document["findings"]}
    assert any("none is live" in text and texts[text] == "problem" for text in texts)
    assert any("WORCHFLOW_CONCURENCY" in text for text in texts)
    settings = {item["name"]: item for item in document["settings"]}
    assert settings["WORCHFLOW_STORE_URL"]["source"] == "default"
    assert settings["WORCHFLOW_LEASE"]["value"] == "30s"
    assert "1 problem" in cli("doctor").out


def test_doctor_before_anything_was_sent_is_healthy(cli: Callable[..., Any]) -> None:
    done = cli("doctor")
    assert done.code == 0
    assert "nothing was ever sent" in done.out


def test_doctor_tells_of_functions_that_cannot_be_imported(
    cli: Callable[..., Any], place: Path
) -> None:
    (place / "broken_flows.py").write_text("raise RuntimeError('half written')", encoding="utf-8")
    done = cli("doctor", "-m", "broken_flows")
    assert done.code == exits.FAILED
    assert "half written" in done.out


def test_a_file_that_is_no_database_is_left_alone(cli: Callable[..., Any], place: Path) -> None:
    (place / "worchflow.db").write_text("a shopping list, longer than any header. " * 10)
    done = cli("list")
    assert done.code == exits.FAILED
    assert "error: " in done.err
    assert "Traceback" not in done.err
    assert (place / "worchflow.db").read_text().startswith("a shopping list")
