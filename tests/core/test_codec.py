"""Codecs: values of every type become text and come back equal, or are refused."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypedDict

import pytest
from pydantic import BaseModel

from worchflow_core import (
    FunctionError,
    InvalidInput,
    NotSerializable,
    parse_json,
)
from worchflow_core.codec import UNTYPED, Codec, hash_input


class Item(BaseModel):
    name: str
    price: float | None = None


@dataclass(eq=False)
class Odd:
    items: list[Item]


class Plain(TypedDict, total=False):
    when: datetime
    inner: list[Item]


def test_typing_typed_dict_is_taken_and_rebuilt() -> None:
    codec = Codec(Plain, "it")
    value = {"when": datetime(2026, 1, 1, tzinfo=UTC), "inner": [Item(name="a")]}
    text, seen = codec.encode(value, limit=1000)
    assert seen == value == codec.decode(text)
    assert codec.encode({}, limit=10)[1] == {}
    assert Codec(dict[str, Plain | None], "it").encode({"a": None}, limit=99)[1] == {"a": None}


def test_class_without_equality_survives_by_its_fields() -> None:
    codec = Codec(Odd, "it")
    _, seen = codec.encode(Odd([Item(name="a")]), limit=1000)
    assert seen.items == [Item(name="a")]


@pytest.mark.parametrize(
    ("declared", "value", "word"),
    [
        (Odd, Odd([Item(name="a", price=math.nan)]), "items[0].price"),
        (Item, Item.model_construct(name=7), "name"),
        (list[Any], [1, {"a": datetime(2026, 1, 1)}], "[1].a"),
        (dict[str, float], {"a": math.inf}, "at a"),
        (Item, Item(name="\ud800"), "surrogate at name"),
        (list[Any], [object()], "[0]"),
        (int, "7x", "it does not fit its declared type int"),
        (type(None), 5, "declared type"),
    ],
)
def test_typed_value_that_does_not_survive_names_the_place(
    declared: Any, value: Any, word: str
) -> None:
    with pytest.raises(NotSerializable) as caught:
        Codec(declared, "it").encode(value, limit=10_000)
    assert word in str(caught.value)


@pytest.mark.parametrize("declared", [bytes, list[bytes], dict[str, bytes | None], object()])
def test_type_that_cannot_be_written_is_refused_when_declared(declared: Any) -> None:
    with pytest.raises(FunctionError, match="it is declared as"):
        Codec(declared, "it")


@pytest.mark.parametrize("text", ["{", "", "nope", "[" * 100_000, "9" * 5000, '{"a":}'])
def test_stored_text_that_is_no_json_is_an_input_error(text: str) -> None:
    for declared in (UNTYPED, int):
        with pytest.raises(InvalidInput, match=r"^it "):
            Codec(declared, "it").decode(text)


@pytest.mark.parametrize(
    "text", ["NaN", "[1,]", "{'a': 1}", "[" * 65 + "]" * 65, '"' + "x" * 99 + '"']
)
def test_strict_json_is_strict(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"^it "):
        parse_json(text, "it", limit=100 if "x" in text else 10_000)
    assert parse_json(' {"a": [1, "[[["]} ', "it", limit=100) == {"a": [1, "[[["]}


def test_hash_of_input_ignores_spelling_and_nothing_else() -> None:
    assert hash_input("f", '{"a":1,"b":2}') == hash_input("f", '{ "b": 2, "a": 1 }')
    different = {
        hash_input("f", '"1"'),
        hash_input("f", "1"),
        hash_input("g", "1"),
        hash_input("f", None),
    }
    assert len(different) == 4
