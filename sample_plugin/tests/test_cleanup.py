from __future__ import annotations

from datetime import UTC, datetime

from worchflow_sample.functions.cleanup import daily_cleanup

from worchflow_core.testing import Harness


def test_old_uploads_are_deleted() -> None:
    with Harness(now=datetime(2027, 3, 10, 3, tzinfo=UTC)) as harness:
        run = harness.run(daily_cleanup)
    assert run.result == 3
    assert run.steps[0].result == (
        '["uploads/2027-03-02.bin","uploads/2027-03-01.bin","uploads/2027-02-28.bin"]'
    )


def test_it_runs_every_night() -> None:
    assert daily_cleanup.cron is not None
    assert daily_cleanup.cron.text == "0 3 * * *"
