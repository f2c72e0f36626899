from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import httpx
import pytest

from tests.plugins.dashboard.support import NOW, execution, run, served, step
from worchflow_core import (
    Attempt,
    Event,
    Failure,
    Status,
    Step,
    StepTry,
    Trigger,
    Worchflow,
    function,
    to_millis,
)
from worchflow_plugins.dashboard import demo, redact_keys

PAYMENT = {"amount": 100, "customer_id": "cust_1"}


@function(triggers=["order/*"])
async def stocks(event: Event[dict[str, int]], step: Step) -> None: ...


@function(triggers=[Trigger("order/paid", match={"id": 1})])
async def mails(event: Event[Any], step: Step) -> None: ...


async def post(client: httpx.AsyncClient, path: str, body: Any) -> tuple[int, Any]:
    answer = await client.post(path, json=body)
    return answer.status_code, answer.json()


async def get(client: httpx.AsyncClient, path: str) -> tuple[int, Any]:
    answer = await client.get(path)
    assert answer.headers["content-type"] == "application/json"
    return answer.status_code, answer.json()


# --- the original's five routes -------------------------------------------------------------------


def test_list_has_the_original_shape() -> None:
    async def main() -> None:
        async with served() as (client, app):
            await app.journal.store.create(
                [
                    execution("a", data='{"x":1}', created_at=NOW - timedelta(seconds=5)),
                    execution("b", status=Status.COMPLETED, result='{"y":[1]}', fence=1),
                ]
            )
            status, body = await get(client, "/api/executions?status=&limit=10&skip=0")
            assert status == 200
            assert {"executions", "total", "limit", "skip"} <= body.keys()
            assert (body["total"], body["limit"], body["skip"]) == (2, 10, 0)
            first, second = body["executions"]
            assert first["id"] == "a"
            assert first["eventName"] == "process-payment"
            assert first["eventData"] == '{"x":1}'
            assert first["status"] == "queued"
            assert first["attemptCount"] == 0
            assert first["createdAt"] == to_millis(NOW - timedelta(seconds=5))
            assert first["error"] is None
            assert second["result"] == {"y": [1]}

    run(main())


def test_detail_has_the_original_shape_and_no_redis() -> None:
    async def main() -> None:
        async with served() as (client, app):
            item = execution("a", fence=1, error=Failure(type="E", message="no", traceback="at x"))
            await app.journal.store.create([item])
            await app.journal.store.record([step("a", 1, fence=1)])
            status, body = await get(client, "/api/executions/a")
            assert status == 200
            assert body.keys() == {"execution", "steps", "redisExecution", "progress", "log"}
            assert body["redisExecution"] == {}
            assert body["execution"]["error"] == "no"
            assert body["execution"]["errorStack"] == "at x"
            (told,) = body["steps"]
            assert told["executionId"] == "a"
            assert told["stepId"] == "step-1"
            assert told["name"] == "Step 1"
            assert told["status"] == "completed"
            assert told["result"] == {"number": 1}
            assert told["timestamp"] == told["endedAt"]

    run(main())


def test_retry_answers_as_the_original() -> None:
    async def main() -> None:
        async with served() as (client, app):
            await app.journal.store.create([execution("a", status=Status.FAILED, finished_at=NOW)])
            status, body = await post(client, "/api/executions/a/retry", {})
            assert status == 200
            assert body["success"] is True
            assert body["executionId"] == "a"
            assert (await app.client.get("a")).status is Status.QUEUED

    run(main())


@pytest.mark.parametrize("status", [Status.QUEUED, Status.PROCESSING, Status.COMPLETED])
def test_only_what_failed_or_was_cancelled_is_retried(status: Status) -> None:
    async def main() -> None:
        async with served() as (client, app):
            await app.journal.store.create([execution("a", status=status)])
            code, body = await post(client, "/api/executions/a/retry", {})
            assert code == 409
            assert "a" in body["error"]
            assert (await app.client.get("a")).status is status

    run(main())


def test_stats_are_flat_counts_and_a_total() -> None:
    async def main() -> None:
        async with served() as (client, app):
            await app.journal.store.create([execution("a"), execution("b", status=Status.FAILED)])
            _, body = await get(client, "/api/stats")
            assert body == {**dict.fromkeys(Status, 0), "queued": 1, "failed": 1, "total": 2}

    run(main())


def test_send_creates_an_execution() -> None:
    async def main() -> None:
        async with served() as (client, app):
            status, body = await post(
                client, "/api/send", {"name": "process-payment", "data": PAYMENT}
            )
            assert status == 200
            assert body == {"success": True, "executionId": body["executionId"]}
            sent = await app.client.get(body["executionId"])
            assert json.loads(sent.data or "")["amount"] == 100

    run(main())


@pytest.mark.parametrize(
    "body", [{}, {"name": "process-payment"}, {"data": {}}, {"name": "x", "data": None}]
)
def test_missing_name_or_data_is_said_in_the_original_words(body: Any) -> None:
    async def main() -> None:
        async with served() as (client, _):
            assert await post(client, "/api/send", body) == (400, {"error": "Missing name or data"})

    run(main())


@pytest.mark.parametrize("path", ["/api/executions/none", "/api/executions/none/steps"])
def test_unknown_execution_is_404(path: str) -> None:
    async def main() -> None:
        async with served() as (client, _):
            status, body = await get(client, path)
            assert status == 404
            assert list(body) == ["error"]

    run(main())


# --- sending --------------------------------------------------------------------------------------


def test_data_that_does_not_fit_is_refused_path_by_path() -> None:
    async def main() -> None:
        async with served() as (client, app):
            bad = {"amount": "x", "items": [{"sku": 1}]}
            status, body = await post(client, "/api/send", {"name": "process-payment", "data": bad})
            assert status == 400
            paths = {item["path"] for item in body["problems"]}
            assert paths == {"amount", "customer_id", "items[0].sku"}
            assert sum((await app.client.stats()).values()) == 0

    run(main())


def test_unknown_function_is_refused_unless_forced() -> None:
    async def main() -> None:
        async with served() as (client, app):
            event = {"name": "nobody-has-it", "data": {}}
            status, body = await post(client, "/api/send", event)
            assert status == 400
            assert "hello-world" in body["error"]
            status, body = await post(client, "/api/send", {**event, "force": True})
            assert status == 200
            assert (await app.client.get(body["executionId"])).function == "nobody-has-it"

    run(main())


def test_an_event_runs_its_subscribers_and_keeps_the_originals_answer() -> None:
    async def main() -> None:
        async with served() as (client, app):
            for item in (stocks, mails):
                app.registry.add(item)
            body = {"name": "order/paid", "data": {"id": 1}, "id": "o1", "tags": ["vip"]}
            for _ in range(2):
                status, answer = await post(client, "/api/send", body)
                assert (status, answer) == (
                    200,
                    {
                        "success": True,
                        "executionId": "o1:mails",
                        "executionIds": ["o1:mails", "o1:stocks"],
                        "eventId": "o1",
                    },
                )
            execution = await app.client.get("o1:stocks")
            assert (execution.event, execution.tags) == ("order/paid", ("vip",))
            status, answer = await post(client, "/api/send", {**body, "data": {"id": 2}})
            assert status == 409
            _, functions = await get(client, "/api/functions")
            told = {item["id"]: item["triggers"] for item in functions["functions"]}
            assert told["stocks"] == [{"name": "order/*", "match": {}}]
            assert told["mails"] == [{"name": "order/paid", "match": {"id": 1}}]
            assert told["hello-world"] == []

    run(main())


def test_an_event_without_subscribers_is_kept_where_it_is_said_to_be_one() -> None:
    async def main() -> None:
        async with served() as (client, app):
            body = {"name": "news/today", "data": {}}
            status, answer = await post(client, "/api/send", body)
            assert status == 400
            assert "Send with event" in answer["error"]
            status, answer = await post(client, "/api/send", {**body, "event": True})
            assert status == 200
            event_id = answer.pop("eventId")
            assert answer == {"success": True, "executionId": None, "executionIds": []}
            (record,) = await app.journal.store.records.scan("event")
            assert json.loads(record.body)["id"] == event_id

    run(main())


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"name": "hello-world"}, "is a function; leave event out"),
        ({"delay": 5}, "delay and priority are for functions"),
        ({"priority": 5}, "delay and priority are for functions"),
        ({"name": "news/*"}, "only a trigger may hold a *"),
        ({"name": "news\n"}, "event name"),
        ({"name": "news@me"}, "use signal"),
        ({"event": "yes"}, "event: "),
    ],
)
def test_what_no_event_may_be_is_refused(more: dict[str, Any], said: str) -> None:
    async def main() -> None:
        async with served() as (client, app):
            body = {"name": "news/today", "data": {}, "event": True, **more}
            status, answer = await post(client, "/api/send", body)
            assert status == 400
            assert said in answer["error"]
            assert not await app.journal.store.records.scan("event")

    run(main())


def test_sending_twice_with_one_id_creates_one_and_a_conflict_is_409() -> None:
    async def main() -> None:
        async with served() as (client, app):
            event = {"name": "hello-world", "data": {"name": "a"}, "id": "one", "delay": "1h"}
            assert (await post(client, "/api/send", event))[0] == 200
            assert (await post(client, "/api/send", event))[0] == 200
            status, body = await post(client, "/api/send", {**event, "data": {"name": "b"}})
            assert status == 409
            assert "one" in body["error"]
            sent = await app.client.get("one")
            assert sent.due_at is not None
            assert sent.due_at > sent.created_at

    run(main())


@pytest.mark.parametrize(
    "body",
    [
        '{"name":"hello-world","data":{"x":NaN}}',
        '{"name":"hello-world","data":' + "[" * 80 + "]" * 80 + "}",
        "[]",
        '"text"',
        "{",
        '{"name":"hello-world","data":{},"unknown":1}',
        '{"name":{"$ne":1},"data":{}}',
        '{"name":"hello-world","data":{},"id":"../../x"}',
        '{"name":"hello-world","data":{},"delay":"soon"}',
        '{"name":"hello-world","data":{},"delay":-1}',
        '{"name":"hello-world","data":{},"priority":1e9}',
        '{"name":"hello-world","data":{"name":"\\ud800"}}',
        b"\xff\xfe",
    ],
)
def test_bodies_that_are_none_are_400_and_write_nothing(body: Any) -> None:
    async def main() -> None:
        async with served() as (client, app):
            answer = await client.post(
                "/api/send", content=body, headers={"content-type": "application/json"}
            )
            assert answer.status_code == 400
            assert answer.json()["error"]
            assert sum((await app.client.stats()).values()) == 0

    run(main())


# --- reading --------------------------------------------------------------------------------------


async def fill(app: Worchflow, count: int = 300) -> None:
    await demo.seed(app.journal.store, count)


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=-1",
        "limit=1000000000",
        "limit=abc",
        "limit=201",
        "limit=1.5",
        "limit=",
        "limit=1&limit=2",
        "skip=1000000000000",
        "skip=-1",
        "unknown=1",
        "status[$ne]=x",
        "status=nope",
        "status=failed,nope",
        "since=yesterday",
        "since=2026-01-01T00:00:00",
        "until=99999999999999999",
        "order=error",
        "order=updated_at",
        "search=" + "x" * 300,
        "search=a%00b",
    ],
)
def test_parameters_that_are_none_are_400(query: str) -> None:
    async def main() -> None:
        async with served() as (client, _):
            status, body = await get(client, f"/api/executions?{query}")
            assert status == 400
            assert list(body) == ["error"]

    run(main())


def test_several_statuses_functions_and_times_filter_the_list() -> None:
    async def main() -> None:
        async with served() as (client, app):
            await fill(app)
            everything = (await get(client, "/api/executions?limit=200"))[1]["executions"]
            both = (await get(client, "/api/executions?status=failed,retrying&limit=200"))[1]
            again = (await get(client, "/api/executions?status=failed&status=retrying&limit=200"))[
                1
            ]
            assert {item["status"] for item in both["executions"]} == {"failed", "retrying"}
            assert both == again
            assert both["total"] == len(both["executions"])
            name = everything[0]["eventName"]
            mine = (await get(client, f"/api/executions?function={name}&limit=200"))[1]
            assert {item["eventName"] for item in mine["executions"]} == {name}
            middle = everything[100]["createdAt"]
            late = (await get(client, f"/api/executions?since={middle}&limit=200"))[1]
            assert min(item["createdAt"] for item in late["executions"]) == middle
            found = (await get(client, f"/api/executions?search={everything[7]['id'][:8]}"))[1]
            assert [item["id"] for item in found["executions"]] == [everything[7]["id"]]
            kind = (await get(client, "/api/executions?search=GatewayTimeout&limit=200"))[1]
            assert {item["status"] for item in kind["executions"]} == {"failed", "retrying"}

    run(main())


def test_pages_join_without_gap_or_repeat() -> None:
    async def main() -> None:
        async with served() as (client, app):
            await fill(app, 90)
            whole = (await get(client, "/api/executions?limit=200"))[1]
            ids: list[str] = []
            for skip in range(0, whole["total"], 40):
                part = (await get(client, f"/api/executions?limit=40&skip={skip}"))[1]
                ids += [item["id"] for item in part["executions"]]
            assert ids == [item["id"] for item in whole["executions"]]
            assert whole["total"] == len(ids)

    run(main())


def test_long_payloads_are_left_out_of_lists_but_not_of_the_detail() -> None:
    async def main() -> None:
        async with served() as (client, app):
            await app.journal.store.create([execution("a", data=json.dumps("x" * 20_000))])
            (listed,) = (await get(client, "/api/executions"))[1]["executions"]
            assert listed["eventData"] is None
            assert listed["omitted"] == ["eventData"]
            detail = (await get(client, "/api/executions/a"))[1]["execution"]
            assert len(detail["eventData"]) > 20_000

    run(main())


def test_steps_come_in_parts_and_only_failed_ones_on_request() -> None:
    async def main() -> None:
        async with served() as (client, app):
            tried = StepTry(
                step_id="step-2",
                title="Step 2",
                started_at=NOW,
                ended_at=NOW,
                error=Failure(type="E", message="no"),
            )
            attempt = Attempt(
                number=1,
                worker="w",
                started_at=NOW,
                ended_at=NOW,
                outcome="retrying",
                tries=(tried,),
            )
            await app.journal.store.create([execution("a", fence=1, attempts=(attempt,))])
            await app.journal.store.record([step("a", number, fence=1) for number in (1, 2, 3)])
            part = (await get(client, "/api/executions/a/steps?limit=2&skip=1"))[1]
            assert [item["stepId"] for item in part["steps"]] == ["step-2", "step-3"]
            assert part["total"] == 3
            failed = (await get(client, "/api/executions/a/steps?only=failed"))[1]
            assert [item["stepId"] for item in failed["steps"]] == ["step-2"]

    run(main())


def test_ids_of_foreign_clients_are_taken_as_they_are() -> None:
    async def main() -> None:
        async with served() as (client, app):
            odd = "order/1?x=<b>&../.."
            await app.journal.store.create([execution(odd)])
            path = "/api/executions/" + "".join(f"%{byte:02X}" for byte in odd.encode())
            assert (await get(client, path))[1]["execution"]["id"] == odd
            status, body = await post(client, f"{path}/cancel", {})
            assert (status, body["executionId"]) == (200, odd)

    run(main())


def test_functions_tell_their_schema_and_workers_what_they_do() -> None:
    async def main() -> None:
        async with served() as (client, app):
            await fill(app)
            functions = (await get(client, "/api/functions"))[1]
            by_id = {item["id"]: item for item in functions["functions"]}
            assert by_id["process-payment"]["schema"]["required"] == ["amount", "customer_id"]
            assert by_id["daily-cleanup"]["cron"] == "0 3 * * *"
            assert (await get(client, "/api/functions/process-payment"))[1]["retries"] == 3
            assert (await get(client, "/api/functions/none"))[0] == 404
            workers = (await get(client, "/api/workers"))[1]
            assert workers["total"] == 4
            assert sum(len(item["running"]) for item in workers["workers"]) > 0

    run(main())


# --- changing -------------------------------------------------------------------------------------


def test_cancel_takes_effect_at_once_or_is_asked_for() -> None:
    async def main() -> None:
        async with served() as (client, app):
            await app.journal.store.create(
                [execution("free"), execution("owned", status=Status.PROCESSING, owner="w")]
            )
            assert (await post(client, "/api/executions/free/cancel", {}))[1][
                "status"
            ] == "cancelled"
            assert (await post(client, "/api/executions/owned/cancel", {}))[0] == 200
            assert (await app.client.get("owned")).cancel_requested_at is not None
            assert (await post(client, "/api/executions/free/cancel", {}))[0] == 409

    run(main())


def test_bulk_retry_by_filter_counts_first_and_leaves_others_alone() -> None:
    async def main() -> None:
        async with served() as (client, app):
            await fill(app)
            before = (await get(client, "/api/stats"))[1]
            wanted = {"filter": {"status": ["failed"], "function": "process-payment"}}
            _, dry = await post(client, "/api/retry", {**wanted, "dryRun": True})
            assert dry["matched"] > 0
            assert dry["changed"] == []
            assert (await get(client, "/api/stats"))[1] == before
            _, done = await post(client, "/api/retry", wanted)
            assert len(done["changed"]) == dry["matched"]
            assert done["next"] is None
            after = (await get(client, "/api/stats"))[1]
            assert after["failed"] == before["failed"] - dry["matched"]
            assert after["completed"] == before["completed"]

    run(main())


def test_bulk_changes_in_parts_reach_everything_once() -> None:
    async def main() -> None:
        async with served() as (client, app):
            many = [
                execution(f"e{number:04}", status=Status.PROCESSING, owner="w")
                for number in range(1203)
            ]
            await app.journal.store.create(many)
            seen: list[str] = []
            place = None
            for _ in range(10):
                body = {"filter": {}, **({"after": place} if place else {})}
                _, answer = await post(client, "/api/cancel", body)
                seen += answer["changed"]
                place = answer["next"]
                if place is None:
                    break
            # They stay `processing` until their worker hears of it, and must not come twice.
            assert sorted(seen) == [item.id for item in many]

    run(main())


def test_bulk_changes_what_was_counted_and_nothing_that_came_since() -> None:
    async def main() -> None:
        async with served() as (client, app):
            await app.journal.store.create([execution("a"), execution("b")])
            wanted = {"status": "queued", "function": "process-payment"}
            _, dry = await post(
                client, "/api/executions/cancel", {"filter": wanted, "dryRun": True}
            )
            assert dry["matched"] == 2
            late = execution("late", created_at=NOW)
            await app.journal.store.create([late])
            body = {"filter": {**wanted, **dry["edge"]}}
            _, done = await post(client, "/api/executions/cancel", body)
            assert sorted(done["changed"]) == ["a", "b"]
            assert (await app.client.get("late")).status is Status.QUEUED
            status, refused = await post(
                client, "/api/executions/retry", {"filter": {"status": "queued"}}
            )
            assert (status, "retry is for failed" in refused["error"]) == (409, True)

    run(main())


def test_bulk_by_id_says_why_some_were_skipped() -> None:
    async def main() -> None:
        async with served() as (client, app):
            await app.journal.store.create(
                [execution("a", status=Status.FAILED), execution("b", status=Status.COMPLETED)]
            )
            _, answer = await post(client, "/api/retry", {"ids": ["a", "b", "c", "a"]})
            assert answer["changed"] == ["a"]
            assert {item["id"] for item in answer["skipped"]} == {"b", "c"}

    run(main())


@pytest.mark.parametrize("body", [{}, {"ids": ["a"], "filter": {}}, {"ids": ["x"] * 1001}])
def test_bulk_needs_ids_or_a_filter(body: Any) -> None:
    async def main() -> None:
        async with served() as (client, _):
            assert (await post(client, "/api/retry", body))[0] == 400

    run(main())


def test_drain_asks_a_worker_and_knows_no_other() -> None:
    async def main() -> None:
        async with served() as (client, app):
            await fill(app)
            assert (await post(client, "/api/workers/demo-1/drain", {}))[0] == 200
            asked = [item.id for item in await app.client.workers() if item.drain_requested_at]
            assert asked == ["demo-1"]
            assert (await post(client, "/api/workers/none/drain", {}))[0] == 404

    run(main())


def test_a_change_is_seen_by_the_very_next_question() -> None:
    async def main() -> None:
        async with served() as (client, app):
            await app.journal.store.create([execution("a", status=Status.FAILED)])
            assert (await get(client, "/api/stats"))[1]["failed"] == 1
            await post(client, "/api/executions/a/retry", {})
            assert (await get(client, "/api/stats"))[1]["failed"] == 0

    run(main())


# --- redaction ------------------------------------------------------------------------------------


def test_what_is_redacted_leaves_no_trace_in_any_answer() -> None:
    async def main() -> None:
        async with served(redact=redact_keys("password", "card")) as (client, app):
            secret = {"user": {"password": "hunter2"}, "cards": ["hunter2"], "open": "seen"}
            item = execution(
                "a",
                status=Status.COMPLETED,
                fence=1,
                data=json.dumps(secret),
                result=json.dumps(secret),
            )
            await app.journal.store.create([item])
            await app.journal.store.record([step("a", 1, fence=1, result=json.dumps(secret))])
            for path in (
                "/api/executions",
                "/api/executions/a",
                "/api/executions/a/steps",
                "/executions/a",
                "/executions/a/data.json",
                "/executions/a/result.json",
                "/executions/a/steps/step-1.json",
                "/send?from=a",
            ):
                text = (await client.get(path)).text
                assert "hunter2" not in text, path
                assert "seen" in text, path

    run(main())


def test_errors_are_redacted_too() -> None:
    def redact(path: tuple[str | int, ...], value: Any) -> Any:
        return value.replace("hunter2", "***") if path[0] == "error" else value

    async def main() -> None:
        failure = Failure(
            type="E",
            message="bad hunter2",
            traceback="at hunter2",
            cause=Failure(type="C", message="hunter2"),
        )
        attempt = Attempt(
            number=1, worker="w", started_at=NOW, ended_at=NOW, outcome="failed", error=failure
        )
        async with served(redact=redact) as (client, app):
            await app.journal.store.create(
                [execution("a", status=Status.FAILED, error=failure, attempts=(attempt,))]
            )
            for path in ("/api/executions", "/api/executions/a", "/executions/a", "/"):
                text = (await client.get(path)).text
                assert "hunter2" not in text, path
                assert "***" in text, path

    run(main())
