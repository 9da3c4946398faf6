"""`preprocessing.py`, the user's hook, as it comes."""

import csv
import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing import preprocess
from tests.support.environment import TELCO

needs_telco = pytest.mark.skipif(not TELCO.is_file(), reason=f"the Telco churn file is not at {TELCO}")

cells = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(10**9), 10**9).map(lambda number: f" {number} "),
    st.sampled_from(["", " ", "\t", None, math.nan, 3, 2.5]),
)


@needs_telco
def test_telco_charges_become_the_numbers_that_the_file_says_and_blanks_become_missing():
    with TELCO.open(newline="") as file:
        written = [row["TotalCharges"] for row in csv.DictReader(file)]

    charges = preprocess(pd.read_csv(TELCO))["TotalCharges"]

    assert charges.dtype == "float64"
    assert [row for row, text in enumerate(written) if not text.strip()] == list(
        charges.index[charges.isna()]
    )
    assert charges.isna().sum() == 11
    assert charges.dropna().tolist() == [float(text) for text in written if text.strip()]


@given(st.lists(cells, min_size=1, max_size=8))
def test_a_row_becomes_the_same_whatever_rows_come_with_it(column):
    rows = pd.DataFrame({"TotalCharges": pd.Series(column, dtype="object"), "tenure": range(len(column))})

    together = preprocess(rows)
    alone = pd.concat([preprocess(rows.iloc[[row]]) for row in range(len(rows))])

    pd.testing.assert_frame_equal(together, alone)


@pytest.mark.parametrize("dtype", ["object", "str", "string"])
def test_every_way_to_hold_text_gives_the_same_numbers(dtype):
    rows = pd.DataFrame({"TotalCharges": pd.Series(["29.85", " ", None, "1e3", " 7 "], dtype=dtype)})

    numbers = preprocess(rows)["TotalCharges"]

    assert numbers.dtype == "float64"
    assert numbers.fillna(-1).tolist() == [29.85, -1, -1, 1000, 7]


def test_numbers_among_texts_stay_what_they_are():
    rows = pd.DataFrame({"TotalCharges": pd.Series([5, 2.5, math.nan, pd.NA, "3"], dtype="object")})

    assert preprocess(rows)["TotalCharges"].fillna(-1).tolist() == [5, 2.5, -1, -1, 3]


@pytest.mark.parametrize("text", ["twelve", "12,50", "1_000", "nan", "inf", "-Infinity", "0x1f", "1 2"])
def test_a_text_that_is_no_number_is_refused_by_row_and_column_without_its_value(text):
    rows = pd.DataFrame({"TotalCharges": ["1", " ", text]}, index=[7, 8, 9])

    with pytest.raises(
        ValueError, match=r"^row 2, column 'TotalCharges': the text is not a number$"
    ) as caught:
        preprocess(rows)

    assert caught.value.__context__ is None


def test_the_frame_that_comes_in_stays_as_it_is():
    rows = pd.DataFrame({"TotalCharges": [" ", "1.5"], "tenure": [0, 1]}, index=[4, 2])
    before = rows.copy(deep=True)

    result = preprocess(rows)

    pd.testing.assert_frame_equal(rows, before)
    assert list(result.index) == [4, 2]
    assert list(result) == ["TotalCharges", "tenure"]


@pytest.mark.parametrize("charges", [{}, {"TotalCharges": [1.5, math.nan]}], ids=["absent", "numeric"])
def test_rows_without_text_charges_pass_through(charges):
    rows = pd.DataFrame({"tenure": [1, 2], **charges})

    pd.testing.assert_frame_equal(preprocess(rows), rows)


def test_no_rows_become_no_rows():
    rows = pd.DataFrame({"TotalCharges": pd.Series([], dtype="str")})

    assert preprocess(rows)["TotalCharges"].dtype == "float64"
