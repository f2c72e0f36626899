"""Workers that are started before their servers, or on a database they must not use."""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from tests.core.cli.programs import Program, wait_for
from worchflow_core.cli import exits
from worchflow_core.testing.fixtures import running, with_database
from worchflow_core.testing.servers import MongoServer, RedisServer, free_port

pytestmark = pytest.mark.servers
FLOWS = """
from worchflow_core import function

@function
async def greet(event, step):
    return await step.run("Greet", lambda: "hello")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "flows.py").write_text(FLOWS, encoding="utf-8")
    return tmp_path


def health(port: int, path: str = "/healthz") -> int:
    """Return the status with which a health check is answered."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_before_its_servers(folder: Path) -> None:
    """F14: a worker waits with few words and a 503, and works as soon as its servers are there."""
    mongo, redis = MongoServer(), RedisServer()
    mongo.port, redis.port = free_port(), free_port()
    environment = {
        "WORCHFLOW_STORE_URL": with_database(mongo.url, "late"),
        "WORCHFLOW_QUEUE_URL": redis.url,
        "WORCHFLOW_HEARTBEAT": "200ms",
    }
    worker = Program(folder, ("worker", "-m", "flows", "--health-port", "0"), environment)
    sender: Program | None = None
    try:
        found = re.search(r"127\.0\.0\.1:(\d+)/healthz", worker.until("trying again"))
        assert found is not None
        port = int(found[1])
        assert (health(port), health(port, "/readyz")) == (503, 503)
        time.sleep(3)  # as long as they are away it keeps trying, and says little
        assert health(port) == 503
        assert len(worker.err.splitlines()) < 8, worker.err
        mongo.start()
        wait_for(lambda: health(port, "/readyz") == 200, 30)  # without Redis too
        redis.start()
        sender = Program(folder, ("send", "greet", "null", "--wait"), environment)
        done = sender.end()
        assert (done.code, json.loads(done.out)) == (exits.DONE, "hello"), done.err
        worker.signal()
        assert worker.end().code == exits.DONE
        assert "Traceback" not in worker.err
    finally:
        for program in filter(None, (worker, sender)):
            program.close()
        mongo.close()
        redis.close()


def test_index_that_is_not_unique(folder: Path, unique_name: str) -> None:
    """F30: a database in which an id could be stored twice is refused with the repair."""
    for server in running(MongoServer):
        url = with_database(server.url, unique_name)
        with MongoClient[Any](url) as client:
            executions = client.get_default_database().executions
            executions.create_index("id", name="worchflow_id")
            environment = {"WORCHFLOW_STORE_URL": url}
            refused = _ended(folder, ("worker", "--burst", "-m", "flows"), environment)
            assert refused.code == exits.FAILED
            assert "Traceback" not in refused.err
            found = re.search(r'db\.executions\.dropIndex\("worchflow_id"\)', refused.err)
            assert found is not None, refused.err
            executions.drop_index("worchflow_id")
        done = _ended(folder, ("worker", "--burst", "-m", "flows"), environment)
        assert done.code == exits.DONE, done.err


def _ended(folder: Path, arguments: tuple[str, ...], environment: dict[str, str]) -> Any:
    program = Program(folder, arguments, environment)
    try:
        return program.end()
    finally:
        program.close()
