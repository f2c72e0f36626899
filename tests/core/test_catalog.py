"""The catalogue: what workers tell the store of their functions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import BaseModel

from tests.core.support import run
from worchflow_core import Event, Step, catalog, function
from worchflow_plugins.memory import MemoryStore


class Order(BaseModel):
    number: int


@function(
    cron="@daily",
    tz="Europe/Paris",
    schedule_data={"number": 1},
    timeout="10m",
    tags=["t"],
)
async def process(event: Event[Order], step: Step) -> None:
    """Process an order.

    At length.
    """


def test_description_is_written_and_read_back() -> None:
    async def main() -> None:
        store = MemoryStore()
        await catalog.publish([process], store.records)
        (info,) = await catalog.read(store.records)
        assert info == catalog.describe(process)
        assert (info.id, info.description, info.timeout) == ("process", "Process an order.", "10m")
        assert (info.cron, info.zone, info.tags) == ("0 0 * * *", "Europe/Paris", ("t",))
        assert info.schema is not None
        assert "number" in info.schema["properties"]

    run(main())


def test_newest_writer_wins_and_an_equal_one_changes_nothing() -> None:
    async def main() -> None:
        store = MemoryStore()
        newer = replace(process, distribution="acme", version="2")
        for item in (process, process, newer):
            await catalog.publish([item], store.records)
        (info,) = await catalog.read(store.records)
        assert (info.distribution, info.version) == ("acme", "2")
        (record,) = await store.records.scan(catalog.KIND)
        assert record.version == 2

    run(main())


def test_many_functions_of_neighbouring_names_are_kept_apart() -> None:
    async def main() -> None:
        store = MemoryStore()
        names = [f"f{number}" for number in range(1200)] + ["f", "f1-a", "F"]
        functions = [function(id=name)(process.code) for name in names]
        await catalog.publish(functions, store.records)
        changed = [replace(item, version="9", distribution="d") for item in functions]
        await catalog.publish(changed, store.records)
        found: list[Any] = await catalog.read(store.records)
        assert sorted(item.id for item in found) == sorted(names)
        assert {item.version for item in found} == {"9"}

    run(main())
