"""What a function may do with its `step`: the interface that user code sees."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar, TypeVarTuple, overload

from worchflow_core.durations import Duration

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class StepFacts(Protocol):
    """What `step` knows, in async and in plain functions alike."""

    @property
    def execution_id(self) -> str:
        """The execution this attempt belongs to."""

    @property
    def attempt(self) -> int:
        """Which attempt this is: 1, then one more after each failed attempt."""

    @property
    def idempotency_key(self) -> str:
        """The running step's key, `executionId:stepId`: the same on every attempt.

        Pass it to payment providers and the like. Outside a step it raises `RuntimeError`.
        """


class Step(StepFacts, Protocol):
    """The `step` of an `async def` function."""

    @overload
    def run(
        self,
        title: str,
        fn: Callable[[*Ts], Awaitable[T]],
        *args: *Ts,
        key: str | None = None,
        returns: Any = None,
        retries: int | None = None,
        retry_delay: Duration | None = None,
        timeout: Duration | None = None,
        once: bool = False,
    ) -> Awaitable[T]: ...

    @overload
    def run(
        self,
        title: str,
        fn: Callable[[*Ts], T],
        *args: *Ts,
        key: str | None = None,
        returns: Any = None,
        retries: int | None = None,
        retry_delay: Duration | None = None,
        timeout: Duration | None = None,
        once: bool = False,
    ) -> Awaitable[T]: ...

    def run(  # type: ignore[misc]
        self,
        title: str,
        fn: Callable[..., Any],
        *args: Any,
        key: str | None = None,
        returns: Any = None,
        retries: int | None = None,
        retry_delay: Duration | None = None,
        timeout: Duration | None = None,
        once: bool = False,
    ) -> Any:
        """Run `fn(*args)` once and store its result; later attempts get the stored result.

        The step's identity is fixed when this is called, so `asyncio.gather` of steps is fine.
        The same title again in one task is a step of its own (`title`, `title#2`, ...); from two
        tasks at once it needs `key=`. A plain `fn` runs in a thread.

        Args:
            title: what people read; together with its number of repeats, the step's identity.
            fn: an async or plain function.
            args: what it is called with.
            key: the step's identity instead of its title, for titles repeated across tasks.
            returns: the type of the result, where `fn` has no return annotation.
            retries: failures of this step to survive by itself, counted apart from the
                function's; None leaves errors to the function.
            retry_delay: the first wait between them.
            timeout: how long one run of it may take; then it fails with `StepTimeout`.
            once: never begin it twice: if it was begun and nobody knows how it ended,
                `StepOutcomeUnknown` is raised instead.

        Raises:
            NotSerializable: the result does not survive JSON and its type; fails for good.
            NonDeterminismError: the stored step does not fit the one asked for.
        """

    def __call__(self, title: str, **options: Any) -> StepDecorator:
        """Run the decorated nested function as a step and rebind its name to the awaitable.

        `@step("Charge card")` over `async def charge(): ...`, then `receipt = await charge`.
        """


class StepDecorator(Protocol):
    """What `@step("title")` is: it turns a nested function into its awaitable result."""

    @overload
    def __call__(self, fn: Callable[[], Awaitable[T]], /) -> Awaitable[T]: ...

    @overload
    def __call__(self, fn: Callable[[], T], /) -> Awaitable[T]: ...


class BlockingStep(StepFacts, Protocol):
    """The `step` of a plain `def` function: the same steps, each call simply blocks."""

    def run(
        self,
        title: str,
        fn: Callable[[*Ts], T],
        *args: *Ts,
        key: str | None = None,
        returns: Any = None,
        retries: int | None = None,
        retry_delay: Duration | None = None,
        timeout: Duration | None = None,
        once: bool = False,
    ) -> T:
        """Run `fn(*args)` once in this thread and store its result; see `Step.run`."""

    def __call__(self, title: str, **options: Any) -> Callable[[Callable[[], T]], T]:
        """Run the decorated nested function as a step and rebind its name to the result."""
