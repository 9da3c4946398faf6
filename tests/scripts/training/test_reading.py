"""The line that says how callers read their files: what it reads, services take, in JSON and in Arrow."""

import datetime as dt
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pandas._libs.parsers import STR_NA_VALUES

from scripts.training.column_options import Said
from scripts.training.columns import make_signature
from scripts.training.conversion import convert_columns
from scripts.training.pipeline import output_column
from scripts.training.reading import MISSING_TO_PANDAS, describe_reading
from scripts.training.table import read_csv
from serving.client.bodies import ARROW, to_batch, to_body
from serving.client.rows import to_rows
from serving.codecs.arrow import arrow_to_inputs
from serving.codecs.json import JsonDecoder
from serving.model.schema import Inputs, parse_schema

DAY, EVENING, MORNING = map(dt.datetime.fromisoformat, ("2024-05-31", "2023-12-01T17:30", "2024-05-31T07:05"))
N_ROWS = 40
"""That the files are filled up to with ordinary ones, so that the odd cells are few."""

GERMAN = (
    "tag;plz;umsatz;anzahl;alter;branche;leer;aktiv;art;y",
    "31.05.2024;01067;1.234,50;3;41;Bau;;True;7;1",
    ["k.A.;10115;k.A.;2;;;;;A;0", "31.02.2024;10117;0,5;1.000;7;k.A.;;False;12;1"],
    {
        "tag": [None, None, DAY],
        "plz": ["10115", "10117", "01067"],
        "umsatz": [None, 0.5, 1234.5],
        "anzahl": [2, 1000, 3],
        "alter": [None, 7.0, 41.0],
        "branche": [None, "k.A.", "Bau"],
        "leer": [None] * 3,
        "aktiv": [None, False, True],
        "art": ["A", "12", "7"],
    },
    "sep=';', decimal=',', thousands='.', dtype={'plz': 'str', 'leer': 'str', 'art': 'str'}, "
    "na_values={'tag': ['k.A.', '31.02.2024'], 'umsatz': ['k.A.']}, parse_dates=['tag'], date_format='%d.%m.%Y'",
)
AMERICAN = (
    "id,seen,moment,price,region,y",
    '1,5/31/2024 7:05,2024-05-31T00:00:00Z,"1,250",None,1',
    ["2,,2024-05-31 00:00:00.000,?,NA,0", "3,12/1/2023 17:30,,12,,1"],
    {
        "id": [2, 3, 1],
        "seen": [None, EVENING, MORNING],
        "moment": [DAY, None, DAY],
        "price": [None, 12.0, 1250.0],
        "region": ["NA", None, "None"],
    },
    "thousands=',', keep_default_na=False, na_values={'id': [''], 'seen': [''], 'moment': [''], 'price': ['', '?'], "
    "'region': ['']}, parse_dates=['seen', 'moment'], date_format={'seen': '%m/%d/%Y %H:%M', 'moment': 'ISO8601'}",
)
PLAIN = ("a,b,y", "1.5,x,1", ["2.5,y,0", ",z,1"], {"a": [2.5, None, 1.5], "b": ["y", "z", "x"]}, "")


def cells(inputs: Inputs) -> list[list[Any]]:
    """The cells of each column, None where it is missing."""
    return [
        [None if pd.isna(cell) else cell.item() if isinstance(cell, np.generic) else cell for cell in column]
        for column in (
            column.astype("datetime64[us]") if column.dtype.kind == "M" else column
            for column in inputs.columns
        )
    ]


@pytest.mark.parametrize(
    ("head", "usual", "odd", "expected", "said"),
    [GERMAN, AMERICAN, PLAIN],
    ids=["german", "american", "plain"],
)
def test_what_is_read_as_the_line_says_is_what_services_take(
    head, usual, odd, expected, said, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    learned = tmp_path / "learned.csv"
    learned.write_text("\n".join([head, *odd, *[usual] * N_ROWS]) + "\n")
    csv = read_csv(learned)
    numbers = [name for name in ("umsatz", "price") if name in csv.rows]
    converted = convert_columns(csv, Said(dict.fromkeys(numbers, "number"), {}), "y")
    inputs = converted.rows.drop(columns="y")
    signature = make_signature(inputs, ["leer"], output_column(converted.rows["y"], "classification"))
    schema = parse_schema(signature.to_dict()["inputs"])

    line = describe_reading(learned, csv, converted, "y")

    assert line == f"pd.read_csv('learned.csv'{', ' * bool(said)}{said})"
    ours = [row.rpartition(sep := ";" if ";" in head else ",")[0] for row in (head, *odd, usual)]
    assert sep in ours[0]
    learned.write_text("\n".join(ours) + "\n")  # a caller's file, without the target
    rows = to_rows(eval(line, {"pd": pd}))
    by_json, _ = JsonDecoder(schema, 100).predict(to_body(rows, 0, rows.n_rows))
    _, media_type, body = to_batch(rows, 0, rows.n_rows)
    assert media_type == ARROW
    assert dict(zip(schema.names, cells(by_json), strict=True)) == expected
    assert cells(arrow_to_inputs(body, schema, 100)) == cells(by_json)


def test_texts_that_pandas_takes_for_missing_are_known():
    assert MISSING_TO_PANDAS | {""} == STR_NA_VALUES


def test_many_texts_that_are_missing_are_not_all_listed(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("n,y\n" + "1,0\n" * 9 + "".join(f"odd{n},1\n" for n in range(11)))
    csv = read_csv(file)
    line = describe_reading(file, csv, convert_columns(csv, Said({"n": "number"}, {}), "y"), "y")
    listed = [f"odd{n}" for n in range(10)]
    assert line == f"pd.read_csv('t.csv', na_values={{'n': {listed}}})  # and more na_values of n"
