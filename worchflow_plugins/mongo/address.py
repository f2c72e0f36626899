"""The address of a MongoDB database: what a URL says, and what we add where it says nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from pymongo import errors
from pymongo.common import validate as _validate_option

from worchflow_core import SettingsError, mask_url

DEFAULT_DATABASE = "worchflow"
_DEFAULTS = {
    # A server that is gone is noticed in seconds; one that is silent, in twenty.
    "serverSelectionTimeoutMS": 3_000,
    "connectTimeoutMS": 3_000,
    "socketTimeoutMS": 20_000,
    "appname": "worchflow",
}
_FORBIDDEN = set('/\\. "$*<>:|?\0')


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a database is.

    Attributes:
        url: what the driver is given.
        hosts: the hosts as the URL names them, without user and password.
        database: the database's name.
        options: driver options that the URL leaves open.
    """

    url: str
    hosts: str
    database: str
    options: dict[str, Any]


def read_url(url: str) -> Address:
    """Return what a MongoDB URL says.

    Raises:
        SettingsError: the URL cannot be used; the message masks its password.
    """
    parts = urlsplit(url)
    database = unquote(parts.path.lstrip("/")) or DEFAULT_DATABASE
    if _FORBIDDEN & set(database) or len(database.encode()) > 63:
        raise SettingsError(
            f"{mask_url(url)} names the database {database!r}; give at most 63 bytes without "
            'spaces and the characters / \\ . " $ * < > : | ?'
        )
    hosts = parts.netloc.rpartition("@")[2]
    if not hosts:
        raise SettingsError(
            f"{mask_url(url)} names no host; give one such as mongodb://127.0.0.1:27017/worchflow"
        )
    given = {name.lower(): value for name, value in parse_qsl(parts.query)}
    for name, value in given.items():
        try:
            _validate_option(name, value)
        except (ValueError, TypeError, errors.PyMongoError) as error:
            raise SettingsError(f"{mask_url(url)} cannot be used: {error}") from error
    options = {name: value for name, value in _DEFAULTS.items() if name.lower() not in given}
    return Address(url=url, hosts=hosts, database=database, options=options)
