"""Arrow IPC streams → `Inputs`, and results back into them, without a detour through Python lists."""

import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.codecs.casting import short
from serving.codecs.json import check_row_count, refuse
from serving.codecs.media_types import Body
from serving.codecs.npy import cast_tensor, named_to_inputs
from serving.errors import Detail, MalformedBody
from serving.model.schema import Inputs, Kind, Schema

VIEWED_LIMIT_BYTES = 2**28
"""Bytes of text in a column of Arrow views, which may show the same bytes of the body many times."""


def arrow_to_inputs(body: Body, schema: Schema, max_rows: int) -> Inputs:
    """Reads an Arrow IPC stream whose columns have the names of the signature, in any order.

    For a tensor signature the columns are the tensor's own, in order, or one column of lists with its name.

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
        if any(_is_compressed(message.metadata) for message in pa.ipc.MessageReader.open_stream(body)):
            raise MalformedBody("compressed Arrow streams are not read; write it without compression")
        with pa.ipc.open_stream(pa.py_buffer(body)) as reader:
            table = reader.read_all()
        table.validate(full=True)
        check_row_count(table.num_rows, max_rows)
        if len(set(table.column_names)) != table.num_columns:
            raise MalformedBody("the Arrow stream names a column twice")
        _refuse_hollow_types(table)
        values = {name: _arrow_column(table[name]) for name in table.column_names}
    except (pa.ArrowException, OSError, ValueError, LookupError, OverflowError, struct.error) as error:
        raise MalformedBody("the body is not a complete Arrow IPC stream that can be read") from error
    first = schema.columns[0]
    if (
        len(schema.columns) == 1
        and first.type.kind is Kind.TENSOR
        and not isinstance(values.get(first.name), list)
    ):
        return Inputs((cast_tensor(_columns_to_matrix(values), schema.columns[0]),), table.num_rows)
    return named_to_inputs(values, table.num_rows, schema)


def _is_compressed(metadata: Any) -> bool:
    """Whether a message's buffers are compressed: kilobytes of it can be gigabytes, before any limit is asked.

    pyarrow does not tell, so this reads the flatbuffer. Source: Arrow's format/Message.fbs; the fields by
    position are Message.header_type (1) and .header (2), DictionaryBatch.data (1), RecordBatch.compression (3).
    """
    buffer = memoryview(metadata)

    def field(table: int, position: int) -> int | None:
        (offset,) = struct.unpack_from("<i", buffer, table)
        entry = table - offset + 4 + 2 * position
        (length,) = struct.unpack_from("<H", buffer, table - offset)
        (where,) = struct.unpack_from("<H", buffer, entry) if 4 + 2 * position < length else (0,)
        return table + where if where else None

    def follow(place: int) -> int:
        return place + int(struct.unpack_from("<I", buffer, place)[0])

    message = follow(0)
    kind, header = field(message, 1), field(message, 2)
    if kind is None or header is None:
        return False
    table = follow(header)
    if buffer[kind] == _DICTIONARY_BATCH:
        data = field(table, 1)
        return data is not None and field(follow(data), 3) is not None
    return buffer[kind] == _RECORD_BATCH and field(table, 3) is not None


_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
"""Source: Arrow's format/Message.fbs, union MessageHeader."""


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
    """An array where the column is text, or fixed-width and NumPy can say "missing"; else a list."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_floating(kind) or pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return np.asarray(column.to_numpy())
    if column.null_count == 0 and (pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        return np.asarray(column.to_numpy())
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return np.asarray(column.to_numpy())
    if pa.types.is_dictionary(kind):
        words = [[*chunk.dictionary.to_pylist(maps_as_pydicts="strict"), None] for chunk in column.chunks]
        rows = [chunk.indices.to_pylist() for chunk in column.chunks]
        return [w[-1 if i is None else i] for w, r in zip(words, rows, strict=True) for i in r]
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        _check_views(column)
    values: list[Any] = column.to_pylist(maps_as_pydicts="strict")
    return values


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
