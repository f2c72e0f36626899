"""Steps under test: swapped for stubs, cut off by simulated crashes, and counted."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from worchflow_core.annotations import declared_result
from worchflow_core.functions import Function
from worchflow_core.signals import Superseded
from worchflow_core.undos import TITLE


@dataclass(slots=True, kw_only=True)
class Plan:
    """What is to happen to the steps of one run, and what did.

    Attributes:
        stub: what stands in for a step's code, by title: a value, an exception, or a callable
            that gets the step's arguments.
        crash_after: the worker dies once this step is stored: its title, or its number.
        crash_during: the worker dies once this step's code has run, before it is stored.
        ran: titles of the steps whose code, or stub, ran.
        replayed: titles of the steps whose stored result was handed on.
        stubbed: titles for which a stub was called.
        has_crashed: the crash has happened; it happens once.
    """

    stub: Mapping[str, Any] = field(default_factory=dict)
    crash_after: str | int | None = None
    crash_during: str | int | None = None
    ran: list[str] = field(default_factory=list)
    replayed: list[str] = field(default_factory=list)
    stubbed: set[str] = field(default_factory=set)
    has_crashed: bool = False


def under_test(function: Function[Any, Any], plan: Plan) -> Callable[..., Any]:
    """Return the function's code, with a `step` that follows the plan."""
    code = function.code
    if function.is_async:

        @functools.wraps(code)
        async def run(event: Any, step: Any, **resources: Any) -> Any:
            return await code(event, StepUnderTest(step, plan), **resources)

        return run

    @functools.wraps(code)
    def run_blocking(event: Any, step: Any, **resources: Any) -> Any:
        return code(event, BlockingStepUnderTest(step, plan), **resources)

    return run_blocking


class BlockingStepUnderTest:
    """The `step` of a plain function, with the plan's stubs and crashes."""

    def __init__(self, step: Any, plan: Plan) -> None:
        self._step = step
        self._plan = plan
        self._is_dead = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._step, name)

    def __call__(self, title: str, **options: Any) -> Callable[[Callable[[], Any]], Any]:
        """Run the decorated nested function as a step."""
        return lambda fn: self.run(title, fn, **options)

    def run(self, title: str, fn: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Run the step, its stub, or replay it."""
        has_run: list[bool] = []
        value = self._run(title, fn, args, options, has_run)
        self._note(title, has_run)
        return value

    def _run(
        self,
        title: str,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        options: dict[str, Any],
        has_run: list[bool],
    ) -> Any:
        if self._is_dead:
            raise Superseded("this worker is dead")
        if not callable(fn):
            return self._step.run(title, fn, *args, **options)
        if options.get("returns") is None:
            options["returns"] = declared_result(fn)
        if callable(options.get("undo")):
            options["undo"] = self._undo(TITLE.format(title), options["undo"])
        return self._step.run(title, self._code(title, fn, has_run), *args, **options)

    def _code(self, title: str, fn: Callable[..., Any], has_run: list[bool]) -> Callable[..., Any]:
        plan = self._plan

        def begin() -> Callable[..., Any]:
            has_run.append(True)
            plan.ran.append(title)
            if title not in plan.stub:
                return fn
            plan.stubbed.add(title)
            return _stand_in(plan.stub[title])

        if inspect.iscoroutinefunction(fn):

            async def run(*args: Any) -> Any:
                value = begin()(*args)
                value = await value if inspect.isawaitable(value) else value
                self._crash_if(plan.crash_during, title)
                return value

            return run

        def run_blocking(*args: Any) -> Any:
            value = begin()(*args)
            if inspect.isawaitable(value):
                return _then(value, lambda: self._crash_if(plan.crash_during, title))
            self._crash_if(plan.crash_during, title)
            return value

        return run_blocking

    def _undo(self, title: str, undo: Callable[[Any], Any]) -> Callable[[Any], Any]:
        plan = self._plan

        @functools.wraps(undo)
        def take_back(value: Any) -> Any:
            plan.ran.append(title)
            code = undo
            if title in plan.stub:
                plan.stubbed.add(title)
                code = _stand_in(plan.stub[title])
            answer = code(value)
            if inspect.isawaitable(answer):
                return _then(answer, lambda: self._crash_if(plan.crash_during, title))
            self._crash_if(plan.crash_during, title)
            return answer

        return take_back

    def _note(self, title: str, has_run: list[bool]) -> None:
        if has_run:
            self._crash_if(self._plan.crash_after, title)
        else:
            self._plan.replayed.append(title)

    def _crash_if(self, place: str | int | None, title: str) -> None:
        """Die, once, where `place` names the step that ran last; no step begins after that."""
        plan = self._plan
        if not plan.has_crashed and place in (title, len(plan.ran)):
            plan.has_crashed = self._is_dead = True
            raise Superseded(f"a simulated crash at step {title!r}")


class StepUnderTest(BlockingStepUnderTest):
    """The `step` of an async function, with the plan's stubs and crashes."""

    def run(self, title: str, fn: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Fix the step's identity now; run it, its stub, or replay it when awaited."""
        has_run: list[bool] = []
        awaitable = self._run(title, fn, args, options, has_run)
        return _then(awaitable, lambda: self._note(title, has_run))


async def _then(awaitable: Awaitable[Any], call: Callable[[], None]) -> Any:
    value = await awaitable
    call()
    return value


def _stand_in(stub: Any) -> Callable[..., Any]:
    if isinstance(stub, BaseException) or (
        isinstance(stub, type) and issubclass(stub, BaseException)
    ):

        def fail(*args: Any) -> Any:
            raise stub

        return fail
    return stub if callable(stub) else lambda *args: stub
