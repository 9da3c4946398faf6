"""`serving.prepare.checks.compatibility`: whether a new version can take the old one's requests."""

import json
from typing import Any

import pytest

from serving.model.schema import Schema, parse_schema
from serving.prepare.checks.compatibility import find_incompatibilities


def schema(*columns: dict[str, Any], params: list[dict[str, Any]] | None = None) -> Schema:
    return parse_schema(json.dumps(columns), json.dumps(params or []))


def column(name: str, type_: str, *, required: bool = True) -> dict[str, Any]:
    return {"name": name, "type": type_, "required": required}


OLD = schema(column("age", "long"), column("city", "string"), column("note", "string", required=False))


@pytest.mark.parametrize(
    "new",
    [
        OLD,
        schema(column("note", "string", required=False), column("city", "string"), column("age", "long")),
        schema(column("age", "double"), column("city", "string"), column("note", "string", required=False)),
        schema(
            column("age", "long"),
            column("city", "string", required=False),
            column("note", "string", required=False),
            column("new", "double", required=False),
        ),
        schema(column("age", "any"), column("city", "any"), column("note", "any", required=False)),
    ],
)
def test_what_takes_the_same_requests_or_more_is_compatible(new: Schema):
    assert find_incompatibilities(OLD, new) == []


@pytest.mark.parametrize(
    ("new", "found"),
    [
        (
            [column("age", "long"), column("city", "string")],
            ["it has no column 'note'"],
        ),
        (
            [column("age", "integer"), column("city", "string"), column("note", "string", required=False)],
            ["column 'age' was long and is integer"],
        ),
        (
            [column("age", "long"), column("city", "string"), column("note", "string")],
            ["it requires the column 'note'"],
        ),
        (
            [
                column("age", "long"),
                column("city", "string"),
                column("note", "string", required=False),
                column("zip", "string"),
            ],
            ["it requires the column 'zip'"],
        ),
        (
            [column("age", "string"), column("note", "string", required=False)],
            ["column 'age' was long and is string", "it has no column 'city'"],
        ),
    ],
)
def test_every_request_that_would_be_refused_is_named(new: list[dict[str, Any]], found: list[str]):
    assert find_incompatibilities(OLD, schema(*new)) == found


def test_a_column_that_could_be_null_and_no_longer_can_is_named():
    old, new = schema(column("x", "double")), schema(column("x", "double"))
    assert find_incompatibilities(old, new) == []
    optional = schema(column("n", "long", required=False))
    assert find_incompatibilities(optional, schema(column("n", "long"))) == ["it requires the column 'n'"]


def tensor(dtype: str, *shape: int) -> Schema:
    return schema({"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": [-1, *shape]}})


def test_tensors_must_have_the_dtype_and_a_shape_that_holds_the_old_one():
    assert find_incompatibilities(tensor("float64", 3), tensor("float64", -1)) == []
    assert find_incompatibilities(tensor("float64", -1), tensor("float64", 3))
    assert find_incompatibilities(tensor("float64", 3), tensor("float32", 3))
    assert find_incompatibilities(tensor("float64", 3), tensor("float64", 3, 1))


def test_rows_of_another_form_are_named():
    (found,) = find_incompatibilities(OLD, tensor("float64", 3))
    assert found == "a row was record and is bare"


def param(name: str, type_: str) -> dict[str, Any]:
    return {"name": name, "type": type_, "default": None, "shape": None}


def test_parameters_must_be_taken_still():
    old = schema(column("x", "double"), params=[param("a", "long"), param("b", "double")])
    new = schema(column("x", "double"), params=[param("a", "double"), param("c", "double")])
    assert find_incompatibilities(old, new) == ["it has no parameter 'b'"]
    assert find_incompatibilities(new, old) == [
        "it has no parameter 'c'",
        "parameter 'a' was double and is long",
    ]


def test_rows_without_names_must_have_as_many_values():
    two = schema({"type": "double"}, {"type": "double"})
    three = schema({"type": "double"}, {"type": "double"}, {"type": "double"})
    assert find_incompatibilities(two, two) == []
    assert find_incompatibilities(two, three) == ["a row had 2 values and has 3"]
