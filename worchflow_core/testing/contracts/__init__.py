"""What every backend must do, as test classes: subclass one per contract and say how to open.

    class TestMyStore(StoreContract):
        def open(self) -> AbstractAsyncContextManager[Store]:
            return MyStore("...a place that is empty, another for each call...")

Each test is a plain function for pytest; it runs its own event loop. What a backend may choose is
a class attribute. Tests of a backend's own quirks belong after the class, in the same file.
"""

from __future__ import annotations

from worchflow_core.testing.contracts.queue import QueueContract
from worchflow_core.testing.contracts.records import RecordsContract
from worchflow_core.testing.contracts.step_cache import StepCacheContract
from worchflow_core.testing.contracts.store import StoreContract

__all__ = ["QueueContract", "RecordsContract", "StepCacheContract", "StoreContract"]
