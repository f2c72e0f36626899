from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from pymongo import AsyncMongoClient

from worchflow_core import Store
from worchflow_core.testing.contracts import StoreContract
from worchflow_core.testing.fixtures import with_database
from worchflow_core.testing.servers import MongoServer
from worchflow_plugins.mongo import MongoStore

pytestmark = pytest.mark.servers


@asynccontextmanager
async def fresh_store(url: str) -> AsyncIterator[Store]:
    """Open a store on a database of its own, and drop that afterwards."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    try:
        async with MongoStore(with_database(url, name)) as store:
            yield store
    finally:
        async with AsyncMongoClient(url) as client:
            await client.drop_database(name)


class TestMongoStore(StoreContract):
    has_exact_fences = False
    url: str

    @pytest.fixture(autouse=True)
    def _server(self, mongo_server: MongoServer) -> None:
        self.url = mongo_server.url

    def open(self) -> AbstractAsyncContextManager[Store]:
        return fresh_store(self.url)


class TestMongoStoreStandalone(StoreContract):
    has_exact_fences = False
    url: str

    @pytest.fixture(autouse=True)
    def _server(self, standalone_mongo_server: MongoServer) -> None:
        self.url = standalone_mongo_server.url

    def open(self) -> AbstractAsyncContextManager[Store]:
        return fresh_store(self.url)
