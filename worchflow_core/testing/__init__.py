"""Help for tests: a harness for functions, real servers, network faults, contract suites.

`Harness` runs functions in process; the fixture `worchflow_harness` gives a fresh one. Authors of
backends subclass the classes of `worchflow_core.testing.contracts`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worchflow_core.testing.harness import Harness as Harness
    from worchflow_core.testing.runs import Run as Run

__all__ = ["Harness", "Run"]


def __getattr__(name: str) -> Any:  # loaded when first used: pytest imports this package always
    if name in __all__:
        from worchflow_core.testing import harness

        return getattr(harness, name)
    raise AttributeError(f"worchflow_core.testing has no {name!r}")
