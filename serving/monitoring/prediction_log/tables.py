"""The log's messages → Arrow tables: the columns of the log."""

from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from serving.monitoring.prediction_log.rows import BYTES, JSON, TEXT, Field, Rows
from serving.runtime import scores_of

OWN = pa.schema(
    [
        pa.field("time", pa.timestamp("us", tz="UTC"), metadata={"meaning": "when the request was answered"}),
        pa.field("request_id", pa.string(), metadata={"meaning": "`X-Request-ID`, or the id in the answer"}),
        pa.field("row", pa.int32(), metadata={"meaning": "position of the row in its request, from 0"}),
        pa.field(
            "key",
            pa.string(),
            metadata={"meaning": "value of the input that `SERVING_LOG_KEY` names, else `X-Routing-Key`"},
        ),
        pa.field("role", pa.string(), metadata={"meaning": "`champion`, `challenger` or `shadow`"}),
        pa.field(
            "params",
            pa.string(),
            metadata={"meaning": "the request's parameters, as JSON; null without any"},
        ),
        pa.field(
            "latency_ms",
            pa.float32(),
            metadata={"meaning": "from the start of the request's processing to its answer"},
        ),
        pa.field(
            "label",
            pa.string(),
            metadata={"meaning": "predicted class: text as it is, others as JSON (`1`, `true`)"},
        ),
        pa.field(
            "score",
            pa.float64(),
            metadata={
                "meaning": "probability of a binary classifier's second class, or of another classifier's predicted class"
            },
        ),
        pa.field(
            "probabilities",
            pa.map_(pa.string(), pa.float64()),
            metadata={"meaning": "by class, the names as in `label`"},
        ),
        pa.field("value", pa.float64(), metadata={"meaning": "predicted number"}),
        pa.field(
            "output",
            pa.string(),
            metadata={
                "meaning": "any other answer, as JSON; all results in row 0 if there is not one for each row"
            },
        ),
    ]
)
"""The columns of every log, before those of the inputs; `meaning` is for the documentation."""


UNREADABLE = (msgspec.MsgspecError, pa.ArrowException, ValueError, TypeError)
"""What decoding a message that is not one of ours, or its table, raises."""


def schema_of(fields: Iterable[Field]) -> pa.Schema:
    """Returns the columns of a version's log."""
    inputs = [pa.field(field.name, arrow_type(field)) for field in fields]
    return pa.schema([*(one.remove_metadata() for one in OWN), *inputs])


def arrow_type(field: Field) -> pa.DataType:
    """Returns the type of an input's column."""
    match field.type:
        case "string" | "json":
            kind = pa.string()
        case "binary":
            kind = pa.binary()
        case name:
            kind = pa.from_numpy_dtype(np.dtype(name))
    for _ in field.shape:
        kind = pa.list_(kind)
    return kind


def to_table(rows: Rows) -> pa.Table:
    """Returns a message's rows as a table."""
    of_request = np.repeat(np.arange(len(rows.n_rows)), rows.n_rows)
    n_rows = len(of_request)
    starts = np.cumsum(rows.n_rows) - rows.n_rows
    position = np.arange(n_rows) - starts[of_request] + np.array(rows.first_rows)[of_request]
    micros = (np.array(rows.times) * 1e6).astype("datetime64[us]")
    own = {
        "time": pa.array(micros[of_request], pa.timestamp("us")).cast(OWN.field("time").type),
        "request_id": pa.array(rows.request_ids).take(pa.array(of_request)),
        "row": pa.array(position.astype(np.int32)),
        "key": pa.array(rows.keys, pa.string()),
        "role": pa.array(rows.roles).take(pa.array(of_request)),
        "params": pa.nulls(n_rows, pa.string())
        if rows.params is None
        else pa.array(rows.params, pa.string()).take(pa.array(of_request)),
        "latency_ms": pa.array(np.array(rows.latencies_ms, dtype=np.float32)[of_request]),
        **_outputs(rows, n_rows),
    }
    inputs = [_input(field, data, n_rows) for field, data in zip(rows.fields, rows.inputs, strict=True)]
    return pa.Table.from_arrays([*(own[name] for name in OWN.names), *inputs], schema=schema_of(rows.fields))


def _outputs(rows: Rows, n_rows: int) -> dict[str, pa.Array]:
    nothing = pa.nulls(n_rows, pa.float64())
    score, probabilities = nothing, pa.nulls(n_rows, OWN.field("probabilities").type)
    if rows.probabilities is not None and rows.classes:
        n_classes = len(rows.classes)
        matrix = np.frombuffer(rows.probabilities).reshape(n_rows, n_classes)
        score = pa.array(scores_of(matrix), from_pandas=True)
        offsets = pa.array(np.arange(n_rows + 1, dtype=np.int32) * n_classes)
        names = pa.array(rows.classes, pa.string()).take(pa.array(np.tile(np.arange(n_classes), n_rows)))
        probabilities = pa.MapArray.from_arrays(offsets, names, pa.array(matrix.ravel(), from_pandas=True))
    values = nothing
    if rows.values is not None:
        values = pa.array(np.frombuffer(rows.values), from_pandas=True)
    return {
        "label": pa.array(rows.labels or [None] * n_rows, pa.string()),
        "score": score,
        "probabilities": probabilities,
        "value": values,
        "output": pa.array(rows.others or [None] * n_rows, pa.string()),
    }


def _input(field: Field, data: bytes | list[Any], n_rows: int) -> pa.Array:
    kind = arrow_type(field)
    if isinstance(data, bytes):
        array = pa.array(np.frombuffer(data, dtype=field.dtype), from_pandas=True)
        return _nest(array, field.shape, n_rows)
    if field.shape:
        return pa.array(data, kind)
    present = [None if value is None or value != value else value for value in data]  # noqa: PLR0124  # NaN
    if field.type in (TEXT, JSON, BYTES):
        return pa.array(present, kind)
    is_whole = np.dtype(field.type).kind in "iu"
    return pa.array([int(one) if is_whole and one is not None else one for one in present], kind)


def _nest(values: pa.Array, shape: tuple[int, ...], n_rows: int) -> pa.Array:
    """Returns an array of rows of a shape as nested lists."""
    for depth in range(len(shape) - 1, -1, -1):
        n_lists = n_rows * int(np.prod(shape[:depth], dtype=np.int64))
        offsets = np.arange(n_lists + 1, dtype=np.int32) * shape[depth]
        values = pa.ListArray.from_arrays(pa.array(offsets), values)
    return values
