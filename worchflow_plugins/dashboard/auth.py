"""Who asks: a token, a name with a password, or whatever your own callable recognizes."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from starlette.requests import HTTPConnection

from worchflow_core import ConfigurationError

VIEW, SEND, MANAGE = "view", "send", "manage"
RIGHTS = frozenset({VIEW, SEND, MANAGE})
TOKEN_LENGTH = 22
"""The fewest characters of a token: 22 of base64 carry 128 bits."""


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who may use the dashboard.

    Attributes:
        name: what the audit lines call them.
        rights: `view` pages and data, `send` events, `manage` (retry, cancel, drain).
    """

    name: str
    rights: frozenset[str] = RIGHTS


Auth = Callable[[HTTPConnection], "User | Awaitable[User | None] | None"]
"""Takes the connection, returns who it is, or None for nobody. May be async."""


class TokenAuth:
    """Recognize one secret token, as `Authorization: Bearer` or as the password of Basic.

    The second way lets a browser ask for it: any user name, the token as password.

    Args:
        token: at least 22 characters, made by a generator (`secrets.token_urlsafe(32)`).
        rights: what its holder may do.
    """

    def __init__(self, token: str, *, rights: Iterable[str] = RIGHTS) -> None:
        if len(token) < TOKEN_LENGTH:
            raise ConfigurationError(
                f"the token has {len(token)} characters, give {TOKEN_LENGTH} or more; "
                "`--auth token` makes a good one"
            )
        self._digest = _digest(token)
        self._rights = frozenset(rights)

    def __call__(self, connection: HTTPConnection) -> User | None:
        """Return the user `token` where the connection carries it."""
        scheme, _, value = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            given: str | None = value.strip()
        else:
            pair = _basic(scheme, value)
            given = pair[1] if pair else None
        if given is not None and hmac.compare_digest(_digest(given), self._digest):
            return User("token", self._rights)
        return None


class BasicAuth:
    """Recognize one name with its password.

    Args:
        name: the user's name.
        password: the password; 8 characters or more.
        rights: what this user may do.
    """

    def __init__(self, name: str, password: str, *, rights: Iterable[str] = RIGHTS) -> None:
        if not name or ":" in name or len(password) < 8:
            raise ConfigurationError(
                "basic auth needs a name without a colon and a password of 8 characters or more"
            )
        self._name = name
        self._digest = _digest(f"{name}:{password}")
        self._rights = frozenset(rights)

    def __call__(self, connection: HTTPConnection) -> User | None:
        """Return the user where the connection carries name and password."""
        scheme, _, value = connection.headers.get("authorization", "").partition(" ")
        pair = _basic(scheme, value)
        if pair and hmac.compare_digest(_digest(f"{pair[0]}:{pair[1]}"), self._digest):
            return User(self._name, self._rights)
        return None


class Throttle:
    """Slow down guessing: after some refusals an address has to wait.

    Args:
        refusals: how many an address has within `seconds`.
        seconds: how long they are remembered.
    """

    _KEPT = 10_000

    def __init__(self, refusals: int = 10, seconds: float = 60.0) -> None:
        self._refusals = refusals
        self._seconds = seconds
        self._seen: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def wait(self, address: str) -> int:
        """Return how many seconds the address has to wait; 0 when it may try."""
        count, until = self._seen.get(address, (0, 0.0))
        left = until - time.monotonic()
        if left <= 0:
            self._seen.pop(address, None)
            return 0
        return int(left) + 1 if count >= self._refusals else 0

    def refused(self, address: str) -> None:
        """Remember a refusal."""
        count, until = self._seen.get(address, (0, time.monotonic() + self._seconds))
        self._seen[address] = (count + 1, until)
        self._seen.move_to_end(address)
        while len(self._seen) > self._KEPT:
            self._seen.popitem(last=False)


def make_auth(text: str) -> TokenAuth | BasicAuth:
    """Return what `--auth` means: `name:password`, or a token."""
    if ":" in text:
        name, _, password = text.partition(":")
        return BasicAuth(name, password)
    return TokenAuth(text)


def _basic(scheme: str, value: str) -> tuple[str, str] | None:
    if scheme.lower() != "basic":
        return None
    try:
        text = base64.b64decode(value.strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    name, colon, password = text.partition(":")
    return (name, password) if colon else None


def _digest(text: str) -> bytes:
    # Digests are compared instead of texts, so that the time taken tells no length.
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()
