"""Retry policies: how long to wait, and what may be asked for."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worchflow_core.retries import RetryPolicy, make_retry_policy


@given(st.integers(1, 5000), st.floats(0, 1, exclude_max=True))
def test_waits_grow_to_an_hour_with_up_to_a_quarter_added(failures: int, chance: float) -> None:
    wait = RetryPolicy().delay(failures, chance).total_seconds()
    base = min(3600, 2 ** min(failures - 1, 60))
    assert base - 0.001 <= wait <= base * 1.25 + 0.001


def test_retry_policy_takes_what_is_given_and_refuses_the_rest() -> None:
    policy = make_retry_policy(5, "2h")
    assert (policy.retries, policy.first, policy.longest) == (5, *[timedelta(hours=2)] * 2)
    assert make_retry_policy(None, 0).delay(3, 0.5) == timedelta(0)
    assert make_retry_policy(None, None) == RetryPolicy()
    for retries in (-1, 1001, 1.5, True, "3"):
        with pytest.raises(ValueError, match="retries is"):
            make_retry_policy(retries, None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="retry_delay is 'soon'"):
        make_retry_policy(None, "soon")
