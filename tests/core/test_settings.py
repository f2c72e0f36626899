"""Settings: every malformed value is one line with the variable, the value and what is allowed."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest

from worchflow_core import SettingsError, Worchflow, WorchflowError, load_settings, mask_url
from worchflow_core.backends import choose_backends
from worchflow_core.settings import PREFIX, Settings, setting_source, unknown_variables

NUMBERS = ["concurrency", "max_payload", "max_crashes", "max_steps"]
SPANS = ["lease", "heartbeat", "sweep_interval", "grace", "retention", "send_timeout"]
URLS = ["store_url", "queue_url", "step_cache_url"]


def complaint(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> str:
    monkeypatch.setenv(PREFIX + name.upper(), value)
    with pytest.raises(SettingsError) as caught:
        load_settings(env_file=None)
    return str(caught.value)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", ["", " ", "ten", "-1", "0", "1.5", "9" * 30, "1e3", "NaN"])
def test_malformed_number_names_variable_value_and_range(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    text = complaint(monkeypatch, name, value)
    assert text.startswith(f"{PREFIX}{name.upper()} is {value!r}: ")
    assert re.search(r"whole number, [\d,]+ to [\d,]+", text), text
    assert "\n" not in text


@pytest.mark.parametrize("name", SPANS)
@pytest.mark.parametrize(
    "value", ["", "soon", "-1", "-5s", "5 minutes", "1e9", "NaN", "9999999d", "9" * 400]
)
def test_malformed_span_names_variable_value_and_what_to_give(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    text = complaint(monkeypatch, name, value)
    assert text.startswith(f"{PREFIX}{name.upper()} is ")
    assert "give" in text
    assert repr(value)[:80] in text
    assert len(text) < 300
    assert "\n" not in text


@pytest.mark.parametrize("name", ["lease", "heartbeat", "sweep_interval", "send_timeout"])
def test_span_that_must_not_be_zero_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    text = complaint(monkeypatch, name, "0")
    assert f"{PREFIX}{name.upper()} is '0s'" in text or f"{PREFIX}{name.upper()} is 0s" in text
    assert "10ms or more" in text


def test_heartbeat_above_a_third_of_the_lease_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    text = complaint(monkeypatch, "heartbeat", "11s")
    assert "WORCHFLOW_HEARTBEAT is 11s" in text
    assert "third of the lease of 30s" in text


@pytest.mark.parametrize("name", URLS)
@pytest.mark.parametrize("value", ["mongo", "/data/x.db", "127.0.0.1:6379", "://x", " "])
def test_url_without_scheme_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    text = complaint(monkeypatch, name, value)
    assert text.startswith(f"{PREFIX}{name.upper()} is {value!r}: ")
    assert "sqlite:///" in text


@pytest.mark.parametrize(
    "value",
    [
        "ana:geheim@host/db",
        "1ana:geheim@host/db",
        "//ana:geheim@host",
        "mongodb//ana:geheim@host",
    ],
)
def test_password_in_a_bad_url_is_masked(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("WORCHFLOW_STORE_URL", value)
    with pytest.raises(WorchflowError) as caught:
        Worchflow(functions=[], env_file=None)._build()
    assert "geheim" not in str(caught.value)
    assert "geheim" not in mask_url(value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:geheim@h:6379/0", "redis://:***@h:6379/0"),
        ("redis://ana:geheim@h:6379/0", "redis://ana:***@h:6379/0"),
        ("mongodb://ana:ge/he:im@h1,h2/db?x=1", "mongodb://ana:***@h1,h2/db?x=1"),
        ("mongodb://ana:ge@heim@h/db", "mongodb://ana:***@h/db"),
        (
            "mongodb://h/db?authSource=admin&password=geheim",
            "mongodb://h/db?authSource=admin&password=***",
        ),
        ("redis://h/0?ssl_key_password=geheim#x", "redis://h/0?ssl_key_password=***#x"),
        ("sqlite:///./worchflow.db", "sqlite:///./worchflow.db"),
        ("sqlite:////data/a:b@c.db", "sqlite:////data/a:b@c.db"),
        ("memory:", "memory:"),
        ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379"),
        ("redis://ana@h/0", "redis://ana@h/0"),
    ],
)
def test_passwords_are_masked_and_the_rest_is_shown(url: str, shown: str) -> None:
    assert mask_url(url) == shown


@pytest.mark.parametrize("value", ["", "a:b", "x" * 65, "é", "a b", "a/b"])
def test_malformed_prefix_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    text = complaint(monkeypatch, "prefix", value)
    assert text.startswith(f"WORCHFLOW_PREFIX is {value!r}: ")
    assert "1 to 64" in text


def test_malformed_choices_name_what_may_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    text = complaint(monkeypatch, "log", "yaml")
    assert text.startswith("WORCHFLOW_LOG is 'yaml': ")
    for word in ("text", "json", "off"):
        assert word in text
    monkeypatch.delenv("WORCHFLOW_LOG")
    text = complaint(monkeypatch, "require_store", "maybe")
    assert text.startswith("WORCHFLOW_REQUIRE_STORE is 'maybe': ")
    for word in ("1", "0"):
        assert word in text
    monkeypatch.delenv("WORCHFLOW_REQUIRE_STORE")
    text = complaint(monkeypatch, "crash_at", "nowhere")
    assert "after_claim" in text


def test_all_mistakes_are_told_at_once_one_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORCHFLOW_LEASE", "soon")
    monkeypatch.setenv("WORCHFLOW_STORE_URL", "nothing")
    lines = complaint(monkeypatch, "concurrency", "many").splitlines()
    assert sorted(line.split()[0] for line in lines) == [
        "WORCHFLOW_CONCURRENCY",
        "WORCHFLOW_LEASE",
        "WORCHFLOW_STORE_URL",
    ]


def test_long_value_is_shown_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(complaint(monkeypatch, "concurrency", "x" * 100_000)) < 400


def test_good_values_of_every_spelling_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "LEASE": "1m30s",
        "HEARTBEAT": "10",
        "GRACE": "0",
        "RETENTION": "0",
        "CONCURRENCY": " 20 ",
        "REQUIRE_STORE": "yes",
        "STORE_URL": "memory:x",
        "QUEUE_URL": "",
        "PLUGINS": " a, b ,,c ",
        "DISABLED_PLUGINS": "",
        "CRASH_AT": "",
    }.items():
        monkeypatch.setenv(PREFIX + name, value)
    settings = load_settings(env_file=None)
    assert settings.lease == timedelta(seconds=90)
    assert settings.heartbeat == timedelta(seconds=10)
    assert settings.retention == timedelta(0)
    assert settings.concurrency == 20
    assert settings.require_store
    assert settings.queue_url is None
    assert settings.plugins == ("a", "b", "c")
    assert settings.disabled_plugins == ()


def test_defaults_are_the_documented_ones() -> None:
    settings = load_settings(env_file=None)
    assert settings.lease == timedelta(seconds=30)
    assert settings.heartbeat == settings.sweep_interval == timedelta(seconds=5)
    assert settings.grace == timedelta(seconds=25)
    assert settings.retention == timedelta(days=30)
    assert settings.concurrency == 10
    assert settings.prefix == "worchflow"
    assert settings.max_payload == 2**20
    assert all(field.description for field in Settings.model_fields.values())


def test_order_is_flag_environment_file_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / ".env"
    file.write_text("WORCHFLOW_CONCURRENCY=3\nWORCHFLOW_PREFIX=file\nWORCHFLOW_ODD=1\nOTHER=1\n")
    monkeypatch.setenv("WORCHFLOW_PREFIX", "environment")
    monkeypatch.setenv("WORCHFLOW_NONSENSE", "1")
    settings = load_settings({"max_steps": 7, "grace": None}, env_file=file)
    assert (settings.concurrency, settings.prefix, settings.max_steps) == (3, "environment", 7)
    sources = {
        name: setting_source(name, {"max_steps": 7}, env_file=file)
        for name in ("max_steps", "prefix", "concurrency", "lease")
    }
    assert list(sources.values()) == ["flag", "environment", ".env", "default"]
    assert unknown_variables(env_file=file) == ["WORCHFLOW_NONSENSE", "WORCHFLOW_ODD"]


def test_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_bytes(b"WORCHFLOW_PREFIX=\xff\xfe\n")
    with pytest.raises(SettingsError, match=r"\.env cannot be read"):
        load_settings(env_file=file)
    assert load_settings(env_file=tmp_path / "missing").prefix == "worchflow"


def test_queue_without_store_is_refused_and_a_required_store_must_be_named() -> None:
    with pytest.raises(SettingsError, match="WORCHFLOW_QUEUE_URL is set and WORCHFLOW_STORE_URL"):
        choose_backends(load_settings({"queue_url": "redis://h"}, env_file=None), env_file=None)
    with pytest.raises(SettingsError, match="WORCHFLOW_REQUIRE_STORE"):
        choose_backends(load_settings({"require_store": True}, env_file=None), env_file=None)
    choice = choose_backends(load_settings(env_file=None), env_file=None)
    assert choice.store_url == "sqlite:///./worchflow.db"
    assert choice.store_source == "default"
