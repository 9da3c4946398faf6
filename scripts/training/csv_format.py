"""How a CSV file is written: what separates its columns, and which mark is the decimal point."""

import csv
import io
import re
from itertools import islice
from pathlib import Path
from typing import Literal

import pandas as pd

from scripts.training import TrainingError
from scripts.training.odd_cells import MOSTLY

Decimal = Literal[".", ","]

SEPARATORS = ",;\t|"
SNIFFED_CHARACTERS = 100_000
SNIFFED_RECORDS = 50

_GROUPED = {
    ".": re.compile(r"[+-]?(\d{1,3}(,\d{3})+|\d+)(\.\d+)?"),
    ",": re.compile(r"[+-]?(\d{1,3}(\.\d{3})+|\d+)(,\d+)?"),
}
"""By the decimal mark: numbers in which the other mark may group the thousands."""


def find_separator(file: Path) -> str:
    """Returns what separates the columns: the mark that cuts all of the first records into as many parts.

    Raises:
        OSError: the file cannot be read.
        UnicodeDecodeError: it is not UTF-8.
    """
    with file.open(encoding="utf-8-sig", newline="") as opened:
        text = opened.read(SNIFFED_CHARACTERS)
    n_parts = {mark: _parts_per_record(text, mark) for mark in SEPARATORS}
    return max(SEPARATORS, key=lambda mark: n_parts[mark])


def _parts_per_record(text: str, mark: str) -> int:
    """Returns into how many parts a mark cuts every record; 0 where they differ."""
    try:
        records = [
            one for one in islice(csv.reader(io.StringIO(text), delimiter=mark), SNIFFED_RECORDS) if one
        ]
    except csv.Error:
        return 0
    if len(text) == SNIFFED_CHARACTERS and len(records) < SNIFFED_RECORDS:
        records = records[:-1]  # cut off in its middle
    sizes = {len(record) for record in records}
    return sizes.pop() if len(sizes) == 1 else 0


def find_decimal(texts: pd.DataFrame, numbers: list[str], separator: str) -> Decimal:
    """Returns the mark before the decimals of a file's numbers.

    Args:
        texts: all columns as they are written; a missing cell is NaN.
        numbers: the columns that are numbers with a decimal point already.
        separator: what separates the columns; a file with semicolons may have decimal commas.

    Raises:
        TrainingError: the numbers may be read in two ways, such as 346,157 in a file with semicolons.
    """
    ambiguous = ""
    for name in texts:
        cells = texts[name].dropna()
        if name in numbers or cells.empty or not cells.str.contains(",", regex=False).any():
            continue
        if _all_match(cells, "."):
            if separator == "," or not _all_match(cells, ","):
                continue  # 1,234.5, or a comma in quotes: it groups the thousands
            ambiguous = ambiguous or str(name)
        elif _all_match(cells, ",") or (separator != "," and to_numbers(cells, ",").notna().mean() > MOSTLY):
            return ","
    if ambiguous and not any(texts[name].str.contains(r"\.", regex=True).any() for name in numbers):
        cell = next(cell for cell in texts[ambiguous].dropna() if "," in cell)
        raise TrainingError(
            f"column {ambiguous!r}: {cell!r} may be {cell.replace(',', '')} or {cell.replace(',', '.')}; "
            "--decimal . or --decimal , says which"
        )
    return "."


def parse_numbers(cells: pd.Series, decimal: Decimal) -> pd.Series | None:
    """Returns the numbers of a column whose thousands are grouped, or whose decimals follow a comma.

    Args:
        cells: as they are written; a missing cell is NaN.
        decimal: the mark before the decimals.

    Returns:
        int64 or float64; None where they are not such numbers, or plain ones.
    """
    there = cells.dropna()
    marks = r"[,]" if decimal == "." else r"[.,]"
    if there.empty or not there.str.contains(marks, regex=True).any() or not _all_match(there, decimal):
        return None
    numbers = to_numbers(cells, decimal)
    is_whole = len(there) == len(cells) and not there.str.contains(decimal, regex=False).any()
    return numbers.astype("int64") if is_whole and numbers.abs().max() < 2**53 else numbers


def to_numbers(cells: pd.Series, decimal: Decimal) -> pd.Series:
    """Returns the numbers of a column as float64; NaN for cells that are none, or missing."""
    there = cells.dropna()
    grouped = there[there.str.fullmatch(_GROUPED[decimal])]
    plain = grouped.str.replace("." if decimal == "," else ",", "", regex=False)
    numbers = plain.str.replace(",", ".", regex=False).astype("float64").reindex(cells.index)
    # Such as 1e-3, in whichever file.
    return (
        numbers.fillna(pd.to_numeric(cells.where(numbers.isna()), errors="coerce"))
        if decimal == "."
        else numbers
    )


def _all_match(cells: pd.Series, decimal: Decimal) -> bool:
    matches = _GROUPED[decimal].fullmatch
    return all(matches(cell) for cell in cells)
