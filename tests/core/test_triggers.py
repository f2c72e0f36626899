"""Triggers: functions that subscribe to events, from any sender, once for each event."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from worchflow_core import (
    BlockingClient,
    Created,
    Event,
    ExecutionFailed,
    Filter,
    Function,
    FunctionError,
    IdempotencyConflict,
    InvalidInput,
    NotAllowed,
    NotFound,
    Status,
    Step,
    StoreUnavailable,
    Trigger,
    Watch,
    Worchflow,
    catalog,
    function,
    hookimpl,
    subscriptions,
)
from worchflow_core.lookup import read_record
from worchflow_core.mailbox import PENDING, Mailbox
from worchflow_core.matching import fits
from worchflow_core.subscriptions import subscriber_id
from worchflow_core.sweeper import Sweeper
from worchflow_core.testing import Harness
from worchflow_core.triggers import from_wire, parse_triggers, to_wire
from worchflow_plugins.memory import MemoryStore

from .support import application, faulty_memory, run, until, worker_of, working

# --- what a pattern means ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "name", "covered"),
    [
        ("order/paid", "order/paid", True),
        ("order/paid", "order/paid2", False),
        ("order/paid", "Order/paid", False),
        ("order/*", "order/paid", True),
        ("order/*", "order/", True),
        ("order/*", "order/eu/paid", True),
        ("order/*", "order", False),
        ("order/*", "reorder/paid", False),
        ("*/paid", "order/paid", True),
        ("*/paid", "order/paid/late", False),
        ("*", "anything.at:all", True),
        ("a*b*c", "abc", True),
        ("a*b*c", "axxbyyc", True),
        ("a*b*c", "axxcyyb", False),
        ("a*b", "ab", True),
        ("aa*aa", "aaa", False),
        ("aa*aa", "aaaa", True),
        ("a*bc*c", "abc", False),
        ("a*bc*c", "abcc", True),
        ("a.b", "axb", False),
        ("a+", "aa", False),
    ],
)
def test_a_star_stands_for_any_characters_of_the_whole_name(
    pattern: str, name: str, covered: bool
) -> None:
    assert Trigger(pattern).covers(name) is covered


def test_a_hostile_pattern_costs_no_time() -> None:
    (trigger,) = parse_triggers(["*a" * 63 + "*b"])
    began = time.process_time()
    for _ in range(1000):
        assert not trigger.covers("a" * 128)
    assert time.process_time() - began < 2


def test_match_compares_as_a_wait_does() -> None:
    data = {"region": "eu", "order": {"id": 7}, "gone": None}
    for match in ({}, {"region": "eu"}, {"order.id": 7}, {"gone": None}, {"missing": None}):
        assert Trigger("*", match=match).takes("n", data)
        assert fits(match, data)
    for match in ({"region": "us"}, {"order.id": "7"}, {"region.x": "eu"}, {"order": 7}):
        assert not Trigger("*", match=match).takes("n", data)
    for bare in (None, [], "text", 5):
        assert Trigger("*").takes("n", bare)
        assert not Trigger("*", match={"a": 1}).takes("n", bare)


BAD: list[tuple[Any, str]] = [
    ("order/*", "give a list: triggers=\\['order/\\*'\\]"),
    (Trigger("a"), "give a list"),
    (5, "give a list"),
    ([""], "trigger '' must hold at most 128"),
    (["a b"], "'a b'"),
    (["a\nb"], r"a\\nb"),
    (["a\n"], r"a\\n"),
    (["a@b"], "'a@b'"),
    (["é"], r"\\xe9"),
    (["a?"], "no other wildcards"),
    (["[ab]"], "no other wildcards"),
    (["a**"], r"write one \*"),
    (["/a"], "'/a'"),
    (["a" * 129], "\\.\\.\\."),
    ([None], "write 'order/paid' or"),
    ([Trigger(5)], "trigger 5"),  # type: ignore[arg-type]
    ([Trigger("a", match={"x": [1]})], "trigger 'a': match 'x' must compare"),
    ([Trigger("a", match={5: 1})], "trigger 'a': match 5 must compare"),  # type: ignore[dict-item]
    ([Trigger("a", match={"x": float("nan")})], "that no event can hold"),
    ([Trigger("a", match=["x"])], "give fields and values"),  # type: ignore[arg-type]
    ([f"e{number}" for number in range(65)], "65 triggers are too many"),
]


@pytest.mark.parametrize(("given", "said"), BAD, ids=range(len(BAD)))
def test_a_bad_trigger_is_refused_when_the_function_is_declared(given: Any, said: str) -> None:
    async def listens(event: Event[Any], step: Step) -> None: ...

    with pytest.raises(FunctionError, match=said) as caught:
        function(id="listens", triggers=given)(listens)
    assert str(caught.value).startswith("function 'listens': ")
    assert "\n" not in str(caught.value)


def test_triggers_are_kept_as_declared_each_once() -> None:
    @function(triggers=["a/*", Trigger("a/*"), "a" * 128, Trigger("b", match={"x.y": None})])
    async def listens(event: Event[Any], step: Step) -> None: ...

    assert listens.triggers == (
        Trigger("a/*"),
        Trigger("a" * 128),
        Trigger("b", match={"x.y": None}),
    )
    assert from_wire([to_wire(item) for item in listens.triggers]) == listens.triggers
    assert [str(item) for item in listens.triggers[::2]] == ["a/*", "b (x.y = null)"]


def test_what_a_later_version_may_publish_is_passed_over() -> None:
    documents = [{"name": "a"}, {"name": "a{1}"}, {"no": 1}, 5, None, {"name": "b", "match": 7}]
    assert from_wire(documents) == (Trigger("a"),)
    assert from_wire(None) == from_wire({"name": "a"}) == ()


# --- one event, many functions -------------------------------------------------------------------


@dataclass
class Order:
    id: int
    region: str = "eu"


@function(triggers=["order/*"], tags=["stock"], priority=3)
async def stock(event: Event[Order], step: Step) -> str:
    return f"{event.name} {event.data.id}"


@function(triggers=[Trigger("order/paid", match={"region": "eu"}), "order/p*"])
async def invoice(event: Event[dict[str, Any]], step: Step) -> Any:
    return [event.headers.get("trace"), list(event.tags)]


@function(triggers=[Trigger("order/paid", match={"region": "us"})])
def abroad(event: Event[Any], step: Any) -> None: ...


@function
async def unrelated(event: Event[Any], step: Step) -> None: ...


FUNCTIONS: tuple[Function[Any, Any], ...] = (stock, invoice, abroad, unrelated)


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"memory://{uuid4().hex}" if request.param == "memory" else f"sqlite:///{tmp_path}/w.db"


def opened(url: str, *functions: Function[Any, Any], **settings: Any) -> Worchflow:
    overrides = {"store_url": url, "sweep_interval": "0.1s", "log": "off", **settings}
    return Worchflow(functions=functions, overrides=overrides, env_file=None)


async def published(app: Worchflow, *functions: Function[Any, Any]) -> None:
    await catalog.publish(functions, app.journal.store.records)


async def all_of(app: Worchflow) -> list[str]:
    return sorted(item.id for item in (await app.client.find()).items)


def test_an_event_runs_each_subscriber_once(url: str) -> None:
    async def main() -> None:
        async with opened(url, *FUNCTIONS) as app, worker_of(app):
            data = {"id": 7, "region": "eu"}
            sent = await app.client.send_event(
                "order/paid", data, id="o7", tags=["vip"], headers={"trace": "t"}
            )
            assert (sent.id, sent.name) == ("o7", "order/paid")
            assert [item.id for item in sent.executions] == ["o7:invoice", "o7:stock"]
            assert all(item.is_new for item in sent.executions)
            assert await sent.executions[0].result(30) == ["t", ["vip"]]
            assert await sent.executions[1].result(30) == "order/paid 7"
            execution = await sent.executions[1].get()
            assert (execution.function, execution.event) == ("stock", "order/paid")
            assert (execution.tags, execution.priority) == (("stock", "vip"), 3)
            assert execution.headers == {"trace": "t"}
            again = await app.client.send_event("order/paid", {"region": "eu", "id": 7}, id="o7")
            assert [item.is_new for item in again.executions] == [False, False]
            assert [item.id for item in again.executions] == ["o7:invoice", "o7:stock"]
            assert await all_of(app) == ["o7:invoice", "o7:stock"]

    run(main())


def test_match_and_name_choose_the_functions(url: str) -> None:
    async def main() -> None:
        async with opened(url, *FUNCTIONS) as app:
            ask = app.client.subscribers
            assert await ask("order/paid", {"region": "us"}) == ("abroad", "invoice", "stock")
            assert await ask("order/shipped", {"region": "us"}) == ("stock",)
            assert await ask("parcel/sent") == ()
            sent = await app.client.send_event("parcel/sent")
            assert sent.executions == ()
            assert await all_of(app) == []

    run(main())


def test_a_plain_send_to_a_function_runs_that_one_alone(url: str) -> None:
    @function(triggers=["*"])
    async def everything(event: Event[Any], step: Step) -> str:
        return event.name

    async def main() -> None:
        async with opened(url, everything, unrelated) as app, worker_of(app):
            handle = await app.client.send("unrelated", 1)
            await handle.result(30)
            assert await all_of(app) == [handle.id]
            sent = await app.client.send_event("what/ever")
            assert await sent.executions[0].result(30) == "what/ever"
            with pytest.raises(InvalidInput, match="is a function: send to it"):
                await app.client.send_event("unrelated", 1)

    run(main())


def test_a_sender_without_the_code_reaches_what_workers_published(url: str) -> None:
    async def main() -> None:
        async with opened(url, *FUNCTIONS) as app:
            await published(app, *FUNCTIONS)
            async with opened(url) as sender:
                sent = await sender.client.send_event("order/paid", {"id": 1, "region": "us"})
                assert [item.id.partition(":")[2] for item in sent.executions] == [
                    "abroad",
                    "invoice",
                    "stock",
                ]
                execution = await sent.executions[2].get()
                assert (execution.retries, execution.priority, execution.tags) == (3, 3, ("stock",))
            (again,) = [
                await app.client.send_event(
                    "order/paid", {"id": 1, "region": "us"}, id=sent.id, tags=["other"]
                )
            ]
            assert not any(item.is_new for item in again.executions)

    run(main())


def test_what_a_worker_publishes_counts_within_about_a_second(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions, "FRESH", 0.2)

    @function(id="abroad", triggers=["new"])
    async def changed(event: Event[Any], step: Step) -> None: ...

    async def main() -> None:
        async with opened(url) as app:
            assert await app.client.subscribers("order/paid", {"region": "us"}) == ()
            await published(app, abroad)

            async def names(name: str, *wanted: str) -> bool:
                return await app.client.subscribers(name, {"region": "us"}) == wanted

            await until(lambda: names("order/paid", "abroad"))
            await published(app, changed)
            await until(lambda: names("new", "abroad"))
            assert await names("order/paid")

    run(main())


def test_the_catalogue_is_read_once_for_many_events() -> None:
    async def main() -> None:
        async with application() as app:
            await published(app, *FUNCTIONS)
            records = app.journal.store.records
            scans: list[str] = []
            scan = records.scan

            async def counted(kind: str, **options: Any) -> Any:
                scans.append(kind)
                return await scan(kind, **options)

            records.scan = counted  # type: ignore[method-assign]
            ask = app.client.subscribers
            await asyncio.gather(*(ask("order/paid", {"region": "eu"}) for _ in range(50)))
            assert scans.count(catalog.KIND) == 2  # a page, and the empty one behind it

    run(main())


def test_own_functions_count_as_they_are_here(url: str) -> None:
    @function(id="stock")
    async def silent(event: Event[Any], step: Step) -> None: ...

    async def main() -> None:
        async with opened(url, silent) as app:
            await published(app, stock)
            assert await app.client.subscribers("order/paid", {}) == ()

    run(main())


def test_a_hundred_subscribers_cost_one_create() -> None:
    async def code(event: Event[Any], step: Step) -> None: ...

    many = [function(id=f"f{number:03}", triggers=["all"])(code) for number in range(100)]

    async def main() -> None:
        store, backends = faulty_memory()
        async with application(*many, **backends) as app:
            await app.client.send_event("other")  # the first asks what time it is
            store.calls.clear()
            sent = await app.client.send_event("all", {"n": 1})
            assert len(sent.executions) == 100
            assert store.calls["create"] == 1
            assert store.calls.total() <= 2  # and one look for those who wait

    run(main())


def test_hooks_hear_of_each_execution_once() -> None:
    heard: list[tuple[str, str | None]] = []

    class Ears:
        @hookimpl
        def worchflow_execution_queued(self, execution: Any) -> None:
            heard.append((execution.function, execution.event))

    async def main() -> None:
        async with application(*FUNCTIONS, plugins=(Ears(),)) as app:
            for _ in range(2):
                await app.client.send_event("order/paid", {"region": "eu"}, id="e1")
            await until(lambda: len(heard) >= 2)
        assert heard == [("invoice", "order/paid"), ("stock", "order/paid")]

    run(main())


def test_data_that_one_subscriber_does_not_take_runs_the_others(url: str) -> None:
    async def main() -> None:
        async with opened(url, *FUNCTIONS) as app, worker_of(app):
            sent = await app.client.send_event("order/paid", {"region": "eu", "id": "x"}, id="odd")
            first, second = sent.executions
            assert await first.result(30) == [None, []]
            with pytest.raises(ExecutionFailed, match=r"event data of stock does not fit.*id: "):
                await second.result(30)
            assert len((await second.get()).attempts) == 1

    run(main())


def test_waiters_receive_the_event_as_well(url: str) -> None:
    @function(retries=0)
    async def waits(event: Event[Any], step: Step) -> Any:
        answer = await step.wait_for_event("Payment", "order/paid", match={"id": 5})
        return answer.data if answer else None

    async def main() -> None:
        async with opened(url, waits, stock) as app, worker_of(app):
            handle = await app.client.send(waits, None)

            async def is_waiting() -> bool:
                return (await handle.get()).status is Status.WAITING

            await until(is_waiting)
            sent = await app.client.send_event("order/paid", {"id": 5})
            assert await handle.result(30) == {"id": 5}
            assert await sent.executions[0].result(30) == "order/paid 5"

    run(main())


def test_an_execution_does_not_receive_the_event_that_it_runs_for(url: str) -> None:
    @function(triggers=["tick"])
    async def pairs(event: Event[int], step: Step) -> Any:
        answer = await step.wait_for_event("The next", "tick")
        return [event.data, answer.data if answer else None]

    async def main() -> None:
        async with opened(url, pairs) as app, worker_of(app):
            first = await app.client.send_event("tick", 1)

            async def is_waiting() -> bool:
                return (await first.executions[0].get()).status is Status.WAITING

            await until(is_waiting)
            await app.client.send_event("tick", 2)
            assert await first.executions[0].result(30) == [1, 2]

    run(main())


def test_a_signal_runs_nobody(url: str) -> None:
    @function(triggers=["*"])
    async def everything(event: Event[Any], step: Step) -> None: ...

    @function
    async def waits(event: Event[Any], step: Step) -> Any:
        answer = await step.wait_for_event("Word", "word")
        return answer.data if answer else None

    async def main() -> None:
        async with opened(url, everything, waits) as app, worker_of(app):
            handle = await app.client.send(waits, None)
            await app.client.signal(handle.id, "word", 3)
            assert await handle.result(30) == 3
            assert await all_of(app) == [handle.id]

    run(main())


@pytest.mark.parametrize("shape", ["async", "plain"])
def test_a_step_sends_an_event_to_subscribers_once(url: str, shape: str) -> None:
    ended: list[int] = []

    @function(id="sends", retry_delay=0)
    async def sends(event: Event[Any], step: Step) -> str:
        sent = await step.send_event("Tell", "order/paid", {"id": 1, "region": "eu"})
        ended.append(1)
        if len(ended) < 3:
            raise ValueError("again")
        return sent

    @function(id="sends", retry_delay=0)
    def sends_plainly(event: Event[Any], step: Any) -> str:
        sent = step.send_event("Tell", "order/paid", {"id": 1, "region": "eu"})
        ended.append(1)
        if len(ended) < 3:
            raise ValueError("again")
        return str(sent)

    async def main() -> None:
        sender: Function[Any, Any] = sends if shape == "async" else sends_plainly
        async with opened(url, sender, *FUNCTIONS) as app, worker_of(app):
            handle = await app.client.send(sender, None, headers={"trace": "t9"})
            sent = await handle.result(30)
            ids = [subscriber_id(sent, name) for name in ("invoice", "stock")]
            assert await app.client.result(ids[0], timeout=30) == ["t9", []]
            assert await app.client.result(ids[1], timeout=30) == "order/paid 1"
            assert await all_of(app) == sorted([handle.id, *ids])

    run(main())


def test_a_step_that_names_a_function_runs_that_one_alone(url: str) -> None:
    @function(id="team@work", triggers=["*"])
    async def everything(event: Event[Any], step: Step) -> str:
        return event.name

    @function
    async def sends(event: Event[Any], step: Step) -> str:
        return await step.send_event("Tell", "team@work", {})

    async def main() -> None:
        async with opened(url, everything, sends) as app, worker_of(app):
            handle = await app.client.send(sends, None)
            sent = await handle.result(30)
            assert await app.client.result(sent, timeout=30) == "team@work"
            assert await all_of(app) == sorted([handle.id, sent])

    run(main())


def test_a_repeated_send_stands_by_what_was_decided_first(url: str) -> None:
    @function(triggers=["order/paid"])
    async def newcomer(event: Event[Any], step: Step) -> None: ...

    async def main() -> None:
        async with opened(url, stock) as app:
            await app.client.send_event("order/paid", {"id": 1}, id="e")
        async with opened(url, stock, newcomer) as app:
            again = await app.client.send_event("order/paid", {"id": 1}, id="e")
            assert [item.id for item in again.executions] == ["e:stock"]
            assert await all_of(app) == ["e:stock"]

    run(main())


def test_one_id_for_other_data_or_another_name_is_a_conflict(url: str) -> None:
    async def main() -> None:
        async with opened(url, stock) as app:
            await app.client.send_event("order/paid", {"id": 1}, id="e")
            with pytest.raises(IdempotencyConflict, match="'order/paid', with other data"):
                await app.client.send_event("order/paid", {"id": 2}, id="e")
            with pytest.raises(IdempotencyConflict, match="another name"):
                await app.client.send_event("order/sent", {"id": 1}, id="e")
            assert await all_of(app) == ["e:stock"]
            events = await app.journal.store.records.scan("event")
            assert len(events) == 1

    run(main())


def test_two_senders_of_one_id_at_once_create_one_set(url: str) -> None:
    async def main() -> None:
        async with opened(url, *FUNCTIONS) as one, opened(url, *FUNCTIONS) as other:
            sends = [
                app.client.send_event("order/paid", {"region": "eu", "id": 1}, id="race")
                for app in (one, other)
                for _ in range(10)
            ]
            answers = await asyncio.gather(*sends)
            assert {len(item.executions) for item in answers} == {2}
            new = [handle.is_new for item in answers for handle in item.executions]
            assert new.count(True) == 2
            assert await all_of(one) == ["race:invoice", "race:stock"]

    run(main())


def test_ids_of_events_and_functions_with_colons_are_kept_apart() -> None:
    assert subscriber_id("a:b", "c") == "a:b:c"
    assert subscriber_id("a", "b:c") != "a:b:c"
    assert len(subscriber_id("e" * 128, "f" * 128)) <= 128

    async def code(event: Event[Any], step: Step) -> str:
        return event.data  # type: ignore[no-any-return]

    both = [function(id=name, triggers=["e"])(code) for name in ("c", "b:c", "x" * 128)]

    async def main() -> None:
        async with working(*both) as app:
            for event_id in ("a", "a:b", "e" * 128):
                sent = await app.client.send_event("e", event_id, id=event_id)
                assert len(sent.executions) == 3
                for handle in sent.executions:
                    assert await handle.result(30) == event_id

    run(main())


def test_an_id_taken_by_something_else_is_told_and_spares_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        async with application(*FUNCTIONS) as app:
            await app.client.send("unrelated", 1, id="e:stock")
            sent = await app.client.send_event("order/paid", {"region": "eu"}, id="e")
            assert [item.is_new for item in sent.executions] == [True, False]
            assert (await app.client.get("e:stock")).function == "unrelated"

    run(main())
    assert "event e does not run stock: an execution e:stock exists" in caplog.text


# --- hostile names -------------------------------------------------------------------------------

HOSTILE: list[Any] = ["", "a\n", "\na", "a b", "order/*", "*", "a@b", "/a", "é", "a" * 129, None, 5]


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_a_hostile_event_name_is_refused_before_anything_is_written(name: Any) -> None:
    async def main() -> None:
        async with application(stock) as app:
            for send in (
                lambda: app.client.send_event(name, {}),
                lambda: app.client.subscribers(name),
            ):
                with pytest.raises(InvalidInput, match="event name") as caught:
                    await send()
                assert "\n" not in str(caught.value)
            assert set(await app.journal.store.records.kinds()) == set()

    run(main())


def test_refusals_of_names_say_what_to_do() -> None:
    async def main() -> None:
        async with application(stock) as app:
            with pytest.raises(InvalidInput, match=r"only a trigger may hold a \*"):
                await app.client.send_event("order/*")
            with pytest.raises(InvalidInput, match="to reach one execution, use signal"):
                await app.client.send_event("word@execution")
            handle = await app.client.send(stock, {"id": 1})
            with pytest.raises(InvalidInput, match="event name"):
                await app.client.signal(handle.id, "word@other")
            with pytest.raises(InvalidInput, match="32"):
                await app.client.send_event("order/x", tags=[f"t{n}" for n in range(32)])
            with pytest.raises(InvalidInput, match="header"):
                await app.client.send_event("order/x", headers={"a": 1})  # type: ignore[dict-item]

    run(main())


def test_names_of_full_length_and_all_characters_work(url: str) -> None:
    name = ("Aa0_.:+/-" * 15)[:128]

    @function(triggers=[name])
    async def exact(event: Event[Any], step: Step) -> Any:
        return event.name

    async def main() -> None:
        async with opened(url, exact) as app, worker_of(app):
            sent = await app.client.send_event(name, {"$owner": "$$NOW", "a\u0000b": "\n"})
            assert await sent.executions[0].result(30) == name

    run(main())


def test_a_step_that_sends_a_hostile_name_fails_for_good(url: str) -> None:
    @function
    async def sends(event: Event[Any], step: Step) -> None:
        await step.send_event("Tell", "order/*", {})

    @function
    async def waits(event: Event[Any], step: Step) -> None:
        await step.wait_for_event("Wait", "word@somebody-else")

    async def main() -> None:
        async with opened(url, sends, waits) as app, worker_of(app):
            for item, said in ((sends, "only a trigger"), (waits, "step 'Wait': event name")):
                handle = await app.client.send(item, None)
                with pytest.raises(ExecutionFailed, match=said):
                    await handle.result(30)
                assert len((await handle.get()).attempts) == 1

    run(main())


# --- faults --------------------------------------------------------------------------------------


class Dies(Exception):
    """The sender died here."""


WRITES = ("insert", "insert", "insert", "create", "find", "delete")
"""What sending an event asks of a store, in order; nothing is written but this."""


@pytest.mark.parametrize("at", range(2 * len(WRITES)))
@pytest.mark.parametrize("repair", ["sweep", "resend", "both"])
def test_a_sender_that_dies_at_any_write_repeats_and_loses_nothing(
    url: str, at: int, repair: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies before the write with an even number, after it with an odd one."""
    done: list[str] = []

    def watched(target: Any, name: str) -> None:
        inner = getattr(target, name)

        async def call(*args: Any, **options: Any) -> Any:
            done.append(name)
            if len(done) - 1 == at // 2 and not at % 2:
                raise Dies
            answer = await inner(*args, **options)
            if len(done) - 1 == at // 2:
                raise Dies
            return answer

        monkeypatch.setattr(target, name, call)

    async def main() -> None:
        data = {"region": "eu", "id": 1}
        async with opened(url, *FUNCTIONS) as app:
            store = app.journal.store
            with monkeypatch.context() as patch:
                patch.setattr(app.journal.clock, "offset", timedelta(seconds=-10))
                patch.setattr(type(app.journal.clock), "is_measured", True)
                for target, name in (
                    (store.records, "insert"),
                    (store, "create"),
                    (store, "find"),
                    (store.records, "delete"),
                ):
                    watched(target, name)
                with pytest.raises(Dies):
                    await app.client.send_event("order/paid", data, id="e")
            assert tuple(done) == WRITES[: at // 2 + 1]
            monkeypatch.undo()
        async with opened(url, *FUNCTIONS) as app:
            if repair != "resend":
                await Mailbox(app.journal).deliver_pending()
            if repair != "sweep":
                await app.client.send_event("order/paid", data, id="e")
            was_acknowledged = at >= 3 or repair != "sweep"  # that it is to be delivered
            expected = ["e:invoice", "e:stock"] if was_acknowledged else []
            assert await all_of(app) == expected
            assert not await app.journal.store.records.scan(PENDING)
            assert len(await app.journal.store.records.scan("event")) == len(expected[:1])

    run(main())


def test_the_sweep_of_a_worker_creates_what_a_dead_sender_left(url: str) -> None:
    async def main() -> None:
        async with opened(url, *FUNCTIONS) as app:

            def die(point: str) -> None:
                if point == "after_event_insert":
                    raise Dies

            app.journal.reach = die
            with pytest.raises(Dies):
                await app.client.send_event("order/paid", {"region": "eu", "id": 4}, id="e")
            assert await all_of(app) == []
        # This worker lacks two of the functions: they were decided on all the same.
        async with opened(url, stock) as app, worker_of(app):
            await until(lambda: _has(app, "e:stock"))
            assert await app.client.result("e:stock", timeout=30) == "order/paid 4"
            left = await app.client.get("e:invoice")
            assert (left.status, left.event) == (Status.QUEUED, "order/paid")

    run(main())


async def _has(app: Worchflow, execution_id: str) -> bool:
    return bool(await app.journal.store.get([execution_id]))


def test_two_sweeps_at_once_create_one_set(url: str) -> None:
    async def main() -> None:
        async with opened(url, *FUNCTIONS) as app:
            app.journal.reach = _die_at_event
            with pytest.raises(Dies):
                await app.client.send_event("order/paid", {"region": "eu"}, id="e")
            app.journal.reach = lambda point: None
            app.journal.clock.shift(timedelta(seconds=5))
            sweepers = [Sweeper(app.journal, app.registry, app.settings) for _ in range(5)]
            await asyncio.gather(*(item.repair() for item in sweepers))
            assert await all_of(app) == ["e:invoice", "e:stock"]

    run(main())


def _die_at_event(point: str) -> None:
    if point == "after_event_insert":
        raise Dies


def test_a_store_that_is_away_takes_no_event_and_says_under_which_id() -> None:
    async def main() -> None:
        store, backends = faulty_memory()
        async with application(*FUNCTIONS, **backends, send_timeout="0.2s") as app:
            store.away = {"create"}
            with pytest.raises(StoreUnavailable) as caught:
                await app.client.send_event("order/paid", {"region": "eu"})
            store.away = set()
            event_id = caught.value.execution_id
            assert event_id is not None
            sent = await app.client.send_event("order/paid", {"region": "eu"}, id=event_id)
            assert [item.is_new for item in sent.executions] == [True, True]

            async def hang(*args: Any, **options: Any) -> Any:
                await asyncio.sleep(60)

            app.journal.store.records.insert = hang
            with pytest.raises(StoreUnavailable, match=r"within 0\.2 s"):
                await app.client.send_event("order/paid", {"region": "eu"})

    run(main())


def test_no_worker_has_the_subscriber_and_it_waits(url: str) -> None:
    async def main() -> None:
        async with opened(url, unrelated) as app, worker_of(app):
            await published(app, stock)
            sent = await app.client.send_event("order/paid", {"id": 2})
            await (await app.client.send(unrelated, None)).result(30)
            assert (await sent.executions[0].get()).status is Status.QUEUED
        async with opened(url, stock) as app, worker_of(app):
            assert await app.client.result(sent.executions[0].id, timeout=30) == "order/paid 2"

    run(main())


# --- around it -----------------------------------------------------------------------------------


def test_descriptions_tell_triggers_and_priority() -> None:
    async def main() -> None:
        store = MemoryStore()
        await catalog.publish([invoice, stock], store.records)
        first, second = await catalog.read(store.records)
        assert first == catalog.describe(invoice)
        assert first.triggers == invoice.triggers
        assert (second.priority, second.tags) == (3, ("stock",))

    run(main())


def test_a_removed_function_runs_for_events_until_it_is_forgotten(url: str) -> None:
    async def main() -> None:
        async with opened(url, unrelated) as app:
            await published(app, stock)
            async with worker_of(app):
                with pytest.raises(NotAllowed, match="has 'unrelated'; stop it first"):
                    await app.client.forget_function("unrelated")
            assert await app.client.subscribers("order/paid") == ("stock",)
            await app.client.forget_function("stock")
        async with opened(url) as app:
            assert await app.client.subscribers("order/paid") == ()
            with pytest.raises(NotFound, match="'stock'"):
                await app.client.forget_function("stock")
            with pytest.raises(InvalidInput, match="function id"):
                await app.client.forget_function("\0")

    run(main())


def test_a_record_is_found_among_many_of_its_beginning() -> None:
    async def main() -> None:
        async with application(stock) as app:
            for number in range(1200):
                with suppress(InvalidInput):
                    await app.client.send_event("n", number, id=f"e{number:04}")
            await app.client.send_event("n", "x", id="e1")
            with pytest.raises(IdempotencyConflict):
                await app.client.send_event("n", "y", id="e1")
            records = app.journal.store.records
            assert (await read_record(records, "event-id", "e1")) is not None
            assert (await read_record(records, "event-id", "e")) is None

    run(main())


def test_the_blocking_client_sends_events() -> None:
    app = application(*FUNCTIONS)
    with BlockingClient(app) as client:
        sent = client.send_event("order/paid", {"region": "eu"}, id="e", tags=["t"])
        assert [handle.id for handle in sent.executions] == ["e:invoice", "e:stock"]
        assert sent.executions[0].get().tags == ("t",)
        assert client.subscribers("order/sent") == ("stock",)
        page = client.find(Filter(function="stock"))
        assert [item.event for item in page.items] == ["order/paid"]


def test_the_harness_runs_what_an_event_runs() -> None:
    with Harness(FUNCTIONS) as harness:
        harness.client.send_event("order/paid", {"id": 3, "region": "eu"})
        runs = harness.run_all()
        assert sorted(str(item.result) for item in runs) == ["[None, []]", "order/paid 3"]
        harness.assert_sent(stock, {"id": 3}, times=1)


def test_created_says_what_a_repetition_found() -> None:
    async def main() -> None:
        async with application(stock) as app:
            mailbox = Mailbox(app.journal)
            informer = app.client._informer
            first = await informer.deliver(informer.event("order/x", {"id": 1}, "e"))
            second = await mailbox.put(first.event)
            assert [answer for _, answer in first.executions] == [Created.NEW]
            assert [answer for _, answer in second.executions] == [Created.SAME]
            assert Watch(name="order/x").match == {}

    run(main())
