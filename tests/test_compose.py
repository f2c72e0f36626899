"""The compose file and the example environment, read as their programs read them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from dotenv import dotenv_values

from worchflow_core import Settings
from worchflow_plugins import mongo, redis

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    document = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    found = document["services"]
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def environment() -> dict[str, str | None]:
    return dotenv_values(ROOT / ".env.example")


def test_up_wait_can_wait_for_both(services: dict[str, Any]) -> None:
    assert set(services) == {"redis", "mongo"}
    for service in services.values():
        assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}
        assert service["healthcheck"]["retries"] >= 10


def test_data_stays_in_volumes_and_ports_on_loopback(services: dict[str, Any]) -> None:
    declared = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["volumes"]
    for service in services.values():
        assert service["volumes"]
        assert {item.split(":")[0] for item in service["volumes"]} <= set(declared)
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_redis_keeps_an_append_only_file_evicts_nothing_and_asks_a_password(
    services: dict[str, Any],
) -> None:
    command = services["redis"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--maxmemory-policy"] == "noeviction"
    assert options["--requirepass"].startswith("${REDIS_PASSWORD:?")


def test_mongo_is_a_replica_set_that_the_host_can_follow(services: dict[str, Any]) -> None:
    service = services["mongo"]
    name = service["command"][service["command"].index("--replSet") + 1]
    check = service["healthcheck"]["test"][-1]
    assert f'_id: "{name}"' in check
    assert re.findall(r'host: "([^"]+)"', check) == [service["ports"][0].removesuffix(":27017")]
    assert "isWritablePrimary" in check


def test_every_variable_of_the_compose_file_is_in_the_example(
    environment: dict[str, str | None],
) -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    assert set(re.findall(r"\$\{([A-Z_]+)", text)) <= set(environment)


def test_the_example_fits_the_services(environment: dict[str, str | None]) -> None:
    settings = Settings(_env_file=ROOT / ".env.example")
    assert settings.store_url is not None
    assert settings.queue_url is not None
    assert mongo.worchflow_open_store(settings.store_url, settings) is not None
    queue = redis.worchflow_open_queue(settings.queue_url, settings)
    assert queue is not None
    assert f":{environment['REDIS_PASSWORD']}@" in settings.queue_url
    assert str(environment["REDIS_PASSWORD"]) not in queue.describe()
