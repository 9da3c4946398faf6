"""Converts the columns of a file to dates, numbers or texts, as found or as the options say."""

from typing import NamedTuple

import pandas as pd
from pandas.api import types

from scripts.training import TrainingError
from scripts.training.column_options import Said
from scripts.training.columns import MAX_CODES, ColumnKinds, describe_missing_cells, is_boolean
from scripts.training.csv_format import to_numbers
from scripts.training.dates import Dates, NoDates, find_dates, parse_dates
from scripts.training.odd_cells import are_few, are_placeholders, describe, describe_missing
from scripts.training.table import CsvFile, has_leading_zeros


class AlmostNumbers(NamedTuple):
    """A column of text in which nearly all cells are numbers."""

    numbers: pd.Series
    note: str
    """For the table of columns, if it is used as numbers."""


class Converted(NamedTuple):
    """The rows, and what the table of columns says about them."""

    rows: pd.DataFrame
    dates: dict[str, Dates]
    notes: dict[str, str]
    almost_numbers: "dict[str, AlmostNumbers]"


def convert_columns(csv: CsvFile, said: Said, target: str) -> Converted:
    """Returns the rows with dates converted, and other columns as the options say.

    Args:
        csv: the file.
        said: the options; they override what is found.
        target: the column to predict; it is not searched for dates.

    Raises:
        TrainingError: a column cannot be what the options say.
    """
    changed: dict[str, pd.Series] = {}
    dates: dict[str, Dates] = {}
    notes: dict[str, str] = {}
    almost: dict[str, AlmostNumbers] = {}
    for label, column in csv.rows.items():
        name = str(label)
        cells = csv.as_written[name]
        is_text = types.is_string_dtype(column.dtype) and not is_boolean(column)
        kind = said.kinds.get(name)
        if kind == "date":
            dates[name] = parse_dates(cells, said.date_formats.get(name))
        elif kind == "text":
            changed[name] = cells
        elif kind == "number" and is_text:
            changed[name], notes[name] = read_numbers(cells, csv)
        elif kind == "number" and name != target:
            changed[name] = column.astype("float64")  # may be missing in requests
        elif kind is None and is_text and name != target:
            try:
                dates[name] = find_dates(cells)
            except NoDates as error:
                notes[name] = str(error)
                if not notes[name]:
                    notes[name], as_numbers = describe_text(cells, csv)
                    if as_numbers is not None:
                        almost[name] = as_numbers
    told = {name: note for name, note in notes.items() if note}
    changed |= {name: found.moments for name, found in dates.items()}
    return Converted(csv.rows.assign(**changed), dates, told, almost)


def take_almost_numbers(converted: Converted, features: pd.DataFrame) -> Converted:
    """Returns the rows with nearly numeric columns as numbers, if preprocessing leaves them as text."""
    taken = {
        name: almost
        for name, almost in converted.almost_numbers.items()
        if name in features and types.is_string_dtype(features[name])
    }
    rows = converted.rows.assign(**{name: almost.numbers for name, almost in taken.items()})
    return converted._replace(
        rows=rows, notes=converted.notes | {name: almost.note for name, almost in taken.items()}
    )


def read_numbers(cells: pd.Series, csv: CsvFile) -> tuple[pd.Series, str]:
    """Returns a column of text as numbers, and a note on the cells that are not numbers, which count as missing.

    Raises:
        TrainingError: no cell is a number.
    """
    numbers = to_numbers(cells, csv.decimal)
    if numbers.isna().all():
        raise TrainingError(f"column {cells.name!r} cannot be a number: none of its cells is one")
    return numbers, describe_missing(numbers.isna() & cells.notna(), "numbers")


def describe_text(cells: pd.Series, csv: CsvFile) -> tuple[str, AlmostNumbers | None]:
    """Returns a note on a column of text, empty if it needs none; and its numbers, if it should be numeric.

    It should if the other cells are a few placeholders, such as `?` or `n/a`, and it has too many numbers for codes.
    """
    if has_leading_zeros(cells.dropna()):
        return "text, because some cells have leading zeros", None
    numbers = to_numbers(cells, csv.decimal)
    is_odd = numbers.isna() & cells.notna()
    if not is_odd.any() or not are_few(is_odd, cells):
        return "", None
    is_number = are_placeholders(is_odd, cells) and numbers.nunique() > MAX_CODES
    almost = AlmostNumbers(numbers, describe_missing(is_odd, "numbers")) if is_number else None
    return f"{describe(is_odd, 'numbers')} (override: --number)", almost


def column_rows(converted: Converted, kinds: ColumnKinds, inputs: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Returns the rows of the table of columns, header first.

    Args:
        converted: the file.
        kinds: of the columns after preprocessing.
        inputs: the training rows, without the target.
    """
    lines = [("column", "kind", "why")]
    for label, column in inputs.items():
        name = str(label)
        note = converted.notes.get(name, "")
        if name in kinds.why:
            if name in kinds.numbers and note and types.is_string_dtype(column):
                note = "text in the file and in requests, read by preprocessing.py (override: --number)"
            missing = describe_missing_cells(column) if name in kinds.used else ""
            lines.append(
                (name, kinds.kind_of(name), "; ".join(filter(None, (kinds.why[name], note, missing))))
            )
        elif name in converted.dates:
            parts = [part for part in kinds.used if part.startswith(f"{name}_")]
            made = f"preprocessing.py turns it into {len(parts)} numbers"
            lines.append((name, "date", f"{converted.dates[name].describe()}; {made}"))
        else:
            lines.append((name, "read by preprocessing.py", note))
    of_dates = tuple(f"{name}_" for name in converted.dates)
    for name, why in kinds.why.items():
        if name not in inputs and not name.startswith(of_dates):
            lines.append((name, kinds.kind_of(name), f"made by preprocessing.py; {why}"))
    return lines
