"""Arrow IPC streams → `Inputs`, and results back into them, without a detour through Python lists.

What a stream says of its data is compared with the signature first: names and types, rows, sizes. A few bytes
can stand for any number of values.
"""

import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.codecs.arrow_messages import count_rows
from serving.codecs.casting import expected_name
from serving.codecs.faults import Faults, refuse
from serving.codecs.json import check_row_count
from serving.codecs.limits import check_rows
from serving.codecs.media_types import Body
from serving.codecs.npy import cast_tensor, named_to_inputs
from serving.errors import Detail, MalformedBody
from serving.model.schema import Inputs, Kind, Schema


def arrow_to_inputs(body: Body, schema: Schema, max_rows: int) -> Inputs:
    """Reads an Arrow IPC stream whose columns have the names of the signature, in any order.

    For a tensor signature the columns are the tensor's own, in order, or one column of lists with its name.

    Raises:
        MalformedBody: not an Arrow stream, or truncated.
        InvalidInput: columns are missing, unknown or of another type.
        PayloadTooLarge: too many rows, or too many values.
    """
    # Imported by the first Arrow request: 34 MB of a worker's memory that most never need. Of the readers
    # tried on damaged streams, pyarrow with full validation is the one that always answers with an error;
    # nanoarrow 0.9 and arro3 0.9 can be made to crash the process.
    import pyarrow as pa

    if not body:
        raise MalformedBody("the body is empty; expected an Arrow IPC stream")
    try:
        data = pa.py_buffer(body)
        n_rows = count_rows(pa.ipc.MessageReader.open_stream(data), schema)
        with pa.ipc.open_stream(data) as reader:
            is_matrix = check_fields(reader.schema, schema)
            check_row_count(n_rows, max_rows)
            check_rows(n_rows, schema)
            table = reader.read_all()
        table.validate(full=True)
        return table_to_inputs(table, schema, is_matrix=is_matrix)
    except (pa.ArrowException, OSError, ValueError, LookupError, OverflowError, struct.error) as error:
        raise MalformedBody("the body is not a complete and valid Arrow IPC stream") from error


def check_fields(fields: Any, schema: Schema) -> bool:
    """Compares names and types with the signature; returns whether the columns form the signature's one tensor.

    Raises:
        MalformedBody: a name is repeated.
        InvalidInput: columns are missing, unknown, or of an unsuitable type.
    """
    from serving.codecs.arrow_values import is_hollow, is_nested, is_number, may_hold, type_name

    names = fields.names
    if len(set(names)) != len(names):
        raise MalformedBody("the Arrow stream names a column twice")
    first = schema.columns[0]
    if len(schema.columns) == 1 and first.type.kind is Kind.TENSOR:
        named = fields.field(first.name).type if first.name in names else None
        if named is None or not may_hold(named, first.type):
            if not all(map(is_number, fields.types)):
                refuse([Detail("columns of numbers without missing values", "other columns")])
            return True
    columns = {column.name: column for column in schema.columns}
    known, faults = set(names), Faults(schema.names)
    for name, kind in zip(names, fields.types, strict=True):
        column = columns.get(name)
        if column is None:
            faults.add_unknown(name, "a column", None, known)
        elif is_hollow(kind):
            got = "a type that expands without limit"
            faults.add(name, Detail("column of a plain type", got, None, name))
        elif is_nested(kind) and not may_hold(kind, column.type):
            faults.add(name, Detail(expected_name(column), type_name(kind), None, name))
    for column in schema.columns:
        if column.required and column.name not in known:
            faults.add(column.name, Detail(expected_name(column), "nothing", None, column.name))
    if faults:
        refuse(faults.told())
    return False


def table_to_inputs(table: Any, schema: Schema, *, is_matrix: bool) -> Inputs:
    """Returns a table's columns, whose fields `check_fields` accepts.

    Raises:
        InvalidInput: values do not fit the signature.
        PayloadTooLarge: their objects would take too much memory.
    """
    from serving.codecs.arrow_values import Load, column_to_values, may_hold, type_name

    load = Load()
    if is_matrix:
        (tensor,) = schema.columns
        columns = [column_to_values(values, tensor, load) for values in table.columns]
        return Inputs((cast_tensor(_columns_to_matrix(columns), tensor),), table.num_rows)
    values: dict[str, Any] = {}
    faults = Faults(schema.names)
    sent = dict(zip(table.column_names, table.columns, strict=True))
    for column in schema.columns:
        given = sent.get(column.name)
        if given is None:
            continue
        if may_hold(given.type, column.type):
            values[column.name] = column_to_values(given, column, load)
        elif given.null_count == table.num_rows:
            values[column.name] = [None] * table.num_rows
        else:
            faults.add(column.name, Detail(expected_name(column), type_name(given.type), None, column.name))
    inputs = named_to_inputs(values, table.num_rows, schema, faults=faults)
    return Inputs(inputs.columns, inputs.n_rows, load.n_bytes)


def _columns_to_matrix(columns: list[Any]) -> npt.NDArray[Any]:
    if not columns or not all(isinstance(column, np.ndarray) for column in columns):
        refuse([Detail("columns of numbers without missing values", "other columns")])
    return np.column_stack(columns)


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
