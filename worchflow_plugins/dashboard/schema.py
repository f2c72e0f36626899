"""JSON schemas of event data for people: the list of fields, what each takes, what it is for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Field:
    """One field of event data, for people."""

    path: str
    kind: str
    is_required: bool
    description: str


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
