"""Rows → the bodies of requests: JSON, `.npy` or Arrow."""

import io
import json
from collections.abc import Mapping, Sequence, Sized
from typing import Any

import numpy as np

from .cells import NoJson, to_cells, to_plain
from .errors import Detail, InvalidInput
from .rows import Rows

CHUNK_ROWS, CHUNK_CELLS = 10_000, 1_000_000
"""Maximum per request: some megabytes, well below the service's limits. Halved after a 413."""

JSON, NPY, ARROW = "application/json", "application/x-npy", "application/vnd.apache.arrow.stream"
PREDICT, PREDICT_BATCH = "v1/predict", "v1/predict_batch"

SENT = "a number, text, boolean, date, bytes, or a list or dict of them"
"""Values that JSON can represent."""


def _instances(rows: Rows, start: int, stop: int) -> Sequence[Any]:
    """Returns some rows as instances of `predict`."""
    if rows.columns is None:
        values = rows.values[start:stop]
        return values if isinstance(values, Sequence) else to_cells(values)
    columns = [to_cells(column[start:stop]) for column in rows.columns.values()]
    names = list(rows.columns)
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _encode(value: Any) -> bytes:
    try:
        return json.dumps(value, default=to_plain, allow_nan=False, separators=(",", ":")).encode()
    except (ValueError, TypeError):  # NaN, keys that are not text, or values that cannot be sent
        # Infinity is not JSON either, but the service rejects it with its row and column.
        return json.dumps(to_plain(value), separators=(",", ":")).encode()


def _arrow(columns: Mapping[str, Any], start: int, stop: int) -> bytes | None:
    """Returns some rows as a stream; None if pyarrow is not installed, or Arrow would be less exact than JSON."""
    try:
        import pyarrow as pa
    except ImportError:
        return None
    arrays = []
    for column in columns.values():
        part = column[start:stop]
        try:
            array = part if hasattr(part, "to_pylist") else pa.array(part, from_pandas=True)
        except (ValueError, TypeError, NotImplementedError, OverflowError):
            return None  # mixed types, or types unknown to Arrow
        # Arrow rounds decimals differently, and gives each dict the keys of all.
        if any(name in str(array.type) for name in ("decimal", "struct")):
            return None
        arrays.append(array)
    table = pa.table(arrays, names=list(columns)).combine_chunks()
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    return bytes(out.getvalue())


def to_body(rows: Rows, start: int, stop: int, params: Mapping[str, Any] | None = None) -> bytes:
    """Returns some rows as the body of `predict`.

    Raises:
        InvalidInput: a value cannot be sent.
    """
    try:
        instances = _instances(rows, start, stop)
        return _encode(
            {"instances": instances} if params is None else {"instances": instances, "params": params}
        )
    except NoJson as error:
        raise _not_sent(rows, start, stop) or TypeError(f"params: expected {SENT}, got {error}") from None


def _not_sent(rows: Rows, start: int, stop: int) -> InvalidInput | None:
    """Returns the error for the first value that cannot be sent."""
    named = [(None, rows.values)] if rows.columns is None else rows.columns.items()
    for name, column in named:
        part = column[start:stop]
        for row, cell in enumerate(part.to_pylist() if hasattr(part, "to_pylist") else part, start):
            for key, value in cell.items() if name is None and isinstance(cell, Mapping) else [(name, cell)]:
                try:
                    to_plain(value)
                except NoJson as error:
                    detail = Detail(SENT, str(error), row, None if key is None else str(key), rows.label(row))
                    where = f"row {row}" if key is None else f"row {row} column {detail.column!r}"
                    message = f"the rows cannot be sent: {where}: expected {SENT}, got {error}"
                    return InvalidInput(message, details=[detail])
    return None


def to_batch(rows: Rows, start: int, stop: int) -> tuple[str, str, bytes]:
    """Returns some rows in the fastest format: path, media type and body."""
    if rows.columns is not None:
        stream = _arrow(rows.columns, start, stop)
        if stream is not None:
            return PREDICT_BATCH, ARROW, stream
        return PREDICT, JSON, to_body(rows, start, stop)
    part = rows.values[start:stop]
    is_array = isinstance(part, np.ndarray)
    # `.npy` cannot store the mask of a masked array.
    if is_array and not isinstance(part, np.ma.MaskedArray) and part.dtype.kind in "biufUM":
        out = io.BytesIO()
        np.save(out, part)
        return PREDICT_BATCH, NPY, out.getvalue()
    body = to_body(rows, start, stop)
    first = part[0] if len(part) else None
    if isinstance(first, list | tuple | np.ndarray) or (is_array and not isinstance(first, Mapping)):
        return PREDICT_BATCH, JSON, body.removeprefix(b'{"instances":').removesuffix(b"}")
    return PREDICT, JSON, body


def chunk_rows(rows: Rows) -> int:
    """Returns the number of rows per request."""
    if rows.columns is not None:
        n_cells = len(rows.columns)
    else:
        row = rows.values[0] if rows.n_rows else None
        n_cells = row.size if isinstance(row, np.ndarray) else len(row) if isinstance(row, Sized) else 1
    return max(1, min(CHUNK_ROWS, CHUNK_CELLS // max(n_cells, 1)))
