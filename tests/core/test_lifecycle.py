"""Telling plugins: in order, at most once, and harmless whatever they do."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.core.support import application, run, until, worker_of
from worchflow_core import Event, Status, Step, function, hookimpl, lifecycle
from worchflow_core.lifecycle import Listener


def wait_for(condition: Callable[[], Any], limit: float = 10) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, "never became true"
        threading.Event().wait(0.005)


@function
async def quick(event: Event[Any], step: Step) -> int:
    return await step.run("Work", lambda: 7)


def test_plain_and_async_hooks_hear_all_in_order() -> None:
    heard: list[int] = []
    listener = Listener("acme")

    def plain(number: int) -> None:
        heard.append(number)

    async def asynchronous(number: int) -> None:
        heard.append(number)

    for number in range(100):
        listener.tell(plain if number % 2 else asynchronous, {"number": number})
    listener.close(10)
    assert heard == list(range(100))


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt()])
def test_hook_that_raises_is_logged_by_name_and_the_next_is_told(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[int] = []

    def raising() -> None:
        raise error

    async def raising_async() -> None:
        raise error

    listener = Listener("acme")
    listener.tell(raising, {})
    listener.tell(lambda: heard.append(1), {})
    listener.tell(raising_async, {})
    listener.tell(lambda: heard.append(2), {})
    listener.close(10)
    assert heard == [1, 2]
    assert "plugin acme failed in raising" in caplog.text


def test_plugin_that_hangs_is_left_behind_and_named(caplog: pytest.LogCaptureFixture) -> None:
    gate = threading.Event()

    def hanging() -> None:
        gate.wait(30)

    try:
        listener = Listener("acme")
        listener.tell(hanging, {})
        listener.close(0.1)
        assert "plugin acme did not return from hanging" in caplog.text
    finally:
        gate.set()


def test_plugin_that_falls_behind_loses_the_newest_and_is_named_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lifecycle, "CAPACITY", 10)
    gate, began = threading.Event(), threading.Event()
    heard: list[int] = []

    def hearing(number: int) -> None:
        began.set()
        gate.wait(30)
        heard.append(number)

    listener = Listener("acme")
    listener.tell(hearing, {"number": 0})
    began.wait(10)
    for number in range(1, 31):
        listener.tell(hearing, {"number": number})
    assert listener.dropped == 20
    gate.set()
    wait_for(lambda: len(heard) == 11)
    listener.close(10)
    assert heard == list(range(11))
    assert caplog.text.count("newer events are dropped") == 1
    assert "was not told of 20 events" in caplog.text


def test_hook_that_hangs_long_is_named_while_it_hangs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lifecycle, "SLOW", 0.02)
    gate, began = threading.Event(), threading.Event()

    def hanging() -> None:
        began.set()
        gate.wait(30)

    listener = Listener("acme")
    try:
        listener.tell(hanging, {})
        began.wait(10)
        wait_for(lambda: listener.tell(int, {}) or "plugin acme has not returned" in caplog.text)
        assert caplog.text.count("has not returned") == 1
    finally:
        gate.set()
        listener.close(10)


def test_nothing_is_told_after_closing() -> None:
    heard: list[int] = []
    listener = Listener("acme")
    listener.tell(lambda: heard.append(1), {})
    listener.close(10)
    threads = threading.active_count()
    listener.tell(lambda: heard.append(2), {})
    assert threading.active_count() == threads
    assert heard == [1]


def test_raising_and_hanging_plugins_harm_neither_executions_nor_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate = threading.Event()
    heard: list[str] = []

    class Raising:
        @hookimpl
        def worchflow_execution_started(self, execution: Any) -> None:
            raise SystemExit("no")

        @hookimpl
        async def worchflow_step_completed(self, step: Any) -> None:
            raise ValueError("no")

    class Hanging:
        @hookimpl
        def worchflow_execution_started(self, execution: Any) -> None:
            gate.wait(30)

    class Good:
        @hookimpl
        async def worchflow_execution_completed(self, execution: Any) -> None:
            heard.append(execution.id)

    async def main() -> None:
        plugins = (Raising(), Hanging(), Good())
        async with application(quick, plugins=plugins) as app, worker_of(app):
            handles = [await app.client.send(quick, None) for _ in range(5)]
            for handle in handles:
                assert await handle.result(timeout=10) == 7
                assert (await handle.get()).status is Status.COMPLETED
            await until(lambda: len(heard) == 5)
            assert sorted(heard) == sorted(item.id for item in handles)

    try:
        with caplog.at_level(logging.WARNING):
            run(main())
    finally:
        gate.set()
    assert "plugin Raising failed in worchflow_execution_started" in caplog.text
    assert "plugin Raising failed in worchflow_step_completed" in caplog.text
    assert "plugin Hanging did not return" in caplog.text
