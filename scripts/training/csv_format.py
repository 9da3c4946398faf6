"""Detects a CSV file's column separator and decimal mark."""

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
"""Numbers, by decimal mark; the other mark may group thousands."""


def find_separator(file: Path) -> str:
    """Returns the column separator: the mark that splits each of the first records into as many parts, and the most.

    Raises:
        OSError: the file cannot be read.
        UnicodeDecodeError: it is not UTF-8.
    """
    with file.open(encoding="utf-8-sig", newline="") as opened:
        text = opened.read(SNIFFED_CHARACTERS)
    n_parts = {mark: _parts_per_record(text, mark) for mark in SEPARATORS}
    return max(SEPARATORS, key=lambda mark: n_parts[mark])


def _parts_per_record(text: str, mark: str) -> int:
    """Returns how many parts a mark splits each record into; 0 if the records differ."""
    try:
        records = [
            one for one in islice(csv.reader(io.StringIO(text), delimiter=mark), SNIFFED_RECORDS) if one
        ]
    except csv.Error:
        return 0
    if len(text) == SNIFFED_CHARACTERS and len(records) < SNIFFED_RECORDS:
        records = records[:-1]  # the last one is incomplete
    sizes = {len(record) for record in records}
    return sizes.pop() if len(sizes) == 1 else 0


def find_decimal(texts: pd.DataFrame, numbers: list[str], separator: str) -> Decimal:
    """Returns the decimal mark of a file's numbers.

    Args:
        texts: all columns as text; a missing cell is NaN.
        numbers: the columns that already are numbers with a decimal point.
        separator: of the columns; a file with semicolons may have decimal commas.

    Raises:
        TrainingError: the numbers are ambiguous, such as 346,157 in a file with semicolons.
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
            "give --decimal . or --decimal ,"
        )
    return "."


def parse_numbers(cells: pd.Series, decimal: Decimal) -> pd.Series | None:
    """Returns the numbers of a column with grouped thousands or decimal commas.

    Args:
        cells: text; a missing cell is NaN.
        decimal: the decimal mark.

    Returns:
        int64 or float64; None if the cells are other text, or plain numbers.
    """
    there = cells.dropna()
    marks = r"[,]" if decimal == "." else r"[.,]"
    if there.empty or not there.str.contains(marks, regex=True).any() or not _all_match(there, decimal):
        return None
    numbers = to_numbers(cells, decimal)
    is_whole = len(there) == len(cells) and not there.str.contains(decimal, regex=False).any()
    return numbers.astype("int64") if is_whole and numbers.abs().max() < 2**53 else numbers


def to_numbers(cells: pd.Series, decimal: Decimal) -> pd.Series:
    """Returns the numbers of a column as float64; NaN for cells that are not numbers, or missing."""
    there = cells.dropna()
    grouped = there[there.str.fullmatch(_GROUPED[decimal])]
    plain = grouped.str.replace("." if decimal == "," else ",", "", regex=False)
    numbers = plain.str.replace(",", ".", regex=False).astype("float64").reindex(cells.index)
    # The rest may be numbers such as 1e-3.
    return (
        numbers.fillna(pd.to_numeric(cells.where(numbers.isna()), errors="coerce"))
        if decimal == "."
        else numbers
    )


def _all_match(cells: pd.Series, decimal: Decimal) -> bool:
    matches = _GROUPED[decimal].fullmatch
    return all(matches(cell) for cell in cells)
