"""The connections of a store: one for the event loop, one for the heart's thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from pymongo import AsyncMongoClient, MongoClient, ReadPreference, WriteConcern, errors
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.synchronous.database import Database

from worchflow_core import SettingsError, mask_url
from worchflow_plugins.mongo.address import DEFAULT_DATABASE, Address, read_url
from worchflow_plugins.mongo.faults import Guard

T = TypeVar("T")
Document = dict[str, Any]
Source = str | AsyncMongoClient[Any] | AsyncDatabase[Any]
_DURABLE = WriteConcern(w="majority", j=True)


class Connection:
    """Open and close what we made ourselves; hand out collections with durable writes.

    Attributes:
        place: hosts and database, for people.
        guard: the `with` block for every call of the driver.
        is_standalone: the server is no member of a replica set.
        replica_set: its name, or None.
    """

    def __init__(self, source: Source, beat_client: MongoClient[Any] | None) -> None:
        self._address: Address | None = read_url(source) if isinstance(source, str) else None
        self._source = source
        self._given_beat_client = beat_client
        self._beat_client: MongoClient[Any] | None = None
        self._beat_lock = threading.Lock()
        self._client: AsyncMongoClient[Any] | None = None
        self._database: AsyncDatabase[Any] | None = None
        self.is_standalone = False
        self.replica_set: str | None = None
        self.guard = Guard(self.place)

    @property
    def place(self) -> str:
        """Hosts and database, without user and password."""
        if self._address is not None:
            return f"{self._address.hosts}/{self._address.database}"
        return f"{_hosts(self._source)}/{_database_name(self._source)}"

    @property
    def database(self) -> AsyncDatabase[Any]:
        """The database, with majority and journaled writes and primary reads."""
        if self._database is None:
            raise RuntimeError(f"the MongoDB store {self.place} is not open; use `async with`")
        return self._database

    def collection(self, name: str) -> AsyncCollection[Any]:
        """Return a collection of the database."""
        return self.database[name]

    async def open(self) -> None:
        """Connect, and learn what kind of server it is; raise `StoreUnavailable` soon if none."""
        self.guard = Guard(self.place)
        if isinstance(self._source, str):
            self._client = self._connect(self._source)
            database = self._client[self._name]
        elif isinstance(self._source, AsyncDatabase):
            database = self._source
        else:
            database = self._source[self._name]
        self._database = database.with_options(
            write_concern=_DURABLE, read_preference=ReadPreference.PRIMARY
        )
        try:
            with self.guard:
                hello = await self._database.command("hello")
        except BaseException:
            await self.close()
            raise
        self.replica_set = hello.get("setName")
        self.is_standalone = self.replica_set is None and hello.get("msg") != "isdbgrid"

    async def close(self) -> None:
        """Close the clients that we made; the caller's own stay open."""
        self._database = None
        client, self._client = self._client, None
        if client is not None:
            await client.close()
        with self._beat_lock:
            beat_client, self._beat_client = self._beat_client, None
        if beat_client is not None:
            beat_client.close()

    def beat_database(self) -> Database[Any]:
        """Return the database on the heart's own client; callable from any thread."""
        with self._beat_lock:
            client = self._given_beat_client or self._beat_client
            if client is None:
                client = self._beat_client = self._connect_beat()
        return client.get_database(
            self._name, write_concern=_DURABLE, read_preference=ReadPreference.PRIMARY
        )

    @property
    def _name(self) -> str:
        return self._address.database if self._address else _database_name(self._source)

    def _connect(self, url: str) -> AsyncMongoClient[Any]:
        assert self._address is not None
        try:
            return AsyncMongoClient(url, **self._address.options)
        except (errors.PyMongoError, ValueError) as error:
            raise SettingsError(f"{mask_url(url)} cannot be used: {error}") from error

    def _connect_beat(self) -> MongoClient[Any]:
        if self._address is not None:
            options = {**self._address.options, "maxPoolSize": 2}
            return MongoClient(self._address.url, **options)
        client = self._source.client if isinstance(self._source, AsyncDatabase) else self._source
        # The driver keeps what it was built from, for its own copies; there is no public way.
        made_from = getattr(client, "_init_kwargs", None)
        if not isinstance(made_from, dict):
            raise SettingsError(
                "the heartbeat needs a blocking client of its own: give MongoStore(...) "
                "beat_client=MongoClient(...) with the address of the client you gave it"
            )
        left_out = ("document_class", "tz_aware", "type_registry", "event_listeners")
        options = {name: value for name, value in made_from.items() if name not in left_out}
        return MongoClient(**{**options, "maxPoolSize": 2})


async def lasting(call: Coroutine[Any, Any, T]) -> T:
    """Await a call of the driver in a task of its own, where no cancellation reaches it.

    A caller that is cancelled leaves at once while the call goes on. The driver would close its
    connection, and before Python 3.12 it sometimes loses the cancellation: a loop that was told
    to end would then go round for ever. How a call ends that nobody awaits any more is of no
    interest, and no reason to complain.
    """
    task = asyncio.ensure_future(call)
    task.add_done_callback(_heed)
    return await asyncio.shield(task)


def _heed(task: asyncio.Task[object]) -> None:
    """Look at how a call ended: a failure that nobody looks at is logged by asyncio."""
    if not task.cancelled():
        task.exception()


def _database_name(source: Any) -> str:
    if isinstance(source, AsyncDatabase):
        return source.name
    return str(source.get_default_database(DEFAULT_DATABASE).name)


def _hosts(source: Any) -> str:
    client = source.client if isinstance(source, AsyncDatabase) else source
    seeds = client.topology_description.server_descriptions()
    return ",".join(sorted(f"{host}:{port}" for host, port in seeds))
