"""Answered requests → the log's messages."""

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from serving.codecs.json_answers import array_to_json
from serving.model.prepared import Manifest
from serving.model.schema import Inputs, Kind, parse_schema, take
from serving.monitoring.finished import Finished
from serving.monitoring.prediction_log.rows import JSON, Field, Rows, fields_of
from serving.monitoring.prediction_log.selection import Selection, to_json, to_text
from serving.runtime import Output, count_output, slice_output

MAX_ROWS = 1_000
"""Rows of a message: the time that encoding holds up the worker's event loop, about a millisecond."""

Values = npt.NDArray[Any]


class Part(NamedTuple):
    """Rows of one request."""

    finished: Finished
    inputs: Inputs
    output: Output | None
    """Of these rows; None if the model has not returned one result per row."""
    first_row: int


def split(finished: Finished) -> Iterator[Part]:
    """Yields a request in parts that fit into a message."""
    inputs, output = finished.inputs, finished.output
    matches = count_output(output) == inputs.n_rows
    for start in range(0, inputs.n_rows, MAX_ROWS):
        stop = start + MAX_ROWS
        if inputs.n_rows <= MAX_ROWS:
            yield Part(finished, inputs, output if matches else None, 0)
        else:
            answered = slice_output(output, start, stop) if matches else None
            yield Part(finished, take(inputs, start, stop), answered, start)


class Encoder:
    """Encodes the rows of one version of a model."""

    def __init__(self, manifest: Manifest, selection: Selection) -> None:
        schema = parse_schema(manifest.inputs, manifest.params, manifest.nulls)
        self.unknown_names = selection.unknown_names(schema.names)
        self._manifest = manifest
        self._whole = {
            position
            for position, column in enumerate(schema.columns)
            if column.type.kind in (Kind.INTEGER, Kind.LONG)
        }
        self._selection = selection
        self._fields = fields_of(schema, selection.excluded, selection.hashed)
        self._hashed = {
            position for position in self._fields if schema.columns[position].name in selection.hashed
        }
        self._key_position = next(
            (position for position, name in enumerate(schema.names) if name == selection.key_column), None
        )
        self._classes = tuple(to_text(one) or "" for one in manifest.classes or ())

    def encode(self, parts: list[Part]) -> bytes:
        """Returns the message for requests that this model has answered."""
        # Requests have times of a clock that only measures intervals.
        offset = time.time() - time.perf_counter()
        requests = [part.finished for part in parts]
        outputs = [part.output for part in parts]
        n_rows = [part.inputs.n_rows for part in parts]
        probabilities = [None if output is None else output.probabilities for output in outputs]
        width = next((array.shape[1] for array in probabilities if array is not None), 0)
        classes = self._classes if len(self._classes) == width else tuple(map(str, range(width)))
        return msgspec.msgpack.encode(
            Rows(
                self._manifest.name,
                self._manifest.version,
                classes,
                tuple(self._fields.values()),
                [one.request_id for one in requests],
                [offset + one.ended for one in requests],
                [(one.ended - one.started) * 1e3 for one in requests],
                [one.role for one in requests],
                n_rows,
                [part.first_row for part in parts],
                self._keys(parts),
                _labels(outputs, n_rows),
                _numbers(probabilities, n_rows, width),
                _numbers([_plain_values(output) for output in outputs], n_rows, 1),
                _others(parts, n_rows),
                [
                    self._input(field, position, [part.inputs.columns[position] for part in parts])
                    for position, field in self._fields.items()
                ],
            )
        )

    def _keys(self, parts: list[Part]) -> list[str | None]:
        selection = self._selection
        keys: list[str | None] = []
        if selection.key_column is not None:
            if self._key_position is None:
                return [None] * sum(part.inputs.n_rows for part in parts)
            for part in parts:
                keys += self._texts(self._key_position, part.inputs.columns[self._key_position])
        else:
            for part in parts:
                key = part.finished.key
                keys += [None if key is None else key.decode(errors="replace")] * part.inputs.n_rows
        return list(map(selection.hash, keys)) if selection.hashes_key else keys

    def _texts(self, position: int, column: Values) -> list[str | None]:
        """Returns an input's values as texts, the same whatever the other rows are."""
        texts = [to_text(value) for value in array_to_json(column)]
        if position in self._whole and column.dtype.kind == "f":  # because others are missing
            return [text and text.removesuffix(".0") for text in texts]
        return texts

    def _input(self, field: Field, position: int, columns: list[Values]) -> bytes | list[Any]:
        if position in self._hashed:
            return [
                self._selection.hash(text) for column in columns for text in self._texts(position, column)
            ]
        dtype = field.dtype
        if dtype is not None and all([column.dtype == dtype for column in columns]):  # noqa: C419  # twice as fast
            return b"".join([column.tobytes() for column in columns])
        if field.type == JSON:
            return [
                None if value is None or value != value else to_json(value)  # noqa: PLR0124  # NaN
                for column in columns
                for value in array_to_json(column)
            ]
        return [value for column in columns for value in column.tolist()]


def _labels(outputs: list[Output | None], n_rows: list[int]) -> list[str | None] | None:
    found: list[str | None] = []
    is_there = False
    for output, n in zip(outputs, n_rows, strict=True):
        if output is None or output.labels is None or output.labels.ndim > 1:
            found += [None] * n
        else:
            is_there = True
            found += map(to_text, array_to_json(output.labels))
    return found if is_there else None


def _plain_values(output: Output | None) -> Values | None:
    values = output.values if output is not None else None
    return values if values is not None and values.ndim == 1 and values.dtype.kind in "fiub" else None


def _numbers(arrays: list[Values | None], n_rows: list[int], width: int) -> bytes | None:
    """Returns the memory of doubles, `width` for each row."""
    if not any(array is not None for array in arrays):
        return None
    return b"".join(
        [
            (np.full(n * width, np.nan) if array is None else array.astype(np.float64, copy=False)).tobytes()
            for array, n in zip(arrays, n_rows, strict=True)
        ]
    )


def _others(parts: list[Part], n_rows: list[int]) -> list[str | None] | None:
    """Returns outputs that are neither one label nor one number: by row, or all in the request's first row."""
    found: list[str | None] = []
    for part, n in zip(parts, n_rows, strict=True):
        output = part.output
        if output is None:
            whole = part.finished.output
            first = next(a for a in (whole.labels, whole.values, whole.probabilities) if a is not None)
            found += [to_json(array_to_json(first)) if part.first_row == 0 else None, *[None] * (n - 1)]
        elif output.labels is not None and output.labels.ndim > 1:
            found += map(to_json, array_to_json(output.labels))
        elif output.values is not None and _plain_values(output) is None:
            found += map(to_json, array_to_json(output.values))
        else:
            found += [None] * n
    return found if any(one is not None for one in found) else None
