"""Moving everything from one store to another while nothing runs, and proving that it arrived.

Each execution is written before its steps, in a form that nobody claims or sweeps, and takes its
own form last. So a move that was cut short leaves nothing that could run half, and is run again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from worchflow_core.clock import Clock
from worchflow_core.errors import WorchflowError
from worchflow_core.models import (
    Change,
    Created,
    Execution,
    Failure,
    Record,
    Status,
    StepRecord,
    Worker,
    WorkerState,
)
from worchflow_core.origin import is_gone
from worchflow_core.proof import PAGE, Proof, pages, prove, wire_text
from worchflow_core.protocols import Store

_STEPS_AT_ONCE = 500
_NAMED = 5
_OF_THE_STORE = "meta"
"""The kind of records that a store keeps of itself: who leads, what its queue remembers."""
_DESCRIPTIONS = "function"
"""The kind of records that every worker writes anew when it starts."""
_BEGUN = Failure(
    type="MoveUnfinished",
    message="it is being moved here from another store; run `worchflow migrate` to its end",
    reason="moving",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a move would do: how many are to be moved, and how many are there already."""

    executions: int
    present: int
    records: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What a move did, and the proofs of both sides, which are equal."""

    executions: int
    records: int
    source: Proof
    target: Proof


class Migration:
    """Move executions with their steps, and records, from one opened store to another.

    Args:
        source: left as it is, but that workers which no longer beat are declared dead.
        target: empty, or what an earlier move left.
        tell: called with how many executions were moved so far.
    """

    def __init__(
        self, source: Store, target: Store, *, tell: Callable[[int], None] = lambda _: None
    ) -> None:
        self._source = source
        self._target = target
        self._tell = tell

    async def plan(self) -> Plan:
        """Return what `run` would do; changes nothing.

        Raises:
            WorchflowError: a worker lives on either side, or the target holds something else.
        """
        if self._source.describe() == self._target.describe():
            raise WorchflowError(f"source and target are one store: {self._source.describe()}")
        for store in (self._source, self._target):
            _refuse(store, [item for item in await _unburied(store) if not _is_over(item)])
        present = await self._compare()
        records = await self._missing_records()
        total = 0
        async for page in pages(self._source):
            total += len(page)
        return Plan(executions=total - present, present=present, records=len(records))

    async def run(self) -> Moved:
        """Move what is not there yet; return once both sides are proved equal.

        Raises:
            WorchflowError: as `plan`; or the source changed meanwhile, and it is to be run again.
        """
        await self.plan()
        for store in (self._source, self._target):
            await _bury(store)
        count = 0
        async for page in pages(self._source):
            count += await self._move(page)
            self._tell(count)
        records = await self._move_records()
        source, target = await prove(self._source, moved), await prove(self._target)
        if source != target:
            raise WorchflowError(
                f"after the move the source holds {source} and the target {target}:"
                " somebody wrote to one of them; stop every client and worker and run it again"
            )
        return Moved(executions=count, records=records, source=source, target=target)

    # --- what is there already ------------------------------------------------------------------

    async def _compare(self) -> int:
        """Return how many executions of the source are in the target, which holds no others."""
        strange: list[str] = []
        present = 0
        async for page in pages(self._target):
            found = await self._source.get([item.id for item in page])
            expected = {item.id: moved(item) for item in found}
            for item in page:
                if _is_begun(item) and item.id in expected:
                    continue
                if item.id in expected and wire_text(item) == wire_text(expected[item.id]):
                    present += 1
                elif len(strange) < _NAMED:
                    strange.append(item.id)
        if strange:
            raise WorchflowError(
                f"the target {self._target.describe()} already holds executions that the source "
                f"does not, or holds otherwise: {_listed(strange)}; choose an empty target, or run "
                "again a move between the same two stores in which nothing worked meanwhile"
            )
        return present

    async def _missing_records(self) -> list[Record]:
        """Return the records that the target lacks; those it has must be the same."""
        missing: list[Record] = []
        strange: list[str] = []
        for kind in sorted(await self._source.records.kinds()):
            if kind == _OF_THE_STORE:
                continue
            known = {item.key: item for item in await _all_records(self._target, kind)}
            for item in await _all_records(self._source, kind):
                if item.key not in known:
                    missing.append(item)
                elif known[item.key] != item and kind != _DESCRIPTIONS:
                    strange.append(f"{kind} {item.key!a}")
        if strange:
            raise WorchflowError(
                f"the target {self._target.describe()} already holds other records: "
                f"{_listed(strange[:_NAMED])}; choose an empty target"
            )
        return missing

    # --- moving ---------------------------------------------------------------------------------

    async def _move(self, page: Sequence[Execution]) -> int:
        """Move a page of executions, as far as an earlier move has not; return how many."""
        standing = {item.id: item for item in await self._target.get([item.id for item in page])}
        todo = [
            moved(item) for item in page if item.id not in standing or _is_begun(standing[item.id])
        ]
        steps = await self._source.steps([item.id for item in todo])
        forms = [_begun(item) if steps.get(item.id) else item for item in todo]
        new = [item for item in forms if item.id not in standing]
        created = await self._target.create(new) if new else []
        if any(answer is Created.CONFLICT for answer in created):
            raise WorchflowError("somebody else writes to the target; nothing may work meanwhile")
        begun = {item.id: item for item in todo if steps.get(item.id) or item.id in standing}
        if begun:
            await self._record({key: steps.get(key, ()) for key in begun})
            await self._update([_finish(item) for item in begun.values()])
        return len(todo)

    async def _record(self, steps: Mapping[str, Sequence[StepRecord]]) -> None:
        """Record the steps of executions, those of one claim at a time: under its fence."""
        rounds: list[dict[str, list[StepRecord]]] = []
        for key, items in steps.items():
            for number, fence in enumerate(sorted({item.fence for item in items})):
                if number == len(rounds):
                    rounds.append({})
                rounds[number][key] = [item for item in items if item.fence == fence]
        for members in rounds:
            await self._update([_under(key, items[0].fence) for key, items in members.items()])
            together = [item for items in members.values() for item in items]
            for start in range(0, len(together), _STEPS_AT_ONCE):
                part = together[start : start + _STEPS_AT_ONCE]
                for step, stands in zip(part, await self._target.record(part), strict=True):
                    if stands is None:
                        raise WorchflowError(
                            f"the target refuses step {step.title!r} of {step.execution_id!a}; "
                            "nothing may work on it meanwhile"
                        )

    async def _update(self, changes: Sequence[Change]) -> None:
        refused = await self._target.update(changes)
        if refused:
            raise WorchflowError(
                f"the target refuses {_listed(sorted(refused)[:_NAMED])}; nothing may work on it "
                "meanwhile"
            )

    async def _move_records(self) -> int:
        missing = await self._missing_records()
        for kind in sorted({item.kind for item in missing}):
            members = [item for item in missing if item.kind == kind]
            for start in range(0, len(members), PAGE):
                await self._target.records.insert(members[start : start + PAGE])
        if await self._missing_records():
            raise WorchflowError("somebody deletes records in the target; run it again")
        return len(missing)


def moved(execution: Execution) -> Execution:
    """Return an execution as the target is to hold it: free, and hinted when it is due."""
    if execution.status.is_final:
        return replace(execution, owner=None)
    if execution.owner is None and execution.status is not Status.PROCESSING:
        return replace(execution, hint_at=execution.due_at, hinted_at=None)
    due = execution.claimed_at or execution.updated_at
    return replace(
        execution,
        owner=None,
        status=Status.QUEUED,
        due_at=due,
        hint_at=due,
        hinted_at=None,
        steps_recorded=None,
    )


# --- an execution half moved ------------------------------------------------------------------


def _begun(execution: Execution) -> Execution:
    """Return an execution in the form that nobody claims, sweeps, wakes or deletes."""
    return replace(
        execution,
        status=Status.CANCELLED,
        error=_BEGUN,
        due_at=None,
        hint_at=None,
        finished_at=None,
        waits=(),
        handlers_due=False,
    )


def _is_begun(execution: Execution) -> bool:
    return execution.error == _BEGUN


def _under(execution_id: str, fence: int) -> Change:
    return Change(
        id=execution_id,
        expect={"status": Status.CANCELLED, "owner": None},
        values={"fence": fence},
    )


def _finish(execution: Execution) -> Change:
    """Give an execution whose steps are all there its own form."""
    return Change(
        id=execution.id,
        expect={"status": Status.CANCELLED, "owner": None},
        values={
            "status": execution.status,
            "fence": execution.fence,
            "error": execution.error,
            "due_at": execution.due_at,
            "hint_at": execution.hint_at,
            "finished_at": execution.finished_at,
            "waits": execution.waits,
            "handlers_due": execution.handlers_due,
        },
    )


# --- workers ----------------------------------------------------------------------------------


async def _unburied(store: Store) -> list[Worker]:
    return [item for item in await store.workers() if item.state is not WorkerState.DEAD]


def _is_over(worker: Worker, now: datetime | None = None) -> bool:
    """Return whether a worker has ended, or beats no more, by this machine's clock."""
    until = worker.lease_until
    return is_gone(worker.origin) or (until is not None and until < (now or Clock().now()))


async def _bury(store: Store) -> None:
    """Declare dead what beats no more: should it come back, it writes nothing."""
    workers = await _unburied(store)
    gone = [item.id for item in workers if is_gone(item.origin)]
    await store.bury(gone, overdue=-timedelta(days=1))
    await store.bury([item.id for item in workers], overdue=timedelta(0))
    _refuse(store, await _unburied(store))


def _refuse(store: Store, workers: Sequence[Worker]) -> None:
    if workers:
        names = _listed([f"{item.name} ({item.id})" for item in workers[:_NAMED]])
        raise WorchflowError(
            f"workers live on {store.describe()}: {names}; stop them, or wait until the lease of "
            "those that were killed has run out, then run it again"
        )


# --- records and words --------------------------------------------------------------------


async def _all_records(store: Store, kind: str) -> list[Record]:
    found: list[Record] = []
    while page := await store.records.scan(kind, after=found[-1].key if found else "", limit=PAGE):
        found += page
    return found


def _listed(names: Sequence[str]) -> str:
    more = ", ..." if len(names) == _NAMED else ""
    return ", ".join(names) + more
