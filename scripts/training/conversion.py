"""Columns of a file as what they are, or are said to be: dates, numbers or texts."""

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
    """What a column of text would be as numbers, of which nearly all its cells are."""

    numbers: pd.Series
    note: str
    """To tell if it is taken so."""


class Converted(NamedTuple):
    """The rows, and what there is to tell about columns."""

    rows: pd.DataFrame
    dates: dict[str, Dates]
    notes: dict[str, str]
    almost_numbers: "dict[str, AlmostNumbers]"


def convert_columns(csv: CsvFile, said: Said, target: str) -> Converted:
    """Returns the rows with dates as dates, and the columns that something was said of as that.

    Args:
        csv: what was read.
        said: goes before what is found.
        target: is not looked at for dates.

    Raises:
        TrainingError: a column is not what it is said to be.
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
            changed[name] = column.astype("float64")  # which may be missing
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
    """Returns the rows with columns as numbers that are nearly so, if preprocessing has left them as text."""
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
    """Returns a column of text as numbers, and how many of its cells are none and so missing.

    Raises:
        TrainingError: none of them is a number.
    """
    numbers = to_numbers(cells, csv.decimal)
    if numbers.isna().all():
        raise TrainingError(f"column {cells.name!r} is to be a number, and none of its cells is one")
    return numbers, describe_missing(numbers.isna() & cells.notna(), "numbers")


def describe_text(cells: pd.Series, csv: CsvFile) -> tuple[str, AlmostNumbers | None]:
    """Returns what is strange about a column of text, empty if nothing is; and its numbers, if it should be some.

    It should if the rest is a few placeholders, such as `?` or `n/a`, beside more numbers than codes have.
    """
    if has_leading_zeros(cells.dropna()):
        return "text, as some begin with a zero", None
    numbers = to_numbers(cells, csv.decimal)
    is_odd = numbers.isna() & cells.notna()
    if not is_odd.any() or not are_few(is_odd, cells):
        return "", None
    is_number = are_placeholders(is_odd, cells) and numbers.nunique() > MAX_CODES
    almost = AlmostNumbers(numbers, describe_missing(is_odd, "numbers")) if is_number else None
    return f"{describe(is_odd, 'numbers')} (else --number)", almost


def column_rows(converted: Converted, kinds: ColumnKinds, inputs: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Returns the lines of a table of what each column is, and why; first its head.

    Args:
        converted: the file.
        kinds: of the columns after preprocessing.
        inputs: the rows that are learned from, without the target.
    """
    lines = [("column", "is", "why")]
    for label, column in inputs.items():
        name = str(label)
        note = converted.notes.get(name, "")
        if name in kinds.why:
            if name in kinds.numbers and note and types.is_string_dtype(column):
                note = "text in the file and in requests, read by preprocessing.py (else --number)"
            missing = describe_missing_cells(column) if name in kinds.used else ""
            lines.append(
                (name, kinds.kind_of(name), "; ".join(filter(None, (kinds.why[name], note, missing))))
            )
        elif name in converted.dates:
            parts = [part for part in kinds.used if part.startswith(f"{name}_")]
            made = f"preprocessing.py makes {len(parts)} numbers of it"
            lines.append((name, "date", f"{converted.dates[name].describe()}; {made}"))
        else:
            lines.append((name, "read by preprocessing.py", note))
    of_dates = tuple(f"{name}_" for name in converted.dates)
    for name, why in kinds.why.items():
        if name not in inputs and not name.startswith(of_dates):
            lines.append((name, kinds.kind_of(name), f"by preprocessing.py; {why}"))
    return lines
