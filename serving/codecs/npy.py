"""`.npy` → `Inputs` and back, without Python lists; and the casts shared with Arrow."""

import io
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.codecs.casting import (
    ArrayMismatch,
    Mismatch,
    array_type_name,
    cast_array,
    cast_cell,
    cells_to_column,
    expected_name,
    is_changed,
    is_unicode,
)
from serving.codecs.faults import Faults, refuse
from serving.codecs.json import check_row_count
from serving.codecs.limits import OBJECT_BYTES, check_rows, check_weight
from serving.codecs.media_types import Body
from serving.codecs.npy_header import read_header
from serving.errors import MAX_DETAILS, Detail, InvalidInput, MalformedBody
from serving.model.schema import Column, Form, Inputs, Kind, Schema


def npy_to_inputs(body: Body, schema: Schema, max_rows: int) -> Inputs:
    """Reads a `.npy` file: `(n_rows, n_columns)`, a structured array with the columns as fields, or a tensor.

    For one column without a name it may be `(n_rows,)`.

    Objects and pickles are rejected by the header alone; nothing is ever unpickled.

    Raises:
        MalformedBody: not a .npy file, truncated, or with Python objects.
        InvalidInput: its shape or type differs from the signature.
        PayloadTooLarge: too many rows, or too many values.
    """
    array = _read_npy(body, schema)
    if array.ndim == 0:
        raise InvalidInput("the array has no rows", [Detail("array of rows", "scalar")])
    check_row_count(len(array), max_rows)
    check_rows(len(array), schema)
    if array.dtype.names is not None:
        return named_to_inputs({name: array[name] for name in array.dtype.names}, len(array), schema)
    if len(schema.columns) == 1 and schema.columns[0].type.kind is Kind.TENSOR:
        return Inputs((cast_tensor(array, schema.columns[0]),), len(array))
    if schema.form is Form.BARE and array.ndim == 1:
        array = array[:, np.newaxis]  # as in JSON, where such a row is not a list
    if array.ndim != 2 or array.shape[1] != len(schema.columns):
        expected = f"array of shape (n, {len(schema.columns)}){schema.order}"
        refuse([Detail(expected, f"array of shape {array.shape}")])
    named = {column.name: array[:, position] for position, column in enumerate(schema.columns)}
    return named_to_inputs(named, len(array), schema, has_one_dtype=True)


def _read_npy(body: Body, schema: Schema) -> npt.NDArray[Any]:
    if not body:
        raise MalformedBody("the body is empty; expected .npy bytes")
    try:
        shape, fortran_order, dtype, offset = read_header(body, schema.names)
    except (ValueError, TypeError, LookupError, OverflowError):
        raise MalformedBody("the body is not a .npy file of version 1, 2 or 3") from None
    if dtype.hasobject:
        raise MalformedBody(
            "the .npy file holds Python objects, which are never unpickled; use a plain dtype"
        )
    try:
        wanted = math.prod(shape)
        if wanted * dtype.itemsize != len(body) - offset:
            raise MalformedBody("the .npy file is truncated or has bytes after its data")
        flat = np.frombuffer(body, dtype=dtype, count=wanted, offset=offset)
        array = flat.reshape(shape, order="F" if fortran_order else "C")
        return array.astype(dtype.newbyteorder("="), copy=False)
    except (ValueError, TypeError, OverflowError):
        raise MalformedBody("the .npy file's header does not fit its data") from None


def _numbers_to_booleans(values: npt.NDArray[Any], column: Column) -> npt.NDArray[Any]:
    """A boolean column of a numeric array, which has one dtype for all columns: 1 is true, 0 false, NaN missing."""
    missing = np.isnan(values) & (not column.required)
    bad = (values != 0) & (values != 1) & ~missing
    if bad.any():
        rows = np.flatnonzero(bad)[:MAX_DETAILS].tolist()
        got = "number other than 0 and 1"
        raise ArrayMismatch([Detail(expected_name(column), got, row, column.name) for row in rows])
    if not missing.any():
        return values.astype(np.bool_)
    cells = [None if is_missing else bool(cell) for cell, is_missing in zip(values, missing, strict=True)]
    return cells_to_column(cells, column)


def cast_tensor(  # noqa: PLR0912  # one branch per pair of kinds
    array: npt.NDArray[Any], column: Column
) -> npt.NDArray[Any]:
    """Returns an array of shape `(n_rows, *shape)` with the tensor's dtype; rejects rows whose values would change.

    Raises:
        InvalidInput: another shape or kind, or a number that the dtype cannot hold.
    """
    type_ = column.type
    fits = array.ndim == len(type_.shape) + 1 and all(
        want in (-1, got) for want, got in zip(type_.shape, array.shape[1:], strict=True)
    )
    if not fits:
        shape = ", ".join(map(str, ("n", *type_.shape)))
        refuse([Detail(f"{type_.dtype} array of shape ({shape})", f"array of shape {array.shape}")])
    if type_.dtype == "str":
        if array.dtype.kind == "U":
            check_weight(array.size * OBJECT_BYTES, "the rows")
            if not is_unicode(array).all():
                raise MalformedBody("the .npy file holds text that is not Unicode")
            return array.astype(object)
        raise _tensor_type_mismatch(array, type_.dtype)
    dtype = np.dtype(type_.dtype)
    if array.dtype.kind == dtype.kind and np.can_cast(array.dtype, dtype, "safe"):
        out = array.astype(dtype, copy=False)
    elif array.dtype.kind in "iuf" and dtype.kind in "iuf":
        if array.dtype.itemsize == 2 and array.dtype.kind == "f":
            array = array.astype(np.float32)  # float16 has no 2^31 to compare with
        with np.errstate(invalid="ignore", over="ignore"):
            out = array.astype(dtype)
            if array.dtype.kind == "f" and dtype.kind == "f":
                lossy = np.isinf(out) & ~np.isinf(array)
            elif dtype.kind == "f":
                lossy = is_changed(array, out)
            else:
                # A lossy cast does not round-trip. Outside the target's range casts are undefined, so check the
                # range, too.
                lossy = (out.astype(array.dtype) != array) | _out_of_range(array, dtype)
        if lossy.any():
            _refuse_tensor_rows(lossy, dtype, "number that it cannot hold")
    else:
        raise _tensor_type_mismatch(array, type_.dtype)
    if out.dtype.kind == "f" and np.isinf(out).any():
        _refuse_tensor_rows(np.isinf(out), dtype, "infinite number")
    return out


def _out_of_range(array: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[np.bool_]:
    limits = np.iinfo(dtype)
    if array.dtype.kind == "f":
        return np.asarray(~((array >= float(limits.min)) & (array < float(limits.max) + 1)))
    return np.asarray((array < int(limits.min)) | (array > int(limits.max)))


def _refuse_tensor_rows(bad: npt.NDArray[np.bool_], dtype: np.dtype[Any], got: str) -> None:
    rows = np.unique(np.nonzero(bad)[0])[:MAX_DETAILS]
    refuse([Detail(dtype.name, got, int(row)) for row in rows])


def _tensor_type_mismatch(array: npt.NDArray[Any], expected: str) -> InvalidInput:
    got = array_type_name(array)
    return InvalidInput(f"expected an array of {expected}, got {got}", [Detail(expected, got)])


def named_to_inputs(
    values: dict[str, Any],
    n_rows: int,
    schema: Schema,
    *,
    has_one_dtype: bool = False,
    faults: Faults | None = None,
) -> Inputs:
    """Converts columns by name, each an array or a list of Python values, to `Inputs`.

    Args:
        values: the columns.
        n_rows: of each.
        schema: of the model.
        has_one_dtype: whether they come from one array, so that booleans are numbers.
        faults: of columns that are already known to be wrong, and not in `values`.

    Raises:
        InvalidInput: columns are missing, unknown, or do not fit the signature.
    """
    known = set(schema.names)
    faults = Faults(schema.names) if faults is None else faults
    for name in values:
        if name not in known:
            faults.add_unknown(name, "a column", None, values)
    columns: list[npt.NDArray[Any]] = []
    for column in schema.columns:
        if column.name in faults:
            continue
        if column.name not in values:
            if column.required:
                faults.add(column.name, Detail(expected_name(column), "nothing", None, column.name))
            else:
                columns.append(cells_to_column([None] * n_rows, column))
            continue
        try:
            given = values[column.name]
            if has_one_dtype and column.type.kind is Kind.BOOLEAN and given.dtype.kind in "iuf":
                columns.append(_numbers_to_booleans(given, column))
            else:
                columns.append(_cast_column(given, column))
        except ArrayMismatch as mismatch:
            for detail in mismatch.details:
                faults.add(column.name, detail)
    if faults:
        refuse(faults.told())
    return Inputs(tuple(columns), n_rows)


def _cast_column(values: Any, column: Column) -> npt.NDArray[Any]:
    if isinstance(values, np.ndarray):
        if column.type.kind is Kind.TENSOR:
            return cast_tensor(values, column)
        if values.dtype.kind == "O":
            # Arrow's text, already checked to be UTF-8, or its lists, already cast.
            if column.type.kind in (Kind.STRING, Kind.ARRAY):
                return values
        elif column.type.kind is not Kind.ANY or values.dtype.kind not in "biuf":
            return cast_array(values, column)
        values = values.tolist()
    cells, details = [], []
    for row, value in enumerate(values):
        try:
            cells.append(cast_cell(value, column))
        except Mismatch as mismatch:
            details.append(Detail(mismatch.expected, mismatch.got, row, f"{column.name}{mismatch.path}"))
            if len(details) == MAX_DETAILS:
                break
    if details:
        raise ArrayMismatch(details)
    try:
        return cells_to_column(cells, column)
    except ValueError:
        raise ArrayMismatch(
            [Detail(str(column.type), "rows of different shapes", None, column.name)]
        ) from None


def array_to_npy(array: npt.NDArray[Any]) -> bytes:
    """Writes `.npy`; text becomes fixed-width Unicode, so that reading it needs no pickle."""
    if array.dtype == object:
        array = array.astype(np.str_)
    out = io.BytesIO()
    np.lib.format.write_array(out, array, allow_pickle=False)
    return out.getvalue()
