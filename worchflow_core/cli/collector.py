"""What a worker asks of Python's garbage collector, which else takes a sixth of its time."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

_YOUNG = 10_000
"""So many new objects are kept before the collector looks at them; 700 is Python's own figure.

Most are gone by themselves at the end of their execution, a few hundred objects later.
"""


@contextlib.contextmanager
def at_ease() -> Iterator[None]:
    """Look seldom for garbage, and never among what the start has made: it stays."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
