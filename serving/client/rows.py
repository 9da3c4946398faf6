"""Converts rows of any kind to columns or values that can be sliced."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .cells import pandas_column


class Rows(NamedTuple):
    """Rows that can be sliced by position."""

    n_rows: int
    columns: dict[str, Any] | None
    """By name, each sliced by position; None if columns have no names."""
    values: Any = None
    """An array or a list of rows, if there are no columns."""
    index: Any = None
    """Of the frame."""

    @property
    def is_series(self) -> bool:
        """Whether they were a pandas Series."""
        return self.columns is None and self.index is not None

    def label(self, row: int | None) -> Any:
        """Returns a row's label in the frame's index."""
        return None if row is None or self.index is None else self.index[row]


def to_rows(rows: Any) -> Rows:
    """Returns rows of any kind.

    Raises:
        TypeError, ValueError: they have an invalid type or shape.
    """
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(rows, pandas.DataFrame):
        columns = [pandas_column(rows.iloc[:, position]) for position in range(rows.shape[1])]
        return Rows(len(rows), _named(rows.columns, columns), index=rows.index)
    if pandas is not None and isinstance(rows, pandas.Series):
        return Rows(len(rows), None, pandas_column(rows), rows.index)
    if hasattr(rows, "__arrow_c_stream__"):
        table = _to_table(rows)
        # pyarrow's name for a frame's index.
        table = table.drop_columns([n for n in set(table.column_names) if n.startswith("__index_level_")])
        return Rows(table.num_rows, _named(table.column_names, table.columns))
    if isinstance(rows, np.ndarray) and rows.dtype.names and rows.ndim == 1:
        return Rows(len(rows), {name: rows[name] for name in rows.dtype.names})
    if isinstance(rows, np.ndarray) and rows.ndim:
        return Rows(len(rows), None, rows)
    if isinstance(rows, Mapping):
        return _columns_of(rows)
    if isinstance(rows, Sequence) and not isinstance(rows, (str, bytes, bytearray)):
        return Rows(len(rows), None, rows)
    raise TypeError(
        "rows: expected a DataFrame, an Arrow table, an array, a list of records or a dict of columns, got "
        f"{'an array without dimensions' if isinstance(rows, np.ndarray) else type(rows).__name__}"
    )


def _named(labels: Any, columns: Sequence[Any]) -> dict[str, Any]:
    names = [str(label) for label in labels]
    named = dict(zip(names, columns, strict=True))
    if len(named) < len(names):
        twice = next(name for name in named if names.count(name) > 1)
        raise ValueError(f"rows: the column {twice!r} is there twice")
    return named


def _to_table(rows: Any) -> Any:
    try:
        import pyarrow as pa
    except ImportError:
        raise TypeError(f"rows: a {type(rows).__name__} needs pyarrow, which is not installed") from None
    return pa.table(rows)


def _columns_of(rows: Mapping[Any, Any]) -> Rows:
    for name, column in rows.items():
        if not hasattr(column, "__len__") or isinstance(column, (str, bytes, Mapping)):
            raise TypeError(
                f"rows: expected a list or an array for the column {str(name)!r}, got {type(column).__name__}; "
                "put a single record in a list, [record]"
            )
    lengths = {len(column) for column in rows.values()}
    if len(lengths) != 1:
        got = " and ".join(map(str, sorted(lengths))) or "no columns"
        raise ValueError(f"rows: expected columns of one length, got {got}")
    # pandas before version 3 slices a series by its index, if that is numeric.
    columns = [pandas_column(one) if hasattr(one, "array") else one for one in rows.values()]
    return Rows(lengths.pop(), _named(rows, columns))
