"""JSON schemas of event data: a starter document, a list of fields, and what does not fit."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Schema = Mapping[str, Any]

_DEEPEST = 8
_PROBLEMS_MAX = 20
_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
    "null": (type(None),),
}
_STARTERS: Mapping[str, Any] = {
    "string": "",
    "integer": 0,
    "number": 0,
    "boolean": False,
    "null": None,
}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of event data, for people."""

    path: str
    kind: str
    is_required: bool
    description: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Where a value does not fit, and why."""

    path: str
    message: str


def starter(schema: Schema | None) -> Any:
    """Return a document to begin with: defaults and examples where given, else empty values."""
    return {} if schema is None else _starter(schema, schema, 0)


def _starter(schema: Schema, root: Schema, depth: int) -> Any:
    schema = resolve(schema, root)
    for name in ("default", "const"):
        if name in schema:
            return schema[name]
    for name in ("examples", "enum"):
        if schema.get(name):
            return next(iter(schema[name]))
    if depth > _DEEPEST:
        return None
    for name in ("anyOf", "oneOf", "allOf"):
        if schema.get(name):
            return _starter(schema[name][0], root, depth + 1)
    kind = _kind(schema)
    if kind == "object":
        required = schema.get("required", ())
        return {
            name: _starter(item, root, depth + 1)
            for name, item in schema.get("properties", {}).items()
            if name in required or item.get("default") is not None
        }
    if kind == "array":
        return [_starter(schema["items"], root, depth + 1)] if schema.get("minItems") else []
    if kind == "string" and schema.get("format") == "date-time":
        return "2027-01-31T12:00:00Z"
    return _STARTERS.get(kind, {} if depth == 0 else None)


def field_list(schema: Schema | None) -> list[Field]:
    """Return the fields of an object's schema, nested ones by path, at most three deep."""
    return [] if schema is None else list(_fields(schema, schema, "", 0))


def _fields(schema: Schema, root: Schema, prefix: str, depth: int) -> Iterator[Field]:
    schema = resolve(schema, root)
    required = schema.get("required", ())
    for name, item in schema.get("properties", {}).items():
        item = resolve(item, root)
        hints = [str(item["description"])] if item.get("description") else []
        if item.get("enum"):
            hints.append("one of " + ", ".join(str(value) for value in item["enum"][:12]))
        if "default" in item and item["default"] is not None:
            hints.append(f"default {json.dumps(item['default'])}")
        yield Field(prefix + name, kind_text(item, root), name in required, "; ".join(hints))
        nested = resolve(item.get("items", {}), root) if _kind(item) == "array" else item
        if depth < 2 and nested.get("properties"):
            mark = "[]." if _kind(item) == "array" else "."
            yield from _fields(nested, root, f"{prefix}{name}{mark}", depth + 1)


def kind_text(schema: Schema, root: Schema) -> str:
    """Return what kind of value a schema describes, in a few words."""
    schema = resolve(schema, root)
    options = schema.get("anyOf") or schema.get("oneOf")
    if options:
        return " or ".join(dict.fromkeys(kind_text(item, root) for item in options))
    kind = _kind(schema)
    if kind == "array" and isinstance(schema.get("items"), Mapping):
        return f"list of {kind_text(schema['items'], root)}"
    if kind == "string" and schema.get("format"):
        return f"string ({schema['format']})"
    return kind or "anything"


def problems(schema: Schema | None, value: Any) -> list[Problem]:
    """Return where a value does not fit its schema; keywords not known here are not checked."""
    if schema is None:
        return []
    found: list[Problem] = []
    for problem in _problems(schema, value, schema, "", 0):
        found.append(problem)
        if len(found) == _PROBLEMS_MAX:
            break
    return found


def _problems(schema: Schema, value: Any, root: Schema, path: str, depth: int) -> Iterator[Problem]:
    schema = resolve(schema, root)
    if depth > 64:
        return
    options = schema.get("anyOf") or schema.get("oneOf")
    if options:
        tries = [list(_problems(item, value, root, path, depth + 1)) for item in options]
        if all(tries):
            deep = min(tries, key=len)
            fits = any(problem.path != path for problem in deep)
            yield from deep if fits else [Problem(path, f"expected {kind_text(schema, root)}")]
        return
    for item in schema.get("allOf", ()):
        yield from _problems(item, value, root, path, depth + 1)
    if not _is_kind(schema, value):
        yield Problem(path, f"expected {kind_text(schema, root)}, got {_name(value)}")
        return
    if "const" in schema and value != schema["const"]:
        yield Problem(path, f"expected {schema['const']!r}")
    if schema.get("enum") and value not in schema["enum"]:
        yield Problem(path, "expected one of " + ", ".join(str(item) for item in schema["enum"]))
    yield from _limits(schema, value, path)
    if isinstance(value, dict):
        yield from _object_problems(schema, value, root, path, depth)
    if isinstance(value, list) and isinstance(schema.get("items"), Mapping):
        for index, item in enumerate(value):
            yield from _problems(schema["items"], item, root, f"{path}[{index}]", depth + 1)


def _object_problems(
    schema: Schema, value: dict[str, Any], root: Schema, path: str, depth: int
) -> Iterator[Problem]:
    known = schema.get("properties", {})
    dot = f"{path}." if path else ""
    for name in schema.get("required", ()):
        if name not in value:
            yield Problem(dot + name, "is required")
    others = schema.get("additionalProperties", True)
    for name, item in value.items():
        if name in known:
            yield from _problems(known[name], item, root, dot + name, depth + 1)
        elif others is False:
            yield Problem(dot + name, "is not known here")
        elif isinstance(others, Mapping):
            yield from _problems(others, item, root, dot + name, depth + 1)


_BOUNDS: tuple[tuple[str, Callable[[Any, Any], bool], str], ...] = (
    ("minimum", operator.ge, "at least"),
    ("maximum", operator.le, "at most"),
    ("exclusiveMinimum", operator.gt, "above"),
    ("exclusiveMaximum", operator.lt, "below"),
)


def _limits(schema: Schema, value: Any, path: str) -> Iterator[Problem]:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        for name, holds, words in _BOUNDS:
            if name in schema and not holds(value, schema[name]):
                yield Problem(path, f"must be {words} {schema[name]}")
    if isinstance(value, (str, list)):
        is_text = isinstance(value, str)
        unit = "characters" if is_text else "items"
        low, high = ("minLength", "maxLength") if is_text else ("minItems", "maxItems")
        if len(value) < schema.get(low, 0):
            yield Problem(path, f"needs at least {schema[low]} {unit}")
        if high in schema and len(value) > schema[high]:
            yield Problem(path, f"takes at most {schema[high]} {unit}")


def resolve(schema: Schema, root: Schema) -> Schema:
    """Return a schema with its `$ref` into the same document followed."""
    for _ in range(16):
        reference = schema.get("$ref")
        if not isinstance(reference, str) or not reference.startswith("#/"):
            return schema
        target: Any = root
        for part in reference[2:].split("/"):
            key = part.replace("~1", "/").replace("~0", "~")
            target = target.get(key, {}) if isinstance(target, Mapping) else {}
        rest = {name: value for name, value in schema.items() if name != "$ref"}
        schema = {**target, **rest}
    return {}


def _kind(schema: Schema) -> str:
    kind = schema.get("type", "object" if "properties" in schema else "")
    return str(kind[0] if isinstance(kind, list) and kind else kind)


def _is_kind(schema: Schema, value: Any) -> bool:
    kinds = schema.get("type")
    if kinds is None:
        return True
    for kind in [kinds] if isinstance(kinds, str) else kinds:
        if isinstance(value, bool):
            fits = kind == "boolean"
        elif kind == "integer" and isinstance(value, float):
            fits = value.is_integer()
        else:
            fits = isinstance(value, _TYPES.get(kind, (object,)))
        if fits:
            return True
    return False


def _name(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    return next((name for name, types in _TYPES.items() if isinstance(value, types)), "something")
