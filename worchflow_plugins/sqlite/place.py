"""Where the file is, and whether it may be used: looked at before SQLite touches anything."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote

from worchflow_core import ConfigurationError, StoreUnavailable, StoreUnusable
from worchflow_plugins.sqlite.schema import APPLICATION_ID, VERSION

SCHEME = "sqlite:"

_MAGIC = b"SQLite format 3\0"
_HEADER = 100
_NETWORK = ("nfs", "cifs", "smb", "9p", "afs", "ceph", "glusterfs", "lustre")
_NETWORK_FUSE = ("fuse.sshfs", "fuse.rclone", "fuse.s3fs", "fuse.glusterfs", "fuse.ceph")
_KEPT = "it is left as it is"


@dataclass(frozen=True, slots=True)
class Header:
    """What the first page of a SQLite file says of it."""

    application_id: int
    version: int


def path_of(url: str) -> str:
    """Return the absolute path that a URL names, or a path itself.

    `sqlite:///relative.db`, `sqlite:////absolute.db` and `sqlite:path` are understood.
    """
    path = url
    if url.startswith(SCHEME):
        rest = url.removeprefix(SCHEME).partition("?")[0]
        path = unquote(rest[3:] if rest.startswith("///") else rest)
    if not path or path.startswith("//") or path.endswith("/") or "\0" in path:
        raise ConfigurationError(
            f"{url!r} names no file; give sqlite:///relative.db or sqlite:////absolute.db"
        )
    return os.path.abspath(os.path.expanduser(path))


def mode_of(url: str) -> str:
    """Return how a URL wants its file opened: `ro`, `rw` or `rwc`, as after `?mode=`."""
    query = url.partition("?")[2] if url.startswith(SCHEME) else ""
    options = dict(parse_qsl(query, keep_blank_values=True))
    mode = options.pop("mode", "rwc")
    if options or mode not in ("ro", "rw", "rwc"):
        raise ConfigurationError(
            f"{url!r} ends in {query!r}; only mode=ro (read, never create), mode=rw (never create) "
            "and mode=rwc are understood"
        )
    return mode


def examine(path: str, *, create: bool) -> None:
    """Raise unless `path` is, or may become, a database of ours; create it empty if allowed.

    Reads the file, so it must not be called while this process has it open: closing any handle
    of a file gives up the locks that the process holds on it.

    Raises:
        StoreUnavailable: it does not exist, and may not be created.
        StoreUnusable: it cannot be used; it is left as it is.
    """
    _check_file_system(path)
    folder = os.path.dirname(path)
    if not os.path.exists(path):
        if not create:
            raise StoreUnavailable(
                f"there is no database at {path}: nothing was sent yet from here. Start in the "
                "directory where it is, or name it in WORCHFLOW_STORE_URL"
            )
        _create(path, folder)
    if not os.path.isfile(path):
        raise StoreUnusable(f"{path} is not a file; name another in WORCHFLOW_STORE_URL")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StoreUnusable(
            f"{path} cannot be used: SQLite keeps two files beside it, and user {os.geteuid()} "
            f"may not write to {folder}. Permit it, or name another file in WORCHFLOW_STORE_URL"
        )
    header = _read_header(path)
    # Zeros say nothing: the first page may still be in the log, where SQLite will find it.
    if header is not None and (header.application_id or header.version):
        check_header(path, header)


def check_header(path: str, header: Header) -> None:
    """Raise unless the file is ours and not newer than this program."""
    if header.application_id != APPLICATION_ID:
        raise StoreUnusable(
            f"{path} is the database of another program (application_id "
            f"{header.application_id:#x}); {_KEPT}. Name another file in WORCHFLOW_STORE_URL"
        )
    if header.version > VERSION:
        raise StoreUnusable(
            f"{path} was written by a newer Worchflow (schema {header.version}, this one knows "
            f"{VERSION}); {_KEPT}. Upgrade Worchflow"
        )
    if header.version < 1:
        raise StoreUnusable(f"{path} has schema {header.version}, which never was; {_KEPT}")


def file_system(path: str) -> str:
    """Return the type of the file system that holds `path`, "unknown" where that is not told."""
    folder = os.path.realpath(os.path.dirname(path))
    best, kind = "", "unknown"
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return kind
    for line in lines.splitlines():
        parts = line.split(" ")
        if len(parts) < 3:
            continue
        mount = parts[1].replace("\\040", " ")
        is_above = folder == mount or folder.startswith(mount.rstrip("/") + "/")
        if is_above and len(mount) >= len(best):
            best, kind = mount, parts[2]
    return kind


def _check_file_system(path: str) -> None:
    kind = file_system(path)
    if kind.startswith(_NETWORK) or kind in _NETWORK_FUSE:
        raise StoreUnusable(
            f"{path} is on a network file system ({kind}), where SQLite's locks cannot be relied "
            "on. Name a local file in WORCHFLOW_STORE_URL, or use redis:// and mongodb:// for "
            "several machines"
        )


def _create(path: str, folder: str) -> None:
    if not os.path.isdir(folder):
        raise StoreUnusable(
            f"{path} cannot be created: there is no directory {folder}. Create it, or name "
            "another file in WORCHFLOW_STORE_URL"
        )
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise StoreUnusable(
            f"{path} cannot be created: {error.strerror}. Permit it to user {os.geteuid()}, or "
            "name another file in WORCHFLOW_STORE_URL"
        ) from error


def _read_header(path: str) -> Header | None:
    """Return the header, None for a file that nothing was written to yet."""
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError as error:
        raise StoreUnusable(
            f"{path} cannot be opened for writing: {error.strerror}. Restore the permission for "
            f"user {os.geteuid()}, or name another file in WORCHFLOW_STORE_URL"
        ) from error
    try:
        head = os.read(handle, _HEADER)
        size = os.fstat(handle).st_size
    finally:
        os.close(handle)
    if not head:
        return None
    if len(head) < _HEADER or not head.startswith(_MAGIC):
        raise StoreUnusable(
            f"{path} is not a SQLite database; {_KEPT}. Name another file in WORCHFLOW_STORE_URL, "
            "or restore a backup"
        )
    _check_size(path, head, size)
    version, application_id = struct.unpack_from(">I4xI", head, 60)
    return Header(application_id=application_id, version=version)


def _check_size(path: str, head: bytes, size: int) -> None:
    """Raise when pages are missing, unless the log beside the file may hold them."""
    page, pages = struct.unpack_from(">H", head, 16)[0], struct.unpack_from(">I", head, 28)[0]
    wanted = (65_536 if page == 1 else page) * pages
    log = path + "-wal"
    has_log = os.path.exists(log) and os.path.getsize(log) > 0
    if size < wanted and not has_log:
        raise StoreUnusable(
            f"{path} is truncated: {size} of {wanted} bytes are there; {_KEPT}. Restore a backup"
        )
