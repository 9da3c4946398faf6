"""How callers read a file like the training file, so that its columns have the signature's types."""

import re
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api import types

from scripts.training.columns import is_boolean
from scripts.training.conversion import Converted
from scripts.training.table import CsvFile

MISSING_TO_PANDAS = frozenset(
    {
        *("#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>"),
        *("N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
    }
)
"""Texts, besides the empty one, that `pandas.read_csv` reads as missing. Source: its documentation, `na_values`."""

MAX_TEXTS = 10
"""Maximum texts of a column that are listed as missing."""

_LOOKS_LIKE_NUMBER = re.compile(r"\s*[+-]?[\d.,]*\d[\d.,]*([eE][+-]?\d+)?\s*")


def describe_reading(file: Path, csv: CsvFile, converted: Converted, target: str) -> str:
    """Returns the call of `pandas.read_csv` for such a file, with the options that differ from the defaults.

    Args:
        file: the training file; callers have others like it.
        csv: its format and its cells.
        converted: its rows, with the signature's types.
        target: the column that callers' files lack.
    """
    rows = converted.rows.drop(columns=target)
    texts = [str(name) for name, column in rows.items() if is_text(column)]
    missing = {str(name): list_missing(csv.as_written[str(name)], column) for name, column in rows.items()}
    options: dict[str, Any] = {
        "sep": csv.separator if csv.separator != "," else None,
        "decimal": csv.decimal if csv.decimal != "." else None,
        "thousands": find_thousands(csv, rows),
        "dtype": {name: "str" for name in texts if may_be_misread(csv.as_written[name])},
    }
    shown = {name: found[:MAX_TEXTS] for name, found in missing.items()}
    if any(csv.as_written[name].isin(MISSING_TO_PANDAS).any() for name in texts):
        options["keep_default_na"] = False
        options["na_values"] = {name: ["", *found] for name, found in shown.items()}
    else:
        strange = {
            name: [text for text in found if text not in MISSING_TO_PANDAS] for name, found in shown.items()
        }
        options["na_values"] = {name: found for name, found in strange.items() if found}
    forms = {name: dates.form for name, dates in converted.dates.items()}
    options["parse_dates"] = list(forms)
    options["date_format"] = next(iter(forms.values())) if len(set(forms.values())) == 1 else forms
    said = [f"{name}={value!r}" for name, value in options.items() if value not in (None, {}, [])]
    cut = [name for name, found in missing.items() if len(found) > MAX_TEXTS]
    more = f"  # and more na_values of {', '.join(cut)}" if cut else ""
    return f"pd.read_csv({', '.join([repr(file.name), *said])}){more}"


def is_text(column: pd.Series) -> bool:
    """True if its type in the signature is text."""
    return types.is_string_dtype(column.dtype) and not is_boolean(column)


def may_be_misread(cells: pd.Series) -> bool:
    """True if pandas may read the texts as numbers, in this file or in one with fewer rows."""
    return bool(cells.isna().all() or cells.str.fullmatch(_LOOKS_LIKE_NUMBER, na=False).any())


def list_missing(cells: pd.Series, column: pd.Series) -> list[str]:
    """Returns the texts that stand for a missing value, except the empty one."""
    return [str(text) for text in cells[column.isna() & cells.notna()].unique()]


def find_thousands(csv: CsvFile, rows: pd.DataFrame) -> str | None:
    """Returns the mark that groups thousands in a column of numbers; None if there is none."""
    mark = "," if csv.decimal == "." else "."
    numbers = {str(name): column for name, column in rows.items() if types.is_numeric_dtype(column.dtype)}
    is_grouped = any(
        csv.as_written[name][column.notna()].str.contains(mark, regex=False).any()
        for name, column in numbers.items()
    )
    return mark if is_grouped else None
