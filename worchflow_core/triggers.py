"""Triggers: which events a function subscribes to, by name and by fields of their data."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from worchflow_core.errors import InvalidInput
from worchflow_core.matching import check_match, fits

MAX_TRIGGERS = 64
"""How many triggers one function may have."""

_PATTERN = re.compile(r"[A-Za-z0-9*][A-Za-z0-9_.:+/*-]{0,127}")


@dataclass(frozen=True, slots=True)
class Trigger:
    """Events that run a function: `@function(triggers=["order/*", Trigger("paid", match={})])`.

    Attributes:
        name: the event's name; a `*` in it stands for any characters, also none and also `/`.
            Everything else stands for itself, and capitals differ from small letters.
        match: values by field of the event's data, all of which must be equal; a dot steps into
            nested objects. Empty takes all, as in `step.wait_for_event`.
    """

    name: str
    match: Mapping[str, Any] = field(default_factory=dict, kw_only=True)

    def __str__(self) -> str:
        """Return it in one line for people: `payment/failed (region = "eu")`."""
        fields = ", ".join(
            f"{field} = {json.dumps(value, ensure_ascii=False)}"
            for field, value in self.match.items()
        )
        return f"{self.name} ({fields})" if fields else self.name

    def covers(self, name: str) -> bool:
        """Return whether an event of this name may be meant, whatever its data."""
        first, *rest = self.name.split("*")
        if not rest:
            return name == first
        *middle, last = rest
        end = len(name) - len(last)
        if not name.startswith(first) or not name.endswith(last) or end < len(first):
            return False
        # The leftmost place for each piece leaves most room for the next: no way back is needed.
        at = len(first)
        for piece in middle:
            found = name.find(piece, at, end)
            if found < 0:
                return False
            at = found + len(piece)
        return True

    def takes(self, name: str, data: Any) -> bool:
        """Return whether an event with this name and this data is meant."""
        return self.covers(name) and fits(self.match, data)


def parse_triggers(triggers: Iterable[Trigger | str]) -> tuple[Trigger, ...]:
    """Return triggers as they were declared, checked, each once.

    Raises:
        InvalidInput: one of them cannot be taken; the message names it and the remedy.
    """
    if isinstance(triggers, (str, Trigger)) or not isinstance(triggers, Iterable):
        raise InvalidInput(f"triggers is {triggers!r}; give a list: triggers=['order/*']")
    found: list[Trigger] = []
    for item in triggers:
        trigger = _checked(item)
        if trigger not in found:
            found.append(trigger)
    if len(found) > MAX_TRIGGERS:
        raise InvalidInput(
            f"{len(found)} triggers are too many; give at most {MAX_TRIGGERS}, or one with a *"
        )
    return tuple(found)


def to_wire(trigger: Trigger) -> dict[str, Any]:
    """Return a trigger as JSON shows it."""
    return {"name": trigger.name, "match": dict(trigger.match)}


def from_wire(documents: Any) -> tuple[Trigger, ...]:
    """Return the triggers of a stored description, those left out that this version cannot read."""
    found = []
    for item in documents if isinstance(documents, list) else ():
        try:
            found.append(_checked(Trigger(item["name"], match=item.get("match") or {})))
        except (InvalidInput, AttributeError, KeyError, TypeError):
            continue
    return tuple(found)


def _checked(item: Trigger | str) -> Trigger:
    trigger = Trigger(item) if isinstance(item, str) else item
    if not isinstance(trigger, Trigger):
        raise InvalidInput(
            f"trigger {item!r} is neither an event's name nor a Trigger; write 'order/paid' or "
            "Trigger('order/paid', match={'region': 'eu'})"
        )
    name = trigger.name
    if not isinstance(name, str) or not _PATTERN.fullmatch(name):
        text = ascii(name)
        raise InvalidInput(
            f"trigger {text if len(text) <= 80 else text[:77] + '...'} must hold at most 128 "
            "letters, digits and the characters _ . : + / -, and * for any characters; no other "
            "wildcards"
        )
    if "**" in name:
        raise InvalidInput(f"trigger {name!r} has ** in it; write one *, which matches / as well")
    try:
        return Trigger(name, match=check_match(trigger.match))
    except InvalidInput as error:
        raise InvalidInput(f"trigger {name!r}: {error}") from None
