"""Values of pandas, Arrow, NumPy and Python → JSON values."""

import base64
import datetime as dt
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_PLAIN = frozenset({str, int, bool, type(None)})
"""JSON's own types, which need no conversion."""


class NoJson(TypeError):
    """A value that cannot be sent; the message is its type."""


def to_cells(column: Any) -> list[Any]:
    """Returns a column's values as JSON values."""
    if isinstance(column, np.ndarray):
        return array_to_cells(column)
    if hasattr(column, "categories"):
        words = np.empty(len(column.categories) + 1, dtype=object)  # the last one is None, for the code -1
        words[:-1] = to_cells(pandas_column(column.categories))
        return list(words[column.codes])
    if hasattr(column, "isna"):
        cells = np.array(column, dtype=object)
        cells[np.asarray(column.isna())] = None
        return array_to_cells(cells)
    if hasattr(column, "to_pylist"):
        # pyarrow creates Python's datetimes, which end at microseconds, or needs pandas.
        is_moment = str(column.type).startswith("timestamp")
        return array_to_cells(column.to_numpy()) if is_moment else _plain_cells(column.to_pylist())
    return _plain_cells(list(column))


def array_to_cells(array: Array) -> list[Any]:
    """Returns an array's values, nested like its dimensions: datetimes as text, None for NaN and NaT."""
    kind = array.dtype.kind
    if kind == "f":
        array = array.astype(np.float64) if array.dtype.itemsize > 8 else array
        return _with_none(array, np.isnan(array))
    if kind == "M":
        if np.datetime_data(array.dtype)[0] in ("Y", "M", "W"):
            array = array.astype("datetime64[D]")
        return _with_none(np.datetime_as_string(array), np.isnat(array))
    cells: list[Any] = array.tolist()
    return cells if kind in "iubU" else _plain_cells(cells)


def _with_none(array: Array, is_missing: npt.NDArray[np.bool_]) -> list[Any]:
    if is_missing.any():
        array = array.astype(object)
        array[is_missing] = None
    cells: list[Any] = array.tolist()
    return cells


def _plain_cells(cells: list[Any]) -> list[Any]:
    return cells if _PLAIN.issuperset(map(type, cells)) else [to_plain(cell) for cell in cells]


def to_plain(value: Any) -> Any:  # noqa: PLR0912  # one branch per type reads as the table it is
    """Returns a JSON value: null if missing, ISO 8601 for datetimes, base64 for bytes.

    Raises:
        NoJson: JSON cannot represent it.
    """
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return None if value != value else float(value)  # noqa: PLR0124  # NaN alone is not itself
        case Mapping():
            return {str(key): to_plain(inner) for key, inner in value.items()}
        case list() | tuple():
            return [to_plain(inner) for inner in value]
        case np.ndarray():
            return array_to_cells(value) if value.ndim else to_plain(value[()])
        case np.datetime64():
            return array_to_cells(np.array([value]))[0]
        case np.floating():
            return to_plain(float(value))
        case np.timedelta64():  # which NumPy counts among the integers
            pass
        case np.bool_() | np.integer():
            return value.item()
        case dt.date():  # datetimes are dates, and so is pandas' NaT
            return value.isoformat() if value == value else None  # noqa: PLR0124  # the same
        case Decimal():
            return _decimal(value)
        case bytes() | bytearray() | memoryview():
            return base64.b64encode(value).decode()
        case _ if type(value).__name__ == "NAType":  # pandas' type, by name: pandas may not be installed
            return None
        case _:
            pass
    raise NoJson(type(value).__name__)


def _decimal(value: Decimal) -> float | int | None:
    """The nearest double; a 64-bit integer stays one, as a double may not represent it."""
    if value.is_nan():
        return None
    is_integer = value.is_finite() and abs(value) < 2**63 and value == int(value)
    return int(value) if is_integer else float(value)


def pandas_column(column: Any) -> Any:
    """Returns the values of a series or an index as a NumPy or pandas array, which slices by position."""
    dtype = column.dtype
    if isinstance(dtype, np.dtype):
        return column.to_numpy()
    if hasattr(dtype, "tz"):
        return np.asarray(column.array, dtype=f"M8[{dtype.unit}]")  # UTC, as the service reads it
    return column.array
