"""The handle: an execution that was sent, as the sender asks for its result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar, cast

from worchflow_core.codec import UNTYPED, Codec
from worchflow_core.durations import Duration
from worchflow_core.errors import ExecutionCancelled, ExecutionFailed
from worchflow_core.models import Execution, Status, StepRecord

ResultT = TypeVar("ResultT")


class Asked(Protocol):
    """What a handle asks: the client that sent the execution."""

    async def wait(self, execution_id: str, *, timeout: Duration | None = None) -> Execution:
        """Return an execution once it has ended."""

    async def get(self, execution_id: str) -> Execution:
        """Return an execution."""

    async def steps(self, execution_id: str) -> Sequence[StepRecord]:
        """Return the steps of an execution."""

    async def cancel(self, execution_id: str) -> Execution:
        """Cancel an execution."""

    async def retry(self, execution_id: str) -> Execution:
        """Queue an execution again."""


class ExecutionHandle(Generic[ResultT]):
    """An execution that was sent: ask it for its result.

    Attributes:
        id: the execution's id.
        function: the id of the function that runs.
        is_new: False when an earlier send with this id had created it.
    """

    def __init__(
        self, client: Asked, execution: Execution, codec: Codec | None, *, is_new: bool
    ) -> None:
        self.id = execution.id
        self.function = execution.function
        self.is_new = is_new
        self._client = client
        self._codec = codec

    def __repr__(self) -> str:
        return f"ExecutionHandle({self.id!r})"

    async def result(self, timeout: Duration | None = None) -> ResultT:
        """Return what the function returned, once it has; see `Client.result`."""
        execution = await self._client.wait(self.id, timeout=timeout)
        return cast(ResultT, result_of(execution, self._codec))

    async def get(self) -> Execution:
        """Return the execution as it is now."""
        return await self._client.get(self.id)

    async def steps(self) -> Sequence[StepRecord]:
        """Return the steps recorded so far."""
        return await self._client.steps(self.id)

    async def cancel(self) -> Execution:
        """Cancel it; see `Client.cancel`."""
        return await self._client.cancel(self.id)

    async def retry(self) -> Execution:
        """Queue it again; see `Client.retry`."""
        return await self._client.retry(self.id)


def result_of(execution: Execution, codec: Codec | None) -> Any:
    """Return the result of an execution that has ended, or raise why there is none."""
    if execution.status is Status.COMPLETED:
        return (codec or Codec(UNTYPED, "result")).decode(execution.result)
    if execution.status is Status.CANCELLED:
        raise ExecutionCancelled(execution.id, execution.error, "was cancelled")
    raise ExecutionFailed(execution.id, execution.error)
