"""The outputs of logged rows, as the store has them: from the log's messages, and from its Parquet files."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from serving.monitoring.prediction_log.rows import INPUT, Rows
from serving.runtime import scores_of

if TYPE_CHECKING:
    import pyarrow as pa

MAX_CLASSES = 50
"""Classes whose probabilities are kept: with more, a row has that of its label only."""

MAX_CHARS = 1_000
"""Of a text from a request."""


class Answer(NamedTuple):
    """One answered row; the columns of the store's table."""

    model: str
    request_id: str
    row_index: int
    role: str
    version: str
    time: float
    """Seconds since 1970."""
    key: str | None
    label: str | None
    value: float | None
    score: float | None
    """See the column of the log."""
    probabilities: str | None
    """By class, as JSON."""
    slices: str | None
    """The row's values of the columns that quality is told apart by, as JSON."""


def answers_of(rows: Rows, slices: Sequence[str]) -> Iterator[Answer]:
    """Yields the rows of one of the log's messages; those with neither a label nor a number are left out.

    Args:
        rows: the message.
        slices: names of inputs.
    """
    of_request = np.repeat(np.arange(len(rows.n_rows)), rows.n_rows)
    starts = np.cumsum(rows.n_rows) - rows.n_rows
    positions = (
        np.arange(len(of_request)) - starts[of_request] + np.array(rows.first_rows)[of_request]
    ).tolist()
    n_rows = len(positions)
    scores: list[float | None] = [None] * n_rows
    probabilities: list[str | None] = [None] * n_rows
    if rows.probabilities is not None and rows.classes:
        matrix = np.frombuffer(rows.probabilities).reshape(n_rows, len(rows.classes))
        scores = list(map(_finite, scores_of(matrix).tolist()))
        if len(rows.classes) <= MAX_CLASSES:
            probabilities = [_to_json(dict(zip(rows.classes, row, strict=True))) for row in matrix.tolist()]
    values = (
        [None] * n_rows if rows.values is None else list(map(_finite, np.frombuffer(rows.values).tolist()))
    )
    labels = rows.labels or [None] * n_rows
    columns = {name: column for name in slices if (column := _input(rows, f"{INPUT}{name}")) is not None}
    for at, request in enumerate(of_request.tolist()):
        if labels[at] is None and values[at] is None:
            continue
        yield Answer(
            rows.model,
            rows.request_ids[request],
            positions[at],
            rows.roles[request],
            rows.version,
            rows.times[request],
            _clean(rows.keys[at]),
            _clean(labels[at]),
            values[at],
            scores[at],
            probabilities[at],
            _to_json({name: _clean(column[at]) for name, column in columns.items()}) if columns else None,
        )


def answers_in(table: "pa.Table", slices: Sequence[str]) -> Iterator[Answer]:
    """Yields the rows of a table of the log, as `answers_of`."""
    for row in table.to_pylist():
        if row["label"] is None and row["value"] is None:
            continue
        probabilities = dict(row["probabilities"] or ())
        named = {name: _clean(row[f"{INPUT}{name}"]) for name in slices if f"{INPUT}{name}" in row}
        yield Answer(
            row["model"],
            row["request_id"],
            row["row"],
            row["role"],
            row["version"],
            row["time"].timestamp(),
            _clean(row["key"]),
            _clean(row["label"]),
            row["value"],
            row["score"],
            _to_json(probabilities) if probabilities and len(probabilities) <= MAX_CLASSES else None,
            _to_json(named) if named else None,
        )


def log_columns(slices: Sequence[str]) -> list[str]:
    """Returns the columns of the log that `answers_in` needs besides `model` and `version`."""
    own = ["time", "request_id", "row", "key", "role", "label", "score", "probabilities", "value"]
    return [*own, *(f"{INPUT}{name}" for name in slices)]


def _input(rows: Rows, name: str) -> list[Any] | None:
    """Returns the values of an input, if they are plain ones."""
    for field, data in zip(rows.fields, rows.inputs, strict=True):
        if field.name == name and not field.shape:
            return np.frombuffer(data, dtype=field.dtype).tolist() if isinstance(data, bytes) else data
    return None


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _clean(value: Any) -> Any:
    """Returns a value without what a store cannot hold: NUL characters, long texts, other types."""
    if isinstance(value, str):
        return value.replace("\0", "")[:MAX_CHARS]
    if isinstance(value, float):
        return _finite(value)
    return value if value is None or isinstance(value, (bool, int)) else str(value)[:MAX_CHARS]


def _to_json(value: dict[str, Any]) -> str:
    return msgspec.json.encode({_clean(name): of for name, of in value.items()}).decode()
