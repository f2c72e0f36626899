"""`worchflow send` of events: to functions that subscribe, and to those who wait."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from worchflow_core.cli import exits

SOURCE = '''
from pydantic import BaseModel

from worchflow_core import Event, Trigger, function


class Order(BaseModel):
    id: int
    note: str = ""


@function(triggers=["order/*"], retries=0)
async def stock(event: Event[Order], step) -> str:
    """Take from the stock."""
    return f"{event.name} {event.data.id}"


@function(triggers=[Trigger("order/paid", match={"region": "eu"})])
async def invoice(event: Event, step) -> int:
    return event.data["id"]
'''


@pytest.fixture
def shop(place: Path) -> str:
    """The name of a module with functions that subscribe to events."""
    name = f"shop_{uuid4().hex[:8]}"
    (place / f"{name}.py").write_text(SOURCE, encoding="utf-8")
    return name


def test_a_name_that_functions_subscribe_to_needs_no_flag(
    cli: Callable[..., Any], shop: str, place: Path
) -> None:
    data = '{"id": 7, "region": "eu"}'
    done = cli("send", "order/paid", data, "-m", shop, "--id", "o7", "--tag", "vip")
    assert done.code == 0, done.err
    assert done.out == "o7:invoice\no7:stock\n"
    assert "queued o7:stock for stock" in done.err
    assert f"no live worker has stock on {place / 'worchflow.db'}" in done.err
    again = cli("send", "order/paid", data, "-m", shop, "--id", "o7")
    assert again.out == done.out
    assert "event o7 was sent before; nothing new was created" in again.err
    other = cli("send", "order/paid", '{"id": 8, "region": "eu"}', "-m", shop, "--id", "o7")
    assert other.code == exits.USAGE
    assert other.err.splitlines()[-1].startswith("error: event 'o7' was sent before")
    shown = json.loads(cli("show", "o7:stock", "--json").out)["execution"]
    assert (shown["event"], shown["eventName"], shown["tags"]) == ("order/paid", "stock", ["vip"])


def test_json_tells_each_execution(cli: Callable[..., Any], shop: str) -> None:
    done = cli("send", "order/sent", '{"id": 7}', "-m", shop, "--id", "o7", "--json")
    assert json.loads(done.out) == {
        "eventId": "o7",
        "items": [{"executionId": "o7:stock", "function": "stock", "isNew": True}],
        "total": 1,
    }
    none = cli("send", "news", "--event", "-m", shop, "--id", "n1", "--json")
    assert json.loads(none.out) == {"eventId": "n1", "items": [], "total": 0}


def test_a_sender_without_the_code_reaches_what_a_worker_described(
    cli: Callable[..., Any], shop: str
) -> None:
    assert cli("worker", "--burst", "-m", shop).code == 0
    done = cli("send", "order/paid", '{"id": 7}', "--id", "o7")
    assert (done.code, done.out) == (0, "o7:stock\n")
    assert json.loads(cli("send", "order/paid", "--template").out) == {"id": 0}
    typed = cli("send", "order/paid", "--set", "id=8", "--set", "note=9", "--id", "o8")
    assert typed.code == 0
    assert json.loads(cli("show", "o8:stock", "--input", "-q").out) == {"id": 8, "note": "9"}


def test_waiting_prints_the_results_alone(
    cli: Callable[..., Any], program: Callable[..., Any], shop: str
) -> None:
    worker = program("worker", "-m", shop, "--no-scheduler")
    done = cli("send", "order/paid", '{"id": 7, "region": "eu"}', "-m", shop, "--wait")
    assert done.code == 0, done.err
    assert [json.loads(line) for line in done.out.splitlines()] == [7, "order/paid 7"]
    bad = cli("send", "order/sent", '{"id": "x"}', "-m", shop, "--wait")
    assert bad.code == exits.EXECUTION_FAILED
    assert "event data does not fit stock, which will fail: id expected integer" in bad.err
    nobody = cli("send", "news", "-m", shop, "--event", "--wait")
    assert (nobody.code, nobody.out) == (0, "")
    worker.signal()
    worker.end()


def test_an_unknown_name_is_an_error_that_names_events_and_both_ways_on(
    cli: Callable[..., Any], shop: str
) -> None:
    done = cli("send", "order-paid", "{}", "-m", shop)
    assert done.code == exits.USAGE
    assert done.out == ""
    assert "did you mean order/paid" in done.err
    assert "--event sends it to those who wait" in done.err
    assert "--force queues it for a function" in done.err
    event = cli("send", "order-paid", "{}", "-m", shop, "--event")
    assert (event.code, event.out) == (0, "")
    assert "no function subscribes to order-paid; it is kept for those who wait" in event.err
    forced = cli("send", "order-paid", "{}", "-m", shop, "--force", "--id", "f1")
    assert (forced.code, forced.out) == (0, "f1\n")
    execution = json.loads(cli("show", "f1", "--json").out)["execution"]
    assert execution["eventName"] == "order-paid"
    assert "event" not in execution


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("stock", "--event"), "stock is a function"),
        (("order/paid", "--delay", "5m"), "--delay is for functions"),
        (("order/paid", "--at", "2030-01-01T00:00"), "--at is for functions"),
        (("order/paid", "--count", "2"), "--count is for functions"),
        (("order/*", "--event"), "only a trigger may hold a *"),
        (("a b", "--event"), "event name 'a b'"),
        (("a\nb", "--event"), r"event name 'a\nb'"),
        (("word@one", "--event"), "use signal"),
        (("é" * 200, "--event"), "event name"),
    ],
)
def test_what_cannot_be_sent_as_an_event_is_wrong_usage(
    cli: Callable[..., Any], shop: str, arguments: tuple[str, ...], said: str
) -> None:
    done = cli("send", arguments[0], "{}", "-m", shop, *arguments[1:])
    assert done.code == exits.USAGE
    assert said in done.err
    assert "Traceback" not in done.err
    assert json.loads(cli("list", "--json").out)["total"] == 0


def test_functions_shows_what_they_subscribe_to(cli: Callable[..., Any], shop: str) -> None:
    table = cli("functions", "--installed", "-m", shop).out
    assert "EVENTS" in table
    assert "order/*" in table
    items = {
        item["id"]: item["triggers"]
        for item in json.loads(cli("functions", "--installed", "-m", shop, "--json").out)["items"]
    }
    assert items["stock"] == [{"name": "order/*", "match": {}}]
    assert items["invoice"] == [{"name": "order/paid", "match": {"region": "eu"}}]


def test_a_removed_function_is_forgotten_on_request(cli: Callable[..., Any], shop: str) -> None:
    assert cli("worker", "--burst", "-m", shop).code == 0
    assert cli("send", "order/sent", '{"id": 1}', "-q").out
    done = cli("functions", "--forget", "stock")
    assert (done.code, done.out) == (0, "")
    assert "stock is forgotten" in done.err
    assert cli("send", "order/sent", '{"id": 1}').code == exits.USAGE
    assert cli("functions", "--forget", "stock").code == exits.NOT_FOUND
    assert cli("functions", "--forget", "a\nb").code == exits.USAGE
