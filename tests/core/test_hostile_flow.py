"""Flow control against data that is no data, code that raises, and a store that goes away."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import pytest
from pydantic import AfterValidator

from worchflow_core import (
    Batch,
    Event,
    Execution,
    Limit,
    Rate,
    Send,
    Singleton,
    Status,
    Step,
    StoreUnavailable,
    Unique,
    Worchflow,
    function,
)
from worchflow_core.gatherings import GATHERING
from worchflow_core.lines import is_parked
from worchflow_core.transitions import wake

from .flow_world import World
from .support import application, faulty_memory, opened, run, until, worker_of, working

NO_JSON = ["", "no json", "[" * 100_000, "1" * 5_000, '{"tenant": "\\ud800"}']


def check(number: int) -> int:
    if number == 0:
        raise LookupError("nobody expects a zero")
    return number


NotZero = Annotated[int, AfterValidator(check)]


async def write(app: Worchflow, function_id: str, data: str, name: str) -> str:
    """Write an execution as a foreign client does, whose data nobody has looked at."""
    now = app.journal.clock.now()
    execution = Execution(
        id=name, function=function_id, data=data, created_at=now, updated_at=now, due_at=now
    )
    await app.journal.store.create([execution])
    return name


async def ended(app: Worchflow, *names: str) -> list[Execution]:
    async def all_ended() -> list[Execution]:
        found = {item.id: item for item in await app.journal.store.get(names)}
        are_final = all(found[name].status.is_final for name in names)
        return [found[name] for name in names] if are_final else []

    found: list[Execution] = await until(all_ended)
    return found


@pytest.mark.parametrize(
    "option",
    [
        {"concurrency": Limit(2, key="data.tenant", fair_by="data.tenant")},
        {"singleton": Singleton("skip", key="data.tenant")},
        {"throttle": Rate(10, "1s", key="data.tenant")},
        {"unique": Unique("data.tenant")},
        {"batch": Batch(2, "50ms", key="data.tenant")},
    ],
)
def test_data_that_is_no_json_ends_its_execution_and_no_worker(option: dict[str, Any]) -> None:
    @function(id="keyed", retries=0, **option)
    async def keyed(event: Event[Any], step: Step) -> str:
        return "ran"

    async def main() -> None:
        async with working(keyed) as app:
            names = [
                await write(app, "keyed", data, f"x{number}") for number, data in enumerate(NO_JSON)
            ]
            good = await write(app, "keyed", json.dumps({"tenant": 1}), "good")
            *found, last = await ended(app, *names, good)
            assert last.status is Status.COMPLETED
            assert Status.COMPLETED not in {item.status for item in found[:4]}
            assert app.worker.health.is_ready

    run(main())


def test_a_validator_that_raises_fails_its_execution_and_not_its_batch() -> None:
    @function(id="gathered", retries=0, batch=Batch(2, "50ms"))
    async def gathered(event: Event[NotZero], step: Step) -> int:
        return len(event.batch)

    async def main() -> None:
        async with working(gathered) as app:
            bad, good = [await write(app, "gathered", text, f"n{text}") for text in ("0", "1")]
            first, second = await ended(app, bad, good)
            assert first.error is not None
            assert "nobody expects a zero" in first.error.message
            assert second.result == "1"

    run(main())


def test_what_cannot_be_let_in_is_put_off_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    @function(id="limited", concurrency=3)
    async def limited(event: Event[Any], step: Step) -> str:
        return "ran"

    async def main() -> None:
        async with application(limited, concurrency=3) as app:
            real = app.journal.store.records.insert
            handles = [await app.client.send(limited, number) for number in range(3)]

            async def refusing(records: Any) -> Any:
                if any(handles[1].id in record.body for record in records):
                    raise ValueError("a record that no store takes")
                return await real(records)

            real_replace = app.journal.store.records.replace

            async def refusing_too(records: Any) -> Any:
                if any(handles[1].id in record.body for record in records):
                    raise ValueError("a record that no store takes")
                return await real_replace(records)

            monkeypatch.setattr(app.journal.store.records, "insert", refusing)
            monkeypatch.setattr(app.journal.store.records, "replace", refusing_too)
            async with worker_of(app):
                assert await handles[0].result(10) == await handles[2].result(10) == "ran"
                waiting = await handles[1].get()
                assert waiting.status is Status.QUEUED
                assert waiting.due_at is not None
                assert waiting.due_at > app.journal.clock.now() + timedelta(seconds=30)
                assert app.worker.health.is_ready

    run(main())


def test_who_came_by_itself_before_it_could_be_called_keeps_its_place() -> None:
    @function(id="limited", concurrency=1)
    async def limited(event: Event[Any], step: Step) -> None:
        pass

    async def main() -> None:
        async with application(limited) as app:
            world = World(app, [limited], seed=1)
            await world.send({})
            await world.claim(0, 1)
            await world.send({})
            await world.claim(1, 1)
            (waiting,) = await world.store.get(["x001"])
            assert is_parked(waiting)
            places = world.workers[0].admission._places
            call = places._call

            async def too_late(chosen: Any) -> Any:
                """Something else wakes it, and it comes, before it can be called."""
                if chosen:
                    await world.store.update([wake(waiting, now=world.clock.now())])
                    await world.claim(1, 1)
                return await call(chosen)

            places._call = too_late  # type: ignore[method-assign]
            await world.end(0)
            places._call = call  # type: ignore[method-assign]
            assert list(world.workers[1].running) == ["x001"]
            await world.send({})
            await world.claim(0, 1)
            assert not world.workers[0].running
            await world.finish()

    run(main())


@pytest.mark.parametrize("option", ["rate_limit", "throttle"])
def test_a_start_is_counted_once_though_the_store_goes_away_before_it_is_noted(
    option: str,
) -> None:
    @function(id="rated", **{option: Rate(1, "1h")})  # type: ignore[arg-type]
    async def rated(event: Event[Any], step: Step) -> str:
        return "ran"

    store, backends = faulty_memory()
    refused = []

    def refuse(name: str, args: tuple[Any, ...]) -> BaseException | None:
        notes = name == "update" and any("gates_passed" in item.values for item in args[0])
        if not notes or refused:
            return None
        refused.append(args)
        return StoreUnavailable("away for a moment")

    store.refuse = refuse

    async def main() -> None:
        async with working(rated, **backends) as app:
            handle = await app.client.send(rated, None)
            assert await handle.result(10) == "ran"
            assert refused

    run(main())


@pytest.mark.parametrize("option", ["rate_limit", "throttle"])
def test_a_start_is_counted_once_though_its_worker_dies_before_it_is_noted(option: str) -> None:
    @function(id="rated", **{option: Rate(1, "1h")})  # type: ignore[arg-type]
    async def rated(event: Event[Any], step: Step) -> None:
        pass

    async def main() -> None:
        async with application(rated) as app:
            world = World(app, [rated], seed=1)
            await world.send({})
            world.workers[0].life.left = 2  # the claim, the count; not the note
            world.workers[0].life.is_last_made = False
            await world.claim(0, 1)
            assert not world.begun
            await world.bury()
            (waiting,) = await world.store.get(["x000"])
            assert waiting.status is Status.QUEUED
            await world.claim(0, 1)
            assert world.begun == ["x000"]

    run(main())


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_backlog_is_gathered_batch_by_batch(kind: str, tmp_path: Path) -> None:
    @function(id="gathered", batch=Batch(10, "1h"))
    async def gathered(event: Event[Any], step: Step) -> int:
        return len(event.batch)

    largest = 0
    url = f"memory://{uuid4().hex}" if kind == "memory" else f"sqlite:///{tmp_path}/w.db"

    async def main() -> None:
        nonlocal largest
        async with opened(url, gathered, concurrency=10) as app:
            records = app.journal.store.records
            replace = records.replace

            async def measured(written: Any) -> Any:
                nonlocal largest
                bodies = [record.body for record in written if record.kind == GATHERING]
                largest = max([largest, *(body.count('"') // 2 for body in bodies)])
                return await replace(written)

            records.replace = measured  # type: ignore[method-assign]
            handles = await app.client.send_many([Send(function=gathered) for _ in range(400)])
            async with worker_of(app):
                for handle in handles:
                    assert await handle.result(30) == 10

    run(main())
    assert largest < 100  # a leader that stood behind the backlog would gather all of it first
