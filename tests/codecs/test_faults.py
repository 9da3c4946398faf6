"""What is told of a request with many faults, and what it takes to find out."""

import itertools
import json

import numpy as np
import pyarrow as pa
import pytest

from serving.codecs import json as json_codec
from serving.codecs import json_outline
from serving.codecs.arrow import arrow_to_inputs
from serving.codecs.json import JsonDecoder, check_params
from serving.codecs.npy import npy_to_inputs
from serving.errors import InvalidInput
from serving.model.schema import Column, Form, Kind, Param, Schema, Type
from tests.codecs.test_npy_arrow import arrow, npy

LONG = Type(Kind.LONG)
SCHEMA = Schema(
    (Column("tenure", LONG), Column("charges", LONG), Column("age", LONG, required=False)), Form.RECORD
)
LATE = {"tenure": [0.5] * 50, "charges": [1.0] * 45 + [0.5] * 5, "age": [1.0] * 50}
"""One column is wrong in each of 50 rows, another one in the last 5."""


def records(columns: dict) -> list[dict]:
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def from_json(rows: list) -> None:
    JsonDecoder(SCHEMA, 100_000).predict(json.dumps({"instances": rows}).encode())


def details_of(read, *arguments):
    with pytest.raises(InvalidInput) as caught:
        read(*arguments)
    assert len(caught.value.details) <= 20
    return caught.value.details


READERS = {
    "json": lambda columns: from_json(records(columns)),
    "npy": lambda columns: npy_to_inputs(npy(np.column_stack(list(columns.values()))), SCHEMA, 1_000),
    "arrow": lambda columns: arrow_to_inputs(arrow(columns), SCHEMA, 1_000),
}


@pytest.mark.parametrize("name", READERS)
def test_a_column_that_is_wrong_throughout_hides_no_other(name):
    details = details_of(READERS[name], LATE)

    told = [(detail.column, detail.row) for detail in details]
    assert told[:2] == [("tenure", 0), ("charges", 45)]
    assert sorted(told) == [("charges", n) for n in range(45, 50)] + [("tenure", n) for n in range(15)]


def test_a_large_body_is_told_like_a_small_one(monkeypatch):
    small = details_of(from_json, records(LATE))
    monkeypatch.setattr(json_codec, "LARGE_BYTES", 0)
    monkeypatch.setattr(json_outline, "PIECE_BYTES", 200)
    monkeypatch.setattr(json_outline, "LONG_BYTES", 2)

    assert details_of(from_json, records(LATE)) == small


def test_a_wrong_type_hides_no_wrong_value():
    columns = LATE | {"tenure": ["soon"] * 50}

    details = details_of(arrow_to_inputs, arrow(columns), SCHEMA, 1_000)

    assert [(detail.column, detail.row) for detail in details[:3]] == [
        ("tenure", None),
        ("charges", 45),
        ("charges", 46),
    ]


def test_names_that_are_no_columns_hide_no_column():
    row = {f"x{n}": 1 for n in range(30)} | {"tenure": "soon", "charges": 1}

    names = [detail.column for detail in details_of(from_json, [row] * 30)]

    assert names[-1] == "tenure"
    assert names[:-1] == [f"x{n}" for n in range(19)]


def test_twenty_wrong_columns_are_all_told():
    schema = Schema(tuple(Column(f"c{n}", LONG) for n in range(20)), Form.ARRAY)
    rows = [[0.5 if column <= row else 1 for column in range(20)] for row in range(20)]

    details = details_of(JsonDecoder(schema, 100).batch, json.dumps(rows).encode())

    assert {detail.column for detail in details} == set(schema.names)


HINTS = {
    "a letter is missing": ({"tenur": 1, "charges": 1}, "no such column (did you mean 'tenure'?)"),
    "capitals": ({"TENURE": 1, "charges": 1}, "no such column (did you mean 'tenure'?)"),
    "an optional column": ({"tenure": 1, "charges": 1, "agee": 1}, "no such column (did you mean 'age'?)"),
    "it is there already": ({"tenure": 1, "charges": 1, "tenur": 1}, "no such column"),
    "nothing is close": ({"tenure": 1, "charges": 1, "shoe": 1}, "no such column"),
}


@pytest.mark.parametrize("case", HINTS)
def test_a_name_gets_a_hint_where_one_of_the_missing_columns_is_close(case):
    row, expected = HINTS[case]

    assert details_of(from_json, [row])[0].expected == expected


def test_fields_of_arrays_and_parameters_get_hints_too():
    expected = "no such column (did you mean 'tenure'?)"
    fields = np.array([(1, 2)], dtype=[("Tenure", "i8"), ("charges", "i8")])
    schema = Schema((Column("tenure", LONG),), Form.RECORD, (Param("threshold", LONG),))

    assert details_of(npy_to_inputs, npy(fields), SCHEMA, 10)[0].expected == expected
    batch = pa.record_batch({"Tenure": [1], "charges": [2]})
    assert details_of(arrow_to_inputs, arrow([batch]), SCHEMA, 10)[0].expected == expected
    (detail,) = details_of(check_params, {"treshold": 1}, schema)
    assert detail.expected == "no such parameter (did you mean 'threshold'?)"


def test_hostile_names_are_compared_with_few(monkeypatch):
    compared = []

    def count(word, possibilities, *arguments):
        compared.extend((word, one) for one in possibilities)
        return []

    monkeypatch.setattr("serving.codecs.faults.difflib.get_close_matches", count)
    names = ["".join(letters) for letters in itertools.product("abcdef", repeat=2)]
    few = Schema(tuple(Column(name, LONG) for name in names[:30]), Form.RECORD)
    many = Schema(tuple(Column(name, LONG) for name in names), Form.RECORD)
    row = {f"{'x' * 1_000}{n}" if n % 2 else f"x{n}": 1 for n in range(1_000)}

    for schema in (few, many):
        details_of(JsonDecoder(schema, 10).predict, json.dumps({"instances": [row] * 10}).encode())

    assert len(compared) == 4 * 30
    assert {word for word, _ in compared} == {"x0", "x2", "x4", "x6"}
