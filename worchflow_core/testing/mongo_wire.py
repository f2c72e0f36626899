"""Just enough of MongoDB's wire protocol to start a replica set without a driver."""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping

_OP_MSG = 2013


def run_command(port: int, command: Mapping[str, object], *, timeout: float = 5.0) -> bytes:
    """Send one command to a mongod on loopback and return its raw reply document.

    Raises:
        OSError: nobody answers.
    """
    body = struct.pack("<iB", 0, 0) + encode({**command, "$db": "admin"})
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        connection.sendall(struct.pack("<iiii", 16 + len(body), 1, 0, _OP_MSG) + body)
        length = struct.unpack("<i", _receive(connection, 4))[0]
        return _receive(connection, length - 4)[12 + 5 :]


def is_true(reply: bytes, name: str) -> bool:
    """Return whether a raw reply holds the boolean field `name` with the value true."""
    return b"\x08" + name.encode() + b"\x00\x01" in reply


def is_ok(reply: bytes) -> bool:
    """Return whether a raw reply says that the command succeeded."""
    return b"\x01ok\x00" + struct.pack("<d", 1.0) in reply


def encode(document: Mapping[str, object]) -> bytes:
    """Return a document of texts, whole numbers, lists and documents as BSON."""
    body = b"".join(_element(name, value) for name, value in document.items())
    return struct.pack("<i", len(body) + 5) + body + b"\x00"


def _element(name: str, value: object) -> bytes:
    key = name.encode() + b"\x00"
    if isinstance(value, int):
        return b"\x10" + key + struct.pack("<i", value)
    if isinstance(value, str):
        text = value.encode() + b"\x00"
        return b"\x02" + key + struct.pack("<i", len(text)) + text
    if isinstance(value, list):
        return b"\x04" + key + encode({str(index): item for index, item in enumerate(value)})
    if isinstance(value, Mapping):
        return b"\x03" + key + encode(value)
    raise TypeError(f"{name} is {value!r}; give text, a whole number, a list or a mapping")


def _receive(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise ConnectionResetError("the server closed the connection")
        data += part
    return data
