"""JSON values as folding HTML, as much of them as a page can bear."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from markupsafe import Markup, escape

from worchflow_plugins.dashboard.view import clean

NODES_MAX = 2000
CHARS_MAX = 64 * 1024
_TEXT_MAX = 4000
_OPEN_DEPTH = 2
_OPEN_ITEMS = 30


class _Budget:
    """What is left to write."""

    def __init__(self, nodes: int, chars: int) -> None:
        self.nodes = nodes
        self.chars = chars

    def spend(self, chars: int) -> bool:
        """Take one node of this length; return False once there is nothing left."""
        self.nodes -= 1
        self.chars -= chars
        return self.nodes >= 0 and self.chars >= 0


def json_tree(value: Any, *, nodes: int = NODES_MAX, chars: int = CHARS_MAX) -> Markup:
    """Return a JSON value as nested `details`; what does not fit is counted instead of shown."""
    budget = _Budget(nodes, chars)
    parts: list[str] = ['<div class="json">']
    _write(parts, None, value, budget, 0)
    parts.append("</div>")
    return Markup("".join(parts))


def _write(
    parts: list[str], key: str | int | None, value: Any, budget: _Budget, depth: int
) -> None:
    label = _label(key)
    if isinstance(value, (dict, list)) and value:
        _write_container(parts, label, value, budget, depth)
        return
    kind, text = _leaf(value)
    budget.spend(len(text))
    parts.append(
        f'<div class="leaf">{label}<span class="{kind}">{escape(clean(text))}</span></div>'
    )


def _write_container(
    parts: list[str], label: str, value: dict[str, Any] | list[Any], budget: _Budget, depth: int
) -> None:
    is_object = isinstance(value, dict)
    count = len(value)
    unit = ("key" if is_object else "item") + ("" if count == 1 else "s")
    left, right = "{}" if is_object else "[]"
    is_open = depth < _OPEN_DEPTH and (depth == 0 or count <= _OPEN_ITEMS)
    parts.append(
        f'<details{" open" if is_open else ""}><summary>{label}<span class="fold">{left} '
        f'<span class="count">{count:,} {unit}</span> {right}</span></summary><div class="kids">'
    )
    items: Iterable[tuple[str | int, Any]] = (
        value.items() if isinstance(value, dict) else enumerate(value)
    )
    for index, (name, item) in enumerate(items):
        if not budget.spend(len(str(name))):
            parts.append(f'<div class="more">… {count - index:,} more</div>')
            break
        _write(parts, name, item, budget, depth + 1)
    parts.append("</div></details>")


def _label(key: str | int | None) -> str:
    if key is None:
        return ""
    kind = "index" if isinstance(key, int) else "key"
    text = str(key) if len(str(key)) <= 200 else str(key)[:199] + "…"
    return f'<span class="{kind}">{escape(clean(text))}</span>: '


def _leaf(value: Any) -> tuple[str, str]:
    if isinstance(value, str):
        if len(value) > _TEXT_MAX:
            shown = json.dumps(value[:_TEXT_MAX], ensure_ascii=False)
            return "text", f"{shown} … {len(value) - _TEXT_MAX:,} more characters"
        return "text", json.dumps(value, ensure_ascii=False)
    if value is None or isinstance(value, bool):
        return "word", json.dumps(value)
    if isinstance(value, (int, float)):
        return "number", json.dumps(value)
    return "fold", "{ }" if isinstance(value, dict) else "[ ]"


def is_long(text: str | None) -> bool:
    """Return whether JSON text is longer than a page shows of it."""
    return text is not None and len(text) > CHARS_MAX
