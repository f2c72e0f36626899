"""Fixtures for the core's tests."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no WORCHFLOW_* variable of the developer's shell change a test."""
    for name in list(os.environ):
        if name.upper().startswith("WORCHFLOW_"):
            monkeypatch.delenv(name)
