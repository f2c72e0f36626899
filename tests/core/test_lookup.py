"""The lookup finds one record by its key, however many keys begin like it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.core.support import run
from worchflow_core import Record, Worchflow, function
from worchflow_core.lookup import read_record
from worchflow_core.timetable import Timetable


@pytest.fixture
def app(url: str) -> Worchflow:
    """An application on each store."""
    return Worchflow(functions=[], overrides={"store_url": url, "log": "off"}, env_file=None)


KEYS = [f"job{number}" for number in range(400)] + ["job", "job-", "Job", "a", "z~", "9", "x" * 128]


def test_every_key_is_found_among_its_neighbours(app: Worchflow) -> None:
    async def main() -> None:
        async with app:
            records = app.journal.store.records
            await records.insert([Record(kind="k", key=key, body=key) for key in KEYS])
            await records.insert([Record(kind="j", key="job500", body="of another kind")])
            for key in KEYS:
                found = await read_record(records, "k", key)
                assert found is not None, key
                assert found.body == key
            for key in ("job500", "jo", "", "jö", "job1\n", "job\x00", "\ud800", "x" * 127):
                assert await read_record(records, "k", key) is None, key

    run(main())


def test_a_schedule_among_hundreds_of_the_like_is_changed(app: Worchflow) -> None:
    def make(rule: str) -> list[object]:
        async def code(event: object, step: object) -> None: ...

        return [function(id=f"job{number}", cron=rule)(code) for number in range(150)]  # type: ignore[call-overload]

    async def main() -> None:
        async with app:
            timetable = Timetable(app.journal.store.records)
            now = datetime(2030, 1, 1, tzinfo=UTC)
            await timetable.register(make("0 9 * * *"), now=now)  # type: ignore[arg-type]
            await timetable.register(make("0 10 * * *"), now=now)  # type: ignore[arg-type]
            assert {item.schedule.text for item in await timetable.read()} == {"0 10 * * *"}

    run(main())
