from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from worchflow_core import Queue, Store
from worchflow_core.testing.contracts import QueueContract, StoreContract
from worchflow_plugins.sqlite import SqliteQueue, SqliteStore


class TestSqliteStore(StoreContract):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.place = tmp_path / "worchflow.db"

    def open(self) -> AbstractAsyncContextManager[Store]:
        return SqliteStore(str(self.place))


class TestSqliteQueue(QueueContract):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.place = tmp_path / "worchflow.db"

    def open(self) -> AbstractAsyncContextManager[Queue]:
        return SqliteQueue(str(self.place))
