"""Schemathesis against the API: what OpenAPI promises is what the server does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import InvalidArgument, Unsatisfiable
from schemathesis.errors import SchemathesisError
from schemathesis.specs.openapi.checks import (
    missing_required_header,
    negative_data_rejection,
    positive_data_acceptance,
    unsupported_method,
    use_after_free,
)

from tests.plugins.dashboard.serving import Server
from worchflow_plugins.dashboard import demo

# The guard takes no credentials here, and there is nothing to delete.
EXCLUDED = [missing_required_header, unsupported_method, use_after_free]
METHODS = {"get", "post", "head", "options", "put", "patch", "delete", "trace"}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as running:
        running.do(demo.seed(running.store, 50))
        yield running


@pytest.fixture(scope="module")
def api(server: Server) -> Any:
    return schemathesis.openapi.from_url(f"{server.url}/api/openapi.json")


def excluded(operation: Any) -> list[Any]:
    """Return the checks that do not hold, each for its reason."""
    checks = [*EXCLUDED]
    if operation.method == "get":
        checks.append(negative_data_rejection)  # empty parameters count as left out, as ever
    if operation.path == "/api/send":
        checks.append(positive_data_acceptance)  # functions are known to the server only
    return checks


def operations(api: Any) -> Iterator[Any]:
    for result in api.get_all_operations():
        yield result.ok()


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.value)
def test_api_keeps_what_openapi_promises(api: Any, mode: schemathesis.GenerationMode) -> None:
    tested = 0
    for operation in operations(api):
        try:
            strategy = operation.as_strategy(generation_mode=mode)
        except (InvalidArgument, SchemathesisError):  # there is nothing wrong to send it
            continue

        @settings(
            max_examples=25,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=strategy)
        def keeps(case: Any) -> None:
            case.call_and_validate(excluded_checks=excluded(case.operation))

        try:
            keeps()
        except Unsatisfiable:
            continue
        tested += 1
    assert tested >= 8


def test_every_route_is_told(server: Server, api: Any) -> None:
    told = {
        (path, method)
        for path, item in api.raw_schema["paths"].items()
        for method in item
        if method in METHODS
    }
    for route in (
        ("/api/executions", "get"),
        ("/api/executions/{execution_id}", "get"),
        ("/api/executions/{execution_id}/steps", "get"),
        ("/api/executions/{execution_id}/retry", "post"),
        ("/api/executions/{execution_id}/cancel", "post"),
        ("/api/executions/{execution_id}/fork", "post"),
        ("/api/executions/{execution_id}/explain", "get"),
        ("/api/stats", "get"),
        ("/api/send", "post"),
        ("/api/executions/retry", "post"),
        ("/api/executions/cancel", "post"),
        ("/api/schedules", "get"),
        ("/api/schedules/{function_id}/pause", "post"),
        ("/api/schedules/{function_id}/resume", "post"),
        ("/api/schedules/{function_id}/run", "post"),
        ("/api/retry", "post"),
        ("/api/cancel", "post"),
        ("/api/functions", "get"),
        ("/api/functions/{function_id}/pause", "post"),
        ("/api/functions/{function_id}/resume", "post"),
        ("/api/workers", "get"),
        ("/api/health", "get"),
        ("/api/ready", "get"),
    ):
        assert route in told
