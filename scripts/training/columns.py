"""What each column is to a model: a number, a text, or nothing; and the signature that follows from it."""

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from pandas.api import types

from scripts.training import TrainingError

IDENTIFIER_RATIO = 0.9
"""A text column is an identifier where more than this share of its values occur once only."""

MIN_IDENTIFIERS = 50
"""With fewer distinct values than this, a text column is never called an identifier."""


class ColumnKinds(NamedTuple):
    """The names of the columns after preprocessing, by what the pipeline does with them."""

    numeric: list[str]
    text: list[str]
    identifiers: list[str]
    constant: list[str]


def column_kinds(features: pd.DataFrame) -> ColumnKinds:
    """Sorts the columns that preprocessing returned; true/false counts as a number.

    Raises:
        TrainingError: a column is neither number, true/false nor text, or no column is of use.
    """
    kinds = ColumnKinds([], [], [], [])
    for name, column in features.items():
        if column.nunique(dropna=False) <= 1:
            kinds.constant.append(str(name))
        elif is_row_number(column) or is_nearly_unique_text(column):
            kinds.identifiers.append(str(name))
        elif is_boolean(column) or types.is_numeric_dtype(column.dtype):
            kinds.numeric.append(str(name))
        elif types.is_string_dtype(column.dropna()):
            kinds.text.append(str(name))
        else:
            raise TrainingError(
                f"column {name!r} is {column.dtype} after preprocessing; "
                "let preprocessing.py turn it into numbers, true/false or text"
            )
    if not kinds.numeric and not kinds.text:
        raise TrainingError("every column is constant or an identifier; there is nothing to learn from")
    return kinds


def is_boolean(column: pd.Series) -> bool:
    """True where all values that are there are true or false, also in an object column."""
    return types.is_bool_dtype(column.dtype) or pd.api.types.infer_dtype(column, skipna=True) == "boolean"


def is_row_number(column: pd.Series) -> bool:
    """True for the index that a table was saved with: integers without a name, or 0, 1, 2 …, or 1, 2, 3 …."""
    if not types.is_integer_dtype(column.dtype):
        return False
    if re.fullmatch(r"Unnamed: [0-9]+", str(column.name)):  # pandas' name for an empty one
        return True
    first = column.iloc[0]
    return first in (0, 1) and bool((column.to_numpy() == np.arange(len(column)) + first).all())


def is_nearly_unique_text(column: pd.Series) -> bool:
    """True where a text column tells rows apart rather than describing them."""
    if is_boolean(column) or types.is_numeric_dtype(column.dtype):
        return False
    n_distinct, n_there = column.nunique(), column.count()
    return bool(n_distinct >= MIN_IDENTIFIERS and n_distinct > IDENTIFIER_RATIO * n_there)


def ignored_columns(
    inputs: pd.DataFrame, kinds: ColumnKinds, preprocess: Callable[[pd.DataFrame], pd.DataFrame]
) -> list[str]:
    """Returns the raw columns that can be left out of a request: no number changes without them.

    A column that preprocessing itself reads is not among them, even if no transformer takes it.
    """
    head = inputs.head(100)
    used = kinds.numeric + kinds.text
    expected = preprocess(head)[used]
    ignored = []
    for name in [*kinds.identifiers, *kinds.constant]:
        if name not in inputs:
            continue
        try:
            unchanged = preprocess(head.drop(columns=name))[used].equals(expected)
        except Exception:  # noqa: BLE001  # whatever the user's code raises, it wanted the column
            unchanged = False
        if unchanged:
            ignored.append(name)
    return ignored


def make_signature(inputs: pd.DataFrame, ignored: list[str], output: ColSpec) -> ModelSignature:
    """Returns the contract of the raw rows: what a request must hold, and what it may leave out."""
    columns: list[ColSpec | TensorSpec] = [
        ColSpec(
            column_type(column),
            str(name),
            required=str(name) not in ignored and not may_be_missing(column),
        )
        for name, column in inputs.items()
    ]
    return ModelSignature(inputs=Schema(columns), outputs=Schema([output]))


def may_be_missing(column: pd.Series) -> bool:
    """True where values are missing and the column's type has no value that says so (float has NaN)."""
    return bool(column.isna().any()) and not types.is_float_dtype(column.dtype)


def column_type(column: pd.Series) -> DataType:
    """Returns MLflow's type for a column of NumPy dtype."""
    if is_boolean(column):
        return DataType.boolean
    if types.is_integer_dtype(column.dtype):
        return DataType.long
    if types.is_float_dtype(column.dtype):
        return DataType.double
    return DataType.string
