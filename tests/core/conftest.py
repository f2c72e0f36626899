"""Fixtures for the core's tests."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest


@pytest.fixture(params=["memory", "sqlite", pytest.param("mongo", marks=pytest.mark.servers)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty store of each kind."""
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}"
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'worchflow.db'}"
    return str(request.getfixturevalue("mongodb_url"))


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no WORCHFLOW_* variable of the developer's shell change a test."""
    for name in list(os.environ):
        if name.upper().startswith("WORCHFLOW_"):
            monkeypatch.delenv(name)
