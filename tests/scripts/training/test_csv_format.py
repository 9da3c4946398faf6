"""How a file is written: its separator, its decimals; and what stays text."""

import numpy as np
import pandas as pd
import pytest

from scripts.training import TrainingError
from scripts.training.table import read_csv


@pytest.fixture
def read(tmp_path):
    def write_and_read(text, **form):
        file = tmp_path / "t.csv"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_csv(file, **form)

    return write_and_read


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_separator_is_found(read, mark):
    rows = read(f'a{mark}b{mark}c\n1{mark}"x, y; z"{mark}2.5\n' * 1 + f"3{mark}q{mark}4.5\n").rows
    assert rows.to_dict("list") == {"a": [1, 3], "b": ["x, y; z", "q"], "c": [2.5, 4.5]}


def test_file_of_one_column_is_read_as_one(read):
    assert read("a\nx y\nz\n").rows["a"].tolist() == ["x y", "z"]


def test_cells_with_line_breaks_do_not_hide_the_separator(read):
    rows = read('a;b\n"x\n,y,";1\n"z,,,";2\n').rows
    assert rows.to_dict("list") == {"a": ["x\n,y,", "z,,,"], "b": [1, 2]}


def test_byte_order_mark_is_no_part_of_the_first_name(read):
    assert list(read(b"\xef\xbb\xbfa;b\n1;2\n").rows) == ["a", "b"]


def test_separator_that_is_said_goes_before_the_one_that_is_found(read):
    assert list(read("a;b\n1;2\n", separator=",").rows) == ["a;b"]


def test_decimal_commas_are_found_in_a_file_with_semicolons(read):
    csv = read("price;n;share;text\n1.234,50;1.000;0,5;a,b\n-12,25;2;1;c\n;3;0,25;d\n")
    assert csv.decimal == ","
    assert csv.rows["price"].tolist()[:2] == [1234.5, -12.25]
    assert np.isnan(csv.rows["price"][2])
    assert csv.rows["n"].tolist() == [1000, 2, 3]
    assert csv.rows["share"].tolist() == [0.5, 1.0, 0.25]
    assert csv.rows["text"].tolist() == ["a,b", "c", "d"]


def test_thousands_are_grouped_by_commas_in_a_file_with_commas(read):
    rows = read('price,exact,list\n"346,157","1,234.5","1,2,3"\n"1,000,000",2.25,"4,5,6"\n950,3,7\n').rows
    assert rows["price"].tolist() == [346157, 1000000, 950]
    assert rows["price"].dtype == "int64"
    assert rows["exact"].tolist() == [1234.5, 2.25, 3.0]
    assert rows["list"].tolist() == ["1,2,3", "4,5,6", "7"]


AMBIGUOUS = "price;n\n346,157;1\n12,500;2\n"


def test_number_that_can_be_read_in_two_ways_is_refused(read):
    with pytest.raises(
        TrainingError, match=r"^column 'price': '346,157' may be 346157 or 346\.157; give --decimal"
    ):
        read(AMBIGUOUS)


@pytest.mark.parametrize(("decimal", "numbers"), [(",", [346.157, 12.5]), (".", [346157, 12500])])
def test_decimal_mark_that_is_said_decides(read, decimal, numbers):
    assert read(AMBIGUOUS, decimal=decimal).rows["price"].tolist() == numbers


def test_another_column_tells_what_a_comma_means(read):
    assert read("price;share\n346,157;0.5\n12,500;0.25\n").rows["price"].tolist() == [346157, 12500]
    assert read("price;share\n346,157;0,5\n12,500;0,25\n").rows["price"].tolist() == [346.157, 12.5]


def test_digits_behind_a_zero_stay_text(read):
    csv = read("zip,n,time,zero,decimal\n01067,1,0730,0,0.5\n10115,2,1200,10,0.25\n,3,0900,0,0.1\n")
    assert csv.rows["zip"].tolist()[:2] == ["01067", "10115"]
    assert pd.isna(csv.rows["zip"][2])
    assert csv.rows["time"].tolist() == ["0730", "1200", "0900"]
    assert csv.rows.dtypes[["n", "zero", "decimal"]].astype(str).tolist() == ["int64", "int64", "float64"]


def test_numbers_are_read_to_the_last_bit(read):
    numbers = np.random.default_rng(0).uniform(0, 1e6, 1_000)
    assert (
        read("x;y\n" + "".join(f"{x!r};1\n" for x in numbers.tolist())).rows["x"].tolist() == numbers.tolist()
    )
    commas = "".join(f"{x!r};1\n".replace(".", ",") for x in numbers.tolist())
    assert read("x;y\n" + commas).rows["x"].tolist() == numbers.tolist()
