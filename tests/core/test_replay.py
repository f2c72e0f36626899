"""Replay: what the first run saw is what every later attempt sees, also after the code changed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as given_settings
from hypothesis import strategies as st
from pydantic import BaseModel

from tests.core.support import application, outcome, run, until, worker_of, working
from worchflow_core import Event, Function, NotSerializable, Status, Step, function
from worchflow_core.codec import UNTYPED, Codec

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.sampled_from([10**400, -(2**64), "\ud800", "nul\0", -0.0, 1e400])
    | st.binary(max_size=2)
    | st.datetimes(),
    lambda children: (
        st.lists(children, max_size=4)
        | st.tuples(children, children)
        | st.dictionaries(
            st.text(st.characters(), max_size=3) | st.integers() | st.none(), children, max_size=4
        )
        | st.sets(st.integers(), max_size=3)
    ),
    max_leaves=12,
)


class Line(BaseModel):
    name: str
    price: Decimal
    share: float | None = None


@dataclasses.dataclass
class Bill:
    id: UUID
    at: datetime
    lines: list[Line]
    span: timedelta = timedelta(0)
    flags: frozenset[int] = frozenset()


LINES = st.builds(
    Line,
    name=st.text(st.characters()),
    price=st.decimals(allow_nan=False, allow_infinity=False),
    share=st.none() | st.floats(),
)
BILLS = st.builds(
    Bill,
    id=st.uuids(),
    at=st.datetimes(timezones=st.none() | st.just(UTC) | st.timezones()),
    lines=st.lists(LINES, max_size=3),
    span=st.timedeltas(),
    flags=st.frozensets(st.integers(), max_size=3),
)
quickly = given_settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def alike(left: Any, right: Any) -> bool:
    """Whether two values are equal, and of equal types all the way down."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(alike(left[k], right[k]) for k in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(alike, left, right))
    if isinstance(left, float):
        return left == right and math.copysign(1, left) == math.copysign(1, right)
    return bool(left == right)


@quickly
@given(JSON)
def test_first_run_and_replay_see_equal_json_or_it_is_refused(value: Any) -> None:
    codec = Codec(UNTYPED, "result of step 'Make'")
    try:
        text, seen = codec.encode(value, limit=2**20)
    except NotSerializable as error:
        assert str(error).startswith("result of step 'Make'")  # noqa: PT017
        return
    text.encode()
    assert alike(seen, codec.decode(text))
    again, _ = codec.encode(seen, limit=2**20)
    assert again == text


@quickly
@given(BILLS)
def test_first_run_and_replay_see_equal_typed_values_or_it_is_refused(bill: Bill) -> None:
    codec = Codec(Bill, "result of step 'Make'")
    try:
        text, seen = codec.encode(bill, limit=2**20)
    except NotSerializable as error:
        assert str(error).startswith("result of step 'Make'")  # noqa: PT017
        return
    assert seen == bill
    assert seen == codec.decode(text)
    assert type(seen.lines[0]) is Line if seen.lines else True


@given_settings(max_examples=15, deadline=None)
@given(st.lists(JSON, min_size=5, max_size=15))
def test_whole_executions_see_on_replay_what_they_saw_first(values: list[Any]) -> None:
    seen: dict[int, list[Any]] = {1: [], 2: []}

    @function(retries=1, retry_delay=0)
    async def replaying(event: Event[Any], step: Step) -> None:
        for number, value in enumerate(values):
            try:
                kept = await step.run("Make", lambda value=value: value, key=f"v{number}")
            except NotSerializable as error:
                kept = str(error)
            seen[step.attempt].append(kept)
        if step.attempt == 1:
            raise ValueError("once more")

    async def main() -> None:
        async with working(replaying) as app:
            assert (await outcome(app, replaying)).status is Status.COMPLETED

    run(main())
    assert alike(seen[1], seen[2])


# --- code that changes while an execution waits ---------------------------------------------------

Body = Callable[[Step, list[str]], Any]


def deployed(first: Body, second: Body) -> tuple[Any, list[str], list[str]]:
    """Run `first` until it fails, then `second` in its place; return how it ended, and the runs."""
    runs: list[str] = []

    def version(body: Body) -> Function[Any, Any]:
        @function(id="changing", retries=5, retry_delay="1h")
        async def changing(event: Event[Any], step: Step) -> Any:
            return await body(step, runs)

        return changing

    async def main() -> Any:
        url = f"memory://deployed-{id(runs)}"
        async with application(version(first), url=url) as app:
            handle = await app.client.send("changing", None, id="one")
            async with worker_of(app):

                async def waits() -> bool:
                    return (await handle.get()).status is Status.RETRYING

                await until(waits)
            before = list(runs)
            runs.clear()
            space = app.journal.store._space  # type: ignore[attr-defined]
            space.keep(dataclasses.replace(space.executions["one"], due_at=None))
        async with application(version(second), url=url) as app, worker_of(app):

            async def ended() -> Any:
                execution = await app.client.get("one")
                return execution if execution.failed_attempts > 1 or execution.result else None

            return await until(ended), before, runs

    return run(main())


def make(runs: list[str], name: str, value: Any) -> Callable[[], Any]:
    return lambda: runs.append(name) or value


async def two_then_fail(step: Step, runs: list[str]) -> Any:
    await step.run("A", make(runs, "A", 1))
    await step.run("B", make(runs, "B", 2))
    raise ValueError("deploy a new version")


def test_step_that_was_removed_is_left_over_and_does_no_harm() -> None:
    async def second(step: Step, runs: list[str]) -> Any:
        return [await step.run("B", make(runs, "B", 20))]

    ended, before, after = deployed(two_then_fail, second)
    assert (ended.result, before, after) == ("[2]", ["A", "B"], [])


def test_step_that_was_renamed_runs_anew() -> None:
    async def second(step: Step, runs: list[str]) -> Any:
        return [
            await step.run("A2", make(runs, "A2", 10)),
            await step.run("B", make(runs, "B", 20)),
        ]

    ended, _, after = deployed(two_then_fail, second)
    assert (ended.result, after) == ("[10,2]", ["A2"])


def test_step_that_was_added_runs_and_the_others_are_replayed() -> None:
    async def second(step: Step, runs: list[str]) -> Any:
        return [
            await step.run("A", make(runs, "A", 10)),
            await step.run("New", make(runs, "New", 15)),
            await step.run("B", make(runs, "B", 20)),
        ]

    ended, _, after = deployed(two_then_fail, second)
    assert (ended.result, after) == ("[1,15,2]", ["New"])


def test_steps_that_were_reordered_keep_their_values() -> None:
    async def second(step: Step, runs: list[str]) -> Any:
        return [
            await step.run("B", make(runs, "B", 20)),
            await step.run("A", make(runs, "A", 10)),
        ]

    ended, _, after = deployed(two_then_fail, second)
    assert (ended.result, after) == ("[2,1]", [])


def test_stored_result_that_no_longer_fits_its_type_fails_for_good_by_name() -> None:
    async def second(step: Step, runs: list[str]) -> Any:
        return await step.run("A", make(runs, "A", 1), returns=list[str])

    ended, _, after = deployed(two_then_fail, second)
    assert ended.status is Status.FAILED
    assert ended.error.reason == "non_deterministic"
    assert "'A' no longer fits" in ended.error.message
    assert after == []


def test_two_titles_of_one_digest_never_share_a_value(monkeypatch: pytest.MonkeyPatch) -> None:
    from worchflow_core import identities

    monkeypatch.setattr(identities, "step_id_of", lambda text: sha256(b"all alike").hexdigest())

    async def first(step: Step, runs: list[str]) -> Any:
        await step.run("One", make(runs, "one", 1))
        raise ValueError("deploy a new version")

    async def second(step: Step, runs: list[str]) -> Any:
        return await step.run("Other", make(runs, "other", 2))

    ended, _, after = deployed(first, second)
    assert ended.status is Status.FAILED
    assert ended.error.reason == "non_deterministic"
    assert "'Other' was stored as step 'One'" in ended.error.message
    assert after == []


def test_key_may_keep_its_result_under_another_title() -> None:
    async def first(step: Step, runs: list[str]) -> Any:
        await step.run("Charge Ana", make(runs, "A", 1), key="charge-7")
        raise ValueError("deploy a new version")

    async def second(step: Step, runs: list[str]) -> Any:
        return await step.run("Charge customer 7", make(runs, "B", 2), key="charge-7")

    ended, _, after = deployed(first, second)
    assert (ended.result, after) == ("1", [])
