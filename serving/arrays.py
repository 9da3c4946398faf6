"""`.npy` and Arrow streams → `Inputs`, and results back into them, without a detour through Python lists."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.casting import (
    ArrayMismatch,
    Mismatch,
    array_type_name,
    cast_array,
    cast_cell,
    cells_to_column,
    expected_name,
    is_unicode,
    short,
)
from serving.decoding import check_row_count, refuse
from serving.errors import MAX_DETAILS, Detail, InvalidInput, MalformedBody
from serving.schema import Column, Inputs, Kind, Schema

NPY_HEADER_LIMIT = 10_000
"""Characters of a .npy header that are parsed at most. Source: numpy.lib.format.read_array_header_*."""


VIEWED_LIMIT_BYTES = 2**28
"""Bytes of text in a column of Arrow views, which may show the same bytes of the body many times."""


def npy_to_inputs(body: bytes, schema: Schema, max_rows: int) -> Inputs:
    """Reads a `.npy` file: `(n_rows, n_columns)`, a structured array with the columns as fields, or a tensor.

    Objects and pickles are refused from the header alone; nothing is ever unpickled.

    Raises:
        MalformedBody: not a .npy file, truncated, or one that holds Python objects.
        InvalidInput: of another shape or type than the signature has.
        PayloadTooLarge: too many rows.
    """
    array = _read_npy(body)
    if array.ndim == 0:
        raise InvalidInput("the array has no rows", [Detail("array of rows", "scalar")])
    check_row_count(len(array), max_rows)
    if array.dtype.names is not None:
        return _named_to_inputs({name: array[name] for name in array.dtype.names}, len(array), schema)
    if len(schema.columns) == 1 and schema.columns[0].type.kind is Kind.TENSOR:
        return Inputs((_cast_tensor(array, schema.columns[0]),), len(array))
    if array.ndim != 2 or array.shape[1] != len(schema.columns):
        expected = f"array of shape (n, {len(schema.columns)})"
        refuse([Detail(expected, f"array of shape {array.shape}")])
    named = {column.name: array[:, position] for position, column in enumerate(schema.columns)}
    return _named_to_inputs(named, len(array), schema)


def _read_npy(body: bytes) -> npt.NDArray[Any]:
    stream = io.BytesIO(body)
    if not body:
        raise MalformedBody("the body is empty; expected .npy bytes")
    try:
        version = np.lib.format.read_magic(stream)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran_order, dtype = read_header(stream, max_header_size=NPY_HEADER_LIMIT)
    except Exception:  # noqa: BLE001  # NumPy reads the header as Python source: no list says what that raises
        raise MalformedBody("the body is not a .npy file of version 1 or 2") from None
    if dtype.hasobject:
        raise MalformedBody(
            "the .npy file holds Python objects, which are never unpickled; use a plain dtype"
        )
    try:
        wanted = int(np.prod([int(length) for length in shape], dtype=object))
        if wanted * dtype.itemsize != len(body) - stream.tell():
            raise MalformedBody("the .npy file is truncated or has bytes after its data")
        flat = np.frombuffer(body, dtype=dtype, count=wanted, offset=stream.tell())
        array = flat.reshape(shape, order="F" if fortran_order else "C")
        return array.astype(dtype.newbyteorder("="), copy=False)
    except (ValueError, TypeError):
        raise MalformedBody("the .npy file's header does not fit its data") from None


def _cast_tensor(array: npt.NDArray[Any], column: Column) -> npt.NDArray[Any]:
    type_ = column.type
    fits = array.ndim == len(type_.shape) + 1 and all(
        want in (-1, got) for want, got in zip(type_.shape, array.shape[1:], strict=True)
    )
    if not fits:
        shape = ", ".join(map(str, ("n", *type_.shape)))
        refuse([Detail(f"{type_.dtype} array of shape ({shape})", f"array of shape {array.shape}")])
    if type_.dtype == "str":
        if array.dtype.kind == "U":
            if not is_unicode(array).all():
                raise MalformedBody("the .npy file holds text that is not Unicode")
            return array.astype(object)
        raise _tensor_type_mismatch(array, type_.dtype)
    dtype = np.dtype(type_.dtype)
    if array.dtype.kind == dtype.kind and np.can_cast(array.dtype, dtype, "safe"):
        out = array.astype(dtype, copy=False)
    elif array.dtype.kind in "iuf" and dtype.kind in "iuf":
        with np.errstate(invalid="ignore", over="ignore"):
            out = array.astype(dtype)
            if array.dtype.kind == "f" and dtype.kind == "f":
                lossy = np.isinf(out) & ~np.isinf(array)
            else:
                # Back again: a cast that lost something does not return. Outside the target's range the
                # forth is undefined, so that is asked for first.
                lossy = (out.astype(array.dtype) != array) | _out_of_range(array, dtype)
        if lossy.any():
            _refuse_tensor_rows(lossy, dtype, "number that it cannot hold")
    else:
        raise _tensor_type_mismatch(array, type_.dtype)
    if out.dtype.kind == "f" and np.isinf(out).any():
        _refuse_tensor_rows(np.isinf(out), dtype, "infinite number")
    return out


def _out_of_range(array: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[np.bool_]:
    if dtype.kind == "f":
        # Only 64-bit integers reach this; the largest of them round up to a power of two when they go back.
        return (
            np.asarray(array > 2**63 - 1024) if array.dtype.kind in "iu" else np.zeros(array.shape, np.bool_)
        )
    limits = np.iinfo(dtype)
    if array.dtype.kind == "f":
        return np.asarray(~((array >= float(limits.min)) & (array < float(limits.max) + 1)))
    return np.asarray((array < int(limits.min)) | (array > int(limits.max)))


def _refuse_tensor_rows(bad: npt.NDArray[np.bool_], dtype: np.dtype[Any], got: str) -> None:
    rows = np.unique(np.nonzero(bad)[0])[:MAX_DETAILS]
    refuse([Detail(dtype.name, got, int(row)) for row in rows])


def _tensor_type_mismatch(array: npt.NDArray[Any], expected: str) -> InvalidInput:
    got = array_type_name(array)
    return InvalidInput(f"the model takes {expected}, got an array of {got}", [Detail(expected, got)])


def arrow_to_inputs(body: bytes, schema: Schema, max_rows: int) -> Inputs:
    """Reads an Arrow IPC stream whose columns have the names of the signature, in any order.

    For a tensor signature the columns are the tensor's own, in order.

    Raises:
        MalformedBody: not an Arrow stream, or truncated.
        InvalidInput: columns are missing, unknown or of another type.
        PayloadTooLarge: too many rows.
    """
    # Imported by the first Arrow request: 34 MB of a worker's memory that most never need. Of the readers
    # tried on damaged streams, pyarrow with full validation is the one that always answers with an error;
    # nanoarrow 0.9 and arro3 0.9 can be made to crash the process.
    import pyarrow as pa

    if not body:
        raise MalformedBody("the body is empty; expected an Arrow IPC stream")
    try:
        with pa.ipc.open_stream(pa.py_buffer(body)) as reader:
            table = reader.read_all()
        table.validate(full=True)
        check_row_count(table.num_rows, max_rows)
        if len(set(table.column_names)) != table.num_columns:
            raise MalformedBody("the Arrow stream names a column twice")
        _refuse_hollow_types(table)
        values = {name: _arrow_column(table[name]) for name in table.column_names}
    except (pa.ArrowException, OSError, ValueError, OverflowError, KeyError) as error:
        raise MalformedBody("the body is not a complete Arrow IPC stream that can be read") from error
    if len(schema.columns) == 1 and schema.columns[0].type.kind is Kind.TENSOR:
        return Inputs((_cast_tensor(_columns_to_matrix(values), schema.columns[0]),), table.num_rows)
    return _named_to_inputs(values, table.num_rows, schema)


def _refuse_hollow_types(table: Any) -> None:
    """Refuses types by which a few bytes stand for any number of values, each of them a Python object here."""
    details = [
        Detail(
            "column of a plain type", "a type that can stand for more than it holds", None, short(field.name)
        )
        for field in table.schema
        if _is_hollow(field.type, is_nested=False)
    ]
    if details:
        refuse(details)


def _is_hollow(kind: Any, is_nested: bool) -> bool:
    import pyarrow as pa
    from pyarrow import types

    if types.is_dictionary(kind):
        return is_nested or _is_hollow(kind.value_type, is_nested=True)
    if types.is_null(kind):
        return is_nested
    if types.is_fixed_size_list(kind) and kind.list_size == 0:
        return True
    if types.is_list_view(kind) or types.is_large_list_view(kind) or types.is_union(kind):
        return True
    if types.is_nested(kind):
        inner = [kind.field(i).type for i in range(kind.num_fields)]
        return not inner or any(_is_hollow(type_, is_nested=True) for type_ in inner)
    if types.is_fixed_size_binary(kind):
        return bool(kind.byte_width == 0)
    if types.is_string_view(kind) or types.is_binary_view(kind):
        return is_nested  # `_check_views` looks at the others
    return types.is_run_end_encoded(kind) or isinstance(kind, pa.BaseExtensionType)


def _check_views(column: Any) -> None:
    """Refuses texts that lie over each other so often that they would not fit into memory.

    Raises:
        ValueError: they have more than `VIEWED_LIMIT_BYTES`.
    """
    n_bytes = 0
    for chunk in column.chunks:
        lengths = np.frombuffer(chunk.buffers()[1], dtype=np.int32)[::4]
        n_bytes += int(lengths[chunk.offset : chunk.offset + len(chunk)].clip(0).sum(dtype=np.int64))
    if n_bytes > VIEWED_LIMIT_BYTES:
        raise ValueError("too much text")


def _columns_to_matrix(values: dict[str, Any]) -> npt.NDArray[Any]:
    columns = list(values.values())
    if not columns or not all(isinstance(c, np.ndarray) and c.dtype.kind in "biuf" for c in columns):
        refuse([Detail("columns of numbers without missing values", "other columns")])
    return np.column_stack(columns)


def _arrow_column(column: Any) -> npt.NDArray[Any] | list[Any]:
    """An array without objects where the column is fixed-width and NumPy can say "missing", else a list."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_floating(kind) or pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return np.asarray(column.to_numpy())
    if column.null_count == 0 and (pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        return np.asarray(column.to_numpy())
    if pa.types.is_dictionary(kind):
        words = [[*chunk.dictionary.to_pylist(maps_as_pydicts="strict"), None] for chunk in column.chunks]
        rows = [chunk.indices.to_pylist() for chunk in column.chunks]
        return [w[-1 if i is None else i] for w, r in zip(words, rows, strict=True) for i in r]
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        _check_views(column)
    values: list[Any] = column.to_pylist(maps_as_pydicts="strict")
    return values


def _named_to_inputs(values: dict[str, Any], n_rows: int, schema: Schema) -> Inputs:
    """Columns by name, each an array or a list of Python values, to `Inputs`."""
    known = set(schema.names)
    details = [Detail("no such column", "a column", None, short(n)) for n in values if n not in known]
    columns: list[npt.NDArray[Any]] = []
    for column in schema.columns:
        if column.name not in values:
            if column.required:
                details.append(Detail(expected_name(column), "nothing", None, column.name))
            else:
                columns.append(cells_to_column([None] * n_rows, column))
            continue
        try:
            columns.append(_cast_column(values[column.name], column))
        except ArrayMismatch as mismatch:
            details.extend(mismatch.details)
    if details:
        refuse(details)
    return Inputs(tuple(columns), n_rows)


def _cast_column(values: Any, column: Column) -> npt.NDArray[Any]:
    if isinstance(values, np.ndarray):
        if column.type.kind is Kind.TENSOR:
            return _cast_tensor(values, column)
        if column.type.kind is not Kind.ANY or values.dtype.kind not in "biuf":
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
    """Writes the `.npy` form; text becomes fixed-width Unicode, so that reading it needs no pickle."""
    if array.dtype == object:
        array = array.astype(np.str_)
    out = io.BytesIO()
    np.lib.format.write_array(out, array, allow_pickle=False)
    return out.getvalue()


def array_to_arrow(array: npt.NDArray[Any], names: list[str]) -> bytes:
    """Writes an Arrow IPC stream of one record batch, one column per name.

    Args:
        array: shape `(n_rows,)` for one name, else `(n_rows, len(names))`.
        names: the columns' names.
    """
    import pyarrow as pa

    columns = [array] if array.ndim == 1 else list(array.T)
    batch = pa.record_batch([pa.array(np.ascontiguousarray(column)) for column in columns], names=names)
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(out.getvalue())
