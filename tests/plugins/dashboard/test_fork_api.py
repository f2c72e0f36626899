from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.plugins.dashboard.support import NOW, execution, run, served, step
from tests.plugins.dashboard.test_api import get, post
from worchflow_core import Attempt, Failure, Status, StepTry

PATH = "/api/executions/a/fork"


async def prepared(app: Any) -> None:
    """Store an execution of a function that nobody knows, with two steps."""
    await app.journal.store.create([execution("a", function="shop", data='{"x":1}')])
    await app.journal.store.record(
        [
            step("a", 1, title="One", result="1", fence=0),
            step("a", 2, title="Two", result="2", fence=0),
        ]
    )


def test_a_fork_begins_at_a_step_with_edits() -> None:
    async def main() -> None:
        async with served() as (client, app):
            await prepared(app)
            body = {"fromStep": "Two", "data": {"x": 2}, "results": {"One": [7]}, "id": "b"}
            status, answer = await post(client, PATH, body)
            assert (status, answer) == (
                200,
                {"success": True, "executionId": "b", "isNew": True, "forkedFrom": "a"},
            )
            fork = (await get(client, "/api/executions/b"))[1]
            assert fork["execution"]["forkedFrom"] == "a"
            assert fork["execution"]["eventData"] == '{"x":2}'
            assert [(item["name"], item["result"]) for item in fork["steps"]] == [("One", [7])]
            page = await client.get("/executions/b")
            assert page.status_code == 200
            assert "Forked from" in page.text
            assert (await post(client, PATH, body))[1]["isNew"] is False
            assert (await post(client, PATH, {**body, "data": None}))[0] == 409
            assert (await get(client, "/api/executions/a"))[1]["steps"][0]["result"] == 1

    run(main())


def test_a_fork_of_which_nothing_is_said_begins_anew_with_the_same_data() -> None:
    async def main() -> None:
        async with served() as (client, app):
            await prepared(app)
            for body, data in (({}, '{"x":1}'), ({"data": None}, "null")):
                status, answer = await post(client, PATH, body)
                assert status == 200
                fork = await app.client.get(answer["executionId"])
                assert (fork.data, len(await app.client.steps(fork.id))) == (data, 0)

    run(main())


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"fromStep": "Nope"}, "has no step 'Nope'; there are: 'One', 'Two'"),
        ({"fromStep": ""}, "fromStep"),
        ({"fromStep": 1}, "fromStep"),
        ({"results": {"Nope": 1}}, "has no step 'Nope'"),
        ({"results": [1]}, "results"),
        ({"results": {"Two": 1}, "fromStep": "Two"}, "is not before 'Two'"),
        ({"id": "no spaces please"}, "execution id"),
        ({"from_step": "Two"}, "from_step"),
        ({"fromStep": "\u202e" * 300}, "fromStep"),
    ],
)
def test_what_cannot_be_forked_is_400_and_writes_nothing(body: Any, said: str) -> None:
    async def main() -> None:
        async with served() as (client, app):
            await prepared(app)
            status, answer = await post(client, PATH, body)
            assert status == 400
            assert said in answer["error"]
            assert len((await app.client.find()).items) == 1

    run(main())


def test_results_may_be_as_large_as_events() -> None:
    async def main() -> None:
        async with served() as (client, app):
            await prepared(app)
            body = {"results": {"One": "x" * 500_000}}
            assert (await post(client, PATH, body))[0] == 200

    run(main())


def test_explain_gives_reasons_with_their_facts() -> None:
    async def main() -> None:
        async with served() as (client, app):
            await app.journal.store.create(
                [
                    execution(
                        "a",
                        status=Status.RETRYING,
                        due_at=app.journal.clock.now() + timedelta(hours=2),
                        failed_attempts=1,
                        retries=2,
                        error=Failure(type="ValueError", message="no"),
                    )
                ]
            )
            status, body = await get(client, "/api/executions/a/explain")
            assert (status, body["executionId"]) == (200, "a")
            first, second = body["reasons"]
            assert first["code"] == "retry_later"
            assert first["facts"]["attempt"] == 2
            assert isinstance(first["facts"]["dueAt"], int)
            assert second["code"] == "no_live_worker"

    run(main())


@pytest.mark.parametrize("path", ["/api/executions/none/explain", "/api/executions/none/fork"])
def test_an_unknown_execution_is_404(path: str) -> None:
    async def main() -> None:
        async with served() as (client, _):
            answer = await (
                client.post(path, json={}) if path.endswith("fork") else client.get(path)
            )
            assert answer.status_code == 404
            assert "none" in answer.json()["error"]

    run(main())


def test_a_reason_quotes_no_error_that_is_redacted() -> None:
    def redact(path: tuple[str | int, ...], value: Any) -> Any:
        return value.replace("4111", "***") if path[0] == "error" else value

    async def main() -> None:
        async with served(redact=redact) as (client, app):
            secret = Failure(type="ValueError", message="card 4111 refused")
            await app.journal.store.create(
                [execution("a", status=Status.FAILED, error=secret, finished_at=NOW)]
            )
            answer = await client.get("/api/executions/a/explain")
            assert answer.text.count("card *** refused") == 2
            assert "4111" not in answer.text

    run(main())


def test_what_hides_an_error_hides_nothing_else_of_a_reason() -> None:
    def redact(path: tuple[str | int, ...], value: Any) -> Any:
        return "***" if path[0] == "error" else value

    async def main() -> None:
        async with served(redact=redact) as (client, app):
            short = Failure(type="ValueError", message="e")
            await app.journal.store.create(
                [execution("a", status=Status.FAILED, error=short, finished_at=NOW)]
            )
            (reason,) = (await get(client, "/api/executions/a/explain"))[1]["reasons"]
            assert reason["text"].startswith("it failed ")
            assert reason["text"].endswith(" of ValueError: ***")

    run(main())


def test_the_page_offers_no_fork_from_an_undo() -> None:
    def tried(step_id: str, title: str, seq: int) -> StepTry:
        return StepTry(step_id=step_id, title=title, started_at=NOW, ended_at=NOW, seq=seq)

    async def main() -> None:
        async with served() as (client, app):
            tries = (tried("u", "Undo One", 0), tried("s", "Undo the order", 2))
            attempt = Attempt(
                number=1, worker="w", started_at=NOW, ended_at=NOW, outcome="failed", tries=tries
            )
            failed = execution("a", status=Status.FAILED, finished_at=NOW, attempts=(attempt,))
            await app.journal.store.create([failed])
            page = (await client.get("/executions/a")).text
            assert 'data-fork="s"' in page
            assert 'data-fork="u"' not in page

    run(main())
