"""Reads a CSV file into the rows and the target that a model is fitted on."""

import shlex
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from pandas.api import types

from scripts.training import TrainingError
from scripts.training.column_options import no_column
from scripts.training.csv_format import Decimal, find_decimal, find_separator, parse_numbers

TAB = "\t"

MAX_LONG = 2**63 - 1

MIN_ROWS = 20
"""Fewer rows leave nothing to hold out."""


class CsvFile(NamedTuple):
    """The rows of a file, with types and as text."""

    rows: pd.DataFrame
    as_written: pd.DataFrame
    """The same cells as text; only empty ones are missing."""
    separator: str
    decimal: Decimal

    @property
    def form(self) -> str:
        """Its format in words; empty for the usual one."""
        marks = [f"separated by {'tabs' if self.separator == TAB else repr(self.separator)}"] * (
            self.separator != ","
        )
        marks += ["decimal comma"] * (self.decimal == ",")
        return f" ({', '.join(marks)})" if marks else ""


class Table(NamedTuple):
    """Raw inputs, their target, and the number of rows left out because they have none."""

    inputs: pd.DataFrame
    target: pd.Series
    n_without_target: int


def read_csv(file: Path, separator: str | None = None, decimal: Decimal | None = None) -> CsvFile:
    """Reads a CSV file; in text columns only empty cells are missing.

    pandas also reads "NA", "None" and the like as missing. In a column of numbers that is right; in a column
    of text they are values, which clients will send. Digits after a leading zero, such as the postal code
    01067, are text.

    Args:
        file: its path.
        separator: of its columns; None detects it.
        decimal: its decimal mark; None detects it.

    Raises:
        TrainingError: the file cannot be read, or is not a CSV file with a header.
    """
    try:
        separator = separator or find_separator(file)
        form: dict[str, Any] = {"sep": separator, "index_col": False, "encoding": "utf-8-sig"}
        rows = pd.read_csv(file, **form, low_memory=False)
        as_written = pd.read_csv(file, **form, dtype=str, keep_default_na=False, na_values=[""])
    except OSError as error:
        raise TrainingError(f"{file}: {error.strerror or error}") from None
    except ValueError as error:
        is_encoding = isinstance(error, UnicodeDecodeError)
        convert = f", or iconv -f cp1252 -t utf-8 {shlex.quote(str(file))} > utf-8.csv" if is_encoding else ""
        raise TrainingError(
            f"{file}: not a CSV file in UTF-8 ({' '.join(str(error).split())}); spreadsheets save it as “CSV UTF-8”{convert}"
        ) from None
    texts = [
        str(name)
        for name, column in rows.items()
        if types.is_string_dtype(column) or column.isna().all() or has_leading_zeros(as_written[name])
    ]
    rows[texts] = as_written[texts]
    floats = [str(name) for name, column in rows.items() if types.is_float_dtype(column)]
    if decimal is None:
        decimal = find_decimal(as_written[[*texts, *floats]], floats, separator)
    for name in texts if decimal == "." else [*texts, *floats]:
        numbers = parse_numbers(as_written[name], decimal)
        if numbers is not None:
            rows[name] = numbers
    return CsvFile(to_numpy_dtypes(rows), as_written, separator, decimal)


def has_leading_zeros(cells: pd.Series) -> bool:
    """True if one of the cells has leading zeros, which a number would lose."""
    return bool(cells.str.fullmatch(r"0[0-9]+").any())


def to_numpy_dtypes(rows: pd.DataFrame) -> pd.DataFrame:
    """Replaces pandas' nullable dtypes with NumPy's; integers with missing cells become float64.

    Source: with nullable dtypes MLflow silently logs a model without its signature (mlflow#25593).
    """
    changed: dict[str, pd.Series] = {}
    for name, column in rows.items():
        if types.is_integer_dtype(column.dtype):
            fits = not column.isna().any() and column.max() <= MAX_LONG
            changed[str(name)] = column.astype("int64" if fits else "float64")
        elif types.is_float_dtype(column.dtype):
            changed[str(name)] = column.astype("float64")
        elif isinstance(column.dtype, pd.BooleanDtype):
            changed[str(name)] = column.astype("object" if column.isna().any() else "bool")
        elif isinstance(column.dtype, pd.StringDtype):
            changed[str(name)] = column.astype("str")
        elif types.is_datetime64_dtype(column.dtype):
            changed[str(name)] = column.astype("datetime64[ns]")
    return rows.assign(**changed)


def check_target(rows: pd.DataFrame, target: str) -> None:
    """Checks that there is a target, and something to predict it from.

    Raises:
        TrainingError: no such column, no other column, or too few rows with a value in it.
    """
    if target not in rows:
        raise TrainingError(no_column(target, rows.columns))
    if len(rows.columns) < 2:
        raise TrainingError(f"{target!r} is the only column; there is nothing to predict it from")
    n_rows = int(rows[target].notna().sum())
    if n_rows < MIN_ROWS:
        raise TrainingError(f"{n_rows} rows with a value in {target!r}; at least {MIN_ROWS} are needed")


def split_target(rows: pd.DataFrame, target: str) -> Table:
    """Splits the target from the rows, and leaves out rows without one.

    Raises:
        TrainingError: no such column, no other column, too few rows, or an infinite number.
    """
    check_target(rows, target)
    known = rows[target].notna()
    rows, n_without = rows[known].reset_index(drop=True), int((~known).sum())
    for name, column in rows.items():
        if types.is_float_dtype(column.dtype) and np.isinf(column).any():
            raise TrainingError(f"column {name!r} has infinite numbers; leave them empty or correct them")
    labels = rows[target]
    if n_without and types.is_float_dtype(labels.dtype) and (labels % 1 == 0).all():
        labels = labels.astype("int64")  # pandas made floats of them only because some were missing
    return Table(rows.drop(columns=target), labels, n_without)
