from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import BaseModel, Field, TypeAdapter

from worchflow_core.errors import InvalidInput
from worchflow_core.schemas import problems, template, typed_value


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Item(BaseModel):
    name: str
    price: Annotated[float, Field(gt=0)]


class Order(BaseModel):
    amount: int
    customer: str
    items: list[Item] = []
    colour: Colour = Colour.RED
    kind: Literal["a", "b"] = "a"
    note: str | None = None
    code: Annotated[str, Field(min_length=2, max_length=4)] = "ab"
    labels: dict[str, int] = {}


class Strict(BaseModel, extra="forbid"):
    name: str


SCHEMA: dict[str, Any] = Order.model_json_schema()
GOOD = {"amount": 1, "customer": "ana"}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (GOOD, []),
        ({**GOOD, "note": None, "labels": {"a": 1}, "colour": "blue"}, []),
        ({**GOOD, "amount": 2.0}, []),
        ({}, [("amount", "is required"), ("customer", "is required")]),
        ({**GOOD, "amount": "x"}, [("amount", "expected integer, got string")]),
        ({**GOOD, "amount": True}, [("amount", "expected integer, got boolean")]),
        ({**GOOD, "items": [{"name": "a"}]}, [("items[0].price", "is required")]),
        (
            {**GOOD, "items": [{"name": "a", "price": 0}]},
            [("items[0].price", "must be greater than 0")],
        ),
        ({**GOOD, "colour": "green"}, [("colour", 'must be one of "red", "blue"')]),
        ({**GOOD, "kind": "c"}, [("kind", 'must be one of "a", "b"')]),
        ({**GOOD, "note": 3}, [("note", "expected null or string, got integer")]),
        ({**GOOD, "code": "a"}, [("code", "its length must be at least 2")]),
        ({**GOOD, "code": "abcde"}, [("code", "its length must be at most 4")]),
        ({**GOOD, "labels": {"a": "b"}}, [("labels.a", "expected integer, got string")]),
        ([], [("value", "expected object, got array")]),
        (None, [("value", "expected object, got null")]),
    ],
)
def test_each_place_that_does_not_fit_is_named(data: Any, expected: list[tuple[str, str]]) -> None:
    assert problems(SCHEMA, data) == expected


def test_unknown_fields_are_named_where_they_are_forbidden() -> None:
    schema = Strict.model_json_schema()
    assert problems(schema, {"name": "a", "nmae": "b"}) == [("nmae", "is not known")]


def test_what_is_not_understood_passes() -> None:
    assert problems({"not": {"type": "string"}}, "x") == []
    assert problems({"$ref": "https://elsewhere/schema"}, 1) == []
    assert problems({"$ref": "#"}, 1) == []


def test_a_schema_that_refers_to_itself_ends() -> None:
    class Tree(BaseModel):
        children: list[Tree] = []

    schema = Tree.model_json_schema()
    assert problems(schema, {"children": [{"children": [{"children": 3}]}]}) == [
        ("children[0].children[0].children", "expected array, got integer")
    ]
    assert template(schema) == {"children": []}


@pytest.mark.parametrize(
    "declared", [Order, Item, Strict, list[int], dict[str, int], int | str, datetime, UUID, Colour]
)
def test_a_template_fits_its_own_schema(declared: Any) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(declared)
    schema = adapter.json_schema()
    document = template(schema)
    assert problems(schema, document) == []
    adapter.validate_python(document)


def test_a_template_holds_what_is_required() -> None:
    assert template(SCHEMA) == {"amount": 0, "customer": ""}
    assert template(None) == {}


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("amount", "100", 100),
        ("customer", "100", "100"),
        ("customer", '"quoted"', "quoted"),
        ("note", "null", None),
        ("note", "word", "word"),
        ("items", "[]", []),
        ("labels.a", "3", 3),
        ("elsewhere", "3", 3),
        ("elsewhere", "word", "word"),
    ],
)
def test_fields_are_typed_as_declared(path: str, text: str, value: Any) -> None:
    assert typed_value(SCHEMA, path, text) == value


def test_a_field_without_a_schema_is_json_or_text() -> None:
    assert typed_value(None, "a", "true") is True
    assert typed_value(None, "a", "truly") == "truly"
    assert typed_value(None, "a", "NaN") == "NaN"


@pytest.mark.parametrize(("path", "text"), [("amount", "many"), ("amount", "1.5"), ("items", "{}")])
def test_text_of_another_type_is_refused(path: str, text: str) -> None:
    with pytest.raises(InvalidInput, match=f"{path} is declared as"):
        typed_value(SCHEMA, path, text)
