from __future__ import annotations

from decimal import Decimal

import pytest
from worchflow_sample.functions.payment import Charge, Payment, Receipt, process_payment

from worchflow_core import ExecutionFailed, Status
from worchflow_core.testing import Harness

PAYMENT = Payment(amount=Decimal(100), customer_id="cust_123")


def test_customer_gets_a_receipt(worchflow_harness: Harness) -> None:
    run = worchflow_harness.run(process_payment, PAYMENT)
    assert run.result.amount == Decimal(100)
    assert run.result.customer_id == "cust_123"
    assert run.result.transaction_id.startswith("txn_")


def test_charge_can_be_stubbed(worchflow_harness: Harness) -> None:
    charge = Charge(id="txn_stub", amount=Decimal(100))
    run = worchflow_harness.run(process_payment, PAYMENT, stub={"Charge payment provider": charge})
    assert run.result == Receipt(
        transaction_id="txn_stub", amount=Decimal(100), customer_id="cust_123"
    )


def test_crash_after_the_charge_does_not_charge_again(worchflow_harness: Harness) -> None:
    run = worchflow_harness.run(process_payment, PAYMENT, crash_after=2)
    assert run.ran == ("Validate payment", "Charge payment provider", "Send receipt")
    assert run.replayed == ("Validate payment", "Charge payment provider")
    assert run.status is Status.COMPLETED


def test_charge_cut_off_is_repeated_with_the_same_key(worchflow_harness: Harness) -> None:
    run = worchflow_harness.run(
        process_payment, PAYMENT, crash_during="Charge payment provider", id="order-1"
    )
    undisturbed = worchflow_harness.run(process_payment, PAYMENT, id="order-2")
    again = Harness()
    with again:
        same = again.run(process_payment, PAYMENT, id="order-1")
    assert run.ran.count("Charge payment provider") == 2
    assert run.result.transaction_id == same.result.transaction_id
    assert run.result.transaction_id != undisturbed.result.transaction_id


def test_provider_that_does_not_answer_is_asked_again(worchflow_harness: Harness) -> None:
    run = worchflow_harness.run(process_payment, {"amount": 5, "customer_id": "cust_flaky"})
    assert run.status is Status.COMPLETED
    assert run.execution.failed_attempts == 1


@pytest.mark.parametrize(
    ("customer", "reason"), [("cust_declined", "was declined"), ("cust_blocked", "is blocked")]
)
def test_refusals_are_final(worchflow_harness: Harness, customer: str, reason: str) -> None:
    run = worchflow_harness.run(process_payment, {"amount": 5, "customer_id": customer})
    assert run.claims == 1
    with pytest.raises(ExecutionFailed, match=reason):
        _ = run.result
