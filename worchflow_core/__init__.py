"""Worchflow: durable workflows in which every step is saved and every layer is a plugin.

This is the public face: everything a workflow, a plugin or an application needs is importable
from here, and nothing else is promised. Names are loaded when first used, so that
`import worchflow_core` stays quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worchflow_core.app import Worchflow
    from worchflow_core.blocking import BlockingClient, BlockingHandle
    from worchflow_core.catalog import FunctionInfo
    from worchflow_core.client import Client, ExecutionHandle, Send
    from worchflow_core.clock import from_millis, to_millis
    from worchflow_core.durations import Duration, format_duration, parse_duration
    from worchflow_core.errors import (
        ConfigurationError,
        ExecutionCancelled,
        ExecutionFailed,
        ExecutionTimeout,
        FunctionError,
        IdempotencyConflict,
        InvalidInput,
        NonDeterminismError,
        NonRetriable,
        NotAllowed,
        NotFound,
        NotSerializable,
        PluginError,
        ResultTimeout,
        RetryAfter,
        SettingsError,
        StepOutcomeUnknown,
        StepTimeout,
        StoreUnavailable,
        StoreUnusable,
        WorchflowError,
    )
    from worchflow_core.events import Event
    from worchflow_core.filters import Filter
    from worchflow_core.functions import Function, Resource, function
    from worchflow_core.hookspecs import hookimpl
    from worchflow_core.models import (
        CLAIMABLE,
        FINAL,
        Attempt,
        Beat,
        Change,
        Created,
        Execution,
        Failure,
        Fields,
        Finding,
        Hint,
        Payload,
        QueueView,
        Record,
        RunningExecution,
        Status,
        StepRecord,
        StepStatus,
        StepTry,
        Tally,
        Worker,
        WorkerState,
    )
    from worchflow_core.protocols import Queue, Records, StepCache, Store
    from worchflow_core.query import COUNT_CAP, Condition, Operator, Page, Query
    from worchflow_core.settings import Settings, load_settings, mask_url
    from worchflow_core.step import BlockingStep, Step
    from worchflow_core.transitions import applied, claimed, is_applied, is_claimable
    from worchflow_core.wire import (
        EXECUTION_NAMES,
        execution_from_wire,
        execution_to_wire,
        fields_to_wire,
        step_from_wire,
        step_to_wire,
        worker_from_wire,
        worker_to_wire,
    )

_HOMES = {
    "app": ("Worchflow",),
    "blocking": ("BlockingClient", "BlockingHandle"),
    "catalog": ("FunctionInfo",),
    "client": ("Client", "ExecutionHandle", "Send"),
    "clock": ("from_millis", "to_millis"),
    "durations": ("Duration", "format_duration", "parse_duration"),
    "errors": (
        "ConfigurationError",
        "ExecutionCancelled",
        "ExecutionFailed",
        "ExecutionTimeout",
        "FunctionError",
        "IdempotencyConflict",
        "InvalidInput",
        "NonDeterminismError",
        "NonRetriable",
        "NotAllowed",
        "NotFound",
        "NotSerializable",
        "PluginError",
        "ResultTimeout",
        "RetryAfter",
        "SettingsError",
        "StepOutcomeUnknown",
        "StepTimeout",
        "StoreUnavailable",
        "StoreUnusable",
        "WorchflowError",
    ),
    "events": ("Event",),
    "filters": ("Filter",),
    "functions": ("Function", "Resource", "function"),
    "hookspecs": ("hookimpl",),
    "models": (
        "CLAIMABLE",
        "FINAL",
        "Attempt",
        "Beat",
        "Change",
        "Created",
        "Execution",
        "Failure",
        "Fields",
        "Finding",
        "Hint",
        "Payload",
        "QueueView",
        "Record",
        "RunningExecution",
        "Status",
        "StepRecord",
        "StepStatus",
        "StepTry",
        "Tally",
        "Worker",
        "WorkerState",
    ),
    "protocols": ("Queue", "Records", "StepCache", "Store"),
    "query": ("COUNT_CAP", "Condition", "Operator", "Page", "Query"),
    "settings": ("Settings", "load_settings", "mask_url"),
    "step": ("BlockingStep", "Step"),
    "transitions": ("applied", "claimed", "is_applied", "is_claimable"),
    "wire": (
        "EXECUTION_NAMES",
        "execution_from_wire",
        "execution_to_wire",
        "fields_to_wire",
        "step_from_wire",
        "step_to_wire",
        "worker_from_wire",
        "worker_to_wire",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__version__ = "0.1.0"
__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"worchflow_core has no {name!r}; there are: {', '.join(__all__)}")
    value = getattr(importlib.import_module(f"worchflow_core.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
