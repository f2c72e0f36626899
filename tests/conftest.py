"""Fixtures for all tests; imported by name, so that they work whether or not we are installed."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import settings

from tests.combinations import combination  # noqa: F401
from worchflow_core.testing.executables import ServerMissing
from worchflow_core.testing.fixtures import (  # noqa: F401
    mongo_server,
    mongodb_url,
    new_redis_server,
    old_redis_server,
    redis_server,
    redis_url,
    standalone_mongo_server,
    unique_name,
    worchflow_harness,
)

# A change is not to fail for an example that the one before might have found.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, Any, Any]:
    """Skip a test that starts a server itself where none can be had; fail when `CI` is set."""
    try:
        return (yield)
    except ServerMissing as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))


pytest_runtest_setup = pytest_runtest_call
"""The same for its fixtures."""

pytest.register_assert_rewrite("worchflow_core.testing.contracts")
