"""Unopened: what stands in for a resource where none is opened.

Code may hand it to its steps, whole or a part of it (`step.run("Load", pool.fetch, ...)`). What
uses it otherwise raises `ResourceUsed`, and is noted.
"""

from __future__ import annotations

from typing import Any

_USES = (
    "__call__",
    "__await__",
    "__iter__",
    "__next__",
    "__aiter__",
    "__anext__",
    "__enter__",
    "__exit__",
    "__aenter__",
    "__aexit__",
    "__len__",
    "__contains__",
    "__getitem__",
    "__setitem__",
    "__delitem__",
    "__lt__",
    "__le__",
    "__gt__",
    "__ge__",
    "__add__",
    "__radd__",
    "__sub__",
    "__rsub__",
    "__mul__",
    "__rmul__",
    "__truediv__",
    "__rtruediv__",
    "__floordiv__",
    "__rfloordiv__",
    "__mod__",
    "__rmod__",
    "__pow__",
    "__and__",
    "__or__",
    "__xor__",
    "__neg__",
    "__int__",
    "__float__",
    "__index__",
    "__round__",
)
_USES_OF_A_PART = ("__bool__", "__str__", "__format__", "__eq__", "__ne__", "__hash__")


class ResourceUsed(Exception):
    """Code between the steps uses a resource, and in a rehearsal none is opened."""


class Used:
    """What became of the resources of one function.

    Attributes:
        touched: the resources of which code took a part: what such a part does is not known.
        refused: those it used between the steps, which raised.
    """

    def __init__(self) -> None:
        self.touched: dict[str, None] = {}
        self.refused: dict[str, None] = {}


class Unopened:
    """A resource that is not open."""

    def __init__(self, name: str, used: Used) -> None:
        self._name = name
        self._used = used

    def __repr__(self) -> str:
        return f"<{self._name}, not open>"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)  # what copies and inspects things may ask for
        self._used.touched[self._name] = None
        return _Part(self._name, self._used)


class _Part(Unopened):
    """Something of a resource that is not open; what it is, its truth included, nobody knows."""


def _refusing(name: str) -> Any:
    def refuse(self: Any, *args: Any, **kwargs: Any):  # type: ignore[no-untyped-def]
        self._used.refused[self._name] = None
        raise ResourceUsed(
            f"its code uses {self._name!r} between the steps, and no resource is opened for a check"
        )

    refuse.__name__ = name
    return refuse


for _name in _USES:
    setattr(Unopened, _name, _refusing(_name))
for _name in _USES_OF_A_PART:
    setattr(_Part, _name, _refusing(_name))
