"""Which step is which: identities fixed when a step is called, the same on every replay."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any

from worchflow_core.codec import Codec
from worchflow_core.errors import NonRetriable
from worchflow_core.retries import RetryPolicy
from worchflow_core.validation import check_title

DEADLINE = "deadline"
"""The kind of a record that only fixes when a wait times out."""

UNDOING = "undoing"
"""The kind of the record from which on an execution is undone."""

FACTS = frozenset({DEADLINE, UNDOING})
"""The kinds of records that are facts of the engine's, and no steps."""


@dataclass(frozen=True, slots=True)
class StepCall:
    """A step as it was called: its identity is fixed, its code has not run."""

    step_id: str
    title: str
    code: Callable[..., Any]
    args: tuple[Any, ...]
    codec: Codec
    seq: int
    policy: RetryPolicy | None
    timeout: timedelta | None
    once: bool
    undo: Callable[[Any], Any] | None = None


@dataclass(frozen=True, slots=True)
class Slot:
    """A step's place in its execution: which it is, and the how-manieth."""

    step_id: str
    title: str
    seq: int
    is_adopted: bool = False
    """What is stored under it is another kind of step, whose value is to be taken as it is."""

    def inner(self, word: str) -> Slot:
        """Return the place of a fact that belongs to this step."""
        return Slot(step_id_of(f"{self.step_id}:{word}"), self.title, self.seq)


class Identities:
    """The steps that one attempt has called so far.

    Attributes:
        count: how many.
    """

    def __init__(self) -> None:
        self.count = 0
        self._repeats: dict[str, tuple[object, int]] = {}
        self._used: set[str] = set()

    def slot(self, title: str, key: str | None) -> Slot:
        """Return the place of the step that is called now.

        Raises:
            NonRetriable: two tasks use the title, or two steps would be the same.
            InvalidInput: title or key cannot be taken.
        """
        check_title(title)
        if key is not None:
            text = check_title(key, "step key")
        else:
            caller = _caller()
            owner, count = self._repeats.get(title, (caller, 0))
            if owner is not caller:
                raise NonRetriable(
                    f"step title {title!r} is used by two tasks at once, so a replay could not "
                    "tell their results apart; give each its own title or key="
                )
            self._repeats[title] = (caller, count + 1)
            text = title if count == 0 else f"{title}#{count + 1}"
        step_id = step_id_of(text)
        if step_id in self._used:
            raise NonRetriable(f"two steps have the identity {text!r}; give one another key=")
        self._used.add(step_id)
        self.count += 1
        return Slot(step_id, title, self.count)


@lru_cache(maxsize=4096)  # most executions of a function have steps of the same titles
def step_id_of(text: str) -> str:
    """Return the id of the step whose title (`title#2` for its second call) or key this is."""
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _caller() -> object:
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    return task if task is not None else threading.current_thread()
