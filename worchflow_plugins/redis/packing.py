"""Commands as the server reads them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Word = str | bytes | int
Command = tuple[Word, ...] | bytes
"""The words of a command, or the whole of it packed already."""


class Form:
    """A command that is sent often: the words it always has are packed once.

    Args:
        words: None where each command has a word of its own.
    """

    def __init__(self, *words: Word | None) -> None:
        self._count = len(words)
        self._text = b"".join(
            b"%b" if word is None else _packed(word).replace(b"%", b"%%") for word in words
        )

    def filled(self, words: Sequence[Word], more: Sequence[Word] = ()) -> bytes:
        """Return the command with its own words, and `more` behind them."""
        known = self._text % tuple([_packed(word) for word in words])
        return b"".join((b"*%d\r\n" % (self._count + len(more)), known, *map(_packed, more)))


def packed(commands: Iterable[Command]) -> bytes:
    """Return commands as one request; texts without a UTF-8 form keep a question mark."""
    parts: list[bytes] = []
    for command in commands:
        if isinstance(command, bytes):
            parts.append(command)
        else:
            parts.append(b"*%d\r\n" % len(command))
            parts += [_packed(word) for word in command]
    return b"".join(parts)


def _packed(word: Word) -> bytes:
    if isinstance(word, str):
        data = _encoded(word)
    elif isinstance(word, bytes):
        data = word
    else:
        data = b"%d" % word
    return b"$%d\r\n%b\r\n" % (len(data), data)


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")
