"""Names: what ids, titles and tags may look like."""

from __future__ import annotations

from typing import Any

import pytest

from worchflow_core import (
    InvalidInput,
)
from worchflow_core.validation import check_execution_id, check_tags, check_title


@pytest.mark.parametrize("value", ["a", "A-1_.:@+", "9", "x" * 128])
def test_execution_id_that_may_be_given(value: str) -> None:
    assert check_execution_id(value) == value


@pytest.mark.parametrize(
    "value", ["", "-a", ".", "a b", "a/b", "é", "a\n", "a\0", "x" * 129, None, 7, "$a", "{a}"]
)
def test_execution_id_that_may_not_be_given(value: Any) -> None:
    with pytest.raises(InvalidInput, match="execution id"):
        check_execution_id(value)


def test_titles_and_tags() -> None:
    assert check_title("שלום 🎉 $a.b") == "שלום 🎉 $a.b"
    for bad in ("", "a\x7f", "a\0", "x" * 257, "\udc00", None):
        with pytest.raises(InvalidInput):
            check_title(bad)  # type: ignore[arg-type]
    assert check_tags(["b", "a", "b"]) == ("a", "b")
    for wrong in ("ab", [""], ["x" * 129], [None], ["a\u2028b"]):
        with pytest.raises(InvalidInput):
            check_tags(wrong)
