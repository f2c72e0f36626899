"""What a worker sees of the installed package: its functions and hooks, by entry point."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from worchflow_core import Worchflow
from worchflow_core.testing import Harness


def test_functions_are_discovered() -> None:
    found = {item.id: item for item in Worchflow(env_file=None).registry}
    assert {"daily-cleanup", "encode-video", "process-payment"} <= found.keys()
    assert found["process-payment"].distribution == "worchflow-sample"
    assert found["process-payment"].code_version == "worchflow-sample 0.1.0"


def test_audit_plugin_is_discovered() -> None:
    (info,) = (
        item for item in Worchflow(env_file=None).plugins.infos if item.name == "sample-audit"
    )
    assert info.distribution == "worchflow-sample"
    assert info.hooks == ("worchflow_add_plugins",)


def test_audit_file_tells_what_happened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "audit.jsonl"
    monkeypatch.setenv("WORCHFLOW_SAMPLE_AUDIT_FILE", str(path))
    with Harness() as harness:
        harness.run("process-payment", {"amount": 1, "customer_id": "cust_1"}, crash_after=1)
        harness.run("process-payment", {"amount": 1, "customer_id": "cust_declined"})
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["fact"], line.get("step", line.get("error"))) for line in lines] == [
        ("execution started", None),
        ("step completed", "Validate payment"),
        ("execution started", None),
        ("step replayed", "Validate payment"),
        ("step completed", "Charge payment provider"),
        ("step completed", "Send receipt"),
        ("execution completed", None),
        ("execution started", None),
        ("step completed", "Validate payment"),
        ("execution failed", "worchflow_sample.functions.payment.CardDeclined"),
    ]


def test_audit_is_silent_unless_a_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WORCHFLOW_SAMPLE_AUDIT_FILE", raising=False)
    monkeypatch.chdir(tmp_path)
    with Harness() as harness:
        harness.run("process-payment", {"amount": 1, "customer_id": "cust_1"})
    assert list(tmp_path.iterdir()) == []
