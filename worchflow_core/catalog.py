"""What the store knows of functions, so that clients need not import them: id, schema, package."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from worchflow_core import schemas
from worchflow_core.cron import Every
from worchflow_core.durations import format_duration
from worchflow_core.functions import Function
from worchflow_core.lookup import read_record
from worchflow_core.models import Record
from worchflow_core.protocols import Records

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

    def problems(self, data: Any) -> list[tuple[str, str]]:
        """Return (path, what is wrong) for each place where event data does not fit."""
        return [] if self.schema is None else schemas.problems(self.schema, data)

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


def _to_body(info: FunctionInfo) -> str:
    return json.dumps({name: getattr(info, name) for name in info.__slots__}, sort_keys=True)


def _from_body(body: str) -> FunctionInfo:
    fields = json.loads(body)
    known = {name: fields[name] for name in FunctionInfo.__slots__ if name in fields}
    return FunctionInfo(**{**known, "tags": tuple(known.get("tags") or ())})
