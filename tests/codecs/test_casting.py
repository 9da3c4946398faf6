"""Casts lose nothing and name what they refuse."""

import base64
import datetime as dt
import math

import numpy as np
import pytest

from serving.codecs.casting import (
    ArrayMismatch,
    Mismatch,
    NotFinite,
    cast_array,
    cast_cell,
    cast_value,
    cells_to_column,
    short,
)
from serving.model.schema import NAN, NONE, Column, Kind, Type
from tests.codecs.cells import assert_same_cells

NUMBERS = [Kind.INTEGER, Kind.LONG, Kind.FLOAT, Kind.DOUBLE]


def cast(value, kind: Kind, required: bool = True):
    """The value as a cell of a column of the kind."""
    return cast_cell(value, Column("a", Type(kind), required))


@pytest.mark.parametrize(
    ("value", "kind", "want"),
    [
        (5, Kind.LONG, 5),
        (5, Kind.FLOAT, 5.0),
        (5, Kind.DOUBLE, 5.0),
        (5.0, Kind.LONG, 5),
        (-0.0, Kind.LONG, 0),
        (5.0, Kind.INTEGER, 5),
        (5.5, Kind.DOUBLE, 5.5),
        (1e300, Kind.DOUBLE, 1e300),
        (2**53, Kind.DOUBLE, 9007199254740992.0),
        (2**53 + 2, Kind.DOUBLE, 9007199254740994.0),
        (2**24, Kind.FLOAT, 16777216.0),
        (0.1, Kind.FLOAT, 0.100000001490116119384765625),
        (2**31 - 1, Kind.INTEGER, 2147483647),
        (-(2**31), Kind.INTEGER, -2147483648),
        (2**63 - 1, Kind.LONG, 9223372036854775807),
        (-(2**63), Kind.LONG, -9223372036854775808),
        (True, Kind.BOOLEAN, True),
        ("5", Kind.STRING, "5"),
        ("", Kind.STRING, ""),
        ({"any": [1, None, "é"]}, Kind.ANY, {"any": [1, None, "é"]}),
    ],
)
def test_a_value_that_fits_is_kept(value, kind, want):
    got = cast(value, kind)
    assert got == want
    assert type(got) is type(want)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (5.5, Kind.LONG),
        (5.5, Kind.INTEGER),
        (2**53 + 1, Kind.DOUBLE),
        (-(2**53) - 1, Kind.DOUBLE),
        (2**24 + 1, Kind.FLOAT),
        (10**400, Kind.DOUBLE),
        (10**400, Kind.FLOAT),
        (3.5e38, Kind.FLOAT),
        (-3.5e38, Kind.FLOAT),
        (2**31, Kind.INTEGER),
        (-(2**31) - 1, Kind.INTEGER),
        (2147483648.0, Kind.INTEGER),
        (2**63, Kind.LONG),
        (-(2**63) - 1, Kind.LONG),
        (9223372036854775808.0, Kind.LONG),
        (1e300, Kind.LONG),
        (math.nan, Kind.LONG),
        (0, Kind.BOOLEAN),
        (1.0, Kind.BOOLEAN),
        ("true", Kind.BOOLEAN),
        (1, Kind.STRING),
        (True, Kind.STRING),
        ("half \ud800 a pair", Kind.STRING),
        ({"\ud800": 1}, Kind.ANY),
        (1, Kind.BINARY),
        (1_700_000_000, Kind.DATETIME),
        *[(True, kind) for kind in NUMBERS],
        *[("5", kind) for kind in NUMBERS],
        *[([5], kind) for kind in NUMBERS],
        *[({}, kind) for kind in NUMBERS],
    ],
)
def test_a_value_that_would_change_is_refused(value, kind):
    with pytest.raises(Mismatch):
        cast(value, kind)


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.TENSOR])
@pytest.mark.parametrize("token", ["NaN", "Infinity", "-Infinity"])
def test_the_tokens_that_are_no_numbers_are_refused_by_name(kind, token):
    type_ = Type(kind, items=Type(Kind.DOUBLE))
    with pytest.raises(Mismatch) as caught:
        cast_cell(NotFinite(token), Column("a", type_, required=False))
    assert caught.value.got == token


def test_such_a_token_is_found_deep_inside_an_any_column():
    value = [NotFinite("NaN")]
    for _ in range(100_000):
        value = [value]
    with pytest.raises(Mismatch) as caught:
        cast(value, Kind.ANY)
    assert caught.value.got == "NaN"


@pytest.mark.parametrize(
    ("kind", "required", "allowed"),
    [
        (Kind.FLOAT, True, True),
        (Kind.DOUBLE, True, True),
        (Kind.STRING, True, True),
        (Kind.DATETIME, True, True),
        (Kind.ANY, True, True),
        (Kind.BOOLEAN, True, False),
        (Kind.INTEGER, True, False),
        (Kind.LONG, True, False),
        (Kind.BINARY, True, False),
        (Kind.BOOLEAN, False, True),
        (Kind.INTEGER, False, True),
        (Kind.LONG, False, True),
        (Kind.BINARY, False, True),
    ],
)
def test_null_is_missing_only_where_the_column_may_be_missing(kind, required, allowed):
    if allowed:
        assert cast(None, kind, required) is None
    else:
        with pytest.raises(Mismatch) as caught:
            cast(None, kind, required)
        assert caught.value.got == "null"


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2024-02-29", "2024-02-29T00:00:00"),
        ("2024-02-29T12:30:00", "2024-02-29T12:30:00"),
        ("2024-02-29 12:30:00.5", "2024-02-29T12:30:00.500"),
        ("2024-02-29T12:30:00Z", "2024-02-29T12:30:00"),
        ("2024-02-29T00:30:00+05:30", "2024-02-28T19:00:00"),
        ("2024-02-29T12:30:00.123456789", "2024-02-29T12:30:00.123456789"),
        ("2024-02-29T12:30:00.123456700000", "2024-02-29T12:30:00.123456700"),
        ("2024-02-29T12:30:00.123456789-01:00", "2024-02-29T13:30:00.123456789"),
        ("1678-01-01", "1678-01-01T00:00:00"),
        ("2261-12-31T23:59:59", "2261-12-31T23:59:59"),
    ],
)
def test_iso_8601_becomes_utc_nanoseconds(text, utc):
    got = cast(text, Kind.DATETIME)
    assert got.dtype == np.dtype("datetime64[ns]")
    assert got == np.datetime64(utc, "ns")


@pytest.mark.parametrize(
    "text",
    [
        "2023-02-29",
        "29.02.2024",
        "yesterday",
        "",
        "1677-12-31",
        "2262-01-01",
        "9999-12-31T23:59:59-12:00",
        "0001-01-01T00:00:00+12:00",
        "2024-02-29T12:30:00.1234567891",
    ],
)
def test_text_that_is_no_date_of_these_years_is_refused(text):
    with pytest.raises(Mismatch):
        cast(text, Kind.DATETIME)


def test_binary_is_base64():
    data = bytes(range(256))
    assert cast(base64.b64encode(data).decode(), Kind.BINARY) == data
    assert cast(data, Kind.BINARY) == data


@pytest.mark.parametrize("text", ["a", "a===", "YQ=\n=", "é", "\ud800", "Y Q=="])
def test_text_that_is_not_base64_is_refused(text):
    with pytest.raises(Mismatch, match="base64"):
        cast(text, Kind.BINARY)


ORDER = Type(
    Kind.OBJECT,
    properties=(
        Column("lines", Type(Kind.ARRAY, items=Type(Kind.MAP, items=Type(Kind.LONG)))),
        Column("note", Type(Kind.STRING), required=False),
    ),
)


def test_nested_values_are_cast_all_the_way_down():
    got = cast_value({"lines": [{"a": 5.0}, {}], "note": None}, ORDER)
    assert got == {"lines": [{"a": 5}, {}], "note": None}
    assert type(got["lines"][0]["a"]) is int


@pytest.mark.parametrize(
    ("value", "path", "got"),
    [
        ({"lines": [{"a": 1}, {"b": 2, "c": 5.5}]}, ".lines[1][1]", "number"),
        ({"lines": [{"a": "text"}]}, ".lines[0][0]", "string"),
        ({"lines": [7]}, ".lines[0]", "integer"),
        ({"lines": {}}, ".lines", "object"),
        ({"lines": None}, ".lines", "null"),
        ({"note": "text"}, ".lines", "nothing"),
        ({"lines": [], "extra": 1}, ".extra", "integer"),
        ({"lines": [], "x" * 100: 1}, "." + "x" * 77 + "…", "integer"),
        ({"lines": [], "\ud800": 1}, ".?", "integer"),
        ([], "", "array"),
    ],
)
def test_an_error_in_a_nested_value_names_the_path(value, path, got):
    with pytest.raises(Mismatch) as caught:
        cast_value(value, ORDER)
    assert (caught.value.path, caught.value.got) == (path, got)


@pytest.mark.parametrize(
    ("dtype", "shape", "value"),
    [
        ("float64", (2, 2), [[1, 2.5], [None, 1e300]]),
        ("float32", (-1,), [0.1, 2**24]),
        ("float16", (-1,), [2048, 65504]),
        ("int8", (-1, 1), [[-128], [127.0]]),
        ("uint64", (1,), [2**64 - 1]),
        ("bool", (2,), [True, False]),
        ("float64", (), 5),
        ("int64", (-1, -1), [[1, 2, 3], [4, 5, 6]]),
    ],
)
def test_a_tensor_row_is_the_array_that_numpy_makes_of_it(dtype, shape, value):
    got = cast_value(value, Type(Kind.TENSOR, dtype=dtype, shape=shape))
    want = np.array(value, dtype=dtype)
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(got, want, strict=True)


def test_a_tensor_of_text_is_an_array_of_objects():
    got = cast_value([["a"], ["é"]], Type(Kind.TENSOR, dtype="str", shape=(-1, 1)))
    assert got.dtype == object
    assert got.tolist() == [["a"], ["é"]]


@pytest.mark.parametrize(
    ("shape", "value", "want"),
    [((-1, 3), [], (0, 3)), ((-1, -1, 2), [], (0, 0, 2)), ((2, -1, 3), [[], []], (2, 0, 3))],
)
def test_an_empty_tensor_row_has_all_its_dimensions(shape, value, want):
    assert cast_value(value, Type(Kind.TENSOR, dtype="float64", shape=shape)).shape == want


@pytest.mark.parametrize(
    ("dtype", "shape", "value", "path"),
    [
        ("float64", (2,), [1], ""),
        ("float64", (2,), [1, [2]], "[1]"),
        ("float64", (2,), 1, ""),
        ("float64", (-1, -1), [[1, 2], [3]], ""),
        ("float64", (2, 2), [[1, 2], [3, "4"]], "[1][1]"),
        ("float64", (1,), [2**53 + 1], "[0]"),
        ("float64", (1,), [True], "[0]"),
        ("float32", (1,), [3.5e38], "[0]"),
        ("float16", (1,), [2049], "[0]"),
        ("float16", (1,), [65520.0], "[0]"),
        ("int8", (1,), [128], "[0]"),
        ("uint8", (1,), [-1], "[0]"),
        ("int64", (1,), [5.5], "[0]"),
        ("int64", (1,), [None], "[0]"),
        ("bool", (1,), [1], "[0]"),
        ("str", (1,), [1], "[0]"),
        ("str", (1,), ["\ud800"], "[0]"),
    ],
)
def test_a_tensor_row_that_does_not_fit_is_refused_at_its_index(dtype, shape, value, path):
    with pytest.raises(Mismatch) as caught:
        cast_value(value, Type(Kind.TENSOR, dtype=dtype, shape=shape))
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("kind", "cells", "want"),
    [
        (Kind.INTEGER, [1, 2], np.array([1, 2], np.int32)),
        (Kind.LONG, [2**63 - 1], np.array([2**63 - 1], np.int64)),
        (Kind.LONG, [1, None], np.array([1.0, np.nan])),
        (Kind.LONG, [2**53 + 1, None], np.array([2**53 + 1, math.nan], object)),
        (Kind.FLOAT, [0.5, None], np.array([0.5, np.nan], np.float32)),
        (Kind.BOOLEAN, [True, False], np.array([True, False])),
        (Kind.BOOLEAN, [True, None], np.array([True, None], object)),
        (Kind.STRING, ["a", None], np.array(["a", math.nan], object)),
        (Kind.DATETIME, [np.datetime64("2024-01-01", "ns"), None], np.array(["2024-01-01", "NaT"], "M8[ns]")),
    ],
)
def test_cells_become_the_array_of_their_kind(kind, cells, want):
    assert_same_cells(cells_to_column(cells, Column("a", Type(kind), required=False)), want)


@pytest.mark.parametrize("kind", [Kind.STRING, Kind.LONG, Kind.BOOLEAN, Kind.ANY])
@pytest.mark.parametrize(("null", "missing"), [(NAN, math.nan), (NONE, None)])
def test_a_missing_cell_is_what_the_model_knows_it_as(kind, null, missing):
    column = Column("a", Type(kind), required=False, null=null)
    cell = {Kind.STRING: "x", Kind.LONG: 7}.get(kind, True)
    got = cells_to_column([None, cell], column).tolist()
    assert got[1] == cell
    assert got[0] is missing or (missing is not None and np.isnan(got[0]))


@pytest.mark.parametrize("cells", [[[1, 2], [3, 4]], [[5]], [[], []], [[1], [2, 3]]], ids=str)
def test_array_cells_stay_lists_whatever_their_lengths(cells):
    got = cells_to_column(cells, Column("a", Type(Kind.ARRAY, items=Type(Kind.LONG))))
    assert (got.shape, got.dtype, list(got)) == ((len(cells),), np.dtype(object), cells)


@pytest.mark.parametrize(
    ("values", "kind", "want"),
    [
        (np.array([1, 2], np.uint8), Kind.DOUBLE, np.array([1.0, 2.0])),
        (np.array([2**53, -(2**53)], np.int64), Kind.DOUBLE, np.array([2.0**53, -(2.0**53)])),
        (np.array([2**60, -(2**63)], np.int64), Kind.DOUBLE, np.array([2.0**60, -(2.0**63)])),
        (np.array([2**63], np.uint64), Kind.DOUBLE, np.array([2.0**63])),
        (np.array([2**30], np.int32), Kind.FLOAT, np.array([2.0**30], np.float32)),
        (np.array([0.1]), Kind.FLOAT, np.array([0.1], np.float32)),
        (np.array([np.nan]), Kind.DOUBLE, np.array([np.nan])),
        (np.array([2**31 - 1], np.uint64), Kind.INTEGER, np.array([2**31 - 1], np.int32)),
        (np.array([5.0, -(2.0**63)]), Kind.LONG, np.array([5, -(2**63)], np.int64)),
        (np.array([5.0], np.float16), Kind.LONG, np.array([5], np.int64)),
        (np.array(["a", "é"]), Kind.STRING, np.array(["a", "é"], object)),
        (np.array(["2024-01-01", "NaT"], "M8[D]"), Kind.DATETIME, np.array(["2024-01-01", "NaT"], "M8[ns]")),
    ],
)
def test_an_array_that_fits_is_cast(values, kind, want):
    np.testing.assert_array_equal(cast_array(values, Column("a", Type(kind))), want, strict=True)


@pytest.mark.parametrize(
    ("values", "kind", "rows"),
    [
        (np.array([0, 2**53 + 1, -(2**53) - 1], np.int64), Kind.DOUBLE, [1, 2]),
        (np.array([2**63 - 1], np.int64), Kind.DOUBLE, [0]),
        (np.array([2**64 - 1], np.uint64), Kind.DOUBLE, [0]),
        (np.array([0, 2**24 + 1, 2**31 - 1], np.int32), Kind.FLOAT, [1, 2]),
        (np.array([0, 2**63], np.uint64), Kind.LONG, [1]),
        (np.array([2**31, 0, -(2**31) - 1], np.int64), Kind.INTEGER, [0, 2]),
        (np.array([5.5, 2.0**63, -np.inf, 0]), Kind.LONG, [0, 1, 2]),
        (np.array([np.inf, -np.inf, 1], np.float16), Kind.LONG, [0, 1]),
        (np.array([1, np.nan]), Kind.LONG, [1]),
        (np.array([1, 3.5e38, np.inf]), Kind.FLOAT, [1, 2]),
        (np.array(["1677-01-01", "2024-01-01", "2262-01-01"], "M8[D]"), Kind.DATETIME, [0, 2]),
        (np.array([True]), Kind.LONG, [None]),
        (np.array([1]), Kind.BOOLEAN, [None]),
        (np.array(["1"]), Kind.DOUBLE, [None]),
        (np.array([b"1"]), Kind.STRING, [None]),
        (np.array([1]), Kind.DATETIME, [None]),
        (np.array([1], "M8[as]"), Kind.DATETIME, [None]),
        (np.array([[1.0, 2.0]]), Kind.DOUBLE, [None]),
    ],
)
def test_an_array_that_does_not_fit_is_refused_row_by_row(values, kind, rows):
    with pytest.raises(ArrayMismatch) as caught:
        cast_array(values, Column("a", Type(kind)))
    assert [detail.row for detail in caught.value.details] == rows


def test_a_python_datetime_with_a_zone_becomes_utc():
    moment = dt.datetime(2024, 1, 1, 0, 30, tzinfo=dt.timezone(dt.timedelta(hours=1)))
    assert cast(moment, Kind.DATETIME) == np.datetime64("2023-12-31T23:30", "ns")


@pytest.mark.parametrize(
    ("name", "want"), [("x" * 80, "x" * 80), ("x" * 81, "x" * 77 + "…"), ("a\ud800b", "a?b")]
)
def test_a_callers_name_is_cut_and_can_be_written(name, want):
    assert short(name) == want
