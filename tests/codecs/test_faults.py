"""What is told of a request with many faults."""

import json

import numpy as np
import pytest

from serving.codecs import json as json_codec
from serving.codecs import json_outline
from serving.codecs.arrow import arrow_to_inputs
from serving.codecs.json import JsonDecoder
from serving.codecs.npy import npy_to_inputs
from serving.errors import InvalidInput
from serving.model.schema import Column, Form, Kind, Schema, Type
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
