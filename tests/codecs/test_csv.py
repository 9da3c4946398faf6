"""CSV is read as pandas' `read_csv` reads it with the types of the signature, or refused."""

import io
import random

import numpy as np
import pandas as pd
import pytest

from serving.codecs.csv import MISSING, csv_to_inputs
from serving.errors import MalformedBody, PayloadTooLarge, RequestError
from serving.model.schema import Column, Form, Kind, Schema, Type

SCHEMA = Schema(
    (Column("a", Type(Kind.DOUBLE)), Column("b", Type(Kind.STRING)), Column("c", Type(Kind.STRING))),
    Form.RECORD,
)
DTYPES = {"a": np.float64, "b": object, "c": object}

TOKENS = [
    '"',
    ",",
    "\n",
    "\r\n",
    " ",
    "NA",
    "null",
    "x",
    "é",
    "1",
    "-.5e3",
    "nan",
    "'",
    "\t",
    ";",
    '""',
    "#",
    "\\",
]


def read(text: str) -> list[list[object]]:
    inputs = csv_to_inputs(text.encode(), SCHEMA, 100)
    return [[None if cell != cell else cell for cell in column.tolist()] for column in inputs.columns]  # noqa: PLR0124


def read_with_pandas(text: str) -> list[list[object]]:
    frame = pd.read_csv(io.BytesIO(text.encode()), dtype=DTYPES, index_col=False)
    frame = frame[list(DTYPES)].astype(object)
    return [frame[name].where(frame[name].notna(), None).tolist() for name in DTYPES]


def test_what_is_read_is_what_pandas_reads() -> None:
    chance = random.Random(7)
    n_read = 0
    for _ in range(3_000):
        cells = ["".join(chance.choices(TOKENS, k=chance.randint(0, 3))) for _ in range(6)]
        numbers = chance.choices(
            ["1", " 2.5", "", "NA", "1e5", "-0", "x"], weights=[9, 5, 5, 2, 5, 3, 1], k=3
        )
        rows = zip(numbers, cells[:3], cells[3:], strict=True)
        text = "a,b,c\n" + "".join(f"{','.join(row)}\n" for row in rows)
        try:
            ours = read(text)
        except RequestError:
            continue
        n_read += 1
        assert ours == read_with_pandas(text), text
    assert n_read > 500


def test_missing_words_are_those_of_pandas() -> None:
    from pandas._libs.parsers import STR_NA_VALUES

    assert MISSING == STR_NA_VALUES


def test_numbers_are_rounded_correctly() -> None:
    numbers = np.random.default_rng(0).normal(size=1000) * 10.0 ** np.arange(-150, 150).repeat(4)[:1000]
    text = "a,b,c\n" + "".join(f"{number!r},x,y\n" for number in numbers.tolist())
    got = csv_to_inputs(text.encode(), SCHEMA, 1000).columns[0]
    assert got.tolist() == numbers.tolist()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the body is empty; expected CSV with a header"),
        ("a;b;c\n1;2;3\n", "the columns must be separated by commas, not by ';'"),
        ("a\tb\tc\n1\t2\t3\n", "the columns must be separated by commas, not by tabs"),
        ("1,2,3\n", "the first line of the CSV must be a header"),
        ("a,a,b,c\n1,2,3,4\n", "the header of the CSV names a column twice"),
        ("a,b,c\n1,2,3,4\n", "has more cells than the header"),
        ('a,b,c\n1,2,"3\n', "the body is not CSV: unexpected end of data"),
    ],
)
def test_what_is_no_csv_is_said_in_one_line(text: str, said: str) -> None:
    with pytest.raises(MalformedBody) as raised:
        read(text)
    assert said in str(raised.value)


def test_too_many_rows_are_refused_before_all_are_read() -> None:
    with pytest.raises(PayloadTooLarge):
        read("a,b,c\n" + "1,x,y\n" * 101)
