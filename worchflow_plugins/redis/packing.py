"""Commands as the server reads them."""

from __future__ import annotations

from collections.abc import Iterable

Command = tuple[str | bytes | int, ...]


def packed(commands: Iterable[Command]) -> bytes:
    """Return commands as one request; texts without a UTF-8 form keep a question mark."""
    parts: list[bytes] = []
    add = parts.append
    for command in commands:
        add(b"*%d\r\n" % len(command))
        for argument in command:
            if isinstance(argument, str):
                data = _encoded(argument)
            elif isinstance(argument, bytes):
                data = argument
            else:
                data = b"%d" % argument
            add(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")
