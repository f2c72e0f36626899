"""What SQLite's errors mean to people: out of reach for now, unusable, or the caller's own."""

from __future__ import annotations

import apsw

from worchflow_core import InvalidInput, StoreUnavailable, StoreUnusable

_PASSING: tuple[tuple[type[BaseException], str], ...] = (
    (apsw.BusyError, "another process has kept it locked for too long; see who writes to it"),
    (apsw.LockedError, "another connection has kept it locked for too long"),
    (apsw.FullError, "the disk (or the size the file may have) is full; make room"),
    (apsw.IOError, "the disk reported an error; see the system log"),
    (apsw.ReadOnlyError, "it, or its directory, has become read-only; restore the permission"),
    (apsw.CantOpenError, "it, or a file beside it, cannot be opened; see its directory"),
    (apsw.PermissionsError, "access to it was denied; restore the permission"),
    (apsw.AuthError, "access to it was denied; restore the permission"),
    (apsw.ProtocolError, "its locks could not be taken; try again"),
    (apsw.NoLFSError, "it has outgrown what this system can handle"),
    (apsw.NoMemError, "there is no memory left"),
    (apsw.InterruptError, "the operation was interrupted"),
)
_LASTING: tuple[tuple[type[BaseException], str], ...] = (
    (apsw.CorruptError, "is damaged"),
    (apsw.NotADBError, "is not a SQLite database"),
)
_RESTORE = "it is left as it is: restore a backup, or move it away to begin with an empty one"


def as_store_error(error: BaseException, path: str) -> StoreUnavailable | StoreUnusable | None:
    """Return what to raise for an error that is the store's; None for any other."""
    for kind, text in _PASSING:
        if isinstance(error, kind):
            return StoreUnavailable(f"{path}: {text} ({error})")
    for kind, text in _LASTING:
        if isinstance(error, kind):
            return StoreUnusable(f"{path} {text} ({error}); {_RESTORE}")
    return None


def as_input_error(error: Exception) -> Exception:
    """Return what to raise for an error that is the caller's."""
    if isinstance(error, UnicodeEncodeError):
        return InvalidInput(f"a text holds a lone surrogate, which cannot be stored: {error}")
    if isinstance(error, apsw.TooBigError):
        return InvalidInput(f"a text is too large to be stored: {error}")
    if isinstance(error, apsw.ConstraintError):
        return InvalidInput(f"a value does not fit the column it belongs to: {error}")
    return error


def forked(path: str, pid: int) -> StoreUnavailable:
    """Return what to raise in a process that was forked from the one which opened the file."""
    return StoreUnavailable(
        f"{path} was opened by process {pid}, of which this one is a fork; open it anew here"
    )
