"""Makes executions with their steps, as a worker would have left them."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from worchflow_core import (
    Attempt,
    Execution,
    Failure,
    Status,
    StepRecord,
    StepTry,
    from_millis,
    to_millis,
)
from worchflow_plugins.dashboard.demo.functions import FUNCTIONS, STEPS

_WEIGHTS: tuple[tuple[Status, float], ...] = (
    (Status.COMPLETED, 88),
    (Status.FAILED, 7),
    (Status.CANCELLED, 2),
    (Status.RETRYING, 1.5),
    (Status.SLEEPING, 0.5),
)
_TRACEBACK = """Traceback (most recent call last):
  File "/app/.venv/lib/python3.11/site-packages/worchflow_core/attempt.py", line 118, in run
    result = await function.code(event, step)
             ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "/app/flows/payments.py", line 42, in process_payment
    charge = await step.run("Charge payment provider", lambda: gateway.charge(payment))
             ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "/app/.venv/lib/python3.11/site-packages/worchflow_core/steps.py", line 77, in run
    return await self._run(title, code)
           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "/app/flows/gateway.py", line 77, in charge
    raise GatewayTimeout(f"no answer from {self.host} within {self.timeout}s")
flows.gateway.GatewayTimeout: no answer from pay.example within 5.0s
"""
_FAILURE = Failure(
    type="flows.gateway.GatewayTimeout",
    message="no answer from pay.example within 5.0s",
    traceback=_TRACEBACK,
    cause=Failure(type="TimeoutError", message="timed out"),
)


class Maker:
    """Make executions with their steps, each run the same for the same seed."""

    def __init__(self, seed: int, now: datetime) -> None:
        self._random = random.Random(seed)
        self._now = now

    def make(
        self, age: timedelta, status: Status | None = None, function_id: str | None = None
    ) -> tuple[Execution, list[StepRecord]]:
        """Return an execution that was sent `age` ago, with its steps."""
        pick = self._random
        if status is None:
            names, weights = zip(*_WEIGHTS, strict=True)
            status = pick.choices(names, weights)[0]
        function_id = function_id or pick.choices(list(STEPS), (5, 3, 6, 0.2, 2))[0]
        created = from_millis(to_millis(self._now - age))
        retries = next(item.retry.retries for item in FUNCTIONS if item.id == function_id)
        execution = Execution(
            id=str(UUID(int=pick.getrandbits(128), version=4)),
            function=function_id,
            data=json.dumps(self._data(function_id)),
            status=status,
            retries=retries,
            created_at=created,
            updated_at=created,
            due_at=created,
            tags=("demo",),
            input_hash="",
            scheduled_for=created if "sync" in function_id or "daily" in function_id else None,
        )
        if status is Status.QUEUED:
            return execution, []
        return self._run(execution, retries)

    def _run(self, execution: Execution, retries: int) -> tuple[Execution, list[StepRecord]]:
        if execution.status is Status.RETRYING and not retries:
            execution = replace(execution, status=Status.FAILED)
        pick, status = self._random, execution.status
        failures = retries + 1 if status is Status.FAILED else 0
        if status is Status.RETRYING or (status is Status.COMPLETED and pick.random() < 0.08):
            failures = min(1, retries)
        clock = execution.created_at + timedelta(milliseconds=pick.randint(3, 240))
        titles = list(STEPS[execution.function])
        if status in (Status.PROCESSING, Status.SLEEPING, Status.CANCELLED, Status.FAILED):
            titles = titles[: max(1, len(titles) * 2 // 3)]
        elif status is Status.RETRYING:
            titles = titles[: max(1, len(titles) // 2)]
        worker = f"demo-{pick.randint(0, 2)}"
        attempts: list[Attempt] = []
        steps: list[StepRecord] = []
        todo = list(titles)
        for number in range(1, failures + 1):
            began = clock
            share = 1 + len(todo) // 2 if number == 1 else 1
            for title in todo[:share][:-1]:
                clock = self._step(execution, steps, title, number, clock)
            failed = todo[min(share, len(todo)) - 1]
            todo = todo[len(todo[:share][:-1]) :]
            ended = clock + timedelta(milliseconds=pick.randint(120, 900))
            tried = StepTry(
                step_id=_step_id(failed),
                title=failed,
                started_at=clock,
                ended_at=ended,
                error=replace(_FAILURE, traceback=None, cause=None),
            )
            outcome = "failed" if number > retries else "retrying"
            attempts.append(_attempt(number, worker, began, ended, outcome, (tried,)))
            clock = ended + timedelta(milliseconds=500 * 2**number)
        if status in (Status.FAILED, Status.RETRYING):
            return self._ended(execution, attempts, steps, failures), steps
        began = clock
        for title in todo:
            clock = self._step(execution, steps, title, failures + 1, clock)
        if status is Status.PROCESSING:
            shift = max(timedelta(0), clock - self._now + timedelta(milliseconds=400))
            steps = [_earlier(step, shift) for step in steps]
            return replace(
                execution,
                created_at=execution.created_at - shift,
                due_at=None,
                owner=worker,
                fence=1,
                claimed_at=began - shift,
                updated_at=began - shift,
            ), steps
        attempts.append(_attempt(failures + 1, worker, began, clock, status.value, ()))
        return self._ended(execution, attempts, steps, failures), steps

    def _ended(
        self,
        execution: Execution,
        attempts: list[Attempt],
        steps: list[StepRecord],
        failures: int,
    ) -> Execution:
        status, ended = execution.status, attempts[-1].ended_at
        result = {"success": True, "transactionId": f"txn_{self._random.randint(1000, 9999)}"}
        is_final = status.is_final
        return replace(
            execution,
            updated_at=ended,
            finished_at=ended if is_final else None,
            due_at=None if is_final else self._now + timedelta(minutes=self._random.randint(5, 50)),
            failed_attempts=failures,
            attempts=tuple(attempts),
            steps_recorded=len(steps),
            result=json.dumps(result) if status is Status.COMPLETED else None,
            error=_FAILURE if status in (Status.FAILED, Status.RETRYING) else None,
            code_version="acme-flows 2.4.1",
            fence=1,
        )

    def _step(
        self,
        execution: Execution,
        steps: list[StepRecord],
        title: str,
        attempt: int,
        clock: datetime,
    ) -> datetime:
        pick = self._random
        began = clock + timedelta(milliseconds=pick.randint(1, 30))
        ended = began + timedelta(milliseconds=int(pick.lognormvariate(5.2, 0.9)) + 5)
        repeats = sum(step.title == title for step in steps)
        steps.append(
            StepRecord(
                execution_id=execution.id,
                step_id=_step_id(f"{title}#{repeats + 1}" if repeats else title),
                title=title,
                result=json.dumps({"ok": True, "took": (ended - began).total_seconds()}),
                seq=len(steps) + 1,
                fence=0 if execution.fence == 0 and execution.owner is None else execution.fence,
                attempt=attempt,
                started_at=began,
                ended_at=ended,
                execution_created_at=execution.created_at,
            )
        )
        return ended

    def _data(self, function_id: str) -> dict[str, Any]:
        pick = self._random
        if function_id == "process-payment":
            return {
                "amount": pick.randint(100, 99_999),
                "currency": pick.choice(["EUR", "USD", "GBP"]),
                "customer_id": f"cust_{pick.randint(100, 999)}",
                "items": [
                    {"sku": f"S-{index}", "quantity": index + 1}
                    for index in range(pick.randint(1, 3))
                ],
            }
        if function_id == "encode-video":
            return {"url": f"s3://films/{pick.randint(1, 99)}.mov", "minutes": pick.randint(1, 90)}
        return {"name": pick.choice(["world", "Ana", "Bo"])} if "hello" in function_id else {}


def _attempt(
    number: int,
    worker: str,
    began: datetime,
    ended: datetime,
    outcome: str,
    tries: tuple[StepTry, ...],
) -> Attempt:
    return Attempt(
        number=number,
        worker=worker,
        started_at=began,
        ended_at=ended,
        outcome=outcome,
        error=tries[-1].error if tries else None,
        tries=tries,
    )


def _earlier(step: StepRecord, shift: timedelta) -> StepRecord:
    ended = step.ended_at - shift if step.ended_at else None
    return replace(step, started_at=step.started_at - shift, ended_at=ended)


def _step_id(title: str) -> str:
    return hashlib.md5(title.encode(), usedforsecurity=False).hexdigest()
