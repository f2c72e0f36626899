"""Worchflow: durable workflows in which every step is saved and every layer is a plugin.

This is the public face: everything a workflow, a plugin or an application needs is importable
from here, and nothing else is promised. Names are loaded when first used, so that
`import worchflow_core` stays quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from worchflow_core.version import __version__ as __version__

if TYPE_CHECKING:
    from worchflow_core.app import (
        Worchflow as Worchflow,
    )
    from worchflow_core.blocking import (
        BlockingClient as BlockingClient,
    )
    from worchflow_core.blocking import (
        BlockingHandle as BlockingHandle,
    )
    from worchflow_core.bulk import (
        BulkChange as BulkChange,
    )
    from worchflow_core.catalog import (
        FunctionInfo as FunctionInfo,
    )
    from worchflow_core.client import (
        Client as Client,
    )
    from worchflow_core.clock import (
        Clock as Clock,
    )
    from worchflow_core.clock import (
        from_millis as from_millis,
    )
    from worchflow_core.clock import (
        to_millis as to_millis,
    )
    from worchflow_core.codec import (
        parse_json as parse_json,
    )
    from worchflow_core.doctor import (
        diagnose as diagnose,
    )
    from worchflow_core.drift import (
        OnChange as OnChange,
    )
    from worchflow_core.durations import (
        Duration as Duration,
    )
    from worchflow_core.durations import (
        format_duration as format_duration,
    )
    from worchflow_core.durations import (
        parse_duration as parse_duration,
    )
    from worchflow_core.errors import (
        ConfigurationError as ConfigurationError,
    )
    from worchflow_core.errors import (
        EventTimeout as EventTimeout,
    )
    from worchflow_core.errors import (
        ExecutionCancelled as ExecutionCancelled,
    )
    from worchflow_core.errors import (
        ExecutionFailed as ExecutionFailed,
    )
    from worchflow_core.errors import (
        ExecutionTimeout as ExecutionTimeout,
    )
    from worchflow_core.errors import (
        FunctionError as FunctionError,
    )
    from worchflow_core.errors import (
        IdempotencyConflict as IdempotencyConflict,
    )
    from worchflow_core.errors import (
        InvalidInput as InvalidInput,
    )
    from worchflow_core.errors import (
        NonDeterminismError as NonDeterminismError,
    )
    from worchflow_core.errors import (
        NonRetriable as NonRetriable,
    )
    from worchflow_core.errors import (
        NotAllowed as NotAllowed,
    )
    from worchflow_core.errors import (
        NotFound as NotFound,
    )
    from worchflow_core.errors import (
        NotSerializable as NotSerializable,
    )
    from worchflow_core.errors import (
        PluginError as PluginError,
    )
    from worchflow_core.errors import (
        ResultTimeout as ResultTimeout,
    )
    from worchflow_core.errors import (
        RetryAfter as RetryAfter,
    )
    from worchflow_core.errors import (
        SettingsError as SettingsError,
    )
    from worchflow_core.errors import (
        StepOutcomeUnknown as StepOutcomeUnknown,
    )
    from worchflow_core.errors import (
        StepTimeout as StepTimeout,
    )
    from worchflow_core.errors import (
        StoreUnavailable as StoreUnavailable,
    )
    from worchflow_core.errors import (
        StoreUnusable as StoreUnusable,
    )
    from worchflow_core.errors import (
        WorchflowError as WorchflowError,
    )
    from worchflow_core.errors import (
        WorkerWornOut as WorkerWornOut,
    )
    from worchflow_core.events import (
        Event as Event,
    )
    from worchflow_core.explaining import (
        reason_to_wire as reason_to_wire,
    )
    from worchflow_core.facts import (
        Reason as Reason,
    )
    from worchflow_core.facts import (
        waited_children as waited_children,
    )
    from worchflow_core.facts import (
        waited_events as waited_events,
    )
    from worchflow_core.filters import (
        Filter as Filter,
    )
    from worchflow_core.functions import (
        Function as Function,
    )
    from worchflow_core.functions import (
        function as function,
    )
    from worchflow_core.handles import (
        ExecutionHandle as ExecutionHandle,
    )
    from worchflow_core.hookspecs import (
        hookimpl as hookimpl,
    )
    from worchflow_core.leadership import (
        Leader as Leader,
    )
    from worchflow_core.limits import (
        Batch as Batch,
    )
    from worchflow_core.limits import (
        Debounce as Debounce,
    )
    from worchflow_core.limits import (
        FlowControl as FlowControl,
    )
    from worchflow_core.limits import (
        Limit as Limit,
    )
    from worchflow_core.limits import (
        Rate as Rate,
    )
    from worchflow_core.limits import (
        Singleton as Singleton,
    )
    from worchflow_core.limits import (
        Unique as Unique,
    )
    from worchflow_core.limits import (
        WhenTaken as WhenTaken,
    )
    from worchflow_core.models import (
        CLAIMABLE as CLAIMABLE,
    )
    from worchflow_core.models import (
        FINAL as FINAL,
    )
    from worchflow_core.models import (
        Attempt as Attempt,
    )
    from worchflow_core.models import (
        Beat as Beat,
    )
    from worchflow_core.models import (
        Change as Change,
    )
    from worchflow_core.models import (
        Created as Created,
    )
    from worchflow_core.models import (
        Execution as Execution,
    )
    from worchflow_core.models import (
        Failure as Failure,
    )
    from worchflow_core.models import (
        Fields as Fields,
    )
    from worchflow_core.models import (
        Finding as Finding,
    )
    from worchflow_core.models import (
        Hint as Hint,
    )
    from worchflow_core.models import (
        Payload as Payload,
    )
    from worchflow_core.models import (
        QueueView as QueueView,
    )
    from worchflow_core.models import (
        Record as Record,
    )
    from worchflow_core.models import (
        RunningExecution as RunningExecution,
    )
    from worchflow_core.models import (
        Status as Status,
    )
    from worchflow_core.models import (
        StepRecord as StepRecord,
    )
    from worchflow_core.models import (
        StepStatus as StepStatus,
    )
    from worchflow_core.models import (
        StepTry as StepTry,
    )
    from worchflow_core.models import (
        Tally as Tally,
    )
    from worchflow_core.models import (
        Worker as Worker,
    )
    from worchflow_core.models import (
        WorkerState as WorkerState,
    )
    from worchflow_core.notes import (
        LogLine as LogLine,
    )
    from worchflow_core.notes import (
        Notes as Notes,
    )
    from worchflow_core.notes import (
        Progress as Progress,
    )
    from worchflow_core.notes import (
        notes_to_wire as notes_to_wire,
    )
    from worchflow_core.pauses import (
        Pause as Pause,
    )
    from worchflow_core.plugins import (
        Plugins as Plugins,
    )
    from worchflow_core.protocols import (
        Queue as Queue,
    )
    from worchflow_core.protocols import (
        Records as Records,
    )
    from worchflow_core.protocols import (
        StepCache as StepCache,
    )
    from worchflow_core.protocols import (
        Store as Store,
    )
    from worchflow_core.query import (
        COUNT_CAP as COUNT_CAP,
    )
    from worchflow_core.query import (
        Condition as Condition,
    )
    from worchflow_core.query import (
        Operator as Operator,
    )
    from worchflow_core.query import (
        Page as Page,
    )
    from worchflow_core.query import (
        Query as Query,
    )
    from worchflow_core.query import (
        tallied as tallied,
    )
    from worchflow_core.rehearsal import (
        Verdict as Verdict,
    )
    from worchflow_core.rehearsals import (
        FunctionReport as FunctionReport,
    )
    from worchflow_core.rehearsals import (
        Trouble as Trouble,
    )
    from worchflow_core.rules import (
        applied as applied,
    )
    from worchflow_core.rules import (
        beaten as beaten,
    )
    from worchflow_core.rules import (
        claim_order as claim_order,
    )
    from worchflow_core.rules import (
        claimed as claimed,
    )
    from worchflow_core.rules import (
        created as created,
    )
    from worchflow_core.rules import (
        is_applied as is_applied,
    )
    from worchflow_core.rules import (
        is_claimable as is_claimable,
    )
    from worchflow_core.rules import (
        standing as standing,
    )
    from worchflow_core.rules import (
        urgency as urgency,
    )
    from worchflow_core.schedules import (
        CatchUp as CatchUp,
    )
    from worchflow_core.schedules import (
        Overlap as Overlap,
    )
    from worchflow_core.schedules import (
        Schedule as Schedule,
    )
    from worchflow_core.sending import (
        Send as Send,
    )
    from worchflow_core.sending import (
        SentEvent as SentEvent,
    )
    from worchflow_core.settings import (
        Settings as Settings,
    )
    from worchflow_core.settings import (
        load_settings as load_settings,
    )
    from worchflow_core.settings import (
        mask_url as mask_url,
    )
    from worchflow_core.signatures import (
        Resource as Resource,
    )
    from worchflow_core.step import (
        Answer as Answer,
    )
    from worchflow_core.step import (
        BlockingStep as BlockingStep,
    )
    from worchflow_core.step import (
        Step as Step,
    )
    from worchflow_core.step import (
        Watch as Watch,
    )
    from worchflow_core.timetable import (
        ScheduleInfo as ScheduleInfo,
    )
    from worchflow_core.timetable import (
        ScheduleRun as ScheduleRun,
    )
    from worchflow_core.timetable import (
        Timetable as Timetable,
    )
    from worchflow_core.timetable import (
        schedule_to_wire as schedule_to_wire,
    )
    from worchflow_core.triggers import (
        Trigger as Trigger,
    )
    from worchflow_core.undos import (
        is_lost as is_lost,
    )
    from worchflow_core.wire import (
        EXECUTION_NAMES as EXECUTION_NAMES,
    )
    from worchflow_core.wire import (
        attempt_from_wire as attempt_from_wire,
    )
    from worchflow_core.wire import (
        attempt_to_wire as attempt_to_wire,
    )
    from worchflow_core.wire import (
        execution_from_wire as execution_from_wire,
    )
    from worchflow_core.wire import (
        execution_to_wire as execution_to_wire,
    )
    from worchflow_core.wire import (
        failure_from_wire as failure_from_wire,
    )
    from worchflow_core.wire import (
        failure_to_wire as failure_to_wire,
    )
    from worchflow_core.wire import (
        fields_to_wire as fields_to_wire,
    )
    from worchflow_core.wire import (
        step_from_wire as step_from_wire,
    )
    from worchflow_core.wire import (
        step_to_wire as step_to_wire,
    )
    from worchflow_core.wire import (
        worker_from_wire as worker_from_wire,
    )
    from worchflow_core.wire import (
        worker_to_wire as worker_to_wire,
    )
    from worchflow_core.words import (
        human_age as human_age,
    )
    from worchflow_core.words import (
        human_duration as human_duration,
    )
    from worchflow_core.words import (
        printable as printable,
    )
    from worchflow_core.words import (
        printable_lines as printable_lines,
    )
    from worchflow_core.words import (
        short_id as short_id,
    )

_HOMES = {
    "app": ("Worchflow",),
    "blocking": ("BlockingClient", "BlockingHandle"),
    "bulk": ("BulkChange",),
    "catalog": ("FunctionInfo",),
    "client": ("Client",),
    "clock": ("Clock", "from_millis", "to_millis"),
    "codec": ("parse_json",),
    "doctor": ("diagnose",),
    "drift": ("OnChange",),
    "durations": ("Duration", "format_duration", "parse_duration"),
    "errors": (
        "ConfigurationError",
        "EventTimeout",
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
        "WorkerWornOut",
    ),
    "events": ("Event",),
    "explaining": ("reason_to_wire",),
    "facts": ("Reason", "waited_children", "waited_events"),
    "filters": ("Filter",),
    "functions": ("Function", "function"),
    "handles": ("ExecutionHandle",),
    "hookspecs": ("hookimpl",),
    "leadership": ("Leader",),
    "limits": (
        "Batch",
        "Debounce",
        "FlowControl",
        "Limit",
        "Rate",
        "Singleton",
        "Unique",
        "WhenTaken",
    ),
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
    "notes": ("LogLine", "Notes", "Progress", "notes_to_wire"),
    "pauses": ("Pause",),
    "plugins": ("Plugins",),
    "protocols": ("Queue", "Records", "StepCache", "Store"),
    "query": ("COUNT_CAP", "Condition", "Operator", "Page", "Query", "tallied"),
    "rehearsal": ("Verdict",),
    "rehearsals": ("FunctionReport", "Trouble"),
    "schedules": ("CatchUp", "Overlap", "Schedule"),
    "sending": ("Send", "SentEvent"),
    "settings": ("Settings", "load_settings", "mask_url"),
    "signatures": ("Resource",),
    "step": ("Answer", "BlockingStep", "Step", "Watch"),
    "rules": (
        "applied",
        "beaten",
        "claim_order",
        "claimed",
        "created",
        "is_applied",
        "is_claimable",
        "standing",
        "urgency",
    ),
    "timetable": ("ScheduleInfo", "ScheduleRun", "Timetable", "schedule_to_wire"),
    "triggers": ("Trigger",),
    "undos": ("is_lost",),
    "wire": (
        "EXECUTION_NAMES",
        "attempt_from_wire",
        "attempt_to_wire",
        "execution_from_wire",
        "execution_to_wire",
        "failure_from_wire",
        "failure_to_wire",
        "fields_to_wire",
        "step_from_wire",
        "step_to_wire",
        "worker_from_wire",
        "worker_to_wire",
    ),
    "words": ("human_age", "human_duration", "printable", "printable_lines", "short_id"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

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
