"""Dates in a file: found in many forms, refused where they may be read in two ways, and what becomes of them."""

import math

import numpy as np
import pandas as pd
import pytest

from preprocessing import preprocess, preprocess_columns
from scripts.training import TrainingError
from scripts.training.dates import NoDates, find_dates, parse_dates


def column(*cells):
    return pd.Series(cells, name="day", dtype="str")


@pytest.mark.parametrize(
    ("cells", "expected", "form"),
    [
        (["2024-05-01", "1999-12-31"], ["2024-05-01", "1999-12-31"], "YYYY-MM-DD"),
        (
            ["2024-05-01 10:30", "2024-05-01T10:30:05.25"],
            ["2024-05-01T10:30", "2024-05-01T10:30:05.25"],
            "YYYY-MM-DD",
        ),
        (
            ["2024-05-01T10:00:00+02:00", "2024-05-01T10:00:00Z"],
            ["2024-05-01T08:00", "2024-05-01T10:00"],
            "YYYY-MM-DD",
        ),
        (["01.05.2024", "31.12.1999"], ["2024-05-01", "1999-12-31"], "DD.MM.YYYY"),
        (["1.5.2024 7:05", "31.12.1999 23:59"], ["2024-05-01T07:05", "1999-12-31T23:59"], "DD.MM.YYYY hh:mm"),
        (["31/12/1999", "01/05/2024"], ["1999-12-31", "2024-05-01"], "DD/MM/YYYY"),
        (["12/31/1999", "01/05/2024"], ["1999-12-31", "2024-01-05"], "MM/DD/YYYY"),
        (["12-31-1999", "01-05-2024"], ["1999-12-31", "2024-01-05"], "MM-DD-YYYY"),
        (["2024/05/01", "1999/12/31"], ["2024-05-01", "1999-12-31"], "YYYY/MM/DD"),
    ],
)
def test_dates_are_found_in_every_usual_form(cells, expected, form):
    dates = find_dates(column(*cells, None))
    moments = dates.moments
    assert moments.dtype == "datetime64[ns]"
    assert moments.isna().tolist() == [False] * len(cells) + [True]
    assert moments.tolist()[:-1] == [pd.Timestamp(text) for text in expected]
    assert dates.describe() == form
    assert not dates.is_odd.any()


def test_day_and_month_that_may_be_either_are_not_guessed():
    with pytest.raises(NoDates, match=r"give --date day=%d/%m/%Y or =%m/%d/%Y"):
        find_dates(column("01/05/2024", "03/04/2024"))


def test_days_whose_month_is_the_same_number_need_no_decision():
    assert find_dates(column("05/05/2024", "03/03/2024")).moments.dt.day.tolist() == [5, 3]


@pytest.mark.parametrize(
    "cells", [("a", "b"), ("2024", "2025"), ("20240501",), ("10:30",), ("1.5", "2.5"), ()]
)
def test_other_texts_are_no_dates(cells):
    with pytest.raises(NoDates, match=r"^$"):
        find_dates(column(*cells))


MAY = [f"{day:02}.05.2024" for day in range(1, 32)]


@pytest.mark.parametrize(
    "read", [find_dates, lambda cells: parse_dates(cells, None), lambda cells: parse_dates(cells, "%d.%m.%Y")]
)
def test_a_few_odd_cells_count_as_missing_and_the_first_is_placed(read):
    dates = read(column(*MAY, None, "k.A.", "01.06.2024", "31.02.2024"))
    assert dates.moments.isna().tolist() == [False] * 31 + [True, True, False, True]
    assert dates.describe() == (
        "DD.MM.YYYY; 2 cells are not dates, the first in line 34, and count as missing (override: --category)"
    )


def test_odd_cells_of_many_kinds_are_dates_only_where_it_is_said():
    cells = column(*MAY * 2, "soon", "later", "2023", "never")
    with pytest.raises(NoDates, match=r"^4 cells are not dates, the first in line 64 \(override: --date\)$"):
        find_dates(cells)
    assert parse_dates(cells, None).moments.notna().sum() == 62


def test_placeholders_may_be_most_of_what_is_said_to_be_dates():
    assert parse_dates(column(*["-"] * 90, *MAY), None).moments.notna().sum() == 31


@pytest.mark.parametrize(
    "cells", [("2024-02-30",), ("2024-05-01", "0001-01-01"), ("31.12.1999", "31.12.1999 10:00")]
)
def test_days_that_are_in_no_calendar_or_beyond_nanoseconds_are_no_dates(cells):
    with pytest.raises(NoDates, match=r"do not exist, or .*, the first in line [23]$"):
        find_dates(column(*cells))


def test_format_that_is_said_is_used():
    dates = parse_dates(column("20240501", None), "%Y%m%d")
    assert dates.moments[0] == pd.Timestamp("2024-05-01")
    assert pd.isna(dates.moments[1])
    assert dates.describe() == "YYYYMMDD"


@pytest.mark.parametrize("form", ["%d/%m/%Y", "%m/%d/%Y"])
def test_many_dates_of_another_form_than_is_said_are_refused(form):
    cells = column("1/1/2024", "13/5/2024", "5/13/2024", "x")
    line, cell = (4, "5/13/2024") if form == "%d/%m/%Y" else (3, "13/5/2024")
    with pytest.raises(
        TrainingError, match=f"1 cells are not dates in the format {form}, the first in line {line}: '{cell}'"
    ):
        parse_dates(cells, form)


MOMENTS = ["1970-01-01T00:00", "2024-12-31T18:00", None, "1960-02-29T06:00"]


def test_parts_of_dates_are_those_of_the_calendar():
    parts = preprocess(pd.DataFrame({"x": range(4), "day": pd.to_datetime(MOMENTS)}))
    assert parts["day_days"].tolist()[:2] == [0.0, 20088.75]  # date -d 2024-12-31T18:00Z +%s / 86,400
    for row, text in enumerate(MOMENTS):
        if text is None:
            assert parts.iloc[row].drop("x").isna().all()
            continue
        moment = pd.Timestamp(text)
        turns = {
            "year": (moment.day_of_year - 1) / 365.2425,
            "week": moment.day_of_week / 7,
            "day": moment.hour / 24,
        }
        for period, turn in turns.items():
            assert parts[f"day_{period}_sin"][row] == pytest.approx(math.sin(2 * math.pi * turn), abs=1e-12)
            assert parts[f"day_{period}_cos"][row] == pytest.approx(math.cos(2 * math.pi * turn), abs=1e-12)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_parts_of_dates_do_not_depend_on_their_unit_or_on_the_rows_beside_them(unit):
    moments = np.array(
        ["1970-01-01", "2024-12-31T18:00:01", "NaT", "1960-02-29"], dtype=f"datetime64[{unit}]"
    )
    together = preprocess_columns({"day": moments})
    seconds = preprocess_columns({"day": moments.astype("datetime64[s]")})
    for name, values in together.items():
        alone = [preprocess_columns({"day": moments[row : row + 1]})[name][0] for row in range(4)]
        np.testing.assert_array_equal(values, alone)
        np.testing.assert_array_equal(values, seconds[name])
