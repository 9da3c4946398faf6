"""MLflow's JSON: cells are converted if nothing is lost, in every form and beside every other cell."""

import json
from typing import Any

import pytest

from serving.codecs.mlflow_json import mlflow_json_to_inputs
from serving.errors import InvalidInput
from serving.model.schema import Column, Form, Kind, Schema, Type


def read(kind: Kind, *cells: Any) -> list[Any]:
    """A column's cells, sent in each of the forms."""
    schema = Schema((Column("a", Type(kind)),), Form.RECORD)
    rows = [{"a": cell} for cell in cells]
    forms: dict[str, Any] = {
        "dataframe_split": {"columns": ["a"], "data": [[cell] for cell in cells]},
        "dataframe_records": rows,
        "instances": rows,
        "inputs": {"a": list(cells)},
    }
    got = [
        mlflow_json_to_inputs(json.dumps({form: value}).encode(), schema, 10)[0].columns[0].tolist()
        for form, value in forms.items()
    ]
    assert all(repr(one) == repr(got[0]) for one in got)
    return list(got[0])


@pytest.mark.parametrize(
    ("kind", "sent", "read_as"),
    [
        (Kind.LONG, "7", 7),
        (Kind.LONG, 7.0, 7),
        (Kind.LONG, "-9223372036854775808", -(2**63)),
        (Kind.LONG, True, 1),
        (Kind.INTEGER, "7", 7),
        (Kind.DOUBLE, "2.5e3", 2500.0),
        (Kind.DOUBLE, False, 0.0),
        (Kind.DOUBLE, 2**53, 2.0**53),
        (Kind.FLOAT, "0.5", 0.5),
        (Kind.STRING, 5, "5"),
        (Kind.STRING, 1.5, "1.5"),
        (Kind.BOOLEAN, 1, True),
        (Kind.BOOLEAN, 0.0, False),
        (Kind.BINARY, "YWJj\n", b"abc"),
    ],
)
def test_what_loses_nothing_is_converted(kind: Kind, sent: Any, read_as: Any) -> None:
    plain = {Kind.STRING: "x", Kind.BOOLEAN: True, Kind.BINARY: "YQ=="}.get(kind, 1)
    assert read(kind, sent) == [read_as]
    assert read(kind, plain, sent)[1] == read_as


@pytest.mark.parametrize(
    ("kind", "sent"),
    [
        (Kind.LONG, 1.5),
        (Kind.LONG, "1.5"),
        (Kind.LONG, "x"),
        (Kind.LONG, "1_000"),
        (Kind.LONG, 2**63),
        (Kind.LONG, None),
        (Kind.INTEGER, 2**31),
        (Kind.DOUBLE, 2**53 + 1),
        (Kind.DOUBLE, "9007199254740993"),
        (Kind.DOUBLE, "1e400"),
        (Kind.DOUBLE, "inf"),
        (Kind.DOUBLE, [1.0]),
        (Kind.FLOAT, 1e39),
        (Kind.FLOAT, 2**24 + 1),
        (Kind.STRING, "\ud800"),
        (Kind.STRING, ["x"]),
        (Kind.BOOLEAN, 2),
        (Kind.BOOLEAN, "true"),
        (Kind.DATETIME, 1),
    ],
)
def test_what_would_lose_something_is_refused(kind: Kind, sent: Any) -> None:
    with pytest.raises(InvalidInput):
        read(kind, sent)
