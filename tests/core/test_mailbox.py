"""The mailbox on every store: who is woken by which event, and what is kept of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.core.support import opened, run, until, worker_of
from worchflow_core import (
    Event,
    Execution,
    IdempotencyConflict,
    Record,
    Status,
    Step,
    Worchflow,
    function,
)
from worchflow_core.clock import Clock
from worchflow_core.mailbox import EVENTS, FIELDS, IDS, Mailbox, StoredEvent, fits, wait_keys
from worchflow_core.step import Watch
from worchflow_core.transitions import UNTIL_WOKEN

NOW = datetime(2030, 1, 31, 9, tzinfo=UTC)
LONG = "x" * 128


def waiting(execution_id: str, *watches: Watch, **fields: Any) -> Execution:
    """Return an execution that waits."""
    keys = tuple(key for watch in watches for key in wait_keys(watch, execution_id))
    return Execution(
        **{
            "id": execution_id,
            "function": "waits",
            "status": Status.WAITING,
            "created_at": NOW,
            "updated_at": NOW,
            "due_at": NOW + UNTIL_WOKEN,
            "waits": keys,
            "input_hash": "hash",
            **fields,
        }
    )


async def are_woken(app: Worchflow, *ids: str) -> set[str]:
    """Return which of these executions are due."""
    found = await app.journal.store.get(ids)
    return {
        item.id for item in found if item.due_at is not None and item.due_at < NOW + UNTIL_WOKEN
    }


# --- which events fit ----------------------------------------------------------------------------

VALUES = [
    (1, {"n": 1}, True),
    (1, {"n": 1.0}, True),
    (1.0, {"n": 1}, True),
    (-0.0, {"n": 0}, True),
    (10**17, {"n": 1e17}, True),
    (0.1, {"n": 0.1}, True),
    (1, {"n": True}, False),
    (True, {"n": 1}, False),
    (False, {"n": 0}, False),
    (True, {"n": True}, True),
    ("1", {"n": 1}, False),
    (1, {"n": "1"}, False),
    (None, {"n": None}, True),
    (None, {}, True),
    (None, {"n": 0}, False),
    ("", {}, False),
    ("é", {"n": "é"}, True),
    ("é", {"n": "e\u0301"}, False),
    ("\U0001f600", {"n": "\U0001f600"}, True),
    ("null", {"n": None}, False),
    ("[1]", {"n": [1]}, False),
    ("x", {"n": {"n": "x"}}, False),
    ("x", ["n"], False),
    ("x", None, False),
]


def test_one_rule_says_who_is_woken_and_what_is_found(url: str) -> None:
    async def main() -> None:
        async with opened(url) as app:
            mailbox = Mailbox(app.journal)
            for number, (value, data, does_fit) in enumerate(VALUES):
                watch = Watch(name=f"case-{number}", match={"n": value})
                assert fits(watch.match, data) is does_fit, (value, data)
                item = waiting(f"w{number}", watch)
                await app.journal.store.create([item])
                await mailbox.announce([watch])
                await app.client.send_event(watch.name, data)
                woken = await are_woken(app, item.id)
                assert woken == ({item.id} if does_fit else set()), (value, data)
                found = await mailbox.look([watch], replace(item, created_at=NOW - 9 * YEAR), ())
                assert (found is not None) is does_fit, (value, data)

    run(main())


YEAR = timedelta(days=365)


def test_a_path_steps_into_objects_only() -> None:
    data = {"order": {"id": 7, "lines": [{"id": 8}]}, "order.id": 9}
    assert fits({"order.id": 7}, data)
    assert not fits({"order.id": 9}, data)
    assert not fits({"order.lines.0.id": 8}, data)
    assert not fits({"order": 7}, data)
    assert fits({"": 1}, {"": 1})


# --- how many wait -------------------------------------------------------------------------------


def test_more_than_a_thousand_who_wait_for_one_event_are_all_woken(url: str) -> None:
    async def main() -> None:
        async with opened(url) as app:
            watch = Watch(name="go")
            for start in range(0, 1300, 100):
                part = [waiting(f"w{start + number}", watch) for number in range(100)]
                await app.journal.store.create(part)
            others = [waiting("other", Watch(name="gone")), waiting("ended", watch)]
            await app.journal.store.create(
                [others[0], replace(others[1], status=Status.CANCELLED, due_at=None)]
            )
            await app.client.send_event("go")
            woken = set()
            for start in range(0, 1300, 100):
                woken |= await are_woken(app, *(f"w{start + number}" for number in range(100)))
            assert len(woken) == 1300
            assert await are_woken(app, "other", "ended") == set()

    run(main())


def test_who_is_woken_already_is_not_hinted_again() -> None:
    async def main() -> None:
        async with opened("memory://woken-once") as app:
            await app.journal.store.create([waiting("w", Watch(name="go"))])
            hinted: list[str] = []
            app.journal.hint = lambda items, **_: hinted.extend(item.id for item in items)  # type: ignore[method-assign]
            for _ in range(20):
                await app.client.signal("w", "go")
            assert hinted == ["w"]

    run(main())


def test_what_is_kept_of_fields_does_not_grow_with_executions(url: str) -> None:
    async def main() -> None:
        async with opened(url) as app:
            mailbox = Mailbox(app.journal)
            for number in range(30):
                watch = Watch(name="paid", match={"order": number, "kind": "x"})
                await app.journal.store.create([waiting(f"w{number}", watch)])
                await mailbox.announce([watch])
            assert len(await app.journal.store.records.scan(FIELDS)) == 1
            await app.client.send_event("paid", {"order": 3, "kind": "x"})
            await app.client.signal("w4", "paid", {"order": 4, "kind": "x"})
            await app.client.signal("w5", "paid", {"order": 4, "kind": "x"})
            assert await are_woken(app, *(f"w{n}" for n in range(30))) == {"w3", "w4"}

    run(main())


def test_a_waiter_is_woken_however_many_sets_of_fields_there_are(url: str) -> None:
    async def main() -> None:
        async with opened(url) as app:
            mailbox = Mailbox(app.journal)
            watches = [Watch(name="paid", match={f"f{n}": 1}) for n in range(1200)]
            await mailbox.announce(watches)
            items = [waiting(f"w{n}", watch) for n, watch in enumerate(watches)]
            for start in range(0, 1200, 100):
                await app.journal.store.create(items[start : start + 100])
            for number in (0, 600, 1199):
                await app.client.send_event("paid", {f"f{number}": 1})
                assert await are_woken(app, f"w{number}") == {f"w{number}"}
            assert await are_woken(app, "w1", "w1000") == set()

    run(main())


# --- order and time ------------------------------------------------------------------------------


class Standing(Clock):
    """A clock that stands still."""

    def __init__(self) -> None:
        super().__init__()
        self.moment = NOW
        self.shift(timedelta(0))  # nobody is to measure it

    def now(self) -> datetime:
        return self.moment


def test_what_was_sent_within_a_millisecond_comes_in_order(url: str) -> None:
    async def main() -> None:
        async with opened(url) as app:
            app.journal.clock = Standing()
            item = waiting("w")
            await app.journal.store.create([item])
            for number in range(12):
                if number % 3:
                    await app.client.send_event("n", number)
                else:
                    await app.client.signal("w", "n", number)
            mailbox, taken, found = Mailbox(app.journal), set(), []
            while event := await mailbox.look([Watch(name="n")], item, taken):
                taken.add(event.id)
                found.append(int(event.data))
            assert found == list(range(12))

    run(main())


def test_the_older_of_two_events_wins_whichever_watch_it_fits(url: str) -> None:
    async def main() -> None:
        async with opened(url) as app:
            item = waiting("w")
            await app.client.send_event("b", 1)
            await app.client.send_event("a", 2)
            watches = [Watch(name="a"), Watch(name="b")]
            item = replace(item, created_at=NOW - 9 * YEAR)
            found = await Mailbox(app.journal).look(watches, item, ())
            assert found is not None
            assert found.name == "b"

    run(main())


def test_a_sender_measures_how_far_its_clock_is_from_the_stores(url: str) -> None:
    class Slow(Clock):
        """A clock that is an hour behind."""

        def local(self) -> datetime:
            return super().local() - timedelta(hours=1)

    @function
    async def waits(event: Event[Any], step: Step) -> Any:
        answer = await step.wait_for_event("Word", "word")
        return answer.data if answer else None

    async def main() -> None:
        async with opened(url, waits) as app, worker_of(app):
            handle = await app.client.send(waits, None)

            async def does_wait() -> bool:
                return (await handle.get()).status is Status.WAITING

            await until(does_wait)
            async with opened(url) as sender:
                sender.journal.clock = Slow()
                await sender.client.send_event("word", "late")
            assert await handle.result(20) == "late"

    run(main())


def test_an_execution_made_by_a_clock_that_is_ahead_misses_no_event(url: str) -> None:
    @function
    async def waits(event: Event[Any], step: Step) -> Any:
        answer = await step.wait_for_event("Word", "word", timeout="5s")
        return answer.data if answer else None

    async def main() -> None:
        async with opened(url, waits) as app, worker_of(app):
            now = app.journal.clock.now()
            ahead = replace(
                waiting("ahead"),
                status=Status.QUEUED,
                created_at=now + timedelta(minutes=5),
                due_at=now,
                waits=(),
            )
            await app.journal.create([ahead])

            async def does_wait() -> bool:
                return (await app.client.get("ahead")).status is Status.WAITING

            await until(does_wait)
            await app.client.send_event("word", "for all")
            assert await app.client.result("ahead", timeout=20) == "for all"

    run(main())


# --- ids -----------------------------------------------------------------------------------------


def test_the_longest_names_and_ids_are_taken(url: str) -> None:
    @function(id="c" * 128)
    async def child(event: Event[Any], step: Step) -> str:
        return event.id

    @function(id="f" * 128)
    async def waits(event: Event[Any], step: Step) -> Any:
        answer = await step.wait_for_event("W" * 256, LONG, match={"f" * 200: "v" * 200})
        assert answer is not None
        return [answer.data, await step.invoke("I" * 256, child, answer.data)]

    async def main() -> None:
        async with opened(url, waits, child) as app, worker_of(app):
            handle = await app.client.send(waits, None, id="e" * 128)

            async def does_wait() -> bool:
                return (await handle.get()).status is Status.WAITING

            await until(does_wait)
            data = {"f" * 200: "v" * 200}
            await app.client.signal(handle.id, LONG, data, id="i" * 128)
            await app.client.signal(handle.id, LONG, data, id="i" * 128)
            got, child_id = await handle.result(20)
            assert got == data
            assert len(child_id) <= 128

    run(main())


def test_an_id_given_to_another_event_is_refused_and_the_first_stands(url: str) -> None:
    async def main() -> None:
        async with opened(url) as app:
            client = app.client
            await app.journal.store.create([waiting("w1"), waiting("w2")])
            await client.send_event("paid", {"n": 1}, id="order-1")
            await client.send_event("paid", {"n": 1}, id="order-1")
            for call in (
                client.send_event("sent", {"n": 1}, id="order-1"),
                client.send_event("paid", {"n": 2}, id="order-1"),
                client.signal("w1", "paid", {"n": 1}, id="order-1"),
            ):
                with pytest.raises(IdempotencyConflict, match="'order-1' was sent before"):
                    await call
            await client.signal("w1", "go", id="g")
            with pytest.raises(IdempotencyConflict):
                await client.signal("w2", "go", id="g")
            assert len(await app.journal.store.records.scan(EVENTS)) == 2

    run(main())


def test_a_repeated_id_among_many_alike_is_known(url: str) -> None:
    async def main() -> None:
        async with opened(url) as app:
            records, mailbox = app.journal.store.records, Mailbox(app.journal)
            for start in range(0, 1500, 500):
                keys = [f"order-{number}" for number in range(start, start + 500)]
                await records.insert([Record(kind=IDS, key=key, body="{}") for key in keys])
            first = StoredEvent(id="order-9999", name="n", data="1", at=NOW)
            await mailbox.put(first)
            again = await mailbox.put(replace(first, at=NOW + timedelta(hours=1)))
            assert again.event.at == NOW
            assert len(await records.scan(EVENTS)) == 1

    run(main())


# --- retention -----------------------------------------------------------------------------------


def test_what_one_execution_has_still_to_get_outlives_the_retention(url: str) -> None:
    async def main() -> None:
        async with opened(url) as app:
            journal = app.journal
            journal.clock = Standing()
            ended = waiting("ended")
            await journal.store.create([waiting("sleeps"), ended])
            await app.client.signal("sleeps", "word", 1)
            await app.client.signal("ended", "word", 2)
            await app.client.send_event("news", 3)
            cancelled = await app.client.cancel("ended")
            assert cancelled.status is Status.CANCELLED
            mailbox = Mailbox(journal)
            await mailbox.forget(NOW)
            assert len(await journal.store.records.scan(EVENTS)) == 3
            await mailbox.forget(NOW + timedelta(days=1))
            (kept,) = await journal.store.records.scan(EVENTS)
            assert kept.key.startswith("word@sleeps\n")
            assert len(await journal.store.records.scan(IDS)) == 1
            found = await mailbox.look([Watch(name="word")], waiting("sleeps"), ())
            assert found is not None
            assert found.data == "1"

    run(main())
