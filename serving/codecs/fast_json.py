"""The fast path from JSON to `Inputs`: msgspec types built from the signature; see `serving.codecs.json`."""

import math
import operator
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt

from serving.codecs.casting import (
    ArrayMismatch,
    Mismatch,
    cast_array,
    cast_cell,
    cells_to_column,
    replace_none,
)
from serving.codecs.media_types import Body
from serving.model.schema import DTYPES, Column, Form, Inputs, Kind, Schema, Type

CHUNK_ROWS = 512
"""Rows turned into columns at a time: few enough that their cells stay in the CPU cache."""

Builder = Callable[[Sequence[Any]], npt.NDArray[Any] | None]


class FastRows:
    """Decodes rows of one form with a msgspec type, and turns their fields into columns."""

    def __init__(self, schema: Schema, form: Form) -> None:
        self.form = form
        self._is_able = form is not Form.RECORD or all(map(_is_field_name, schema.names))
        self.row_type: Any = self._prepare(schema) if self._is_able else Any
        self._decoder = msgspec.json.Decoder(list[self.row_type])  # type: ignore[name-defined]

    def _prepare(self, schema: Schema) -> Any:
        types = [_fast_type(column) for column in schema.columns]
        self._builders = [_fast_builder(column) for column in schema.columns]
        self._groups = group_columns(schema)
        self._nan_texts = [position for position, column in enumerate(schema.columns) if _is_nan_text(column)]
        if self.form is Form.BARE:
            return types[0]
        fields = [f"c{position}" for position in range(len(types))]
        self._get: Callable[[Any], Any] = operator.attrgetter(*fields)
        return msgspec.defstruct(
            "Row",
            [
                (field, type_)
                if column.required or self.form is Form.ARRAY
                else (field, type_, _default(column))
                for field, type_, column in zip(fields, types, schema.columns, strict=True)
            ],
            rename=dict(zip(fields, schema.names, strict=True)) if self.form is Form.RECORD else None,
            forbid_unknown_fields=True,
            array_like=self.form is Form.ARRAY,
            gc=False,
            # msgspec wants fields without a default first, JSON does not.
            kw_only=self.form is not Form.ARRAY,
        )

    def decode(self, text: Body) -> list[Any]:
        """Decodes an array of rows.

        Raises:
            MsgspecError, UnicodeDecodeError, RecursionError: only the thorough path can tell.
        """
        return self._decoder.decode(text)

    def inputs(self, rows: list[Any], *, has_null: bool) -> Inputs | None:
        """Returns the rows as `Inputs`; None if only the thorough path can tell.

        Args:
            rows: of `row_type`.
            has_null: whether a cell may be None; checking each would make large bodies a third slower.
        """
        if not self._is_able:
            return None
        if self.form is Form.BARE:
            return self._build([rows], len(rows), has_null)
        if len(self._builders) == 1:
            return self._build([list(map(self._get, rows))], len(rows), has_null)
        if len(rows) <= CHUNK_ROWS:
            return self._build(list(zip(*map(self._get, rows), strict=True)), len(rows), has_null)
        cells: list[list[Any]] = [[] for _ in self._builders]
        for start in range(0, len(rows), CHUNK_ROWS):
            chunk = zip(*map(self._get, rows[start : start + CHUNK_ROWS]), strict=True)
            for column, part in zip(cells, chunk, strict=True):
                column.extend(part)
        return self._build(cells, len(rows), has_null)

    def _build(self, cells: Sequence[Sequence[Any]], n_rows: int, has_null: bool) -> Inputs | None:
        columns: list[Any] = [None] * len(cells)
        for positions, dtype in self._groups:
            # One array for all of them, whose lines are the columns: for a single row, one call per column would cost
            # more than everything else.
            lines = np.array([cells[position] for position in positions], dtype=dtype)
            for position, line in zip(positions, lines, strict=True):
                columns[position] = line
        for position in self._nan_texts if has_null else ():
            columns[position] = replace_none(columns[position], math.nan)
        for position, build in enumerate(self._builders):
            if build is not None:
                columns[position] = build(cells[position])
                if columns[position] is None:
                    return None
        return Inputs(tuple(columns), n_rows)


def group_columns(schema: Schema) -> list[tuple[list[int], npt.DTypeLike]]:
    """Returns the positions of columns that become the lines of one array, and its dtype: no cell needs further checks."""
    groups: dict[Any, list[int]] = {}
    for position, column in enumerate(schema.columns):
        if _is_grouped(column):
            groups.setdefault(GROUPED[column.type.kind], []).append(position)
    return [(positions, dtype) for dtype, positions in groups.items()]


GROUPED = {
    Kind.STRING: np.dtype(object),
    Kind.FLOAT: np.dtype(np.float32),
    Kind.DOUBLE: np.dtype(np.float64),
}


def _is_nan_text(column: Column) -> bool:
    return column.type.kind is Kind.STRING and column.missing is not None


def _default(column: Column) -> float | None:
    """The value of an optional column that a row omits."""
    return math.nan if _is_nan_text(column) else None


def _is_grouped(column: Column) -> bool:
    kind = column.type.kind
    # Floats with None among them are objects.
    return kind is Kind.STRING or (kind in GROUPED and column.missing is not None)


def _is_field_name(name: str) -> bool:
    r"""Whether msgspec accepts it as a key. Source: its error, 'must not contain '\', '"', or control characters'."""
    return not any(char in '\\"' or char < " " for char in name)


def _fast_type(column: Column) -> Any:
    """The msgspec type that accepts a subset of what `cast_cell` accepts."""
    type_ = _fast_kind(column.type)
    return type_ | None if column.may_be_missing and type_ is not Any else type_


def _fast_kind(type_: Type) -> Any:
    match type_.kind:
        case Kind.BOOLEAN:
            return bool
        case Kind.INTEGER | Kind.LONG:
            return int | float
        case Kind.FLOAT | Kind.DOUBLE:
            return exact_float(np.dtype(DTYPES[type_.kind]))
        case Kind.STRING:
            return str
        case Kind.TENSOR:
            inner: Any = _fast_scalar(type_.dtype)
            for _ in type_.shape:
                inner = list[inner]
            return inner
        case _:
            return Any


def _fast_scalar(dtype: str) -> Any:
    match "U" if dtype == "str" else np.dtype(dtype).kind:
        case "b":
            return bool
        case "U":
            return str
        case "f":
            return exact_float(np.dtype(dtype))
        case _:
            return int


def exact_float(dtype: np.dtype[Any]) -> Any:
    """Returns the msgspec type of the numbers among which no integer changes as a float of the dtype."""
    # Below 2^53 (2^24 for float32) every integer is a float; from there on the thorough path checks each.
    # The limit itself is excluded: msgspec compares after converting 2^53 + 1 to a double.
    limit = 2.0 ** min(np.finfo(dtype).nmant + 1, 53)
    return Annotated[float, msgspec.Meta(gt=-limit, lt=limit)]


def _fast_builder(column: Column) -> Builder | None:
    """A function that builds the column's array from decoded cells; it returns None if it cannot tell.

    None for a column that is built together with others.
    """
    kind = column.type.kind
    if _is_grouped(column):
        return None
    if kind in (Kind.INTEGER, Kind.LONG):
        return lambda cells: _build_integers(cells, column)
    if kind is Kind.BOOLEAN:
        return lambda cells: cells_to_column(cells, column)
    if kind is Kind.TENSOR:
        return lambda cells: _build_tensor(cells, column.type)
    return lambda cells: _build_objects(cells, column)


def _build_objects(cells: Sequence[Any], column: Column) -> npt.NDArray[Any] | None:
    try:
        return cells_to_column([cast_cell(cell, column) for cell in cells], column)
    except Mismatch:
        return None


def _build_integers(cells: Sequence[Any], column: Column) -> npt.NDArray[Any] | None:
    try:
        values = np.array(cells)
        if values.dtype == np.int64 and column.type.kind is Kind.LONG:
            return values
        # int64 from integers alone; float64 if one was written as 5.0, which is exact below 2^53.
        if values.dtype == np.int64 or (values.dtype == np.float64 and np.abs(values).max() < 2**53):
            return cast_array(values, column)
    except (ArrayMismatch, OverflowError):
        return None
    return _build_objects(cells, column)


def _build_tensor(cells: Sequence[Any], type_: Type) -> npt.NDArray[Any] | None:
    try:
        array = np.array(cells, dtype=object if type_.dtype == "str" else np.dtype(type_.dtype))
    except (ValueError, OverflowError):
        return None
    if array.ndim != len(type_.shape) + 1:
        return None
    fits = all(want in (-1, got) for want, got in zip(type_.shape, array.shape[1:], strict=True))
    return array if fits else None
