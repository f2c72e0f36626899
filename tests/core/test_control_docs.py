from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any
from uuid import uuid4

from worchflow_core import Status, Worchflow, control

from .support import run, until

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "control-flow.md").read_text("utf-8")


def test_the_pages_example_runs(monkeypatch: Any) -> None:
    (source,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    scope: dict[str, Any] = {"__name__": "control_flow_page"}
    exec(compile(source.replace('"10m"', '"0.3s"'), "control-flow.md", "exec"), scope)
    monkeypatch.setattr(control, "IN_PLACE", control.timedelta(0))
    order, charge = scope["order"], scope["charge"]
    overrides = {"store_url": f"memory://{uuid4().hex}", "sweep_interval": "0.1s"}

    async def main() -> None:
        async with Worchflow(functions=[order, charge], overrides=overrides, env_file=None) as app:
            working = asyncio.create_task(app.worker.run())
            handle = await app.client.send(order, {"id": 7, "amount": 5})

            async def waits() -> bool:
                return (await handle.get()).status is Status.WAITING

            await until(waits)
            execution = await handle.get()
            assert execution.due_at is not None
            assert (execution.due_at - execution.created_at).days in (2, 3)
            await app.client.send_event("approved", {"order": 7})
            assert await handle.result(30) == "paid 5"
            app.worker.stop()
            await working

    run(main())
