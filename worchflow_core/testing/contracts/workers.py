"""The contract of workers: beats, leases, death, draining."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta

from worchflow_core.models import Beat, Worker, WorkerState
from worchflow_core.protocols import Store
from worchflow_core.testing.contracts.opening import StoreOpener, opened, until
from worchflow_core.testing.contracts.samples import NOW, at, execution, running, worker
from worchflow_core.transitions import request_cancel

_LONG = timedelta(hours=1)
_SHORT = timedelta(milliseconds=1)


async def _beat(
    store: Store,
    worker_id: str,
    state: WorkerState = WorkerState.RUNNING,
    *,
    lease: timedelta = _LONG,
) -> Beat:
    """Beat as the heart does: from a thread that is not the event loop's."""
    return await asyncio.to_thread(store.beat, worker(worker_id, state), lease=lease)


async def _workers(store: Store) -> dict[str, Worker]:
    return {item.id: item for item in await store.workers()}


async def _bury(store: Store, *worker_ids: str) -> Collection[str]:
    """Bury until it took: leases end by the store's own clock, which a test can only await."""
    return await until(lambda: store.bury(worker_ids, overdue=timedelta(0)))


class WorkersContract(StoreOpener):
    """Workers live as long as they beat, and are told what they must know."""

    @opened
    async def test_a_starting_beat_registers(self, store: Store) -> None:
        """The record is as the worker gave it, with a lease by the store's clock."""
        given = worker("w", running=(running("a"), replace(running("b"), step=None)))
        beat = await asyncio.to_thread(store.beat, given, lease=_LONG)
        assert beat.is_alive
        assert not beat.cancels
        assert not beat.is_drain_requested
        (found,) = await store.workers()
        assert found.beat_at is not None
        assert found.lease_until == found.beat_at + _LONG
        assert abs(beat.now - found.beat_at) < timedelta(seconds=1)
        assert replace(found, beat_at=None, lease_until=None) == given

    @opened
    async def test_the_clock_moves(self, store: Store) -> None:
        """`now` is the store's clock: never earlier than the beat before it."""
        first = await _beat(store, "w", WorkerState.STARTING)
        await until(lambda: _later(store, first))

    @opened
    async def test_a_beat_renews(self, store: Store) -> None:
        """State, running executions and lease follow the newest beat."""
        await _beat(store, "w", WorkerState.STARTING, lease=_SHORT)
        given = worker("w", WorkerState.DRAINING, running=(running("a"),))
        assert (await asyncio.to_thread(store.beat, given, lease=_LONG)).is_alive
        (found,) = await store.workers()
        assert replace(found, beat_at=None, lease_until=None) == given
        assert set(await store.bury(["w"], overdue=timedelta(0))) == set()

    @opened
    async def test_a_repeated_registration_is_alive(self, store: Store) -> None:
        """A first beat whose answer was lost may be repeated."""
        await _beat(store, "w", WorkerState.STARTING)
        assert (await _beat(store, "w", WorkerState.STARTING)).is_alive
        assert len(await store.workers()) == 1

    @opened
    async def test_an_unknown_worker_is_not_alive(self, store: Store) -> None:
        """A beat does not bring back a record that is gone."""
        for state in (WorkerState.RUNNING, WorkerState.DRAINING):
            assert not (await _beat(store, "w", state)).is_alive
        assert list(await store.workers()) == []

    @opened
    async def test_a_stopped_beat_removes(self, store: Store) -> None:
        """A worker that leaves leaves nothing behind; telling it twice is no error."""
        await _beat(store, "w", WorkerState.STARTING)
        await _beat(store, "v", WorkerState.STARTING)
        for _ in range(2):
            await _beat(store, "w", WorkerState.STOPPED)
        assert set(await _workers(store)) == {"v"}

    @opened
    async def test_a_beat_brings_cancels(self, store: Store) -> None:
        """A worker hears which of its own executions somebody asked to cancel."""
        await store.create([execution("a"), execution("b"), execution("c"), execution("d")])
        mine = await store.claim("w", ["f"], limit=9, now=NOW, ids=["a", "b"])
        other = await store.claim("v", ["f"], limit=9, now=NOW, ids=["c"])
        free = await store.get(["d"])
        await _beat(store, "w", WorkerState.STARTING)
        assert not (await _beat(store, "w")).cancels
        asked = [item for item in (*mine, *other, *free) if item.id != "b"]
        await store.update([request_cancel(item, now=at(1)) for item in asked])
        assert set((await _beat(store, "w")).cancels) == {"a"}

    @opened
    async def test_drain_reaches_the_worker(self, store: Store) -> None:
        """A request to drain is brought by every later beat and never erased by one."""
        await _beat(store, "w", WorkerState.STARTING)
        await _beat(store, "v", WorkerState.STARTING)
        await store.drain(["w", "nobody"], now=at(3))
        for _ in range(2):
            assert (await _beat(store, "w")).is_drain_requested
        assert not (await _beat(store, "v")).is_drain_requested
        found = await _workers(store)
        assert found["w"].drain_requested_at == at(3)
        assert found["v"].drain_requested_at is None
        assert set(found) == {"w", "v"}

    @opened
    async def test_only_overdue_workers_are_buried(self, store: Store) -> None:
        """A lease that holds, or ended less than `overdue` ago, protects its worker."""
        await _beat(store, "short", WorkerState.STARTING, lease=_SHORT)
        await _beat(store, "long", WorkerState.STARTING)
        await _beat(store, "other", WorkerState.STARTING, lease=_SHORT)
        assert set(await store.bury(["short", "long"], overdue=_LONG)) == set()
        assert set(await _bury(store, "short", "long")) == {"short"}
        states = {key: item.state for key, item in (await _workers(store)).items()}
        assert states == {
            "short": WorkerState.DEAD,
            "long": WorkerState.STARTING,
            "other": WorkerState.STARTING,
        }
        assert set(await store.bury(["short", "long"], overdue=_LONG)) == {"short"}
        assert list(await store.bury([], overdue=_LONG)) == []

    @opened
    async def test_a_negative_overdue_reaches_ahead(self, store: Store) -> None:
        """Whoever knows that a process has ended need not wait for its lease."""
        await _beat(store, "w", WorkerState.STARTING, lease=_LONG)
        assert set(await store.bury(["w"], overdue=-_LONG / 2)) == set()
        assert set(await store.bury(["w"], overdue=-2 * _LONG)) == {"w"}
        assert not (await _beat(store, "w")).is_alive

    @opened
    async def test_a_buried_worker_is_told(self, store: Store) -> None:
        """Its next beat says so, and does not bring it back to life."""
        await _beat(store, "w", WorkerState.STARTING, lease=_SHORT)
        await _bury(store, "w")
        for state in (WorkerState.RUNNING, WorkerState.DRAINING):
            assert not (await _beat(store, "w", state)).is_alive
        assert (await _workers(store))["w"].state is WorkerState.DEAD

    @opened
    async def test_a_beat_wins_or_the_burial_does(self, store: Store) -> None:
        """Racing a beat against a burial, the worker hears of what the sweeper was told."""
        for number in range(10):
            name = f"w{number}"
            await _beat(store, name, WorkerState.STARTING, lease=_SHORT)
            beat, buried = await asyncio.gather(
                _beat(store, name), store.bury([name], overdue=timedelta(0))
            )
            is_dead = (await _workers(store))[name].state is WorkerState.DEAD
            assert is_dead is (name in buried)
            if is_dead:
                assert not (await _beat(store, name)).is_alive
            else:
                assert beat.is_alive

    @opened
    async def test_a_stopped_beat_removes_the_dead_too(self, store: Store) -> None:
        """Records of the dead can be cleared away, and the dead do not come back by it."""
        await _beat(store, "dead", WorkerState.STARTING, lease=_SHORT)
        await _beat(store, "alive", WorkerState.STARTING)
        await _bury(store, "dead")
        await _beat(store, "dead", WorkerState.STOPPED)
        assert set(await _workers(store)) == {"alive"}
        assert not (await _beat(store, "dead")).is_alive

    @opened
    async def test_beats_do_not_need_the_loop(self, store: Store) -> None:
        """While code blocks the event loop, a thread still beats."""
        beats: list[Beat] = []

        def beat_often() -> None:
            beats.append(store.beat(worker("w"), lease=_LONG))
            beats.extend(
                store.beat(worker("w", WorkerState.RUNNING), lease=_LONG) for _ in range(5)
            )

        thread = threading.Thread(target=beat_often)
        thread.start()
        thread.join(timeout=30)  # blocks the loop on purpose
        assert [item.is_alive for item in beats] == [True] * 6


async def _later(store: Store, first: Beat) -> bool:
    again = await _beat(store, "w")
    assert again.now >= first.now
    return again.now > first.now
