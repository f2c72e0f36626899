from __future__ import annotations

import importlib_metadata

from tests.plugins.dashboard.support import execution, run, served
from worchflow_core import Status


def sample_panel() -> object:
    """Return the panel module of the installed sample, found as the dashboard finds it."""
    (entry,) = importlib_metadata.entry_points(group="worchflow.plugins", name="sample-panel")
    return entry.load()


def test_a_completed_payment_shows_its_receipt() -> None:
    async def main() -> None:
        async with served(plugins=[sample_panel()]) as (client, app):
            result = '{"transaction_id":"txn_<1>","amount":"12.50","customer_id":"cust_1"}'
            await app.journal.store.create(
                [
                    execution("paid", status=Status.COMPLETED, result=result),
                    execution("unpaid"),
                    execution("other", function="hello", status=Status.COMPLETED, result="1"),
                ]
            )
            page = (await client.get("/executions/paid")).text
            assert 'aria-label="Receipt"' in page
            assert "cust_1 paid 12.50" in page
            assert "txn_&lt;1&gt;" in page
            for item in ("unpaid", "other"):
                assert 'aria-label="Receipt"' not in (await client.get(f"/executions/{item}")).text

    run(main())
