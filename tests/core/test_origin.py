from __future__ import annotations

import subprocess
import sys

import pytest

from worchflow_core.origin import is_gone, own_origin

pytestmark = pytest.mark.skipif(not own_origin(), reason="this system does not tell origins")
SHOW = "from worchflow_core.origin import own_origin; print(own_origin(), flush=True); input()"


def test_this_process_is_there() -> None:
    assert not is_gone(own_origin())


def test_an_ended_process_is_gone() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SHOW], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        origin = process.stdout.readline().strip()
        assert origin
        assert not is_gone(origin)
        process.kill()
        process.wait()
    assert is_gone(origin)


@pytest.mark.parametrize("text", ["", "/", "x/y/1/2", "nonsense", "a/b/c/d/e/f"])
def test_strangers_are_not_judged(text: str) -> None:
    assert not is_gone(text)


def test_a_process_id_used_again_is_another_process() -> None:
    place, _, started = own_origin().rpartition("/")
    assert is_gone(f"{place}/{int(started) - 1}")
