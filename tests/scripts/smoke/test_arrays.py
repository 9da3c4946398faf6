"""`scripts.smoke.arrays`: `.npy` and Arrow hold the rows that the service reads out of JSON."""

import json
from typing import Any

import numpy as np
import pytest

from scripts.smoke import Broken, NotApplicable
from scripts.smoke.arrays import arrow_to_rows, npy_to_rows, row_of, to_arrow, to_npy
from scripts.smoke.comparison import find_difference
from serving.codecs.arrow import arrow_to_inputs
from serving.codecs.json import JsonDecoder
from serving.codecs.npy import npy_to_inputs
from serving.http.models import describe_schema
from serving.model.schema import Inputs, Schema, parse_schema

SCALARS = [
    ("boolean", [True, False]),
    ("integer", [1, -2]),
    ("long", [2**40, 0]),
    ("float", [0.5, None]),
    ("double", [1e300, None]),
    ("string", ["é", ""]),
    ("datetime", ["2024-01-01T10:00:00.123456", None]),
]


def record() -> tuple[Schema, list[Any]]:
    schema = parse_schema(json.dumps([{"name": f"a {kind}", "type": kind} for kind, _ in SCALARS]))
    return schema, [{f"a {kind}": cells[row] for kind, cells in SCALARS} for row in range(2)]


def unnamed() -> tuple[Schema, list[Any]]:
    return parse_schema('[{"type": "double"}, {"type": "string"}]'), [[1.5, "x"], [None, "y"]]


def tensor(dtype: str, shape: list[int], rows: list[Any]) -> tuple[Schema, list[Any]]:
    spec = {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": [-1, *shape]}}
    return parse_schema(json.dumps([spec])), rows


CASES = {
    "columns of every plain type": record(),
    "columns without names": unnamed(),
    "one column without a name": (parse_schema('[{"type": "long"}]'), [3, 4]),
    "a tensor": tensor("float32", [3], [[1, 2, None], [4, 5, 6]]),
    "a tensor of images": tensor("uint8", [2, 2], [[[1, 2], [3, 4]], [[5, 6], [7, 255]]]),
}


def read_json(schema: Schema, instances: list[Any]) -> Inputs:
    return JsonDecoder(schema, 10).predict(json.dumps({"instances": instances}).encode())[0]


def check_same(expected: Inputs, got: Inputs) -> None:
    assert expected.n_rows == got.n_rows
    for one, other in zip(expected.columns, got.columns, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("case", CASES)
def test_npy_says_what_json_says(case: str):
    schema, instances = CASES[case]
    body = to_npy(describe_schema(schema), instances)
    check_same(read_json(schema, instances), npy_to_inputs(body, schema, 10))


@pytest.mark.parametrize("case", CASES)
def test_arrow_says_what_json_says(case: str):
    schema, instances = CASES[case]
    body = to_arrow(describe_schema(schema), instances)
    check_same(read_json(schema, instances), arrow_to_inputs(body, schema, 10))


@pytest.mark.parametrize("case", CASES)
def test_rows_of_a_batch_say_what_instances_say(case: str):
    schema, instances = CASES[case]
    rows = [row_of(describe_schema(schema), instance) for instance in instances]
    check_same(read_json(schema, instances), JsonDecoder(schema, 10).batch(json.dumps(rows).encode()))


def test_binary_columns_travel_in_arrow():
    schema = parse_schema('[{"name": "image", "type": "binary"}]')
    instances = [{"image": "AAEC"}]
    body = to_arrow(describe_schema(schema), instances)
    check_same(read_json(schema, instances), arrow_to_inputs(body, schema, 10))


@pytest.mark.parametrize(
    ("kind", "cell"),
    [("string", None), ("binary", "AAEC"), ("long", None)],
    ids=["text", "binary", "integer"],
)
def test_what_npy_has_no_form_for_is_no_claim(kind: str, cell: Any):
    schema = parse_schema(json.dumps([{"name": "a", "type": kind, "required": False}]))
    with pytest.raises(NotApplicable, match="npy has no"):
        to_npy(describe_schema(schema), [{"a": cell}])


def test_an_answer_that_is_none_is_broken():
    with pytest.raises(Broken):
        npy_to_rows(b"\x93NUMPY")
    with pytest.raises(Broken):
        arrow_to_rows(b"ARROW1")


@pytest.mark.parametrize(
    ("expected", "got", "part"),
    [
        ([[0.1, 0.9]], [[0.1 + 1e-7, 0.9]], ""),
        ([[0.1, 0.9]], [[0.1 + 1e-5, 0.9]], "row 0: 0.10001 for 0.1"),
        ([[1e9]], [[1e9 + 10]], ""),
        ([[1e9]], [[1e9 + 1e5]], "row 0"),
        ([[1]], [[1.0]], ""),
        ([[None]], [[float("nan")]], ""),
        ([[None]], [[0.0]], "row 0"),
        ([["no"]], [["no"]], ""),
        ([["no"]], [["yes"]], "row 0: 'yes' for 'no'"),
        ([[1]], [[1], [1]], "2 rows for 1"),
        ([[1]], [[1, 2]], "2 numbers for 1"),
    ],
)
def test_numbers_differ_by_more_than_rounding(expected: Any, got: Any, part: str):
    found = find_difference(expected, got)
    assert part in found
    assert bool(found) == bool(part)
