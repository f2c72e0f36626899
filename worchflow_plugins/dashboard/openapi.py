"""What OpenAPI tells of the HTTP API: parameters, bodies and answers."""

from __future__ import annotations

from typing import Any

from worchflow_core import Status
from worchflow_plugins.dashboard.parameters import LIMIT_MAX, SKIP_MAX

Json = dict[str, Any]

ORDERS = ("created_at", "finished_at")
"""Orders that every store serves from an index, whatever else is asked for."""

_TEXT: Json = {"type": "string"}
_WHOLE: Json = {"type": "integer"}
_ANY_OBJECT: Json = {"type": "object"}
_STATUS: Json = {"type": "string", "enum": [status.value for status in Status]}


def obj(required: dict[str, Json], optional: dict[str, Json] | None = None) -> Json:
    """Return the schema of an object; further fields may come."""
    properties = {**required, **(optional or {})}
    return {"type": "object", "properties": properties, "required": sorted(required)}


def listing_of(name: str, item: Json) -> Json:
    """Return the schema of a part of a list."""
    return obj(
        {name: {"type": "array", "items": item}, "total": _WHOLE},
        {"limit": _WHOLE, "skip": _WHOLE},
    )


EXECUTION = obj(
    {
        "id": _TEXT,
        "eventName": _TEXT,
        "eventData": {"type": ["string", "null"], "description": "JSON text"},
        "status": _STATUS,
        "attemptCount": _WHOLE,
        "createdAt": {"type": "integer", "description": "epoch milliseconds"},
        "updatedAt": _WHOLE,
        "error": {"type": ["string", "null"]},
        "result": {},
    },
    {
        "finishedAt": _WHOLE,
        "attempts": {"type": "array"},
        "errorStack": {"type": ["string", "null"]},
    },
)
STEP = obj(
    {"executionId": _TEXT, "stepId": _TEXT, "name": _TEXT, "status": _TEXT, "result": {}},
    {"timestamp": _WHOLE, "startedAt": _WHOLE, "endedAt": _WHOLE, "attempt": _WHOLE},
)
ERROR = obj({"error": _TEXT}, {"problems": {"type": "array", "items": _ANY_OBJECT}})
DETAIL = obj(
    {
        "execution": EXECUTION,
        "steps": {"type": "array", "items": STEP},
        "progress": {"type": ["object", "null"]},
        "log": {"type": "array", "items": {"type": "object"}},
        "redisExecution": {"type": "object", "additionalProperties": _TEXT},
    }
)
EXECUTIONS = listing_of("executions", EXECUTION)
STEPS = listing_of("steps", STEP)
FUNCTION = obj({"id": _TEXT, "schema": {"type": ["object", "null"]}})
FUNCTIONS = listing_of("functions", FUNCTION)
WORKERS = listing_of("workers", obj({"id": _TEXT, "name": _TEXT, "state": _TEXT}))
_NULLABLE: Json = {"type": ["integer", "null"], "description": "epoch milliseconds"}
_TICK = obj({"tick": _WHOLE, "executionId": {}, "status": {}})
SCHEDULE = obj(
    {
        "function": _TEXT,
        "cron": {"type": ["string", "null"]},
        "every": {"type": ["string", "null"]},
        "zone": _TEXT,
        "lastTick": _NULLABLE,
        "nextTick": _NULLABLE,
        "pausedAt": _NULLABLE,
        "skipped": _WHOLE,
    },
    {
        "state": {"enum": ["active", "paused", "no worker"]},
        "recent": {
            "type": "array",
            "items": obj({"tick": _WHOLE, "executionId": {}, "status": {}}),
        },
    },
)
SCHEDULES = listing_of("schedules", SCHEDULE)
SCHEDULED = obj({"success": {"type": "boolean"}, "schedule": SCHEDULE})
STATS = obj({**{status.value: _WHOLE for status in Status}, "total": _WHOLE})
DONE = obj({"success": {"type": "boolean"}, "executionId": _TEXT})
SENT = obj(
    {"success": {"type": "boolean"}, "executionId": {"type": ["string", "null"]}},
    {"executionIds": {"type": "array", "items": _TEXT}, "eventId": _TEXT},
)
DRAINED = obj({"success": {"type": "boolean"}, "workerId": _TEXT})
BULK = obj(
    {
        "success": {"type": "boolean"},
        "dryRun": {"type": "boolean"},
        "matched": _WHOLE,
        "isMatchedCapped": {"type": "boolean"},
        "edge": obj({}, {"until": _WHOLE, "finished_until": _WHOLE}),
        "changed": {"type": "array", "items": _TEXT},
        "skipped": {"type": "array", "items": obj({"id": _TEXT, "error": _TEXT})},
        "next": {"type": ["string", "null"]},
    }
)
PAUSED = obj({"success": {"type": "boolean"}, "functionId": _TEXT, "paused": {}})
HEALTH = obj({"status": {"type": "string"}})

_MEANINGS = {
    400: "the request cannot be taken",
    401: "credentials are missing or wrong",
    403: "the right is missing, the origin is foreign, or the dashboard is read-only",
    404: "there is no such thing",
    408: "the body did not arrive in time",
    409: "the status does not permit it, or the id is taken",
    413: "the body is too long",
    415: "the content type is not application/json",
    421: "the host name is not allowed",
    429: "too many wrong credentials",
    431: "the headers are too long",
    500: "the server failed",
    503: "the store does not answer",
}


def answers(schema: Json, *more: int) -> dict[int | str, Json]:
    """Return what a route may answer: 200 with `schema`, and errors."""
    codes = sorted({400, 401, 403, 421, 429, 431, 500, 503, *more})
    return {
        200: {"description": "done", "content": {"application/json": {"schema": schema}}},
        **{
            code: {
                "description": _MEANINGS[code],
                "content": {"application/json": {"schema": ERROR}},
            }
            for code in codes
        },
    }


def query(name: str, schema: Json, text: str) -> Json:
    """Return a query parameter."""
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": text}


_MOMENT: Json = {
    "anyOf": [
        {"type": "integer", "minimum": 0, "maximum": 253402300799999},
        {"type": "string", "format": "date-time"},
    ]
}
_SAFE_TEXT: Json = {"type": "string", "maxLength": 200, "pattern": "^[A-Za-z0-9 _.:@+-]*$"}

PAGING = [
    query("limit", {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX}, "how many"),
    query("skip", {"type": "integer", "minimum": 0, "maximum": SKIP_MAX}, "how many to leave out"),
]
CHOOSING = [
    query("status", _STATUS, "one status, or several with commas, or repeated"),
    query("function", {**_SAFE_TEXT, "minLength": 1}, "one function id, or several"),
    query("search", _SAFE_TEXT, "start of an id or function, or an error's type"),
    query("since", _MOMENT, "created at or after"),
    query("until", _MOMENT, "created before"),
    query("finished_since", _MOMENT, "ended at or after"),
    query("finished_until", _MOMENT, "ended before"),
]
ORDER = query("order", {"enum": list(ORDERS)}, "newest first by this")
ONLY = query("only", {"enum": ["failed"]}, "only steps that failed")


def taking(parameters: list[Json]) -> Json:
    """Return what `openapi_extra` adds for query parameters."""
    return {"parameters": parameters}


def bearing(schema: Json, *, required: bool = True) -> Json:
    """Return what `openapi_extra` adds for a JSON body."""
    return {
        "requestBody": {
            "required": required,
            "content": {"application/json": {"schema": schema}},
        }
    }


def closed(properties: dict[str, Json], *required: str) -> Json:
    """Return the schema of an object that takes nothing else."""
    fixed = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**fixed, "required": list(required)} if required else fixed


_ID: Json = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_.:@+-]{0,127}$"}
_BODY_MOMENT: Json = {
    "anyOf": [
        {"type": "integer", "minimum": 0, "maximum": 253402300799999},
        {"type": "string", "format": "date-time"},
    ]
}
_TAG: Json = {"type": "string", "minLength": 1, "maxLength": 128}
NOTHING = closed({})
EVENT = closed(
    {
        "name": {
            "type": "string",
            "pattern": "^[A-Za-z0-9][A-Za-z0-9_.:@+/-]{0,127}$",
            "description": "id of the function, or name of the event",
        },
        "data": {"not": {"type": "null"}, "description": "the event's data, anything but null"},
        "id": {
            **_ID,
            "description": "id of the execution, or event; sending again creates nothing new",
        },
        "delay": {
            "anyOf": [
                {"type": "number", "minimum": 0, "maximum": 3_000_000_000},
                _TEXT,
            ],
            "description": 'seconds, or text such as "10m"',
        },
        "priority": {"type": "integer", "minimum": -100, "maximum": 100},
        "tags": {"type": "array", "maxItems": 32, "items": _TAG},
        "event": {
            "type": "boolean",
            "description": "send to those who subscribe to or wait for an event of this name",
        },
        "force": {
            "type": "boolean",
            "description": "send although function or schema speak against it",
        },
    },
    "name",
    "data",
)
FORKED = obj(
    {
        "success": {"type": "boolean"},
        "executionId": _TEXT,
        "isNew": {"type": "boolean", "description": "false where it was forked before"},
        "forkedFrom": _TEXT,
    }
)
FORK = closed(
    {
        "fromStep": {
            "type": "string",
            "minLength": 1,
            "maxLength": 256,
            "description": "title, key or id of the step to begin with",
        },
        "data": {"description": "other event data"},
        "results": {
            "type": "object",
            "maxProperties": 1000,
            "description": "other results of steps that are kept, by title or step id",
        },
        "id": {**_ID, "description": "id of the fork; forking again creates nothing new"},
    }
)
REASONS = obj(
    {
        "executionId": _TEXT,
        "reasons": {
            "type": "array",
            "items": obj({"code": _TEXT, "text": _TEXT, "facts": _ANY_OBJECT}),
        },
    }
)
_PLAIN: Json = {"type": "string", "maxLength": 256, "pattern": r"^[^\x00-\x1f]*$"}
CHOICE = closed(
    {
        "status": {"anyOf": [_STATUS, {"type": "array", "maxItems": 100, "items": _STATUS}]},
        "function": {"anyOf": [_PLAIN, {"type": "array", "maxItems": 100, "items": _PLAIN}]},
        "search": _PLAIN,
        "since": _BODY_MOMENT,
        "until": _BODY_MOMENT,
        "finished_since": _BODY_MOMENT,
        "finished_until": _BODY_MOMENT,
    }
)
PAUSE = closed({"reason": {**_PLAIN, "description": "why, for others who wonder"}})
_DRY: Json = {"type": "boolean", "description": "count only"}
MANY: Json = {
    "oneOf": [
        closed({"ids": {"type": "array", "maxItems": 1000, "items": _TEXT}, "dryRun": _DRY}, "ids"),
        closed(
            {
                "filter": CHOICE,
                "dryRun": _DRY,
                "after": {
                    "type": "string",
                    "pattern": "^[0-9]{1,14}:[A-Za-z0-9]{1,64}$",
                    "description": "`next` of the answer before",
                },
            },
            "filter",
        ),
    ]
}
