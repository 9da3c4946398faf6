"""Answered requests → the log's messages."""

import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from serving.codecs.fast_json import group_columns
from serving.codecs.json_answers import array_to_json
from serving.model.prepared import Manifest
from serving.model.schema import Inputs, Kind, parse_schema, take
from serving.monitoring.finished import Finished
from serving.monitoring.prediction_log.outputs import Outputs, encode_outputs
from serving.monitoring.prediction_log.rows import JSON, Field, Rows, field_of, fields_of
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


class Note(msgspec.Struct, frozen=True, gc=False):
    """A request of one row, without an array for each column: those would take ten times the memory."""

    request_id: str
    key: bytes | None
    role: str
    started: float
    ended: float
    blocks: list[Values]
    """The inputs, by group of columns, which are the lines of one array."""
    singles: list[bytes]
    """Other inputs, as the memory of their arrays."""
    label: Any
    probabilities: bytes | None
    value: float | None
    params: str | None


Requests = Sequence[Finished] | Sequence[Note]


class Encoder:
    """Encodes the rows of one version of a model."""

    def __init__(self, manifest: Manifest, selection: Selection) -> None:
        schema = parse_schema(manifest.inputs, manifest.params, manifest.nulls)
        self.unknown_names = selection.unknown_names(schema.names, [param.name for param in schema.params])
        self._manifest = manifest
        self._n_columns = len(schema.columns)
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
        self._shape = (1, len(self._classes))
        # What a note has of a row: blocks of columns as the JSON decoder makes them, and the memory of other columns.
        groups = group_columns(schema)
        self._blocks = [
            (positions[0], positions[-1], (len(positions), 1), np.dtype(dtype)) for positions, dtype in groups
        ]
        self._block_positions = [positions for positions, _ in groups]
        grouped = {position for positions, _ in groups for position in positions}
        others = {
            position: field_of(column, is_hashed=False).dtype
            for position, column in enumerate(schema.columns)
            if position not in grouped
        }
        self._singles = [
            (position, np.dtype(dtype)) for position, dtype in others.items() if dtype is not None
        ]
        self._may_note = len(self._singles) == len(others) and not any(
            column.type.shape for column in schema.columns
        )

    def note(self, finished: Finished) -> Note | None:
        """Returns a note of a request with one row of plain values; None for any other."""
        columns, output = finished.inputs.columns, finished.output
        if finished.inputs.n_rows != 1 or not self._may_note:
            return None
        blocks: list[Values] = []
        for first, last, shape, dtype in self._blocks:
            block = columns[first].base
            if (
                block is None
                or columns[last].base is not block
                or block.shape != shape
                or block.dtype != dtype
            ):
                return None
            blocks.append(block)
        singles: list[bytes] = []
        for position, dtype in self._singles:
            column = columns[position]
            if column.dtype != dtype:
                return None
            singles.append(column.tobytes())
        label = value = shares = None
        labels, probabilities, values = output.labels, output.probabilities, output.values
        if labels is not None:
            if labels.shape != (1,) or labels.dtype.kind not in "OUiub":
                return None
            label = labels.item()
        if probabilities is not None:
            if probabilities.shape != self._shape:
                return None
            if probabilities.dtype != np.float64:
                probabilities = probabilities.astype(np.float64)
            shares = probabilities.tobytes()
        if values is not None:
            if values.shape != (1,) or values.dtype.kind not in "fiub":
                return None
            value = float(values.item())
        return Note(
            finished.request_id,
            finished.key,
            finished.role,
            finished.started,
            finished.ended,
            blocks,
            singles,
            label,
            shares,
            value,
            self._params(finished) if finished.params else None,
        )

    def encode_notes(self, notes: list[Note]) -> bytes:
        """Returns the message for requests of one row each."""
        n = len(notes)
        columns: list[list[Values]] = [[] for _ in range(self._n_columns)]
        for index, positions in enumerate(self._block_positions):
            matrix = np.concatenate([note.blocks[index] for note in notes], axis=1)
            for position, line in zip(positions, matrix, strict=True):
                columns[position] = [line]
        for index, (position, dtype) in enumerate(self._singles):
            columns[position] = [np.frombuffer(b"".join([note.singles[index] for note in notes]), dtype)]
        # A model has either of these for every row, or for none.
        labels, shares, values = zip(
            *[(one.label, one.probabilities, one.value) for one in notes], strict=True
        )
        return self._message(
            notes,
            [1] * n,
            [0] * n,
            columns,
            Outputs(
                () if None in shares else self._classes,
                None if None in labels else list(map(to_text, labels)),
                None if None in shares else b"".join(shares),
                None if None in values else np.array(values, dtype=np.float64).tobytes(),
                None,
            ),
        )

    def encode(self, parts: list[Part]) -> bytes:
        """Returns the message for requests that this model has answered."""
        n_rows = [part.inputs.n_rows for part in parts]
        first_rows = [part.first_row for part in parts]
        outputs = [part.output for part in parts]
        wholes = [part.finished.output for part in parts]
        return self._message(
            [part.finished for part in parts],
            n_rows,
            first_rows,
            [[part.inputs.columns[position] for part in parts] for position in range(self._n_columns)],
            encode_outputs(outputs, wholes, n_rows, first_rows, self._classes),
        )

    def _message(
        self,
        requests: Requests,
        n_rows: list[int],
        first_rows: list[int],
        columns: list[list[Values]],
        outputs: Outputs,
    ) -> bytes:
        # Requests have times of a clock that only measures intervals.
        offset = time.time() - time.perf_counter()
        params = [one.params if isinstance(one, Note) else self._params(one) for one in requests]
        return msgspec.msgpack.encode(
            Rows(
                self._manifest.name,
                self._manifest.version,
                outputs.classes,
                tuple(self._fields.values()),
                [one.request_id for one in requests],
                [offset + one.ended for one in requests],
                [(one.ended - one.started) * 1e3 for one in requests],
                [one.role for one in requests],
                n_rows,
                first_rows,
                self._keys([one.key for one in requests], n_rows, columns),
                outputs.labels,
                outputs.probabilities,
                outputs.values,
                outputs.others,
                [self._input(field, position, columns[position]) for position, field in self._fields.items()],
                params if any(params) else None,
            )
        )

    def _params(self, finished: Finished) -> str | None:
        return self._selection.params_to_json(finished.params) if finished.params else None

    def _keys(
        self, routing_keys: list[bytes | None], n_rows: list[int], columns: list[list[Values]]
    ) -> list[str | None]:
        selection = self._selection
        keys: list[str | None] = []
        if self._key_position is not None:
            for column in columns[self._key_position]:
                keys += self._texts(self._key_position, column)
        elif selection.key_column is not None or routing_keys.count(None) == len(routing_keys):
            return [None] * sum(n_rows)
        else:
            for key, n in zip(routing_keys, n_rows, strict=True):
                keys += [None if key is None else key.decode(errors="replace")] * n
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
