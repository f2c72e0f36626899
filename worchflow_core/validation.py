"""What names, ids, titles and tags may look like, checked at our own entrances only.

Ids found in a store are taken as they are: a foreign client may have chosen `order/1`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from worchflow_core.errors import InvalidInput

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@+-]{0,127}")
_EVENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:+/-]{0,127}")
_TAG_LENGTH = 128
TITLE_LENGTH = 256
"""How long a step's title or key may be, in characters."""


def check_execution_id(value: str) -> str:
    """Return `value` if it may be the id of an execution, else raise `InvalidInput`."""
    return _check(value, "execution id")


def check_function_id(value: str) -> str:
    """Return `value` if it may be the id of a function."""
    return _check(value, "function id")


def check_event_name(value: str) -> str:
    """Return `value` if it may be the name of an event, such as `order/paid`."""
    if isinstance(value, str) and _EVENT.fullmatch(value):
        return value
    remedy = ""
    if isinstance(value, str) and "*" in value:
        remedy = "; only a trigger may hold a *"
    elif isinstance(value, str) and "@" in value:
        remedy = "; to reach one execution, use signal"
    raise InvalidInput(
        f"event name {_short(value)} must start with a letter or digit and hold at most 128 "
        f"letters, digits and the characters _ . : + / -{remedy}"
    )


def check_title(value: str, what: str = "step title") -> str:
    """Return `value` if it may be a step's title or key, else raise `InvalidInput`."""
    if not isinstance(value, str) or not value or len(value) > TITLE_LENGTH:
        raise InvalidInput(f"{what} {_short(value)} must be text of 1 to {TITLE_LENGTH} characters")
    if value.isascii() and value.isprintable():
        return value
    if not value.isprintable() and any(ord(char) < 32 or ord(char) == 127 for char in value):
        raise InvalidInput(f"{what} {_short(value)} holds control characters; take them out")
    if any(0xD800 <= ord(char) <= 0xDFFF for char in value):
        raise InvalidInput(f"{what} {_short(value)} holds a lone surrogate; take it out")
    return value


def check_tags(values: Iterable[str]) -> tuple[str, ...]:
    """Return tags sorted and without repeats; each is printable text of at most 128 characters."""
    if isinstance(values, str):
        raise InvalidInput(f"tags is the text {_short(values)}; give a list of texts")
    tags = list(values)
    for tag in tags:
        if not isinstance(tag, str) or not tag or len(tag) > _TAG_LENGTH or not tag.isprintable():
            raise InvalidInput(f"tag {_short(tag)} must be printable text of 1 to 128 characters")
    tags = sorted(set(tags))
    if len(tags) > 32:
        raise InvalidInput(f"{len(tags)} tags are too many; give at most 32")
    return tuple(tags)


def _check(value: str, what: str) -> str:
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise InvalidInput(
            f"{what} {_short(value)} must start with a letter or digit and hold at most 128 "
            "letters, digits and the characters _ . : @ + -"
        )
    return value


def _short(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."
