"""What a type checker has to know of the public face. Checked by mypy, never run."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, assert_type

from worchflow_core import (
    BlockingClient,
    BlockingHandle,
    BlockingStep,
    Client,
    Event,
    Execution,
    ExecutionHandle,
    Failure,
    Function,
    Limit,
    OnChange,
    Rate,
    Reason,
    Resource,
    Send,
    SentEvent,
    Step,
    Trigger,
    Unique,
    Worchflow,
    function,
    hookimpl,
)
from worchflow_core.testing import Harness, Run


@function(
    concurrency=[Limit(2, key="data.tenant"), Limit(10)],
    throttle=Rate(10, "1m"),
    singleton="skip",
    unique=Unique("data.order", window=60),
)
async def controlled(event: Event[dict[str, Any]], step: Step) -> int:
    assert_type(event.batch, tuple[Event[dict[str, Any]], ...])
    return 1


async def flow(client: Client, execution: Execution) -> None:
    assert_type(await client.send(controlled, {}), ExecutionHandle[int])


@dataclass
class Payment:
    amount: int


@dataclass
class Receipt:
    id: str


async def charge(payment: Payment) -> Receipt:
    return Receipt(str(payment.amount))


async def refund(receipt: Receipt) -> None: ...


def refund_plainly(receipt: Receipt) -> str:
    return receipt.id


def validate(payment: Payment) -> Payment:
    return payment


@function(id="pay", retries=3, retry_delay="1s", timeout=timedelta(minutes=5), tags=["money"])
async def pay(event: Event[Payment], step: Step) -> Receipt:
    assert_type(event.data, Payment)
    payment = await step.run("Validate", validate, event.data)
    assert_type(payment, Payment)
    first = await step.run("Charge", charge, payment, timeout="30s", once=True)
    assert_type(first, Receipt)
    second = await step.run("Charge again", lambda: charge(payment))
    assert_type(second, Receipt)
    third = await step.run("Charge last", charge, payment, undo=refund)
    assert_type(third, Receipt)
    _held: list[Receipt] = await step.map("Hold", charge, [payment], undo=refund_plainly)
    await step.run("Charge", charge, payment, undo=validate)  # type: ignore[misc]
    step.progress(1, 3, "payments")
    step.progress(0.5)
    step.log("charged", receipt=first.id)
    both = await asyncio.gather(
        step.run("Left", charge, payment, key="left"), step.run("Right", validate, payment)
    )
    assert_type(both, tuple[Receipt, Payment])

    @step("Nested")
    async def nested() -> int:
        return 1

    assert_type(await nested, int)
    await step.run("Wrong", charge, "text")  # type: ignore[arg-type]
    return first


@function
def count(event: Event[list[int]], step: BlockingStep) -> int:
    total = step.run("Add up", sum, event.data)
    assert_type(total, int)
    return total


def open_pool() -> Any: ...


@function
async def with_pool(event: Event[str], step: Step, *, pool: str = Resource(open_pool)) -> str:
    return pool


assert_type(pay, Function[Payment, Receipt])
assert_type(count, Function[list[int], int])
assert_type(with_pool, Function[str, str])


@function
async def typed_cron(event: Event[Any], step: Step) -> None: ...


@function(on_failure=typed_cron, on_success="pay", cron="0 3 * * *", tz="Europe/Paris")
async def nightly(event: Event[Any], step: Step) -> None: ...


@function(triggers=["order/*", Trigger("paid", match={"region": "eu"})])
async def listens(event: Event[Payment], step: Step) -> int:
    assert_type(await step.send_event("Tell", "order/seen"), str)
    return event.data.amount


assert_type(listens, Function[Payment, int])
assert_type(listens.triggers, tuple[Trigger, ...])
function(triggers="order/*")  # refused when it runs: a text is an iterable of texts
function(triggers=[5])  # type: ignore[list-item]


async def client_is_typed(client: Client) -> None:
    handle = await client.send(pay, Payment(1))
    assert_type(handle, ExecutionHandle[Receipt])
    assert_type(await handle.result(timeout="1m"), Receipt)
    await client.send(pay, "text")  # type: ignore[misc]
    by_name = await client.send("pay", {"amount": 1}, id="one", delay=5)
    assert_type(by_name, ExecutionHandle[Any])
    many = await client.send_many([Send(function=pay, data=Payment(1))])
    assert_type(many, list[ExecutionHandle[Any]])
    assert_type(await client.get("one"), Execution)
    sent = await client.send_event("order/paid", {"amount": 1}, id="e", tags=["t"])
    assert_type(sent, SentEvent[ExecutionHandle[Any]])
    assert_type(sent.executions[0].function, str)


async def forks_and_reasons_are_typed(client: Client) -> None:
    fork = await client.fork("one", from_step="Charge", data={"amount": 2}, results={"Tax": 1})
    assert_type(fork, ExecutionHandle[Any])
    assert_type(await client.explain("one"), tuple[Reason, ...])
    await client.fork("one", "Charge")  # type: ignore[call-arg]


@function(on_change=OnChange.WARN)
async def changes(event: Event[Any], step: Step) -> None: ...


def blocking_client_is_typed(client: BlockingClient) -> None:
    assert_type(client.send(pay, Payment(1)).result(timeout=1), Receipt)
    assert_type(client.get("one"), Execution)
    assert_type(client.retry("one"), Execution)
    assert_type(client.explain("one"), tuple[Reason, ...])
    assert_type(client.fork("one", id="two").result(timeout=1), Any)
    assert_type(client.send_event("order/paid"), SentEvent[BlockingHandle[Any]])


async def application_opens() -> None:
    async with Worchflow(functions=[pay, count], env_file=None) as app:
        assert_type(app.client, Client)
        await app.worker.run(burst=True)


def harness_is_typed(harness: Harness) -> None:
    run = harness.run(pay, Payment(1), stub={"Charge": Receipt("x")}, crash_after="Validate")
    assert_type(run, Run[Receipt])
    assert_type(run.result, Receipt)
    assert_type(harness.run("pay").result, Any)


@hookimpl
def worchflow_execution_failed(execution: Execution, failure: Failure) -> None:
    assert_type(failure.message, str)
