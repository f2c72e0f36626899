"""What a function may do with its `step`: the interface that user code sees."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, TypeVar, TypeVarTuple, overload

from worchflow_core.durations import Duration

T = TypeVar("T")
V = TypeVar("V")
R = TypeVar("R")
Ts = TypeVarTuple("Ts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What a step waits for: a name, and fields of the data that must be equal.

    Attributes:
        name: the event's name.
        match: values by field; a dot steps into nested objects. Empty matches all.
    """

    name: str
    match: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An event that a step waited for.

    Attributes:
        name: what it was sent as.
        data: its data, plain JSON.
        id: its id.
        timestamp: when it was sent.
    """

    name: str
    data: Any
    id: str
    timestamp: datetime


class InvokedFunction(Protocol):
    """A function that may be invoked: whatever `@function` made."""

    @property
    def id(self) -> str:
        """Its name in the store."""


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

    def progress(self, done: float, total: float | None = None, note: str | None = None) -> None:
        """Say how far the execution is, for `worchflow show` and the dashboard.

        Cheap, and no durable work: the newest is written about once a second. It may be called
        anywhere, in the code of a step too, and from threads.

        Args:
            done: how much is done, 0 or more.
            total: of how much; None where that is not known.
            note: a word on what it is at.

        Raises:
            InvalidInput: these are no such numbers.
        """

    def log(self, text: str, **fields: Any) -> None:
        """Keep a line for people to read beside the execution; as cheap as `progress`.

        The newest 200 lines, at most 64 KiB, are kept as long as the execution. What is said
        while a replay meets its stored steps again is not repeated. Long text is cut, and fields
        that are no JSON become their text.
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
        undo: Callable[[T], Any] | None = None,
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
        undo: Callable[[T], Any] | None = None,
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
        undo: Callable[[Any], Any] | None = None,
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
            undo: takes the step's result and takes back its effect, should the execution fail
                for good later; the undos of all steps run last first, each recorded.

        Raises:
            NotSerializable: the result does not survive JSON and its type; fails for good.
            NonDeterminismError: the stored step does not fit the one asked for.
        """

    def sleep(self, title: str, duration: Duration, *, key: str | None = None) -> Awaitable[None]:
        """Pause the execution for a span; the slot is free meanwhile, for seconds or for months.

        The moment to go on is fixed by the first attempt, whatever happens in between.
        """

    def sleep_until(
        self, title: str, moment: datetime, *, key: str | None = None
    ) -> Awaitable[None]:
        """Pause the execution until a moment, an aware datetime; a past one does not pause."""

    def wait_for_event(
        self,
        title: str,
        name: str,
        *,
        match: Mapping[str, Any] | None = None,
        timeout: Duration | None = None,
        on_timeout: str = "none",
        key: str | None = None,
    ) -> Awaitable[Answer | None]:
        """Wait for an event that no function has, or a signal to this execution; hold no slot.

        An event sent since the execution was created counts, the oldest first; none is received
        twice by one execution, nor the one that it runs for.

        Args:
            title: the step's title.
            name: the event's name.
            match: fields of the event's data that must be equal; a dot steps into objects.
            timeout: how long to wait; fixed by the first attempt.
            on_timeout: `none` returns None, `raise` raises `EventTimeout`.
            key: the step's identity instead of its title.
        """

    def wait_for_any(
        self,
        title: str,
        *watches: Watch,
        timeout: Duration | None = None,
        on_timeout: str = "none",
        key: str | None = None,
    ) -> Awaitable[Answer | None]:
        """Wait for the first event that any of several watches fits; see `wait_for_event`."""

    def send_event(
        self, title: str, name: str, data: Any = None, *, key: str | None = None
    ) -> Awaitable[str]:
        """Send an event once, however often this replays, and return its id.

        An event named like a function of this worker runs that function alone; any other runs all
        functions that subscribe to it, whoever has them, and goes to who waits for it.
        """

    def invoke(
        self,
        title: str,
        function: InvokedFunction | str,
        data: Any = None,
        *,
        timeout: Duration | None = None,
        key: str | None = None,
    ) -> Awaitable[Any]:
        """Run a function as an execution of its own, wait for it without a slot, return its result.

        There is one child, however often this replays. Cancelling this execution cancels it.

        Raises:
            ExecutionFailed: the child failed, or (`ExecutionCancelled`) was cancelled.
            EventTimeout: it had not ended within `timeout`; it goes on.
        """

    def map(
        self,
        title: str,
        fn: Callable[[V], Awaitable[R] | R],
        items: Iterable[V],
        *,
        concurrency: int | None = None,
        **options: Any,
    ) -> Awaitable[list[R]]:
        """Run `fn(item)` as a step for each item, at most `concurrency` at once.

        Returns the results in the order of the items; the options are those of `run`.
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
        undo: Callable[[T], Any] | None = None,
    ) -> T:
        """Run `fn(*args)` once in this thread and store its result; see `Step.run`."""

    def sleep(self, title: str, duration: Duration, *, key: str | None = None) -> None:
        """Pause the execution for a span; the slot is free meanwhile, for seconds or for months.

        The moment to go on is fixed by the first attempt, whatever happens in between.
        """

    def sleep_until(self, title: str, moment: datetime, *, key: str | None = None) -> None:
        """Pause the execution until a moment, an aware datetime; a past one does not pause."""

    def wait_for_event(
        self,
        title: str,
        name: str,
        *,
        match: Mapping[str, Any] | None = None,
        timeout: Duration | None = None,
        on_timeout: str = "none",
        key: str | None = None,
    ) -> Answer | None:
        """Wait for an event that no function has, or a signal to this execution; hold no slot.

        An event sent since the execution was created counts, the oldest first; none is received
        twice by one execution, nor the one that it runs for.

        Args:
            title: the step's title.
            name: the event's name.
            match: fields of the event's data that must be equal; a dot steps into objects.
            timeout: how long to wait; fixed by the first attempt.
            on_timeout: `none` returns None, `raise` raises `EventTimeout`.
            key: the step's identity instead of its title.
        """

    def wait_for_any(
        self,
        title: str,
        *watches: Watch,
        timeout: Duration | None = None,
        on_timeout: str = "none",
        key: str | None = None,
    ) -> Answer | None:
        """Wait for the first event that any of several watches fits; see `wait_for_event`."""

    def send_event(self, title: str, name: str, data: Any = None, *, key: str | None = None) -> str:
        """Send an event once, however often this replays, and return its id.

        An event named like a function of this worker runs that function alone; any other runs all
        functions that subscribe to it, whoever has them, and goes to who waits for it.
        """

    def invoke(
        self,
        title: str,
        function: InvokedFunction | str,
        data: Any = None,
        *,
        timeout: Duration | None = None,
        key: str | None = None,
    ) -> Any:
        """Run a function as an execution of its own, wait for it without a slot, return its result.

        There is one child, however often this replays. Cancelling this execution cancels it.

        Raises:
            ExecutionFailed: the child failed, or (`ExecutionCancelled`) was cancelled.
            EventTimeout: it had not ended within `timeout`; it goes on.
        """

    def map(self, title: str, fn: Callable[[V], R], items: Iterable[V], **options: Any) -> list[R]:
        """Run `fn(item)` as a step for each item in turn; return the results in order."""

    def __call__(self, title: str, **options: Any) -> Callable[[Callable[[], T]], T]:
        """Run the decorated nested function as a step and rebind its name to the result."""
