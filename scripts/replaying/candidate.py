"""Prepares a version as a service does, and asks it logged rows."""

import contextlib
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pandas as pd
import yaml

from scripts.checking.trial import trial
from scripts.evaluating.files import PROBABILITY
from scripts.lifecycle import LifecycleError
from scripts.lifecycle.connection import reason
from scripts.lifecycle.registry import RegisteredModel
from scripts.lifecycle.training_rows import Overlap, find_overlap
from scripts.replaying.columns import to_cells
from scripts.replaying.sample import Sample
from serving.codecs.json import check_params
from serving.codecs.npy import named_to_inputs
from serving.errors import InvalidInput, PrepareError
from serving.model.prepared import Manifest, Prepared
from serving.model.schema import Inputs, Schema, join
from serving.monitoring.prediction_log.outputs import Outputs, encode_outputs
from serving.monitoring.prediction_log.rows import INPUT
from serving.monitoring.prediction_log.selection import to_text
from serving.prepare.registry.resolution import resolved
from serving.process.cpus import count_cpus
from serving.runtime import Output, Runtime, count_output, load_runtime
from serving.runtime.trusted import Trust
from serving.settings import Settings

CALL_ROWS = 1_000
"""Rows of a call, if they are independent of each other."""

Values = dict[str, list[Any]]
"""Cells by column."""


class Answers(NamedTuple):
    """What a version answers to the rows of a sample."""

    rows: pd.DataFrame
    """A row for each of the sample's, with the answers in the columns of the log."""
    is_answered: np.ndarray[tuple[int], np.dtype[np.bool_]]
    rejections: Counter[str]
    """Number of the other rows, by reason."""
    inputs: list[Inputs]
    """The rows that were answered, call by call."""


class Candidate:
    """A version in this process."""

    def __init__(self, prepared: Prepared, settings: Settings) -> None:
        """Loads it.

        Raises:
            Exception: whatever its library raises.
        """
        self.folder = prepared.folder / "mlflow"
        self.schema = prepared.schema
        self._manifest = prepared.manifest
        self._runtime = _load(prepared, self.schema, settings)
        self._classes = tuple(to_text(one) or "" for one in self._manifest.classes or ())

    def ask(self, sample: Sample, champion: Schema) -> Answers:
        """Returns its answers: request by request, or many at once if rows are independent.

        Args:
            sample: the rows.
            champion: the schema of the version that answered them.
        """
        table = sample.table
        values = {
            column.name: to_cells(table[f"{INPUT}{column.name}"], column)
            for column in champion.columns
            if f"{INPUT}{column.name}" in table.column_names
        }
        params = table["params"].to_pylist() if "params" in table.column_names else [None] * table.num_rows
        asked = _Asked(self._runtime, self.schema, self._classes, is_rowwise=self._manifest.is_rowwise)
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            for start, stop in self._calls(sample, params):
                asked.ask(
                    {name: cells[start:stop] for name, cells in values.items()}, start, stop, params[start]
                )
        return asked.answers(table.num_rows)

    def find_overlap(self, answers: Answers) -> Overlap | None:
        """Returns the rows logged with it that are among those it answered; None if there are hardly any."""
        if any(-1 in column.type.shape for column in self.schema.columns):
            return None  # rows of different shapes have no common array
        mlmodel = yaml.safe_load((self.folder / "MLmodel").read_text())
        return find_overlap(self.folder, mlmodel, self.schema, join(answers.inputs))

    def _calls(self, sample: Sample, params: Sequence[str | None]) -> Iterator[tuple[int, int]]:
        """Yields first and last position of the rows of each call."""
        stops = [*sample.starts[1:], sample.table.num_rows]
        if not self._manifest.is_rowwise:
            yield from zip(sample.starts, stops, strict=True)
            return
        start = 0
        for position in range(1, len(params) + 1):
            if position == len(params) or position - start == CALL_ROWS or params[position] != params[start]:
                yield start, position
                start = position


class _Asked:
    """Collects answers and rejections."""

    def __init__(
        self, runtime: Runtime, schema: Schema, classes: tuple[str, ...], *, is_rowwise: bool
    ) -> None:
        self._runtime, self._schema, self._classes = runtime, schema, classes
        self._is_rowwise = is_rowwise
        self._found: list[tuple[int, int, Outputs]] = []
        self._rejections: Counter[str] = Counter()
        self._inputs: list[Inputs] = []

    def ask(self, values: Values, start: int, stop: int, params: str | None) -> None:
        """Asks for some rows; if they are rejected, for each half of them, until it is known which are."""
        n_rows = stop - start
        try:
            inputs, output = self._predict(values, n_rows, params)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001  # the model's own code may raise anything
            if n_rows == 1 or not self._is_rowwise:
                self._rejections[_explain(error)] += n_rows
                return
            middle = n_rows // 2
            for first, last in ((0, middle), (middle, n_rows)):
                part = {name: cells[first:last] for name, cells in values.items()}
                self.ask(part, start + first, start + last, params)
            return
        matched = output if count_output(output) == n_rows else None
        self._found.append((start, stop, encode_outputs([matched], [output], [n_rows], [0], self._classes)))
        self._inputs.append(inputs)

    def _predict(self, values: Values, n_rows: int, params: str | None) -> tuple[Inputs, Output]:
        # A column without a value may not have been sent.
        known = set(self._schema.names)
        sent = {
            name: cells
            for name, cells in values.items()
            if name in known or any(cell is not None for cell in cells)
        }
        inputs = named_to_inputs(sent, n_rows, self._schema)
        given = check_params(msgspec.json.decode(params) if params else None, self._schema)
        return inputs, self._runtime.predict(inputs, given)

    def answers(self, n_rows: int) -> Answers:
        """Returns all of them."""
        is_answered = np.zeros(n_rows, dtype=np.bool_)
        columns: dict[str, Any] = {
            "label": np.full(n_rows, None, dtype=object),
            "value": np.full(n_rows, np.nan),
            "output": np.full(n_rows, None, dtype=object),
        }
        for start, stop, outputs in self._found:
            is_answered[start:stop] = True
            if outputs.labels is not None:
                columns["label"][start:stop] = outputs.labels
            if outputs.values is not None:
                columns["value"][start:stop] = np.frombuffer(outputs.values)
            if outputs.others is not None:
                columns["output"][start:stop] = outputs.others
            if outputs.probabilities is not None:
                matrix = np.frombuffer(outputs.probabilities).reshape(stop - start, -1)
                for name, column in zip(outputs.classes, matrix.T, strict=True):
                    columns.setdefault(f"{PROBABILITY}{name}", np.full(n_rows, np.nan))[start:stop] = column
        return Answers(pd.DataFrame(columns), is_answered, self._rejections, self._inputs)


def _explain(error: Exception) -> str:
    """Returns why a row was rejected; without its position, so that reasons can be counted."""
    if isinstance(error, InvalidInput) and error.details:
        first = error.details[0]
        where = f"column {first.column!r}: " if first.column is not None else ""
        return f"{where}expected {first.expected}, got {first.got}"
    return f"the model raised {type(error).__name__}: {reason(error)}"


def _load(prepared: Prepared, schema: Schema, settings: Settings) -> Runtime:
    manifest: Manifest = prepared.manifest
    return load_runtime(
        "native" if settings.runtime == "native" else manifest.runtime,
        prepared.folder,
        schema,
        Trust.of(manifest),
        n_threads=settings.threads or count_cpus(),
        is_per_row=manifest.is_per_row and settings.answer_rows == "same",
    )


@contextlib.contextmanager
def open_candidate(model: RegisteredModel, version: str, settings: Settings) -> Iterator[Candidate]:
    """Yields a version, prepared and loaded as in a service; leaves nothing behind.

    Raises:
        LifecycleError: it cannot be prepared, or a service would reject it.
    """
    with trial(settings) as attempt:
        try:
            prepared = attempt.find_or_prepare(resolved(model.versions[version], "to be replayed"))
        except PrepareError as error:
            raise LifecycleError(f"{model.name!r} version {version} is refused: {error}") from None
        try:
            candidate = Candidate(prepared, settings)
        except Exception as error:  # noqa: BLE001  # each library has its own errors
            raise LifecycleError(
                f"{model.name!r} version {version} cannot be loaded: {type(error).__name__}: {reason(error)}"
            ) from None
        yield candidate
