"""What the store knows of functions, so that clients need not import them: id, schema, package."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from worchflow_core import schemas, triggers
from worchflow_core.cron import Every
from worchflow_core.durations import format_duration
from worchflow_core.errors import NotAllowed, NotFound
from worchflow_core.functions import Function
from worchflow_core.limits import described
from worchflow_core.lookup import read_record
from worchflow_core.models import Record, WorkerState
from worchflow_core.protocols import Records, Store
from worchflow_core.triggers import Trigger
from worchflow_core.validation import check_function_id

KIND = "function"


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionInfo:
    """A function as its workers last described it.

    Attributes:
        id: its id.
        description: the first paragraph of its docstring.
        schema: the JSON schema of its event data; None where none is declared.
        cron, zone: its schedule, where that is a cron expression.
        every: its schedule, where that is an interval: "15m".
        retries: failed attempts it survives.
        timeout: text such as "10m".
        distribution, version: the package it came with.
        source: file and line.
        tags: labels of its executions.
        priority: what its executions are sent with.
        triggers: the events it subscribes to.
        flow: what flow control allows, in words: "at most 10 at once for each data.tenant".
    """

    id: str
    description: str = ""
    schema: dict[str, Any] | None = None
    cron: str | None = None
    zone: str | None = None
    every: str | None = None
    retries: int = 0
    timeout: str | None = None
    distribution: str | None = None
    version: str | None = None
    source: str = ""
    tags: tuple[str, ...] = ()
    priority: int = 0
    triggers: tuple[Trigger, ...] = ()
    flow: tuple[str, ...] = ()

    def problems(self, data: Any) -> list[tuple[str, str]]:
        """Return (path, what is wrong) for each place where event data does not fit."""
        return [] if self.schema is None else schemas.problems(self.schema, data)

    def subscribes(self, name: str) -> bool:
        """Return whether an event of this name may run it, whatever the event's data."""
        return any(trigger.covers(name) for trigger in self.triggers)

    def template(self) -> Any:
        """Return event data to begin with: required fields with defaults or sample values."""
        return schemas.template(self.schema)


def describe(function: Function[Any, Any]) -> FunctionInfo:
    """Return what is to be known of a function."""
    rule = function.schedule.rule if function.schedule else None
    return FunctionInfo(
        id=function.id,
        description=function.description,
        schema=function.data_codec.json_schema(),
        cron=function.cron.text if function.cron else None,
        zone=function.cron.zone if function.cron else None,
        every=rule.text if isinstance(rule, Every) else None,
        retries=function.retry.retries,
        timeout=format_duration(function.timeout) if function.timeout else None,
        distribution=function.distribution,
        version=function.version,
        source=function.source,
        tags=function.tags,
        priority=function.priority,
        triggers=function.triggers,
        flow=described(function.flow),
    )


async def publish(functions: Iterable[Function[Any, Any]], records: Records) -> None:
    """Write the descriptions of these functions into the store; the newest writer wins."""
    bodies = {function.id: _to_body(describe(function)) for function in functions}
    new = await records.insert(
        [Record(kind=KIND, key=key, body=body) for key, body in bodies.items()]
    )
    for key in bodies.keys() - set(new):
        record = await read_record(records, KIND, key)
        if record is not None and record.body != bodies[key]:
            changed = Record(kind=KIND, key=key, body=bodies[key], version=record.version + 1)
            await records.replace([changed])


async def read(records: Records) -> list[FunctionInfo]:
    """Return all functions that workers have described, by id."""
    found: list[FunctionInfo] = []
    after = ""
    while page := await records.scan(KIND, after=after, limit=500):
        found += [_from_body(record.body) for record in page]
        after = page[-1].key
    return found


async def forget(function_id: str, store: Store) -> None:
    """Delete the description of a function.

    Raises:
        InvalidInput: this is no function's id.
        NotFound: there is none.
        NotAllowed: a worker that is not dead has the function.
    """
    check_function_id(function_id)
    if await read_record(store.records, KIND, function_id) is None:
        raise NotFound(f"no worker has described a function {function_id!r}")
    for worker in await store.workers():
        if worker.state is not WorkerState.DEAD and function_id in worker.functions:
            raise NotAllowed(f"worker {worker.name} has {function_id!r}; stop it first")
    await store.records.delete(KIND, [function_id])


def _to_body(info: FunctionInfo) -> str:
    fields = {name: getattr(info, name) for name in info.__slots__}
    fields["triggers"] = [triggers.to_wire(item) for item in info.triggers]
    return json.dumps(fields, sort_keys=True)


def _from_body(body: str) -> FunctionInfo:
    fields = json.loads(body)
    known = {name: fields[name] for name in FunctionInfo.__slots__ if name in fields}
    known["tags"] = tuple(known.get("tags") or ())
    known["flow"] = tuple(known.get("flow") or ())
    known["triggers"] = triggers.from_wire(known.get("triggers"))
    return FunctionInfo(**known)
