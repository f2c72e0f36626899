"""Reading JSON schemas of event data: what does not fit, a starter document, a typed value.

It understands what pydantic writes for the usual types, and lets pass what it does not know: the
worker has the last word. Command line and dashboard use it for functions they have not imported.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from worchflow_core.errors import InvalidInput

Schema = Mapping[str, Any]

_DEPTH = 32
_SAMPLES: Mapping[str, Any] = {
    "string": "",
    "integer": 0,
    "number": 0,
    "boolean": False,
    "null": None,
}
_FORMATS = {
    "date-time": "2030-01-01T00:00:00Z",
    "date": "2030-01-01",
    "time": "00:00:00Z",
    "duration": "PT1M",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "email": "ana@example.com",
    "uri": "https://example.com",
}


def problems(schema: Schema, data: Any) -> list[tuple[str, str]]:
    """Return (path, what is wrong) for each place where `data` does not fit `schema`."""
    return list(_problems(schema, data, "", schema, _DEPTH))


def template(schema: Schema | None) -> Any:
    """Return a starter document: every required field, with its default or a sample value."""
    return {} if schema is None else _template(schema, schema, _DEPTH)


def typed_value(schema: Schema | None, path: str, text: str) -> Any:
    """Return `text` as the type that the field at `path` ("customer.age") declares.

    A field whose type is not known takes JSON where the text is JSON, else the text itself.

    Raises:
        InvalidInput: the text is no value of the declared type.
    """
    field = _at(schema, path) if schema is not None else None
    kinds = _kinds(field, schema or {}, _DEPTH) if field is not None else set()
    loaded = _loads(text)
    if not kinds:
        return text if loaded is _NOT_JSON else loaded
    if loaded is not _NOT_JSON and _kind(loaded) in kinds:
        return loaded
    if _kind(loaded) == "integer" and "number" in kinds:
        return loaded
    if "string" in kinds:
        return text
    words = " or ".join(sorted(kinds))
    raise InvalidInput(f"{path} is {text!r}; {path} is declared as {words}")


def _problems(
    schema: Schema, data: Any, path: str, root: Schema, depth: int
) -> Iterator[tuple[str, str]]:
    schema = _resolved(schema, root)
    if depth == 0:
        return
    options = schema.get("anyOf") or schema.get("oneOf")
    if options:
        answers = [list(_problems(item, data, path, root, depth - 1)) for item in options]
        if all(answers):
            kinds = _kinds(schema, root, depth - 1)
            # Of several shapes, the one that fits best tells most.
            yield from (
                min(answers, key=len)
                if _kind(data) in kinds
                else [(path or "value", _expected(kinds, data))]
            )
        return
    if "const" in schema and data != schema["const"]:
        yield path or "value", f"must be {json.dumps(schema['const'])}"
        return
    if "enum" in schema and data not in schema["enum"]:
        known = ", ".join(json.dumps(item) for item in schema["enum"])
        yield path or "value", f"must be one of {known}"
        return
    kinds = _kinds(schema, root, depth - 1)
    kind = _kind(data)
    if kinds and kind not in kinds and not (kind == "integer" and "number" in kinds):
        yield path or "value", _expected(kinds, data)
        return
    yield from _limits(schema, data, path or "value")
    if isinstance(data, dict):
        yield from _object_problems(schema, data, path, root, depth)
    items = schema.get("items")
    if isinstance(data, list) and isinstance(items, Mapping):
        for index, item in enumerate(data):
            yield from _problems(items, item, f"{path}[{index}]", root, depth - 1)


def _object_problems(
    schema: Schema, data: Mapping[str, Any], path: str, root: Schema, depth: int
) -> Iterator[tuple[str, str]]:
    fields: Schema = schema.get("properties") or {}
    for name in schema.get("required") or ():
        if name not in data:
            yield _joined(path, name), "is required"
    extra = schema.get("additionalProperties")
    for name, value in data.items():
        if name in fields:
            yield from _problems(fields[name], value, _joined(path, name), root, depth - 1)
        elif extra is False:
            yield _joined(path, name), "is not known"
        elif isinstance(extra, Mapping):
            yield from _problems(extra, value, _joined(path, name), root, depth - 1)


def _limits(schema: Schema, data: Any, path: str) -> Iterator[tuple[str, str]]:
    size = len(data) if isinstance(data, (str, list)) else None
    measured = data if size is None else size
    if isinstance(measured, bool) or not isinstance(measured, (int, float)):
        return
    what = "" if size is None else "its length "
    low, high = "minimum", "maximum"
    if size is not None:
        noun = "Length" if isinstance(data, str) else "Items"
        low, high = f"min{noun}", f"max{noun}"
    if low in schema and measured < schema[low]:
        yield path, f"{what}must be at least {schema[low]}"
    if high in schema and measured > schema[high]:
        yield path, f"{what}must be at most {schema[high]}"
    if size is None and "exclusiveMinimum" in schema and measured <= schema["exclusiveMinimum"]:
        yield path, f"must be greater than {schema['exclusiveMinimum']}"
    if size is None and "exclusiveMaximum" in schema and measured >= schema["exclusiveMaximum"]:
        yield path, f"must be less than {schema['exclusiveMaximum']}"


def _template(schema: Schema, root: Schema, depth: int) -> Any:
    schema = _resolved(schema, root)
    if "default" in schema:
        return schema["default"]
    if schema.get("examples"):
        return schema["examples"][0]
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    options = schema.get("anyOf") or schema.get("oneOf")
    if options and depth:
        return _template(options[0], root, depth - 1)
    kind = schema.get("type")
    if kind == "object" or "properties" in schema:
        fields: Schema = schema.get("properties") or {}
        required = schema.get("required") or ()
        wanted = [name for name in fields if name in required or not required]
        return {name: _template(fields[name], root, depth - 1) for name in wanted if depth}
    if kind == "array":
        return []
    if kind == "string":
        return _FORMATS.get(schema.get("format", ""), "")
    if kind in ("integer", "number") and "exclusiveMinimum" in schema:
        return schema["exclusiveMinimum"] + 1
    if kind in ("integer", "number") and "minimum" in schema:
        return schema["minimum"]
    return _SAMPLES.get(str(kind))


def _at(schema: Schema | None, path: str) -> Schema | None:
    current = schema
    root = schema or {}
    for part in path.split("."):
        if current is None:
            return None
        current = _resolved(current, root)
        for option in (current, *(current.get("anyOf") or ()), *(current.get("oneOf") or ())):
            fields = _resolved(option, root).get("properties") or {}
            if part in fields:
                current = fields[part]
                break
        else:
            extra = current.get("additionalProperties")
            current = extra if isinstance(extra, Mapping) else None
    return current


def _kinds(schema: Schema, root: Schema, depth: int) -> set[str]:
    schema = _resolved(schema, root)
    options = schema.get("anyOf") or schema.get("oneOf")
    if options and depth:
        found = [_kinds(item, root, depth - 1) for item in options]
        return set().union(*found) if all(found) else set()
    kind = schema.get("type")
    if isinstance(kind, str):
        return {kind}
    if isinstance(kind, list):
        return set(kind)
    values = schema.get("enum") or ([schema["const"]] if "const" in schema else [])
    return {_kind(value) for value in values}


def _resolved(schema: Schema, root: Schema) -> Schema:
    for _ in range(_DEPTH):
        reference = schema.get("$ref")
        if not isinstance(reference, str) or not reference.startswith("#/"):
            return schema
        target: Any = root
        for part in reference[2:].split("/"):
            target = target.get(part, {}) if isinstance(target, Mapping) else {}
        schema = {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
    return {}


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "integer" if value.is_integer() else "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def _expected(kinds: set[str], data: Any) -> str:
    return f"expected {' or '.join(sorted(kinds))}, got {_kind(data)}"


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


class _NotJson:
    pass


_NOT_JSON = _NotJson()


def _loads(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return _NOT_JSON


def _refuse(name: str) -> Any:
    raise ValueError(name)
