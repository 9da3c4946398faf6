"""Columns of JSON values in MLflow's lenience: a number may be text, text a number, as long as nothing is lost.

`"1"` is a long, `5` is the text "5", `true` is 1. What would lose something stays as it is, and its column rejects it.
"""

import itertools
import re
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.codecs.casting import MAX_DIGITS, cells_to_column
from serving.codecs.fast_json import group_columns
from serving.model.schema import DTYPES, Column, Inputs, Kind, Schema

NUMBERS = frozenset({Kind.INTEGER, Kind.LONG, Kind.FLOAT, Kind.DOUBLE})

_INTEGER = re.compile(r"\s*([+-]?\d+)(?:\.0*)?\s*", re.ASCII)
_NUMBER = re.compile(r"\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\s*", re.ASCII)


def loosen(cells: list[Any], column: Column) -> list[Any] | npt.NDArray[Any]:
    """Returns a column's cells as `serving.codecs.npy.named_to_inputs` takes them, an array if possible."""
    kind = column.type.kind
    found = set(map(type, cells))
    if kind in NUMBERS:
        array = _to_numbers(cells, found, column)
        return [text_to_number(cell, kind) for cell in cells] if array is None else array
    if kind is Kind.STRING:
        return _to_texts(cells, found, column)
    if kind is Kind.BOOLEAN and found & {int, float}:
        return [bool(cell) if type(cell) in (int, float) and cell in (0, 1) else cell for cell in cells]
    if kind is Kind.BINARY:
        # MLflow writes base64 in lines.
        return [cell.replace("\n", "") if isinstance(cell, str) else cell for cell in cells]
    if kind is Kind.TENSOR:
        return _to_tensor(cells, column)
    return cells


def quick_inputs(columns: dict[str, list[Any]], n_rows: int, schema: Schema) -> Inputs | None:
    """Returns the columns of a well-behaved client; None if each has to be looked at.

    One array for all columns of a type: for a single row, one call per column would cost more than everything else.
    """
    if any(column.name not in columns for column in schema.columns):
        return None
    made: list[Any] = [None] * len(schema.columns)
    n_made = 0
    for positions, dtype in group_columns(schema):
        cells = [columns[schema.columns[position].name] for position in positions]
        lines = _to_lines(cells, np.dtype(dtype))
        if lines is None:
            return None
        for position, line in zip(positions, lines, strict=True):
            made[position] = line
        n_made += len(positions)
    for position, column in enumerate(schema.columns) if n_made < len(made) else ():
        if made[position] is None:
            cells_of = columns[column.name]
            if column.type.kind is not Kind.LONG or set(map(type, cells_of)) != {int}:
                return None
            made[position] = np.array(cells_of)
            if made[position].dtype != np.int64:
                return None
    return Inputs(tuple(made), n_rows)


def _to_lines(cells: list[list[Any]], dtype: np.dtype[Any]) -> npt.NDArray[Any] | None:
    found = set(map(type, itertools.chain.from_iterable(cells)))
    if dtype.kind == "O":
        if found != {str} or not all(map(_is_unicode, cells)):
            return None
        return np.array(cells, dtype=object)
    if not found <= {float, int, type(None)} or (
        int in found and not all(_are_exact(column, dtype) for column in cells)
    ):
        return None
    with np.errstate(over="ignore"):
        lines = np.array(cells, dtype=dtype)
    return None if dtype == np.float32 and np.isinf(lines).any() else lines


def _is_unicode(texts: list[str]) -> bool:
    """Whether no text has half a surrogate pair."""
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        return False
    return True


def _are_exact(cells: list[Any], dtype: np.dtype[Any]) -> bool:
    """Whether no integer changes as a float of the dtype."""
    limit = 2 ** (np.finfo(dtype).nmant + 1) if dtype.kind == "f" else 2**53
    return all(-limit < cell < limit for cell in cells if type(cell) is int)


def text_to_number(cell: Any, kind: Kind) -> Any:
    """Returns the number that a text or a boolean stands for, else the cell itself."""
    if isinstance(cell, bool):
        return int(cell)
    if isinstance(cell, str) and len(cell) <= MAX_DIGITS:
        whole = _INTEGER.fullmatch(cell)
        if whole:
            return int(whole[1])
        if kind in (Kind.FLOAT, Kind.DOUBLE) and _NUMBER.fullmatch(cell):
            return float(cell)
    return cell


def _to_numbers(cells: list[Any], found: set[type], column: Column) -> npt.NDArray[Any] | None:
    """Numbers of one type, or floats with missing ones, as an array; None if each has to be looked at."""
    is_float = column.type.kind in (Kind.FLOAT, Kind.DOUBLE)
    if not found <= ({float, int, type(None)} if is_float else {float, int}):
        return None
    if len(found) == 1 and found <= {float, int}:
        array = np.array(cells)
        return array if array.dtype.kind in "iuf" else None
    if int in found and not _are_exact(cells, np.dtype(DTYPES[column.type.kind])):
        return None
    return np.array(cells, dtype=DTYPES[Kind.DOUBLE])


def _to_texts(cells: list[Any], found: set[type], column: Column) -> list[Any] | npt.NDArray[Any]:
    if found & {int, float, bool}:
        cells = [str(cell) if isinstance(cell, (int, float)) else cell for cell in cells]
    if not found <= {str, int, float, bool, type(None)}:
        return cells
    is_unicode = _is_unicode([cell for cell in cells if cell is not None])
    return cells_to_column(cells, column) if is_unicode else cells


def _to_tensor(cells: list[Any], column: Column) -> list[Any] | npt.NDArray[Any]:
    try:
        array = np.array(cells)
    except (ValueError, OverflowError):
        return cells
    is_text = column.type.dtype == "str"
    return array if array.dtype.kind in ("U" if is_text else "biuf") else cells
