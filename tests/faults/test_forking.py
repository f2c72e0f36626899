"""F13: where a process forks after it opened its backends, the child gets an error, no deadlock."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.combinations import Combination

SCRIPT = """
import asyncio, os, sys
from worchflow_core import Worchflow


async def ask(app):
    async with asyncio.timeout(20):
        return await app.journal.store.get(["x"])


async def main():
    async with Worchflow(functions=(), env_file=None) as app:
        await app.client.send("f", 1, id="x")
        assert len(await ask(app)) == 1
        child = os.fork()
        if child == 0:  # it has the parent's objects, and none of its threads
            code = 9
            try:
                asyncio.run(ask(app))
            except Exception as error:
                print(type(error).__name__, error, flush=True)
                code = 0
            finally:
                os._exit(code)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert len(await ask(app)) == 1, "the child took the parent's connection"


asyncio.run(main())
"""


def test_forked_child(combination: Combination, tmp_path: Path) -> None:
    """The child is told to open its own; the parent goes on."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("WORCHFLOW_")}
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", SCRIPT],
        cwd=tmp_path,
        env={**clean, **combination.environment, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search("forked child|this one is a fork", done.stdout), done.stdout
