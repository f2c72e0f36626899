"""All that match: counted, changed page by page against running workers, and told of."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.core.support import application, faulty_memory, run, until, working
from worchflow_core import (
    BlockingClient,
    Event,
    Execution,
    Filter,
    InvalidInput,
    NotAllowed,
    Status,
    Step,
    StoreUnavailable,
    Worchflow,
    bulk,
    function,
)
from worchflow_core.bulk import Verb, choose

NOW = datetime(2030, 1, 31, 9, tzinfo=UTC)


@function(retries=0)
async def work(event: Event[Any], step: Step) -> Any:
    return event.data


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a handful of executions take several pages."""
    monkeypatch.setattr(bulk, "PART", 4)


def opened(url: str, **more: Any) -> Worchflow:
    return application(work, url=url, disabled_plugins="logs,redis,sample-audit", **more)


def item(name: str, number: int = 0, **fields: Any) -> Execution:
    moment = NOW + timedelta(seconds=number)
    ended = {"finished_at": moment} if Status(fields.get("status", "queued")).is_final else {}
    return Execution(
        id=name,
        function="work",
        created_at=moment,
        updated_at=moment,
        due_at=moment,
        **{**ended, **fields},
    )


async def fill(app: Worchflow, status: Status, count: int, **fields: Any) -> list[str]:
    made = [
        item(f"{status}-{number:03}", number, status=status, **fields) for number in range(count)
    ]
    await app.journal.store.create(made)
    return [one.id for one in made]


async def status_of(app: Worchflow, execution_id: str) -> Status:
    return (await app.client.get(execution_id)).status


def test_a_dry_run_counts_what_the_change_then_changes(url: str, small_parts: None) -> None:
    async def main() -> None:
        async with opened(url) as app:
            failed = await fill(app, Status.FAILED, 11)
            done = await fill(app, Status.COMPLETED, 3)
            before = await app.client.stats()
            wanted = Filter(status="failed,completed", function="work")
            counted = await app.client.retry_matching(wanted, dry_run=True)
            assert (counted.matched, counted.is_capped, counted.changed) == (11, False, ())
            assert await app.client.stats() == before
            answer = await app.client.retry_matching(wanted)
            assert sorted(answer.changed) == failed
            assert answer.matched == 11
            assert (answer.skipped, answer.next) == ({}, None)
            assert {await status_of(app, name) for name in failed} == {Status.QUEUED}
            assert {await status_of(app, name) for name in done} == {Status.COMPLETED}
            again = await app.client.retry_matching(wanted)
            assert (again.matched, again.changed) == (0, ())

    run(main())


@pytest.mark.parametrize("verb", list(Verb))
def test_each_verb_takes_what_it_can_be_done_to_and_nothing_else(
    url: str, verb: Verb, small_parts: None
) -> None:
    async def main() -> None:
        async with opened(url) as app:
            made: dict[Status, list[str]] = {}
            for status in Status:
                made[status] = await fill(app, status, 5)
            wanted = sorted(name for status in bulk.POSSIBLE[verb] for name in made[status])
            change = getattr(app.client, f"{verb}_matching")
            assert (await change(Filter(), dry_run=True, everything=True)).matched == len(wanted)
            assert sorted((await change(Filter(), everything=True)).changed) == wanted
            kept = await app.client.find(Filter(limit=100))
            changed = {
                Verb.CANCEL: {Status.CANCELLED},
                Verb.RETRY: {Status.QUEUED},
                Verb.DELETE: set(),
            }[verb]
            found = {one.id: one.status for one in kept.items}
            assert {found[name] for name in wanted if name in found} == changed
            for status in set(Status) - set(bulk.POSSIBLE[verb]):
                assert {found[name] for name in made[status]} == {status}

    run(main())


def test_a_filter_that_restricts_nothing_has_to_be_meant() -> None:
    async def main() -> None:
        async with opened(f"memory://{uuid.uuid4().hex}") as app:
            (name,) = await fill(app, Status.QUEUED, 1)
            # A variable that is None by mistake must not mean all there are.
            for given in (Filter(), Filter(function=None), Filter(search="")):
                with pytest.raises(InvalidInput, match="every execution there is"):
                    await app.client.cancel_matching(given)
            assert await status_of(app, name) is Status.QUEUED
            for nothing in (Filter(function=[]), Filter(status=[]), Filter(function="none")):
                assert (await app.client.cancel_matching(nothing, dry_run=True)).matched == 0
                assert (await app.client.cancel_matching(nothing)).changed == ()
            assert (await app.client.cancel_matching(Filter(), everything=True)).changed == (name,)

    run(main())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"status": "completed"}, "cancel is for queued, .* names completed"),
        ({"status": "queued", "limit": 10}, "limit is for lists"),
        ({"status": "queued", "skip": 1}, "skip is for lists"),
        ({"status": "queued", "counted": True}, "counted is for lists"),
        ({"until": datetime(2030, 1, 1)}, "no time zone"),
        ({"status": "done"}, "no status 'done'"),
    ],
    ids=str,
)
def test_what_would_not_do_what_it_says_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises((InvalidInput, NotAllowed), match=said):
        choose(Verb.CANCEL, Filter(**given))


@pytest.mark.parametrize("bad", [0, -1, True, 2.5, "3"])
def test_at_most_is_a_whole_number(bad: Any) -> None:
    async def main() -> None:
        async with opened(f"memory://{uuid.uuid4().hex}") as app:
            with pytest.raises(InvalidInput, match="at_most"):
                await app.client.cancel_matching(Filter(status="queued"), at_most=bad)

    run(main())


def test_parts_reach_everything_once_also_what_goes_on_matching(
    url: str, small_parts: None
) -> None:
    async def main() -> None:
        async with opened(url) as app:
            # Owned ones stay `processing` until their worker hears of it.
            names = await fill(app, Status.PROCESSING, 13, owner="somebody")
            seen: list[str] = []
            wanted = Filter(status="processing")
            while True:
                answer = await app.client.cancel_matching(wanted, at_most=6)
                assert len(answer.changed) <= 6
                seen += answer.changed
                if answer.next is None:
                    break
                wanted = replace(wanted, after=answer.next)
            assert sorted(seen) == names
            assert (await app.client.get(names[0])).cancel_requested_at is not None

    run(main())


def test_what_arrives_meanwhile_is_left_alone_and_it_ends(small_parts: None) -> None:
    async def main() -> None:
        store, backends = faulty_memory()
        async with application(work, **backends) as app:
            names = await fill(app, Status.QUEUED, 10)
            counted = await app.client.cancel_matching(Filter(function="work"), dry_run=True)
            assert counted.edge is not None
            find = store.inner.find
            late: list[str] = []

            async def find_and_create(query: Any) -> Any:
                page = await find(query)
                one = item(f"late-{len(late)}", 60 + len(late))
                late.append(one.id)
                await store.inner.create([one])
                return page

            await store.inner.create([item("after-the-count", 59)])
            store.inner.find = find_and_create
            answer = await app.client.cancel_matching(counted.edge)
            assert sorted(answer.changed) == names
            assert late
            for name in ("after-the-count", *late):
                assert await status_of(app, name) is Status.QUEUED

    run(main())


def test_what_has_moved_on_is_skipped_with_the_reason() -> None:
    async def main() -> None:
        store, backends = faulty_memory()
        async with application(work, **backends) as app:
            await store.inner.create([item("began"), item("gone", 1), item("still", 2)])
            find = store.inner.find

            async def find_and_move_on(query: Any) -> Any:
                store.inner.find = find
                page = await find(query)
                assert await store.inner.claim("w", ["work"], limit=1, ids=["began"], now=NOW)
                assert await app.client.cancel("gone")
                await app.client.delete("gone")
                return page

            store.inner.find = find_and_move_on
            answer = await app.client.cancel_matching(Filter(status="queued"))
            assert answer.changed == ("still",)
            assert "is processing by now and matches no more" in str(answer.skipped["began"])
            assert "no execution 'gone'" in str(answer.skipped["gone"])
            assert (await app.client.get("began")).cancel_requested_at is None

    run(main())


def test_interrupted_it_is_simply_repeated(small_parts: None) -> None:
    async def main() -> None:
        store, backends = faulty_memory()
        async with application(work, **backends) as app:
            names = await fill(app, Status.FAILED, 10)
            calls = 0

            def refuse(name: str, args: Any) -> BaseException | None:
                nonlocal calls
                calls += name == "update"
                return StoreUnavailable("away") if calls == 2 and name == "update" else None

            store.refuse = refuse
            with pytest.raises(StoreUnavailable):
                await app.client.retry_matching(Filter(status="failed"))
            left = await app.client.retry_matching(Filter(status="failed"))
            assert len(left.changed) == 6
            assert {await status_of(app, name) for name in names} == {Status.QUEUED}

    run(main())


def test_two_at_once_leave_none_out_and_stumble_over_none(url: str, small_parts: None) -> None:
    async def main() -> None:
        async with opened(url) as app:
            names = await fill(app, Status.FAILED, 20)
            one, other = await asyncio.gather(
                app.client.retry_matching(Filter(status="failed")),
                app.client.retry_matching(Filter(status="failed")),
            )
            # In the same millisecond both may say so of one: the same change, made twice.
            assert sorted({*one.changed, *other.changed}) == names
            assert (await app.client.stats())[Status.QUEUED] == len(names)
            assert all(
                "queued" in str(error) for error in {**one.skipped, **other.skipped}.values()
            )

    run(main())


def test_running_workers_run_what_was_retried_and_stop_what_was_cancelled(url: str) -> None:
    broken = True

    @function(retries=0)
    async def mends(event: Event[Any], step: Step) -> int:
        if broken:
            raise ValueError("no")
        return 1

    @function(retries=0)
    async def stays(event: Event[Any], step: Step) -> None:
        while True:
            await step.run("Wait", asyncio.sleep, 0.02)

    async def main() -> None:
        nonlocal broken
        more = {"url": url, "disabled_plugins": "logs,redis,sample-audit"}
        async with working(mends, stays, **more) as app:
            handles = [await app.client.send(mends, number) for number in range(5)]
            for handle in handles:
                await app.client.wait(handle.id, timeout=30)
            running = await app.client.send(stays, None)
            await until(lambda: app.worker.health.running == 1)
            broken = False
            retried = await app.client.retry_matching(Filter(function="mends"))
            assert len(retried.changed) == 5
            cancelled = await app.client.cancel_matching(Filter(function="stays"))
            assert cancelled.changed == (running.id,)
            for handle in handles:
                assert await handle.result(timeout=30) == 1
            ended = await app.client.wait(running.id, timeout=30)
            assert ended.status is Status.CANCELLED

    run(main())


def test_what_ended_long_ago_is_deleted_by_its_end(url: str, small_parts: None) -> None:
    async def main() -> None:
        async with opened(url) as app:
            names = await fill(app, Status.COMPLETED, 10)
            edge = NOW + timedelta(seconds=6)
            answer = await app.client.delete_matching(Filter(finished_until=edge))
            assert sorted(answer.changed) == names[:6]
            kept = await app.client.find(Filter(limit=100))
            assert sorted(one.id for one in kept.items) == names[6:]

    run(main())


def test_the_blocking_client_does_the_same() -> None:
    app = opened(f"memory://{uuid.uuid4().hex}")
    with BlockingClient(app) as client:
        client.send(work, 1, id="one", delay="1h")
        assert client.cancel_matching(Filter(function="work"), dry_run=True).matched == 1
        assert client.cancel_matching(Filter(function="work")).changed == ("one",)
        assert client.retry_matching(Filter(status="cancelled")).changed == ("one",)
        assert client.delete_matching(Filter(function="work")).changed == ()
