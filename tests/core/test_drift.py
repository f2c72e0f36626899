"""What becomes of an execution when its code has changed since its steps were stored."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from worchflow_core import (
    BlockingStep,
    Event,
    Execution,
    FunctionError,
    Status,
    Step,
    StepRecord,
    Worchflow,
    function,
)

from .support import run, working

Body = Callable[[Step], Awaitable[Any]]

SERVED = {"disabled_plugins": "dashboard,logs,redis,sample-audit,sample-panel"}
"""Settings with the plugins of all stores."""


class Deployed:
    """A function whose code is replaced between two attempts at one execution."""

    def __init__(self, on_change: str = "fail") -> None:
        self.body: Body
        self.ran: list[str] = []

        @function(id="deployed", retries=0, on_change=on_change)
        async def deployed(event: Event[Any], step: Step) -> Any:
            return await self.body(step)

        self.function = deployed

    def code(self, name: str, value: Any) -> Callable[[], Any]:
        """Return step code that notes that it ran."""

        def run() -> Any:
            self.ran.append(name)
            return value

        return run

    async def attempt(self, app: Worchflow, body: Body, execution_id: str | None) -> Execution:
        self.body = body
        if execution_id is None:
            handle = await app.client.send(self.function, None)
            return await app.client.wait(handle.id, timeout=30)
        await app.client.retry(execution_id)
        return await app.client.wait(execution_id, timeout=30)


def deploy(url: str, deployed: Deployed, *bodies: Body) -> tuple[list[Execution], list[StepRecord]]:
    """Make one attempt with each code; return how each ended, and the steps at the end."""

    async def main() -> tuple[list[Execution], list[StepRecord]]:
        ends: list[Execution] = []
        async with working(deployed.function, url=url, **SERVED) as app:
            for body in bodies:
                ends.append(await deployed.attempt(app, body, ends[0].id if ends else None))
            return ends, list(await app.client.steps(ends[0].id))

    return run(main())


def stops_after(title: str, code: Callable[[], Any], returns: Any = None) -> Body:
    async def body(step: Step) -> Any:
        await step.run(title, code, returns=returns)
        raise ValueError("stop here")

    return body


def takes(title: str, code: Callable[[], Any], returns: Any = None) -> Body:
    async def body(step: Step) -> Any:
        return await step.run(title, code, returns=returns)

    return body


def sleeps(title: str) -> Body:
    async def body(step: Step) -> Any:
        return await step.sleep(title, 0)

    return body


def test_added_removed_and_reordered_steps_are_no_change(url: str) -> None:
    deployed = Deployed()

    async def first(step: Step) -> Any:
        for name in ("A", "B", "C"):
            await step.run(name, deployed.code(name, name))
        raise ValueError("stop here")

    async def second(step: Step) -> Any:
        found = [await step.run(name, deployed.code(name, "new")) for name in ("C", "New", "A")]
        return found

    (_, end), _ = deploy(url, deployed, first, second)
    assert end.result == '["C","new","A"]'
    assert deployed.ran == ["A", "B", "C", "New"]


@pytest.mark.parametrize("change", ["type", "kind"])
def test_a_changed_step_fails_for_good_by_default(url: str, change: str) -> None:
    deployed = Deployed()
    old = stops_after("Quote", deployed.code("old", "text"), str)
    new = takes("Quote", deployed.code("new", 1), int) if change == "type" else sleeps("Quote")
    (_, end), steps = deploy(url, deployed, old, new)
    assert end.status is Status.FAILED
    assert end.error is not None
    assert end.error.reason == "non_deterministic"
    assert "Quote" in end.error.message
    assert "another title" in end.error.message
    assert deployed.ran == ["old"]
    assert len(steps) == 1


def test_warn_runs_a_step_anew_whose_result_no_longer_fits(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    deployed = Deployed("warn")
    old = stops_after("Quote", deployed.code("old", "text"), str)
    new = stops_after("Quote", deployed.code("new", 1), int)
    again = takes("Quote", deployed.code("again", 2), int)
    with caplog.at_level(logging.WARNING, "worchflow"):
        ends, steps = deploy(url, deployed, old, new, again)
    assert ends[-1].result == "1"
    assert deployed.ran == ["old", "new"]  # the step that was run anew is stored like any other
    assert [step.title for step in steps] == ["Quote", "Quote"]
    assert len({step.step_id for step in steps}) == 2
    assert [item.message.count("run anew") for item in caplog.records].count(1) == 1


def test_warn_runs_a_step_anew_for_each_change_and_takes_the_old_one_back(url: str) -> None:
    deployed = Deployed("warn")
    (*_, text, number, items, back), _ = deploy(
        url,
        deployed,
        stops_after("Quote", deployed.code("text", "text"), str),
        takes_and_stops := stops_after("Quote", deployed.code("number", 1), int),
        stops_after("Quote", deployed.code("list", [1]), list[int]),
        takes_and_stops,
        takes("Quote", deployed.code("never", ""), str),
    )
    assert {text.status, number.status, items.status} == {Status.FAILED}
    assert deployed.ran == ["text", "number", "list"]
    assert back.result == '"text"'


def test_warn_runs_a_step_anew_that_was_of_another_kind(url: str) -> None:
    deployed = Deployed("warn")

    async def slept(step: Step) -> Any:
        await step.sleep("Quote", 0)
        raise ValueError("stop here")

    (_, end), steps = deploy(url, deployed, slept, takes("Quote", deployed.code("new", 1), int))
    assert end.result == "1"
    assert {step.kind for step in steps} == {"sleep", "run"}


def test_a_step_that_must_run_once_is_never_run_anew(url: str) -> None:
    deployed = Deployed("warn")

    async def changed(step: Step) -> Any:
        return await step.run("Quote", deployed.code("new", 1), returns=int, once=True)

    old = stops_after("Quote", deployed.code("old", "text"), str)
    (_, end), _ = deploy(url, deployed, old, changed)
    assert end.status is Status.FAILED
    assert end.error is not None
    assert "to run once" in end.error.message
    assert deployed.ran == ["old"]


def test_adopt_takes_what_is_stored_as_it_is(url: str) -> None:
    deployed = Deployed("adopt")
    old = stops_after("Quote", deployed.code("old", {"price": "5"}), dict[str, str])
    new = takes("Quote", deployed.code("new", 1), int)

    async def returns_it(step: Step) -> Any:
        found: Any = await new(step)
        return found["price"]

    (_, end), _ = deploy(url, deployed, old, returns_it)
    assert end.result == '"5"'
    assert deployed.ran == ["old"]


def test_adopt_takes_the_value_of_a_step_of_another_kind(url: str) -> None:
    deployed = Deployed("adopt")

    async def old(step: Step) -> Any:
        await step.run("Number", deployed.code("old", 7))
        await step.sleep("Nap", 0)
        sent = await step.send_event("Tell", "somebody", {"a": 1})
        raise ValueError(sent)

    async def new(step: Step) -> Any:
        number = await step.wait_for_event("Number", "never-sent")
        nap = await step.run("Nap", deployed.code("new", "slept"))
        told = await step.run("Tell", deployed.code("new", "told"))
        return [number, nap, told.partition(":")[0] == step.execution_id]

    (_, end), _ = deploy(url, deployed, old, new)
    assert end.result == "[7,null,true]"
    assert deployed.ran == ["old"]


def test_another_step_of_the_same_identity_is_a_change(url: str) -> None:
    """A key may say what a title said before; here two steps have come to share an identity."""
    deployed = Deployed()

    async def old(step: Step) -> Any:
        await step.run("A title", deployed.code("old", 1), key="shared")
        raise ValueError("stop here")

    (_, end), _ = deploy(url, deployed, old, takes("shared", deployed.code("new", 2)))
    assert end.error is not None
    assert "stored as step 'A title'" in end.error.message
    for word, result, ran in (("warn", "2", ["old", "new"]), ("adopt", "1", ["old"])):
        deployed = Deployed(word)

        async def keyed(step: Step, which: Deployed = deployed) -> Any:
            await step.run("A title", which.code("old", 1), key="shared")
            raise ValueError("stop here")

        (_, end), _ = deploy(url, deployed, keyed, takes("shared", deployed.code("new", 2)))
        assert (end.result, deployed.ran) == (result, ran)


@pytest.mark.parametrize(
    ("word", "expected"), [("fail", None), ("warn", '"new"'), ("adopt", '{"old":1}')]
)
def test_a_childs_result_that_no_longer_fits(url: str, word: str, expected: str | None) -> None:
    answers: list[Any] = [{"old": 1}, "new"]
    kinds: list[Any] = [dict[str, int], str]

    def child_of(kind: Any) -> Any:
        async def child(event: Event[Any], step: Step) -> Any:
            return answers.pop(0)

        child.__annotations__["return"] = kind
        return function(id="child")(child)

    old, new = child_of(kinds[0]), child_of(kinds[1])
    calls: list[Any] = [old, new]

    @function(id="parent", retries=0, on_change=word)
    async def parent(event: Event[Any], step: Step) -> Any:
        found: Any = await step.invoke("Call", calls[0])
        if len(calls) == 2:
            raise ValueError("stop here")
        return found

    async def main() -> Execution:
        async with working(parent, old, url=url, **SERVED) as app:
            handle = await app.client.send(parent, None)
            await app.client.wait(handle.id, timeout=30)
        calls.pop(0)
        async with working(parent, new, url=url, **SERVED) as app:
            await app.client.retry(handle.id)
            return await app.client.wait(handle.id, timeout=30)

    end = run(main())
    assert end.result == expected
    if expected is None:
        assert end.error is not None
        assert end.error.reason == "non_deterministic"


def test_plain_functions_adopt_and_run_anew_too(url: str) -> None:
    for word, expected in (("warn", '["new",null]'), ("adopt", '["old","old"]')):
        attempts: list[int] = []

        @function(id=f"plain-{word}", retries=0, on_change=word)
        def plain(event: Event[Any], step: BlockingStep, seen: list[int] = attempts) -> Any:
            seen.append(1)
            if len(seen) == 1:
                step.run("One", lambda: ["old"])
                step.run("Two", lambda: "old")
                raise ValueError("stop here")
            one: Any = step.run("One", lambda: "new", returns=str)
            two = step.sleep("Two", 0)  # type: ignore[func-returns-value]
            return [one if isinstance(one, str) else one[0], two]

        async def main(plain: Any = plain) -> Execution:
            async with working(plain, url=url, **SERVED) as app:
                handle = await app.client.send(plain, None)
                await app.client.wait(handle.id, timeout=30)
                await app.client.retry(handle.id)
                return await app.client.wait(handle.id, timeout=30)

        assert run(main()).result == expected


def test_the_identity_of_a_step_run_anew_follows_from_the_first(url: str) -> None:
    deployed = Deployed("warn")
    old = stops_after("Quote", deployed.code("old", "text"), str)
    new = takes("Quote", deployed.code("new", 1), int)
    _, steps = deploy(url, deployed, old, new)
    first = hashlib.md5(b"Quote").hexdigest()
    assert {step.step_id for step in steps} == {
        first,
        hashlib.md5(f"{first}:anew".encode()).hexdigest(),
    }


def test_an_unknown_word_is_refused_when_the_function_is_declared() -> None:
    with pytest.raises(FunctionError, match="on_change is 'ignore'; give one of fail, warn, adopt"):

        @function(id="odd", on_change="ignore")
        async def odd(event: Event[Any], step: Step) -> None: ...
