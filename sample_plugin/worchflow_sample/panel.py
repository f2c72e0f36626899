"""A panel on the dashboard: the receipt of a payment, beside its execution.

It is asked for only where a dashboard runs; without one, installing the package costs nothing.
"""

from __future__ import annotations

import json
from typing import Any

from worchflow_core import Execution, Status, hookimpl


@hookimpl
def worchflow_add_dashboard(ui: Any) -> None:
    """Add the panel to the page of an execution."""
    ui.add_panel("execution", receipt)


def receipt(execution: Execution) -> str:
    """Return the receipt of a completed payment, and nothing for any other execution."""
    # Every command loads the plugins: what they need is imported when it is needed.
    from worchflow_sample.functions.payment import process_payment

    if execution.function != process_payment.id or execution.status is not Status.COMPLETED:
        return ""
    # It comes with the dashboard. Text alone would do as well: what is no Markup is escaped.
    from markupsafe import Markup

    paid = json.loads(execution.result or "{}")
    return Markup(
        '<section class="card" aria-label="Receipt"><h2>Receipt</h2>'
        '<p>{} paid {}, transaction <span class="mono">{}</span></p></section>'
    ).format(paid.get("customer_id"), paid.get("amount"), paid.get("transaction_id"))
