"""What an execution costs at full load on Redis and MongoDB: round trips, documents written."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from pymongo import AsyncMongoClient, MongoClient
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandSucceededEvent

from tests.core.support import run
from worchflow_core import Event, Send, Step, Worchflow, function
from worchflow_plugins.mongo import MongoStore
from worchflow_plugins.redis.link import Link

pytestmark = pytest.mark.servers

COUNT = 2000
CONCURRENCY = 200
STEPS = 3


class Cost(CommandListener):
    """Count commands by name, the documents each collection was told to write, the statements."""

    def __init__(self) -> None:
        self.commands: Counter[str] = Counter()
        self.written: Counter[str] = Counter()
        self.updates = 0
        self.redis = 0
        self._places: dict[int, str] = {}

    def started(self, event: Any) -> None:
        self.commands[event.command_name] += 1
        if event.command_name in ("insert", "update", "delete", "findAndModify"):
            place = self._places[event.request_id] = event.command[event.command_name]
            if place == "executions":
                self.updates += len(event.command.get("updates", ()))

    def succeeded(self, event: CommandSucceededEvent) -> None:
        place = self._places.pop(event.request_id, None)
        if place is None:
            return
        reply = event.reply
        if event.command_name == "findAndModify":
            self.written[place] += reply["lastErrorObject"]["n"]
        else:
            self.written[place] += reply.get("nModified", reply["n"])

    def failed(self, event: CommandFailedEvent) -> None:
        self._places.pop(event.request_id, None)

    @property
    def trips(self) -> int:
        """How many requests were sent to either server."""
        return sum(self.commands.values()) + self.redis


async def cost_of(
    work: Any, mongodb_url: str, redis_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[Cost, Cost]:
    """Return what it costs to send many executions at once, and then to run them."""
    sending, running = Cost(), Cost()
    current = [sending]

    class Relay(CommandListener):
        def started(self, event: Any) -> None:
            current[0].started(event)

        def succeeded(self, event: CommandSucceededEvent) -> None:
            current[0].succeeded(event)

        def failed(self, event: CommandFailedEvent) -> None:
            current[0].failed(event)

    trip = Link._run

    async def counted(self: Link, request: bytes, count: int) -> list[Any]:
        current[0].redis += 1
        return await trip(self, request, count)

    monkeypatch.setattr(Link, "_run", counted)
    client: AsyncMongoClient[Any] = AsyncMongoClient(mongodb_url, event_listeners=[Relay()])
    beats: MongoClient[Any] = MongoClient(mongodb_url, event_listeners=[Relay()])
    overrides = {
        "store_url": mongodb_url,  # as the choice of backends is checked; the store is handed in
        "queue_url": redis_url,
        "prefix": prefix,
        "concurrency": CONCURRENCY,
        "disabled_plugins": "logs,sample-audit",
    }
    try:
        store = MongoStore(client, prefix=prefix, beat_client=beats)
        async with Worchflow(
            functions=[work], store=store, overrides=overrides, env_file=None
        ) as app:
            sending.commands.clear()  # opening is not counted
            sending.written.clear()
            events = [Send(function=work, data=number) for number in range(COUNT)]
            handles = await app.client.send_many(events)
            await app.journal.drain()
            current[0] = running
            await app.worker.run(max_executions=COUNT)
            assert len({handle.id for handle in handles}) == COUNT
            assert (await app.client.stats())["completed"] == COUNT
    finally:
        await client.drop_database(client.get_default_database().name)
        await client.close()
        beats.close()
    return sending, running


def test_executions_without_steps(
    mongodb_url: str, redis_url: str, unique_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @function(id="no-steps")
    async def no_steps(event: Event[int], step: Step) -> int:
        return event.data

    sending, running = run(cost_of(no_steps, mongodb_url, redis_url, unique_name, monkeypatch))
    assert sending.written == {"executions": COUNT}
    assert sending.trips <= 10, sending.commands
    # One write claims an execution, one settles it.
    assert running.written["executions"] == 2 * COUNT
    assert set(running.written) <= {"executions", "workers", "records"}
    assert running.trips < COUNT / 20, (running.commands, running.redis)
    # A whole wave is claimed by one statement and settled by one; twice as many are allowed for.
    assert running.updates <= 4 * COUNT / CONCURRENCY


def test_executions_with_steps(
    mongodb_url: str, redis_url: str, unique_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @function(id="three-steps")
    async def three_steps(event: Event[int], step: Step) -> int:
        async def add(total: int) -> int:
            return total + 1

        total = event.data
        for number in range(STEPS):
            total = await step.run(f"Add {number}", add, total)
        return total

    sending, running = run(cost_of(three_steps, mongodb_url, redis_url, unique_name, monkeypatch))
    assert sending.written == {"executions": COUNT}
    assert running.written["executions"] == 2 * COUNT
    assert running.written["steps"] == STEPS * COUNT
    assert set(running.written) <= {"executions", "steps", "workers", "records"}
    assert running.trips < COUNT / 20 + STEPS * COUNT / 50, (running.commands, running.redis)
    assert running.updates <= 4 * COUNT / CONCURRENCY
