"""The examples of docs/flow-control.md run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from uuid import uuid4

from worchflow_core import Function, Send, Worchflow

from .support import run, worker_of

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "flow-control.md").read_text("utf-8")
EVENTS: dict[str, tuple[Any, Any]] = {
    "crawl": ({"tenant": "acme"}, "page of acme"),
    "synchronise": ({"account": 7}, "synchronised 7"),
    "remind": ("Ada", "reminded Ada"),
    "greet": ({"user": "Ada"}, "hello Ada"),
    "index": ({"document": 1, "version": 2}, 2),
    "store": ({"row": 1}, 1),
    "charge": ({"order": 4711}, "charged 4711"),
}


def test_the_pages_examples_run() -> None:
    sources = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    scope: dict[str, Any] = {"__name__": "flow_control_page"}
    for source in sources:
        quick = source.replace('Debounce("2s"', 'Debounce("0.2s"').replace('"5s"', '"0.2s"')
        exec(compile(quick, "flow-control.md", "exec"), scope)
    functions = [item for item in scope.values() if isinstance(item, Function)]
    assert {item.id for item in functions} == EVENTS.keys()
    overrides = {"store_url": f"memory://{uuid4().hex}", "sweep_interval": "0.1s"}

    async def main() -> None:
        async with Worchflow(functions=functions, overrides=overrides, env_file=None) as app:
            sends = [Send(function=name, data=data) for name, (data, _) in EVENTS.items()]
            handles = await app.client.send_many(sends)
            async with worker_of(app):
                for handle, (_, result) in zip(handles, EVENTS.values(), strict=True):
                    assert await handle.result(30) == result
            await scope["maintain"](app.client)
            assert not await app.client.paused_functions()

    run(main())
