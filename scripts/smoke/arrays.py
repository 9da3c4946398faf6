"""Converts JSON rows to `.npy` and Arrow by the types in `/v1/models`, and answers back to rows."""

import base64
import importlib.util
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from scripts.smoke import Broken, NotApplicable
from scripts.smoke.comparison import flatten

NPY = "application/x-npy"
ARROW = "application/vnd.apache.arrow.stream"

NPY_TYPES = {
    "boolean": "?",
    "integer": "<i4",
    "long": "<i8",
    "float": "<f4",
    "double": "<f8",
    "string": "U",
    "datetime": "<M8[ns]",
}
"""NumPy type of an array's field, by the signature's type."""

MAY_BE_NULL = {"float": np.nan, "double": np.nan, "datetime": "NaT"}
"""The values that represent null there."""


class Column(NamedTuple):
    """One input of the model, and its cells."""

    name: str
    type: str
    cells: list[Any]

    @property
    def tensor_dtype(self) -> str | None:
        """NumPy's name for a tensor's type, else None."""
        dtype, _, rest = self.type.partition(" ")
        return dtype if rest.startswith("tensor") else None


def columns_of(signature: dict[str, Any], instances: Sequence[Any]) -> list[Column]:
    """Returns the columns of rows as `predict` takes them."""
    rows = [row_of(signature, instance) for instance in instances]
    if signature["form"] == "bare":
        rows = [[row] for row in rows]
    return [
        Column(spec["name"], spec["type"], [row[position] for row in rows])
        for position, spec in enumerate(signature["inputs"])
    ]


def row_of(signature: dict[str, Any], instance: Any) -> Any:
    """Returns an instance as a row of `predict_batch`."""
    if signature["form"] == "record":
        return [instance.get(spec["name"]) for spec in signature["inputs"]]
    return instance


def to_npy(signature: dict[str, Any], instances: Sequence[Any]) -> bytes:
    """Returns the rows as `.npy`: the tensor itself, or a structured array with the columns as fields.

    Raises:
        NotApplicable: `.npy` has no type for them.
    """
    columns = columns_of(signature, instances)
    arrays = [_to_array(column) for column in columns]
    if len(columns) == 1 and columns[0].tensor_dtype:
        table = arrays[0]
    else:
        fields = [(c.name, a.dtype, a.shape[1:]) for c, a in zip(columns, arrays, strict=True)]
        table = np.empty(len(instances), dtype=fields)
        for column, array in zip(columns, arrays, strict=True):
            table[column.name] = array
    out = io.BytesIO()
    np.lib.format.write_array(out, table, allow_pickle=False)
    return out.getvalue()


def _to_array(column: Column) -> Any:
    if dtype := column.tensor_dtype:
        cells = [_with_nan(cell) for cell in column.cells] if dtype.startswith("float") else column.cells
        return np.array(cells, dtype="U" if dtype == "str" else dtype)
    if column.type not in NPY_TYPES:
        raise NotApplicable(f".npy has no type for {column.name!r}: {column.type}")
    if None in column.cells and column.type not in MAY_BE_NULL:
        raise NotApplicable(f".npy has no null for {column.name!r}: {column.type}")
    cells = [MAY_BE_NULL[column.type] if cell is None else cell for cell in column.cells]
    return np.array(cells, dtype=NPY_TYPES[column.type])


def _with_nan(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_nan(item) for item in value]
    return np.nan if value is None else value


def npy_to_rows(body: bytes) -> list[list[Any]]:
    """Returns the scalars of each row.

    Raises:
        Broken: it is not `.npy`.
    """
    try:
        return [flatten(row) for row in np.load(io.BytesIO(body), allow_pickle=False).tolist()]
    except (ValueError, EOFError, OSError, TypeError):
        raise Broken("the answer is not .npy with rows") from None


def to_arrow(signature: dict[str, Any], instances: Sequence[Any]) -> bytes:
    """Returns the rows as an Arrow stream.

    Raises:
        NotApplicable: pyarrow is not installed, or Arrow cannot represent them.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise NotApplicable("pyarrow is not installed")
    import pyarrow as pa

    types = {
        "boolean": pa.bool_(),
        "integer": pa.int32(),
        "long": pa.int64(),
        "float": pa.float32(),
        "double": pa.float64(),
        "string": pa.string(),
        "binary": pa.binary(),
        "datetime": pa.timestamp("ns"),
    }
    arrays = {}
    for column in columns_of(signature, instances):
        cells = column.cells
        if column.type == "binary":
            cells = [None if cell is None else base64.b64decode(cell) for cell in cells]
        elif column.type == "datetime":
            cells = [None if cell is None else np.datetime64(cell, "ns") for cell in cells]
        try:
            arrays[column.name] = pa.array(cells, types.get(column.type))
        except (pa.ArrowException, TypeError, ValueError):
            raise NotApplicable(f"Arrow cannot represent {column.name!r}: {column.type}") from None
    table = pa.table(arrays)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def arrow_to_rows(body: bytes) -> list[list[Any]]:
    """Returns the scalars of each row.

    Raises:
        Broken: it is not an Arrow stream.
    """
    import pyarrow as pa

    try:
        table = pa.ipc.open_stream(body).read_all()
    except (pa.ArrowException, OSError, ValueError):
        raise Broken("the answer is not an Arrow stream") from None
    return [flatten(list(row)) for row in zip(*(column.to_pylist() for column in table.columns), strict=True)]
