"""Waking workers of other processes: a Unix datagram socket per worker, beside the file.

A poke says nothing but "look"; one that is lost costs a worker its polling interval. The name of
a socket may have only some 107 bytes, so a long path falls back to a directory of its own under
the temporary one, which every process derives from the path alike.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import socket
import tempfile
from contextlib import suppress

_LONGEST = 100
_SUFFIX = ".sock"
_MOST = 256
"""Datagrams read at once; more are left for the next look."""


def _pattern(path: str) -> tuple[str, str]:
    """Return the directory of the sockets of the database at `path`, and how they begin."""
    folder, name = os.path.split(os.path.realpath(path))
    if len(os.fsencode(os.path.join(folder, f"{name}.12345678{_SUFFIX}"))) <= _LONGEST:
        return folder, name + "."
    digest = hashlib.sha256(os.fsencode(os.path.join(folder, name))).hexdigest()[:16]
    return os.path.join(tempfile.gettempdir(), f"worchflow-{os.geteuid()}-{digest}"), ""


class Ear:
    """A worker's socket: `fileno` becomes readable when somebody pokes."""

    def __init__(self, path: str) -> None:
        """Bind a socket for the database at `path`; raises `OSError` where that is impossible."""
        folder, prefix = _pattern(path)
        self._own_folder = None if prefix else folder
        if not prefix:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            if os.lstat(folder).st_uid != os.geteuid():
                raise PermissionError(errno.EACCES, "belongs to another user", folder)
        self.name = os.path.join(folder, f"{prefix}{secrets.token_hex(4)}{_SUFFIX}")
        self._pid = os.getpid()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            self._socket.bind(self.name)
            os.chmod(self.name, 0o600)
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """Return what an event loop can wait for."""
        return self._socket.fileno()

    def listen(self) -> bool:
        """Take all pokes that have come; return whether there were any."""
        count = 0
        with suppress(BlockingIOError):
            while count < _MOST:
                self._socket.recv(1)
                count += 1
        return count > 0

    def close(self) -> None:
        """Close and remove the socket; a forked child leaves its parent's in place."""
        self._socket.close()
        if os.getpid() == self._pid:
            with suppress(OSError):
                os.unlink(self.name)
                if self._own_folder is not None:
                    os.rmdir(self._own_folder)  # unless others listen there


class Poker:
    """Pokes every worker that listens for the database at `path`."""

    def __init__(self, path: str) -> None:
        self._folder, self._prefix = _pattern(path)
        self._socket: socket.socket | None = None
        self._seen = -1
        self._names: list[str] = []

    def poke(self) -> None:
        """Wake all; none listening, or none that can be reached, is no error."""
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
        for name in self._listening():
            try:
                self._socket.sendto(b"!", name)
            except OSError as error:
                # Its mailbox is full: it is awake. Nobody holds it any more: its worker was
                # killed, and the socket is only a name left behind.
                if error.errno == errno.ECONNREFUSED:
                    with suppress(OSError):
                        os.unlink(name)

    def _listening(self) -> list[str]:
        """Return the sockets there are; the directory is read only when it has changed."""
        try:
            changed = os.stat(self._folder).st_mtime_ns
            if changed != self._seen:
                with os.scandir(self._folder) as entries:
                    self._names = [
                        entry.path
                        for entry in entries
                        if entry.name.startswith(self._prefix) and entry.name.endswith(_SUFFIX)
                    ]
                self._seen = changed
        except OSError:
            self._names = []
        return self._names

    def close(self) -> None:
        """Close the socket that sends."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
