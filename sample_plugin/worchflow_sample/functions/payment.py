"""A payment: typed event, typed result, retries, and an idempotency key for the provider."""

from __future__ import annotations

import asyncio
import hashlib
from decimal import Decimal

from pydantic import BaseModel, Field

from worchflow_core import Event, NonRetriable, Step, function


class Payment(BaseModel):
    """What a client sends to `process-payment`."""

    amount: Decimal = Field(gt=0, description="How much to charge.")
    customer_id: str = Field(min_length=1, description="Whom to charge, such as cust_123.")


class Charge(BaseModel):
    """What the payment provider answers."""

    id: str
    amount: Decimal


class Receipt(BaseModel):
    """What `process-payment` returns."""

    transaction_id: str
    amount: Decimal
    customer_id: str


class CardDeclined(NonRetriable):
    """The provider refused the card: trying again would not help, so the execution fails now."""


@function(id="process-payment", retries=3, retry_delay="1s")
async def process_payment(event: Event[Payment], step: Step) -> Receipt:
    """Charge a customer and send the receipt.

    Each step's result is stored once it returned. When the worker dies in between, the next
    attempt takes the stored results and goes on from there.
    """
    payment = await step.run("Validate payment", validate, event.data)

    async def charge() -> Charge:
        # The key is the same on every attempt, so the provider charges once even where a worker
        # died after the charge and before its result was stored.
        return await charge_card(payment, step.idempotency_key, attempt=step.attempt)

    charged = await step.run("Charge payment provider", charge)
    return await step.run("Send receipt", send_receipt, payment, charged)


def validate(payment: Payment) -> Payment:
    """Refuse what the provider would refuse; a plain function is a step as well."""
    if payment.customer_id.endswith("_blocked"):
        raise NonRetriable(f"customer {payment.customer_id} is blocked")
    return payment


async def charge_card(payment: Payment, idempotency_key: str, *, attempt: int = 1) -> Charge:
    """Stand in for a payment provider: one idempotency key is one charge.

    A customer id that ends with `_declined` is refused, one that ends with `_flaky` gets no answer
    at the first attempt: send such payments to see how failures look.
    """
    await asyncio.sleep(0.3)
    if payment.customer_id.endswith("_declined"):
        raise CardDeclined(f"the card of {payment.customer_id} was declined")
    if payment.customer_id.endswith("_flaky") and attempt == 1:
        raise ConnectionError("the payment provider did not answer")
    digest = hashlib.sha256(idempotency_key.encode()).hexdigest()
    return Charge(id=f"txn_{digest[:12]}", amount=payment.amount)


async def send_receipt(payment: Payment, charge: Charge) -> Receipt:
    """Stand in for a mail server."""
    await asyncio.sleep(0.1)
    return Receipt(transaction_id=charge.id, amount=charge.amount, customer_id=payment.customer_id)
