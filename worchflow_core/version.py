"""The version of this Worchflow, for every room that has to name it."""

from __future__ import annotations

__version__ = "0.1.0"
